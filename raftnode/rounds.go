package raftnode

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"trivet/internal/mutant"
)

// rounds shares one run of f among all who wait when it begins. Who comes while a
// round is under way joins the next one: that round began before the read did.
type rounds struct {
	f     func(context.Context) (readIndex, error)
	ctx   context.Context // the node's: a round outlives whoever asked for it
	spawn func(func()) bool
	// done and failed count them.
	done, failed *atomic.Uint64

	mu   sync.Mutex
	now  *round // under way
	next *round // of those who wait for one to begin; nil: nobody does
	// wake has a word for run, which is running once somebody has joined.
	wake    chan struct{}
	running bool
	ended   bool
	yield   yielding // run's
}

// round is one run of f; its outcome is set before done is closed.
type round struct {
	// soon is closed with done, or where that takes long: rounds is late with this
	// round, or with the one before.
	soon   chan struct{}
	joined int  // how many wait for it; guarded by rounds.mu until it begins
	late   bool // soon is closed, done not yet; guarded by rounds.mu
	done   chan struct{}
	ri     readIndex
	err    error
}

// lateAfter is how long a round takes that is late.
//
// Most are over in a fraction of that, so whoever waits does so on one channel at
// first, which costs half of what a select does; and does not ask its context for
// Done, which may have a timer made (httpapi's has). So it does not see for that long
// that its context was cancelled.
const lateAfter = 20 * time.Millisecond

func newRound() *round {
	return &round{soon: make(chan struct{}), done: make(chan struct{})}
}

// join waits for the outcome of a round that begins after the call.
func (r *rounds) join(ctx context.Context) (readIndex, error) {
	r.mu.Lock()
	if !r.running && !r.ended {
		r.wake = make(chan struct{}, 1)
		r.running = r.spawn(r.run)
	}
	if !r.running {
		r.mu.Unlock()
		return readIndex{}, errStopped
	}
	me := r.next
	if me == nil {
		me = newRound()
		r.next = me
		if r.now != nil && r.now.late {
			me.isLate()
		}
		select {
		case r.wake <- struct{}{}:
		default: // it has one, and looks
		}
	}
	me.joined++
	r.mu.Unlock()
	// The round under way and the next may take lateAfter each until soon is closed.
	if by, ok := ctx.Deadline(); !ok || time.Until(by) > 2*lateAfter {
		<-me.soon
	}
	select {
	case <-me.done:
		return me.ri, me.err
	default:
	}
	select {
	case <-me.done:
		return me.ri, me.err
	case <-ctx.Done():
		return readIndex{}, ctx.Err()
	}
}

// run makes rounds while somebody waits for one, and stays until the node ends:
// a goroutine for each round would grow its stack anew.
func (r *rounds) run() {
	late := time.AfterFunc(lateAfter, r.late)
	defer late.Stop()
	for {
		r.yield.before(r.waiting)
		r.mu.Lock()
		now := r.next
		r.now, r.next = now, nil
		if now == nil && r.ctx.Err() != nil {
			r.running, r.ended = false, true
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		if now == nil {
			select {
			case <-r.wake:
			case <-r.ctx.Done():
			}
			continue
		}
		r.yield.shared = now.joined
		late.Reset(lateAfter)
		ri, err := r.f(r.ctx)
		late.Stop()
		if err == nil {
			r.done.Add(1)
		} else {
			r.failed.Add(1)
		}
		r.mu.Lock()
		r.now = nil
		now.conclude(ri, err)
		if joined := r.next; joined != nil && mutant.On("join-under-way") {
			joined.conclude(ri, err)
			r.next = nil
		}
		r.mu.Unlock()
	}
}

// waiting is how many wait for a round to begin.
func (r *rounds) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		return 0
	}
	return r.next.joined
}

// late is called where the round under way takes long.
func (r *rounds) late() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		return // it has ended meanwhile
	}
	// Or it has just begun, and is called late too early, which does no harm.
	r.now.isLate()
	if r.next != nil {
		r.next.isLate()
	}
}

// isLate and conclude are called with rounds.mu held.
func (o *round) isLate() {
	if !o.late {
		o.late = true
		close(o.soon)
	}
}

func (o *round) conclude(ri readIndex, err error) {
	o.ri, o.err = ri, err
	close(o.done)
	if !o.late {
		close(o.soon)
	}
}
