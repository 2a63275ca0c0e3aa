package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"trivet/internal/histogram"
)

// Request sends one request and waits for its answer. It belongs to one caller: it
// is called by one goroutine at a time. r is the caller's own.
type Request func(ctx context.Context, r *rand.Rand) error

// Config is one run.
type Config struct {
	// Callers is how many closed loops there are; at least 1.
	Callers int
	// Warmup is not counted. Measure is counted and comes after it; above 0.
	Warmup, Measure time.Duration
	// Attempt bounds each request. 0: a request has 10 s.
	Attempt time.Duration
	// PIDs returns the processes whose CPU seconds are those of the servers. It is
	// asked when the measured time begins and when it ends; nil: there are none.
	PIDs func() []int
	// Observe, where set, is called when the measured time begins and when it ends,
	// by one goroutine.
	Observe func()
	// Caller returns the request of caller i, from 0. It is called for all of them
	// before the first one starts.
	Caller func(i int) (Request, error)
}

// Run runs the closed loops. It fails where a caller cannot be had, ctx ends, or
// more than one in a thousand of the requests fails: figures of a system that
// refuses work are none of what it does. The fewer that failed are in the Summary.
func Run(ctx context.Context, cfg Config) (Summary, error) {
	if cfg.Attempt == 0 {
		cfg.Attempt = 10 * time.Second
	}
	if cfg.PIDs == nil {
		cfg.PIDs = func() []int { return nil }
	}
	requests := make([]Request, cfg.Callers)
	for i := range requests {
		var err error
		if requests[i], err = cfg.Caller(i); err != nil {
			return Summary{}, fmt.Errorf("caller %d: %w", i, err)
		}
	}
	start := time.Now().Add(cfg.Warmup)
	end := start.Add(cfg.Measure)
	callers := make([]caller, cfg.Callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { callers[i].run(ctx, requests[i], cfg.Attempt, start, end) })
	}
	servers, own, err := cpuBetween(ctx, cfg.PIDs, cfg.Observe, start, end)
	wg.Wait()
	if err != nil {
		return Summary{}, err
	}
	var all caller
	for i := range callers {
		all.done.Merge(&callers[i].done)
		all.failed += callers[i].failed
		if all.err == nil {
			all.err = callers[i].err
		}
	}
	s := Summarize(&all.done, cfg.Measure)
	s.ServerCPU, s.ClientCPU, s.Failed = servers, own, all.failed
	if all.failed*1000 > s.Ops {
		return s, fmt.Errorf("%d of %d requests failed, one of them: %w", all.failed, all.failed+s.Ops, all.err)
	}
	return s, nil
}

// caller is what one closed loop has counted.
type caller struct {
	done   histogram.Histogram
	failed uint64
	err    error // the first
}

// run counts what ends between start and end; what is under way then is waited for
// and not counted.
func (c *caller) run(ctx context.Context, request Request, attempt time.Duration, start, end time.Time) {
	r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	bound := bound{attempt: attempt, cancel: func() {}}
	defer func() { bound.cancel() }()
	for began := time.Now(); began.Before(end) && ctx.Err() == nil; {
		err := request(bound.context(ctx, began), r)
		now := time.Now()
		if now.After(start) && now.Before(end) {
			if err == nil {
				c.done.Add(now.Sub(began))
			} else if c.failed++; c.err == nil {
				c.err = err
			}
		}
		began = now
	}
}

// bound bounds requests. A context for each would cost some callers more than the
// request: there is one for a second's worth of them, or for a quarter of an
// attempt's, and so each may take that much longer than it should.
type bound struct {
	attempt time.Duration
	bounded context.Context
	cancel  context.CancelFunc
	renew   time.Time
}

func (b *bound) context(ctx context.Context, now time.Time) context.Context {
	if !now.Before(b.renew) {
		b.cancel()
		every := min(time.Second, b.attempt/4)
		b.bounded, b.cancel = context.WithDeadline(ctx, now.Add(b.attempt+every))
		b.renew = now.Add(every)
	}
	return b.bounded
}
