package raftnode

import (
	"context"
	"errors"
	"time"

	"trivet/store"
	"trivet/trivetpb"
)

// maxForwardWait bounds a forward whose leader neither answers nor goes away.
const maxForwardWait = 60 * time.Second

// forward sends a group to the leader, in a goroutine of its own.
func (n *Node) forward(leader string, g *group) {
	commands := make([][]byte, 0, g.count)
	for _, s := range g.segments {
		commands = append(commands, s.p.commands[s.from:s.to]...)
	}
	if !n.spawn(func() {
		results, err := n.callForward(leader, commands)
		if err != nil && !errors.Is(err, errNotSent) {
			n.log.Debug("a forward was lost", "leader", leader, "commands", len(commands), "error", err)
		}
		unknown := unknownResult("the leader was lost while the write was under way")
		if len(results) != len(commands) {
			results = make([]*trivetpb.Result, len(commands))
			for i := range results {
				results[i] = unknown
			}
		}
		n.proposer.forwarded(g, results, func(i int) bool {
			if err != nil {
				return errors.Is(err, errNotSent)
			}
			// The leader was not one, or is none any more: look again. All
			// other problems are answers.
			p := results[i].Problem
			return p != nil && !p.Unknown && (p.Code == trivetpb.Code_NO_LEADER || p.Code == trivetpb.Code_DRAINING)
		})
	}) {
		n.proposer.forwarded(g, nil, func(int) bool { return true }) // stopped: it goes no further
	}
}

func (n *Node) callForward(leader string, commands [][]byte) ([]*trivetpb.Result, error) {
	ctx, cancel := context.WithTimeout(n.ctx, maxForwardWait)
	defer cancel()
	reply, err := n.peers.call(ctx, leader, &trivetpb.PeerRequest{
		Request: &trivetpb.PeerRequest_Forward{Forward: &trivetpb.ForwardRequest{Commands: commands}},
	})
	if err != nil {
		return nil, err
	}
	f := reply.GetForward()
	if f.GetProblem() != nil {
		results := make([]*trivetpb.Result, len(commands))
		for i := range results {
			results[i] = &trivetpb.Result{Problem: f.Problem}
		}
		return results, nil
	}
	return f.GetResults(), nil
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
	good := make([][]byte, 0, len(r.Commands))
	for i, b := range r.Commands {
		if problem := checkCommand(b); problem != nil {
			n.log.Warn("a forwarded command was refused", "from", from, "problem", problem)
			reply.Results[i] = &trivetpb.Result{Problem: problem}
			continue
		}
		good = append(good, b)
	}
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

// checkCommand says what is wrong with an encoded command, nil for nothing.
func checkCommand(b []byte) *trivetpb.Problem {
	var c trivetpb.Command
	if err := c.UnmarshalVT(b); err != nil {
		return &trivetpb.Problem{Code: trivetpb.Code_BAD_REQUEST, Detail: err.Error()}
	}
	op := c.GetOp()
	if op == nil {
		return &trivetpb.Problem{Code: trivetpb.Code_BAD_REQUEST, Detail: "the leader does not know this command"}
	}
	return store.Check(op, store.Limits{MaxValueBytes: store.HardMaxValueBytes, MaxTxnOps: store.HardMaxTxnOps})
}
