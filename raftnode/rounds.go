package raftnode

import (
	"context"
	"sync"
	"sync/atomic"

	"trivet/internal/mutant"
)

// rounds shares one run of f among all who wait when it begins. Who comes while a
// round is under way joins the next one: that round began before the read did.
//
// Who comes while none is under way makes one itself, of which nobody else is, with
// its own context: handing it over and waiting would be two changes of goroutine,
// most of what a round takes. Those that gather meanwhile have theirs made by run.
type rounds struct {
	f     func(context.Context) (readIndex, error)
	ctx   context.Context // the node's: a round of several outlives each of them
	spawn func(func()) bool
	// done and failed count them.
	done, failed *atomic.Uint64

	mu       sync.Mutex
	underWay bool   // by whoever makes it; another one begins when it is unset
	next     *round // of those who wait for one to begin; nil: nobody does
	// wake has the word for run that it is to go on; run is running once somebody
	// has waited.
	wake    chan struct{}
	running bool
}

// round is one run of f; its outcome is set before done is closed.
type round struct {
	done chan struct{}
	ri   readIndex
	err  error
}

// join returns the outcome of a round that begins after the call.
func (r *rounds) join(ctx context.Context) (readIndex, error) {
	r.mu.Lock()
	if r.ctx.Err() != nil {
		r.mu.Unlock()
		return readIndex{}, errStopped
	}
	if !r.underWay {
		r.underWay = true
		r.mu.Unlock()
		ri, err := r.make(ctx)
		if waiting := r.after(); waiting {
			r.wake <- struct{}{}
		}
		return ri, err
	}
	if !r.running {
		r.wake = make(chan struct{}, 1)
		if r.running = r.spawn(r.run); !r.running {
			r.mu.Unlock()
			return readIndex{}, errStopped
		}
	}
	me := r.next
	if me == nil {
		me = &round{done: make(chan struct{})}
		r.next = me
	}
	r.mu.Unlock()
	select {
	case <-me.done:
		return me.ri, me.err
	case <-ctx.Done():
		return readIndex{}, ctx.Err()
	case <-r.ctx.Done():
		return readIndex{}, errStopped
	}
}

// make runs f and counts it, unless whoever asked for it has given up.
func (r *rounds) make(ctx context.Context) (readIndex, error) {
	ri, err := r.f(ctx)
	if err == nil {
		r.done.Add(1)
	} else if ctx.Err() == nil {
		r.failed.Add(1)
	}
	return ri, err
}

// after ends a round, and says whether another one is to be made, which is under
// way from here on.
func (r *rounds) after() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.underWay = r.next != nil
	return r.underWay
}

// run makes the rounds of those who wait, until the node ends. It is given the word
// by whoever made the last one, so that there is never more than one under way.
func (r *rounds) run() {
	for {
		select {
		case <-r.wake:
		case <-r.ctx.Done():
			return
		}
		for more := true; more; more = r.after() {
			r.mu.Lock()
			now := r.next
			r.next = nil
			r.mu.Unlock()
			now.ri, now.err = r.make(r.ctx)
			if mutant.On("join-under-way") {
				r.mu.Lock()
				if joined := r.next; joined != nil {
					joined.ri, joined.err = now.ri, now.err
					close(joined.done)
					r.next = nil
				}
				r.mu.Unlock()
			}
			close(now.done)
		}
	}
}
