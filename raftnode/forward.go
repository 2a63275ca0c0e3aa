package raftnode

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"trivet/store"
	"trivet/trivetpb"
)

// maxForwardWait bounds a forward whose leader neither answers nor goes away.
const maxForwardWait = 60 * time.Second

// forward sends a group to the leader, in a goroutine of its own.
func (n *Node) forward(leader string, g *group) {
	commands := g.commands
	if !n.spawn(func() {
		results, refused, err := n.callForward(g.ctx, leader, commands)
		if err != nil && !errors.Is(err, errNotSent) {
			n.log.Debug("a forward was lost", "leader", leader, "commands", len(commands), "error", err)
		}
		n.proposer.forwarded(g, results, refused, err)
	}) {
		n.proposer.forwarded(g, nil, nil, errNotSent) // stopped: it goes no further
	}
}

// encode makes the commands of a group what is sent. Under proposer.mu, which
// guards the stamps.
func (g *group) encode() {
	g.commands = make([][]byte, 0, g.count)
	all := make([]byte, 0, g.bytes) // never grows, so that what is cut from it stays
	for _, s := range g.segments {
		for i := s.from; i < s.to; i++ {
			c := &s.p.commands[i]
			from := len(all)
			all = c.appendStamp(append(all, c.data...))
			g.commands = append(g.commands, all[from:len(all):len(all)])
		}
	}
}

func (n *Node) callForward(ctx context.Context, leader string, commands [][]byte) ([]*trivetpb.Result, *trivetpb.Problem, error) {
	ctx, cancel := context.WithTimeout(ctx, maxForwardWait)
	defer cancel()
	reply, err := n.peers.call(ctx, leader, &trivetpb.PeerRequest{
		Request: &trivetpb.PeerRequest_Forward{Forward: &trivetpb.ForwardRequest{Commands: commands}},
	})
	if err != nil {
		return nil, nil, err
	}
	f := reply.GetForward()
	if f.GetProblem() == nil && len(f.GetResults()) != len(commands) {
		return nil, nil, fmt.Errorf("member %s answered %d commands with %d results", leader, len(commands), len(f.GetResults()))
	}
	return f.GetResults(), f.GetProblem(), nil
}

// maxForwardAnswer bounds what the results of one forward take together, well
// within a frame. What goes beyond is told that it was applied in no other way
// than that its outcome is unknown.
const maxForwardAnswer = maxFrame * 3 / 4

// serveForward answers another member's forward. The commands are looked at
// before they go into the log: one that this version does not know, from a
// member of a later one, would stop every member that has to apply it.
func (n *Node) serveForward(ctx context.Context, from string, r *trivetpb.ForwardRequest) *trivetpb.ForwardReply {
	reply := &trivetpb.ForwardReply{Results: make([]*trivetpb.Result, len(r.Commands))}
	good := make([]pending, 0, len(r.Commands))
	decoder := forwardDecoders.Get().(*trivetpb.Decoder)
	for i, b := range r.Commands {
		if problem := checkCommand(decoder, b); problem != nil {
			n.log.Warn("a forwarded command was refused", "from", from, "problem", problem)
			reply.Results[i] = &trivetpb.Result{Problem: problem}
			continue
		}
		good = append(good, pending{data: b, kind: identified})
	}
	decoder.Reset()
	forwardDecoders.Put(decoder)
	var results []*trivetpb.Result
	if len(good) > 0 {
		p, problem := n.proposer.submit(good, true)
		if problem != nil {
			return &trivetpb.ForwardReply{Problem: problem}
		}
		ctx, cancel := context.WithTimeout(ctx, maxForwardWait)
		defer cancel()
		results = n.proposer.wait(ctx, p)
	}
	size := 0
	for i := range reply.Results {
		if reply.Results[i] != nil {
			continue
		}
		result := results[0]
		results = results[1:]
		if size += result.SizeVT(); size > maxForwardAnswer {
			size -= result.SizeVT()
			result = unknownResult("the answer was too large to be passed on by the node that was asked")
		}
		reply.Results[i] = result
	}
	return reply
}

// forwardDecoders decode commands to look at them, and no longer.
var forwardDecoders = sync.Pool{New: func() any { return new(trivetpb.Decoder) }}

// checkCommand says what is wrong with an encoded command, nil for nothing.
func checkCommand(d *trivetpb.Decoder, b []byte) *trivetpb.Problem {
	c, err := d.Command(b)
	if err != nil {
		return &trivetpb.Problem{Code: trivetpb.Code_BAD_REQUEST, Detail: err.Error()}
	}
	return store.CheckCommand(c, store.Limits{MaxValueBytes: store.HardMaxValueBytes, MaxTxnOps: store.HardMaxTxnOps})
}
