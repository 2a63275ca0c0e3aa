package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// Reads with proven freshness: ReadIndex (Raft dissertation §6.4), confirmed
// by requests of our own. raft's VerifyLeader counts nonvoters, takes answers
// to requests that were sent before it was called, and waits behind fsyncs.
//
// A leader of term T tells its commit index C, once it is proven that nobody was
// elected in a later term before the reads began that C is for (confirm.go): by a
// round of questions, or by the word of the one who asks. Each read then waits
// until the local state has applied C.
//
// On a follower, a round (ask) sends the leader one request for all reads that
// wait, and the follower's own word with it.

// Consistency is how fresh a read must be (docs/http-api.md).
type Consistency int

const (
	// Linearizable sees every write acknowledged before the read began.
	Linearizable Consistency = iota
	// Bounded sees every write acknowledged more than MaxStaleness before.
	Bounded
	// Session sees MinRevision and all before it.
	Session
	// Stale sees some past state.
	Stale
)

func (c Consistency) String() string {
	switch c {
	case Linearizable:
		return "linearizable"
	case Bounded:
		return "bounded"
	case Session:
		return "session"
	case Stale:
		return "stale"
	}
	return fmt.Sprintf("Consistency(%d)", int(c))
}

// ReadOptions say what a read needs of the local state.
type ReadOptions struct {
	Consistency Consistency
	// MaxStaleness goes with Bounded.
	MaxStaleness time.Duration
	// MinRevision is waited for at any Consistency; 0 for none.
	MinRevision uint64
}

// Proof is what AwaitRead proved of the local state.
type Proof struct {
	// Consistency is as served: a Bounded read that took a confirmation round
	// is Linearizable.
	Consistency Consistency
	// AsOf is the moment on this node's monotonic clock that the state is proven
	// as of: it holds every write acknowledged before. It is when the last
	// confirmation that succeeded was asked for, so the state grows older from
	// there: whoever tells its age tells the time since AsOf. Meaningless unless
	// Proven.
	AsOf time.Time
	// Staleness is the time since AsOf when AwaitRead returned; 0 for Linearizable.
	Staleness time.Duration
	// Proven is unset where no confirmation has succeeded since the node started.
	Proven bool
}

// readIndex is what a round proves: a state that has applied index holds every
// write acknowledged before asked.
type readIndex struct {
	term, index uint64
	asked       time.Time
}

// AwaitRead returns once the local state (Store) is as fresh as asked. The
// error is a *trivetpb.Problem: NO_LEADER or TIMEOUT where no leader could
// confirm before the context ended, NOT_FRESH where MinRevision did not arrive,
// DRAINING where the node has stopped, or its state differs from the others'
// (compare.go): then no read is let through, stale ones neither.
func (n *Node) AwaitRead(ctx context.Context, o ReadOptions) (Proof, error) {
	proof, err := n.awaitRead(ctx, o)
	n.counters.read(proof, err)
	return proof, err
}

func (n *Node) awaitRead(ctx context.Context, o ReadOptions) (Proof, error) {
	if n.counters.diverged.Load() {
		if err := n.stopped(); err != nil {
			return Proof{}, err
		}
		// It is about to fail for that (diverge).
		return Proof{}, &trivetpb.Problem{Code: trivetpb.Code_DRAINING, Detail: "the state of this member is not that of the others"}
	}
	if o.Consistency == Linearizable {
		asked, err := n.confirmRead(ctx)
		if err == nil {
			err = n.awaitRevision(ctx, o.MinRevision)
		}
		if err != nil {
			return Proof{}, err
		}
		return Proof{Consistency: Linearizable, AsOf: asked, Proven: true}, nil
	}
	// The revision first: a proof grows older while it is waited for.
	if err := n.awaitRevision(ctx, o.MinRevision); err != nil {
		return Proof{}, err
	}
	asOf := n.proof()
	p := Proof{Consistency: o.Consistency, AsOf: asOf, Staleness: time.Since(asOf), Proven: !asOf.IsZero()}
	if !p.Proven {
		p.Staleness = 0
	}
	// The bound counts from when the read began, which was before.
	if o.Consistency != Bounded || (p.Proven && p.Staleness <= o.MaxStaleness) {
		return p, nil
	}
	asked, err := n.confirmRead(ctx)
	if err != nil {
		return Proof{}, err
	}
	return Proof{Consistency: Linearizable, AsOf: asked, Proven: true}, nil
}

