package raftnode

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// Reads with proven freshness: ReadIndex (Raft dissertation §6.4), confirmed
// by requests of our own. raft's VerifyLeader counts nonvoters, takes answers
// to requests that were sent before it was called, and waits behind fsyncs.
//
// On the leader, a round (confirm) takes the commit index C of term T and asks
// every voter whether T is still its current term. A majority that says so,
// this node included, proves that nobody was elected in a later term before
// the round began: a later leader needs the vote of one of them, and a voter
// raises its term before it votes. So C covers every write acknowledged before
// the round began: those of this term are committed at most at C, those of
// earlier terms lie before the term's marker, and later terms had none.
//
// The commit index, not the applied one: a deposed leader may acknowledge an
// orphan of its own when it applies it as a follower (outcome.go), which can be
// before the new leader has applied it.
//
// On a follower, a round (ask) sends the leader one request for all reads that
// wait. Then each read waits until the local state has applied C.
//
// Who comes while a round is under way joins the next one: that round began
// before the read did.

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

var errNotLeading = errors.New("raftnode: this node does not lead, or its term's marker is not applied yet")

// confirm is a round on the leader.
func (n *Node) confirm(ctx context.Context) (readIndex, error) {
	lead := n.proposer.leading()
	if lead == nil {
		return readIndex{}, errNotLeading
	}
	asked := time.Now()
	commit := max(n.raft.CommitIndex(), lead.start)
	if mutant.On("no-marker") {
		commit = n.store.Index()
	}
	if n.raft.CurrentTerm() != lead.term { // this node's own answer, if it votes
		return readIndex{}, errNotLeading
	}
	if mutant.On("read-unconfirmed") {
		return readIndex{term: lead.term, index: commit, asked: asked}, nil
	}
	if mutant.On("verify-leader") {
		return readIndex{term: lead.term, index: commit, asked: asked}, n.raft.VerifyLeader().Error()
	}
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.Timing.Election)
	defer cancel()

	yes, voters, open := 0, 0, 0
	answers := make(chan bool, len(n.configuration().Servers))
	for _, s := range n.configuration().Servers {
		if s.Suffrage != raft.Voter && !mutant.On("count-nonvoters") {
			continue // a nonvoter elects nobody, so its word proves nothing
		}
		voters++
		if string(s.ID) == n.cfg.ID {
			yes++
			continue
		}
		open++
		n.spawn(func() {
			reply, err := n.peers.call(ctx, string(s.ID), &trivetpb.PeerRequest{
				Request: &trivetpb.PeerRequest_Confirm{Confirm: &trivetpb.ConfirmRequest{Term: lead.term}},
			})
			answers <- err == nil && reply.GetConfirm().GetTerm() == lead.term
		})
	}
	for yes <= voters/2 {
		select {
		case ok := <-answers:
			open--
			if ok {
				yes++
			}
			if yes+open <= voters/2 {
				return readIndex{}, fmt.Errorf("%d of %d voters confirmed term %d", yes, voters, lead.term)
			}
		case <-ctx.Done():
			return readIndex{}, fmt.Errorf("%d of %d voters confirmed term %d: %w", yes, voters, lead.term, ctx.Err())
		}
	}
	return readIndex{term: lead.term, index: commit, asked: asked}, nil
}

// serveConfirm answers a leader's question. raft raises its current term, in
// its stable store and then in memory, before it answers any vote request of
// that term, so a term read here was still this voter's at the time.
func (n *Node) serveConfirm(*trivetpb.ConfirmRequest) *trivetpb.ConfirmReply {
	return &trivetpb.ConfirmReply{Term: n.raft.CurrentTerm()}
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
	reply, err := n.peers.call(ctx, leader, &trivetpb.PeerRequest{
		Request: &trivetpb.PeerRequest_ReadIndex{ReadIndex: &trivetpb.ReadIndexRequest{}},
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

// serveReadIndex answers a follower's ask.
func (n *Node) serveReadIndex(ctx context.Context, _ *trivetpb.ReadIndexRequest) *trivetpb.ReadIndexReply {
	ri, err := n.confirmRounds.join(ctx)
	if err != nil {
		return &trivetpb.ReadIndexReply{Problem: &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: err.Error()}}
	}
	return &trivetpb.ReadIndexReply{Term: ri.term, Index: ri.index}
}

// rounds shares one run of f among all who wait when it begins.
type rounds struct {
	f     func(context.Context) (readIndex, error)
	ctx   context.Context // the node's: a round outlives whoever asked for it
	spawn func(func()) bool
	// done and failed count them.
	done, failed *atomic.Uint64

	mu      sync.Mutex
	waiting []chan roundResult
	running bool
}

type roundResult struct {
	ri  readIndex
	err error
}

// join waits for the outcome of a round that begins after the call.
func (r *rounds) join(ctx context.Context) (readIndex, error) {
	me := make(chan roundResult, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, me)
	if !r.running {
		r.running = r.spawn(r.run)
	}
	running := r.running
	r.mu.Unlock()
	if !running {
		return readIndex{}, errStopped
	}
	select {
	case res := <-me:
		return res.ri, res.err
	case <-ctx.Done():
		return readIndex{}, ctx.Err()
	}
}

// run makes rounds as long as somebody waits for one.
func (r *rounds) run() {
	for {
		r.mu.Lock()
		waiting := r.waiting
		r.waiting = nil
		if len(waiting) == 0 {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		ri, err := r.f(r.ctx)
		if err == nil {
			r.done.Add(1)
		} else {
			r.failed.Add(1)
		}
		for _, w := range waiting {
			w <- roundResult{ri, err}
		}
	}
}
