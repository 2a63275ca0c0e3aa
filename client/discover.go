package client

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"
)

const (
	// refreshEvery is how old the members may be before a call has them learned
	// again: a leader that changed without any failure is found so. Nothing is
	// asked while nobody calls.
	refreshEvery = 10 * time.Second
	// learnPause lies between two rounds of learning, however many calls fail.
	learnPause = 100 * time.Millisecond
	// learnPatience is how long one node may take to tell of the cluster; it
	// asks all others in its turn.
	learnPatience = 2 * time.Second
)

// refresh has the members learned again where they are old, or no leader is
// known. It does not wait for it.
func (c *Client) refresh() {
	if age, led := c.members.age(); age > refreshEvery || (!led && age > learnPause) {
		c.relearn()
	}
	c.recycle()
}

// recycleEvery is how often idle connections are closed, of a client that is used. A
// connection that is kept never asks again where its host's name points to by now; a
// new one does. Most are idle at some such moment.
const recycleEvery = time.Minute

func (c *Client) recycle() {
	now := int64(time.Since(c.members.start))
	last := c.recycled.Load()
	if c.own != nil && time.Duration(now-last) > recycleEvery && c.recycled.CompareAndSwap(last, now) {
		if c.batches != nil {
			c.batches.closeIdle()
		}
		c.own.CloseIdleConnections()
	}
}

func (c *Client) relearn() {
	select {
	case c.learn <- struct{}{}:
	default: // asked for already
	}
}

// note draws conclusions about the node from an attempt.
func (c *Client) note(n *node, e *Error) {
	switch {
	case e == nil:
		c.members.trust(n)
	case errors.Is(e, errAnswerTooLarge):
		// That is the request's fault.
	case e.Code == codeUnavailable, e.Code == codeBadResponse, e.Code == codeStranger, e.Code == "draining":
		c.members.avoid(n)
		c.relearn()
	case e.Code == "no_leader":
		c.relearn()
	}
}

// discover learns the members whenever it is asked to, until the client is
// closed.
func (c *Client) discover() {
	for {
		select {
		case <-c.learn:
		case <-c.ctx.Done():
			return
		}
		c.learnMembers()
		timer := time.NewTimer(learnPause)
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// learnMembers asks one node after the other for the cluster, until one answers
// with members that can be reached. Where none does, things stay as they are.
func (c *Client) learnMembers() {
	for _, n := range c.members.order(false) {
		var told clusterJSON
		r := clusterRequest(&told)
		ctx, cancel := context.WithTimeout(c.ctx, learnPatience)
		e := c.attempt(ctx, n, r, learnPatience)
		cancel()
		if c.ctx.Err() != nil {
			return
		}
		if e == nil && c.takeOver(n, &told) {
			c.members.trust(n)
			return
		}
		if e != nil {
			c.cfg.Logger.Debug("trivet: learning the members failed", "node", n.url, "error", e)
			if e.Code == codeUnavailable {
				c.members.avoid(n)
			}
		}
	}
}

// takeOver makes what a node told of the cluster the members. It returns false
// where that would not do.
func (c *Client) takeOver(n *node, told *clusterJSON) bool {
	if known := c.members.ofCluster(); known != "" && told.Cluster != known {
		// Endpoints of two clusters, most likely. Going back and forth between
		// them would be worse than staying with either.
		c.cfg.Logger.Warn("trivet: a node belongs to another cluster, what it tells of its members is ignored",
			"node", n.url, "cluster", told.Cluster, "own", known)
		return false
	}
	var addresses []*url.URL
	var healthy []bool
	leader := -1
	for _, m := range told.Members {
		u := memberURL(n.base, m.API)
		if u == nil {
			continue
		}
		if m.Leader || (m.ID == told.Leader && m.ID != "") {
			leader = len(addresses)
		}
		addresses = append(addresses, u)
		healthy = append(healthy, m.Healthy)
	}
	if len(addresses) == 0 {
		return false
	}
	c.members.replace(told.Cluster, addresses, healthy, leader)
	return true
}

// memberURL is the URL of a member, from what it advertises: a URL, or a host
// and port to be reached the way that asked was. It returns nil for what cannot
// be used. That includes plain http where asked has https: the token goes to
// every member, and must not go out in the clear because a node said so.
func memberURL(asked *url.URL, api string) *url.URL {
	if api == "" {
		return nil
	}
	if !strings.Contains(api, "://") {
		api = asked.Scheme + "://" + api
	}
	u, err := parseEndpoint(api)
	if err != nil || (asked.Scheme == "https" && u.Scheme != "https") {
		return nil
	}
	return u
}
