package raftnode

import (
	"context"
	"errors"
	"time"

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
	n.spawn(func() {
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
	})
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

// serveForward answers another member's forward.
func (n *Node) serveForward(ctx context.Context, from string, r *trivetpb.ForwardRequest) *trivetpb.ForwardReply {
	p, problem := n.proposer.submit(r.Commands, true)
	if problem != nil {
		return &trivetpb.ForwardReply{Problem: problem}
	}
	ctx, cancel := context.WithTimeout(ctx, maxForwardWait)
	defer cancel()
	return &trivetpb.ForwardReply{Results: n.proposer.wait(ctx, p)}
}
