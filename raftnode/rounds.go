package raftnode

import (
	"context"
	"sync"
	"sync/atomic"

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
	next *round // of those who wait for one to begin; nil: nobody does
	// wake has a word for run, which is running once somebody has joined.
	wake    chan struct{}
	running bool
	ended   bool
}

// round is one run of f; its outcome is set before done is closed.
type round struct {
	done chan struct{}
	ri   readIndex
	err  error
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
		me = &round{done: make(chan struct{})}
		r.next = me
		select {
		case r.wake <- struct{}{}:
		default: // it has one, and looks
		}
	}
	r.mu.Unlock()
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
	for {
		r.mu.Lock()
		now := r.next
		r.next = nil
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
		now.ri, now.err = r.f(r.ctx)
		if now.err == nil {
			r.done.Add(1)
		} else {
			r.failed.Add(1)
		}
		close(now.done)
		if mutant.On("join-under-way") {
			r.mu.Lock()
			if joined := r.next; joined != nil {
				joined.ri, joined.err = now.ri, now.err
				close(joined.done)
				r.next = nil
			}
			r.mu.Unlock()
		}
	}
}
