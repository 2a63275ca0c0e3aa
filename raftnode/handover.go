package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"trivet/trivetpb"
)

// Leadership is handed over by a request of our own: the leader stops
// proposing, asks for a voter whose log is as long as its own, and asks that
// one to stand for election now, which makes it give its raft a TimeoutNow
// (Raft dissertation §3.10). raft's own transfer picks a peer that may be dead
// and can stay stuck, refusing every write (its issue 696); this one changes
// nothing here until the other has won.

// handOver gives leadership to a voter that has the whole log, and returns once
// this node does not lead any more. Writes that come meanwhile wait in the
// queue and go to the new leader.
func (n *Node) handOver(ctx context.Context) error {
	term := n.raft.CurrentTerm()
	for {
		signal := n.changes()
		if n.raft.State() != raft.Leader || n.raft.CurrentTerm() != term {
			return nil
		}
		if err := n.handOverOnce(ctx, term); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("handing over leadership of term %d: %w; %w", term, ctx.Err(), err)
			}
			n.log.Debug("leadership was not handed over yet", "error", err)
		}
		n.awaitChange(ctx, signal)
		if ctx.Err() != nil {
			return fmt.Errorf("handing over leadership of term %d: %w", term, ctx.Err())
		}
	}
}

func (n *Node) handOverOnce(ctx context.Context, term uint64) error {
	// Bounded, so that a peer that hangs does not take all the time there is.
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.Timing.Election)
	defer cancel()
	lastErr := errors.New("there is no other voter")
	for _, s := range n.configuration().Servers {
		if s.Suffrage != raft.Voter || string(s.ID) == n.cfg.ID {
			continue
		}
		reply, err := n.peers.call(ctx, string(s.ID), &trivetpb.PeerRequest{
			Request: &trivetpb.PeerRequest_Promote{Promote: &trivetpb.PromoteRequest{
				Term: term, LastIndex: n.raft.LastIndex(),
			}},
		})
		switch {
		case err != nil:
			lastErr = err
		case reply.GetPromote().GetRefused() != "":
			lastErr = fmt.Errorf("member %s: %s", s.ID, reply.GetPromote().GetRefused())
		default:
			n.log.Info("handing leadership over", "to", s.ID, "term", term)
			return nil
		}
	}
	return lastErr
}

// servePromote stands for election if the asking leader is this member's, and
// this member's log is as long as that leader's.
func (n *Node) servePromote(ctx context.Context, from string, r *trivetpb.PromoteRequest) *trivetpb.PromoteReply {
	refuse := func(format string, args ...any) *trivetpb.PromoteReply {
		return &trivetpb.PromoteReply{Refused: fmt.Sprintf(format, args...)}
	}
	switch {
	case n.closing():
		return refuse("is stopping")
	case n.raft.State() != raft.Follower || n.leaderID() != from || n.raft.CurrentTerm() != r.Term:
		return refuse("does not follow %s in term %d", from, r.Term)
	case n.raft.LastIndex() < r.LastIndex:
		return refuse("its log ends at %d, not %d", n.raft.LastIndex(), r.LastIndex)
	}
	if !n.transport.inject(&raft.TimeoutNowRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(from), Addr: []byte(from)},
	}, nil) {
		return refuse("is stopping")
	}
	return &trivetpb.PromoteReply{}
}

// drain waits until nothing waits to be written and nothing is under way.
func (n *Node) drain(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !n.proposer.idle() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