// awaitRevision waits until the local state has a revision.
func (n *Node) awaitRevision(ctx context.Context, revision uint64) error {
	if revision <= n.store.Revision() {
		return nil
	}
	if err := n.appliedRevision.wait(ctx, n.ctx.Done(), revision); err != nil {
		if failed := n.stopped(); failed != nil {
			return failed
		}
		return &trivetpb.Problem{
			Code:     trivetpb.Code_NOT_FRESH,
			Detail:   fmt.Sprintf("revision %d has not arrived; the state is at %d", revision, n.store.Revision()),
			Revision: n.store.Revision(),
		}
	}
	return nil
}

// confirmRead waits until the local state is proven to be as of now, and returns
// when the confirmation was asked for, which is not before the call.
func (n *Node) confirmRead(ctx context.Context) (asked time.Time, err error) {
	if mutant.On("read-local") {
		return time.Now(), nil
	}
	for {
		signal := n.changes()
		var ri readIndex
		var err error
		if n.leaderID() == n.cfg.ID {
			ri, err = n.confirmRounds.join(ctx)
		} else {
			ri, err = n.askRounds.join(ctx)
		}
		if err == nil {
			err = n.appliedIndex.wait(ctx, n.ctx.Done(), ri.index)
		}
		if err == nil {
			if mutant.On("age-from-answer") {
				ri.asked = time.Now()
			}
			n.proved(ri.asked)
			return ri.asked, nil
		}
		if failed := n.stopped(); failed != nil {
			return asked, failed
		}
		if ctx.Err() != nil {
			if n.leaderID() == "" {
				return asked, &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: "no leader was known until the read's time was up"}
			}
			return asked, &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Detail: fmt.Sprintf("no leader confirmed the read until its time was up (%v)", err)}
		}
		// A read changes nothing: it may be tried again in any case.
		n.awaitChange(ctx, signal)
	}
}

// proved notes that the local state was proven as of a moment.
func (n *Node) proved(asOf time.Time) {
	n.proofMu.Lock()
	if asOf.After(n.provenAsOf) {
		n.provenAsOf = asOf
	}
	n.proofMu.Unlock()
}

// proof is the moment that the local state was last proven as of; zero where
// nothing has been proven since the node started.
func (n *Node) proof() time.Time {
	n.proofMu.Lock()
	defer n.proofMu.Unlock()
	return n.provenAsOf
}

// staleness is how old the local state is at most; false where nothing has
// been proven since the node started.
func (n *Node) staleness() (time.Duration, bool) {
	asOf := n.proof()
	if asOf.IsZero() {
		return 0, false
	}
	return time.Since(asOf), true
}

// ask is a round on a follower.
func (n *Node) ask(ctx context.Context) (readIndex, error) {
	leader := n.leaderID()
	if leader == "" || leader == n.cfg.ID {
		return readIndex{}, errors.New("raftnode: no other leader is known")
	}
	// As long as a confirmation may take there, and some for the way.
	ctx, cancel := context.WithTimeout(ctx, 3*n.cfg.Timing.Election)
	defer cancel()
	asked := time.Now()
	// Read here, after all reads of this round have begun: this member's word
	// (byWord).
	term := n.raft.CurrentTerm()
	reply, err := n.peers.call(ctx, leader, &trivetpb.PeerRequest{
		Request: &trivetpb.PeerRequest_ReadIndex{ReadIndex: &trivetpb.ReadIndexRequest{Term: term}},
	})
	if err != nil {
		return readIndex{}, err
	}
	r := reply.GetReadIndex()
	if r.GetProblem() != nil {
		return readIndex{}, r.Problem
	}
	if mutant.On("no-commit-news") {
		return readIndex{term: r.GetTerm(), index: r.GetIndex(), asked: asked}, nil
	}
	n.commits.learn(leader, r.GetTerm(), r.GetIndex())
	return readIndex{term: r.GetTerm(), index: r.GetIndex(), asked: asked}, nil
}
