package monitor

import (
	"context"
	"sync"
	"time"
)

// pulse finds out when the machine gave this program no time: a sleep of beat is
// over long after it should be. The nodes are processes beside it, and had none
// either. A bound on time says nothing about the cluster then.
type pulse struct {
	mu     sync.Mutex
	stalls []stall
}

// stall is a time in which nothing was run here.
type stall struct{ from, to int64 }

const (
	beat = 20 * time.Millisecond
	// lateBeat is how late a beat has to be to count: a busy scheduler's
	// millisecond is nobody's excuse.
	lateBeat = 50 * time.Millisecond
)

func (p *pulse) run(ctx context.Context, now func() int64) {
	for ctx.Err() == nil {
		due := now() + int64(beat)
		select {
		case <-time.After(beat):
		case <-ctx.Done():
			return
		}
		p.took(due, now())
	}
}

// took notes a beat that was due and came.
func (p *pulse) took(due, came int64) {
	if came-due < int64(lateBeat) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalls = append(p.stalls, stall{due, came})
}

// between is for how long nothing was run between two times.
func (p *pulse) between(from, to int64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum int64
	for _, s := range p.stalls {
		sum += max(0, min(s.to, to)-max(s.from, from))
	}
	return time.Duration(sum)
}

// Stalled is for how long, between two times of the record, the machine gave this
// program no time.
func (m *Monitor) Stalled(from, to int64) time.Duration { return m.pulse.between(from, to) }
