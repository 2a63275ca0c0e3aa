package httpapi

import (
	"context"
	"sync"
	"time"
)

// patience is the context of a call: as one of context.WithDeadline it ends with its
// parent, at a time, or when the call is over. It makes that one only when somebody
// waits for the end: a timer that is set and stopped, and a place among the parent's
// children, are most of what a context costs, and most reads have their answer before
// anything that has to be ended by one.
type patience struct {
	parent context.Context
	until  time.Time

	mu sync.Mutex
	// timed is nil before somebody waits for the end.
	timed  context.Context
	cancel context.CancelFunc
	over   bool
}

func newPatience(parent context.Context, until time.Time) *patience {
	return &patience{parent: parent, until: until}
}

// context returns the one that has a timer.
func (p *patience) context() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.timed != nil:
	case p.over:
		p.timed, p.cancel = context.WithCancel(p.parent)
		p.cancel()
	default:
		p.timed, p.cancel = context.WithDeadline(p.parent, p.until)
	}
	return p.timed
}

// end ends it, and frees what it holds.
func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	if p.cancel != nil {
		p.cancel()
	}
}

func (p *patience) Done() <-chan struct{} { return p.context().Done() }

// Err has nothing made as long as nothing has ended.
func (p *patience) Err() error {
	p.mu.Lock()
	goesOn := p.timed == nil && !p.over
	p.mu.Unlock()
	if goesOn && p.parent.Err() == nil && time.Now().Before(p.until) {
		return nil
	}
	return p.context().Err()
}

func (p *patience) Deadline() (time.Time, bool) {
	if at, ok := p.parent.Deadline(); ok && at.Before(p.until) {
		return at, true
	}
	return p.until, true
}

// Value asks the one with a timer, where there is one: package context finds the end
// of a parent so, and needs a goroutine for each child where it does not. It asks for
// Done before.
func (p *patience) Value(key any) any {
	p.mu.Lock()
	timed := p.timed
	p.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return p.parent.Value(key)
}
