package main

import (
	"context"
	"os"
	"runtime"
	"time"
)

// How many processors the runtime of a node works on (GOMAXPROCS): as many as the
// node keeps busy, and not all that the machine has. Each time something becomes
// runnable the runtime wakes a thread for a processor that is idle, which looks for
// work, finds that it was done meanwhile, and sleeps again. A node's work is a chain of
// short steps, in which nearly each wakes the next, so where most processors are idle
// a fifth of its time goes there; and where several nodes share a machine, or a
// node and the services that use it, that time is the others'.
//
// A node has all processors as it starts. It gives up one where it would have been
// less than half busy without it for a while, and takes as many as it wants as soon as those it has
// are busy: it reacts in a tenth of a second.
//
// Where GOMAXPROCS is set, the runtime has as many as it says.
const (
	processorsEvery = 100 * time.Millisecond
	// fullyBusy is the part of its processors' time a node takes that wants more,
	// barelyBusy the part of one fewer that it takes at most to give one up, looks
	// on end.
	fullyBusy, barelyBusy = 0.85, 0.6
	barelyLooks           = 10
)

// boundProcessors sets the number until the context ends.
func boundProcessors(ctx context.Context) {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) == 1 {
		return
	}
	used, ok := processorTime()
	if !ok {
		return
	}
	go func() {
		tick := time.NewTicker(processorsEvery)
		defer tick.Stop()
		p := processors{most: runtime.GOMAXPROCS(0), n: runtime.GOMAXPROCS(0)}
		at := time.Now()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			u, _ := processorTime()
			now := time.Now()
			n := p.n
			if p.look((u-used).Seconds()/now.Sub(at).Seconds()) != n {
				runtime.GOMAXPROCS(p.n)
			}
			used, at = u, now
		}
	}()
}

// processors finds the number.
type processors struct {
	n, most int
	barely  int // looks on end at which one fewer would have been enough
}

// look takes how many processors' time the process took since the last look, and
// returns the number to have.
func (p *processors) look(busy float64) int {
	if p.barely++; busy > barelyBusy*float64(p.n-1) {
		p.barely = 0
	}
	switch {
	case busy > fullyBusy*float64(p.n):
		p.n = min(2*p.n, p.most)
		p.barely = 0
	case p.barely >= barelyLooks && p.n > 1:
		p.n--
		p.barely = 0
	}
	return p.n
}
