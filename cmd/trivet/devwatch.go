package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"trivet/raftnode"
)

const (
	// devPollTime is how often each node is asked how it does.
	devPollTime = 200 * time.Millisecond
	// devPatience is how long a node may give no answer, or the cluster have no
	// leader, before it is worth a line.
	devPatience = 2 * time.Second
	// devBackoff is how soon --restart starts a node again that has just died;
	// one that keeps dying waits twice as long each time, up to the most.
	devBackoff     = 500 * time.Millisecond
	devBackoffMost = 30 * time.Second
)

// observation is what a node said when it was last asked.
type observation struct {
	node *devNode
	// answered is when the last question was asked that it answered.
	answered time.Time
	status   nodeStatus
	ready    bool
	reason   string // why it is not ready
}

// observe asks a node over and over, until the context ends.
func observe(ctx context.Context, n *devNode, seen chan<- observation) {
	nodes := newRawClient("")
	o := observation{node: n, reason: "it has not answered yet"}
	tick := time.NewTicker(devPollTime)
	defer tick.Stop()
	for {
		asked := time.Now()
		asking, done := context.WithTimeout(ctx, devPatience/2)
		answer, err := nodes.ask(asking, n.url)
		done()
		if err == nil {
			o.answered, o.status = asked, answer.nodeStatus
			o.ready, o.reason = answer.Ready, strings.Join(answer.Reasons, "; ")
		} else {
			o.ready, o.reason = false, err.Error()
		}
		select {
		case seen <- o:
		case <-ctx.Done():
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// watch reports what happens to the cluster until it is to stop. It fails where
// no node is left.
func (c *devCluster) watch(ctx, watching context.Context) error {
	for {
		select {
		case o := <-c.seen:
			c.noticed(o)
		case e := <-c.exits:
			if err := c.exited(watching, e); err != nil {
				return err
			}
		case n := <-c.restarts:
			if err := n.start(c.starter, c.program, c.exits); err != nil {
				return err
			}
		case <-c.signals:
			return errInterrupted
		case <-ctx.Done():
			return errInterrupted
		}
	}
}

// noticed takes in what a node said.
func (c *devCluster) noticed(o observation) {
	n := o.node
	// An answer that was on its way when the process died is none of a node that
	// is back.
	if !o.answered.After(n.died) {
		return
	}
	n.seen = o
	switch silent := time.Since(o.answered) > devPatience; {
	case silent && !n.absent:
		n.absent = true
		fmt.Fprintf(c.out, "%s  does not answer: %s\n", n.id, o.reason)
	case !silent && o.ready && n.absent:
		n.absent, n.backoff = false, 0
		pid := ""
		if n.process != nil {
			pid = fmt.Sprintf("pid %d  ", n.process.Pid)
		}
		fmt.Fprintf(c.out, "%s  is back  %s  %s%s\n", n.id, n.url, pid, o.status.Role)
	}
	c.reportLeader()
}

// exited takes in that a process has ended.
func (c *devCluster) exited(watching context.Context, e devExit) error {
	n := e.node
	n.process, n.died, n.absent = nil, time.Now(), true
	n.seen = observation{node: n}
	why := e.how
	// What a signal ended has no last words.
	if strings.HasPrefix(e.how, "exit status") {
		why += ": " + n.why()
	}
	if strings.Contains(why, raftnode.ErrRemoved.Error()) {
		c.removed(n)
		return c.anyLeft()
	}
	if c.restart {
		n.backoff = min(max(2*n.backoff, devBackoff), devBackoffMost)
		fmt.Fprintf(c.out, "%s  is gone (%s); it is started again in %v\n", n.id, why, n.backoff)
		time.AfterFunc(n.backoff, func() {
			select {
			case c.restarts <- n:
			case <-watching.Done():
			}
		})
		return nil
	}
	fmt.Fprintf(c.out, "%s  is gone (%s); this would start it again:\n    %s\n", n.id, why, shellLine(append([]string{c.called}, n.serveArgs()...)))
	return c.anyLeft()
}

// removed tells of a node that ended since it was removed from the cluster.
// Started again over the folder that it has, it would be told the same.
func (c *devCluster) removed(n *devNode) {
	var urls []string
	for _, other := range c.nodes {
		if other.process != nil {
			urls = append(urls, other.url)
		}
	}
	fmt.Fprintf(c.out, "%s  is gone: it was removed from the cluster\n", n.id)
	if len(urls) > 0 {
		fmt.Fprintf(c.out, "    with an empty folder it can join again: remove %s, then\n    %s\n", shellLine([]string{n.data}),
			shellLine(append([]string{c.called}, append(n.serveArgs(), "--join", strings.Join(urls, ","))...)))
	}
}

// anyLeft fails where no node is.
func (c *devCluster) anyLeft() error {
	for _, n := range c.nodes {
		if n.process != nil {
			return nil
		}
	}
	return errors.New("no node is left")
}

// leads returns the id of the node that leads, "" where none does. A node that
// has been cut off may think for a moment that it still does; the later term is
// right.
func (c *devCluster) leads() string {
	id, term := "", uint64(0)
	for _, n := range c.nodes {
		if st := n.seen.status; st.Role == "leader" && !n.absent && st.Term > term {
			id, term = n.id, st.Term
		}
	}
	return id
}

// reportLeader prints a line where the leader has changed.
func (c *devCluster) reportLeader() {
	now := c.leads()
	if now != "" {
		c.leaderless = time.Time{}
		if now != c.leader {
			fmt.Fprintf(c.out, "%s  is the leader now\n", now)
			c.leader = now
		}
		return
	}
	switch {
	case c.leaderless.IsZero():
		c.leaderless = time.Now()
	case c.leader != "" && time.Since(c.leaderless) > devPatience:
		here := 0
		for _, n := range c.nodes {
			if !n.absent {
				here++
			}
		}
		fmt.Fprintf(c.out, "no leader: %d of %d nodes answer\n", here, len(c.nodes))
		c.leader = ""
	}
}
