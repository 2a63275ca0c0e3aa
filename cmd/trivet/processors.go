package main

import (
	"context"
	"os"
	"runtime"
	"runtime/metrics"
	"time"
)

// How many processors the runtime of a node works on (GOMAXPROCS): as many as the
// node keeps busy, and not all that the machine has. Each time something becomes
// runnable the runtime wakes a thread for a processor that is idle, which looks for
// work, finds that it was done meanwhile, and sleeps again. A node's work is a chain
// of short steps, in which nearly each wakes the next, so where most processors are
// idle much of its time goes there; and where several nodes share a machine, or a node
// and the services that use it, that time is the others'.
//
// A node has all processors as it starts. It gives up one where it would not have been
// busy without it for a while, and has twice as many, up to all, within a tenth of a
// second of those it has being busy. Where others keep the machine's processors busy
// it may have less of them than it wants and not look busy: so it has twice as many as
// well where its goroutines wait for long.
//
// Where GOMAXPROCS is set, the runtime has as many as it says. The number at the start
// is the most there are: a limit of a container that changes later is not followed.
const (
	processorsEvery = 100 * time.Millisecond
	// fullyBusy is the part of its processors' time a node takes that wants more,
	// barelyBusy the part of one fewer that it takes at most to give one up, looks
	// on end.
	fullyBusy, barelyBusy = 0.85, 0.6
	barelyLooks           = 10
	// longWait is how many seconds a goroutine mostly waits for a processor at most: a
	// time slice of the runtime's. Where more than longWaits of them waited longer, the
	// node does not get what it wants. (With a twentieth in place of half, a node on two
	// cores with three others took both all the time, and did less.)
	longWait  = 0.01
	longWaits = 0.5
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
		at, waits := time.Now(), readWaits()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			u, _ := processorTime()
			now, w := time.Now(), readWaits()
			n := p.n
			if p.look((u-used).Seconds()/now.Sub(at).Seconds(), w.since(waits)) != n {
				runtime.GOMAXPROCS(p.n)
			}
			used, at, waits = u, now, w
		}
	}()
}

// processors finds the number.
type processors struct {
	n, most int
	barely  int // looks on end at which one fewer would have been enough
}

// look takes how many processors' time the process took since the last look, and
// which part of its goroutines waited for long, and returns the number to have.
func (p *processors) look(busy, waited float64) int {
	if p.barely++; busy > barelyBusy*float64(p.n-1) || waited > longWaits {
		p.barely = 0
	}
	switch {
	case busy > fullyBusy*float64(p.n), waited > longWaits:
		p.n = min(2*p.n, p.most)
		p.barely = 0
	case p.barely >= barelyLooks && p.n > 1:
		p.n--
		p.barely = 0
	}
	return p.n
}

// waits counts the times that goroutines waited for a processor, and those that were
// long.
type waits struct{ all, long uint64 }

// since is which part of the waits after earlier was long.
func (w waits) since(earlier waits) float64 {
	if w.all == earlier.all {
		return 0
	}
	return float64(w.long-earlier.long) / float64(w.all-earlier.all)
}

func readWaits() (w waits) {
	s := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(s)
	h := s[0].Value.Float64Histogram()
	for i, n := range h.Counts {
		w.all += n
		if h.Buckets[i] >= longWait {
			w.long += n
		}
	}
	return w
}
