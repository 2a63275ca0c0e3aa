package trivettest

import (
	"sync"
	"time"
)

// deadline is a time that one can wait for, and that may be set anew meanwhile.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	// over is closed when it has passed. A deadline that is set again has another.
	over chan struct{}
	// round is that of the last set: a timer of an earlier one closes nothing.
	round uint64
}

func (d *deadline) init() { d.over = make(chan struct{}) }

// passed returns what is closed when the deadline has passed. Who waits for it hears
// of one that is set to an earlier time, or for the first time.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.over
}

// set sets the deadline; the zero time is none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.round++
	select {
	case <-d.over:
		d.over = make(chan struct{})
	default: // those who wait go on waiting, for the new one
	}
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		close(d.over)
		return
	}
	round := d.round
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.round == round {
			close(d.over)
		}
	})
}
