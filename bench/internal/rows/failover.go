package rows

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"trivet/bench/internal/load"
	"trivet/bench/internal/systems"
)

const (
	failoverWriters = 16
	// failoverBefore is how long there are writes before the kill, failoverAfter the
	// least that is looked at behind it, failoverMost the most.
	failoverBefore = 500 * time.Millisecond
	failoverAfter  = 2 * time.Second
	failoverMost   = 30 * time.Second
	// failoverAttempt is when a writer gives a request up and sends the next: some
	// clients wait for seconds where a request got lost with its leader.
	failoverAttempt = 250 * time.Millisecond
	// failoverCalm ends a run: acknowledgements have come for so long.
	failoverCalm = 500 * time.Millisecond
)

// failover kills leaders, and takes the median of how long nobody's write was
// acknowledged.
func (m measurement) failover(ctx context.Context) (Result, error) {
	var result Result
	for range m.Plan.Failovers {
		gap, err := m.failoverOnce(ctx)
		if err != nil {
			return result, err
		}
		result.Samples = append(result.Samples, gap.Seconds()*1000)
	}
	result.Value = Median(result.Samples)
	result.Details = map[string]float64{"max_ms": slices.Max(result.Samples)}
	return result, nil
}

func (m measurement) failoverOnce(ctx context.Context) (time.Duration, error) {
	leader, err := m.cluster.Leader(ctx)
	if err != nil {
		return 0, err
	}
	// A library knows all nodes and finds its way; a caller of plain HTTP is with one
	// that stays.
	nodes := []int{0, 1, 2}
	if m.way == "http" {
		nodes = slices.DeleteFunc(nodes, func(i int) bool { return i == leader })
	}
	client, err := m.cluster.Open(ctx, m.way, systems.Options{ValueBytes: m.valueBytes, Nodes: nodes})
	if err != nil {
		return 0, err
	}
	defer client.Close()

	writing, stop := context.WithCancel(ctx)
	acks := newAcks()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for i := range failoverWriters {
		c, err := client.Caller(i)
		if err != nil {
			return 0, err
		}
		wg.Go(func() { write(writing, c, m.put(c), acks) })
	}
	if err := sleep(ctx, failoverBefore); err != nil {
		return 0, err
	}
	if acks.quiet() > failoverBefore {
		return 0, errors.New("no write is acknowledged before the kill")
	}
	killed := acks.mark()
	if err := m.cluster.Kill(leader); err != nil {
		return 0, err
	}
	var gap time.Duration
	for {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return 0, err
		}
		since := time.Since(killed)
		if since > failoverMost {
			return 0, fmt.Errorf("no write is acknowledged %v after the kill", failoverMost)
		}
		var last time.Duration
		if gap, last = acks.gap(); since > failoverAfter && since-gap > failoverCalm && last < failoverCalm {
			break
		}
	}
	stop()
	wg.Wait()
	if err := m.cluster.Restart(leader); err != nil {
		return 0, err
	}
	return gap, systems.FirstRead(ctx, m.cluster, m.way, leader, m.valueBytes)
}

// write is a closed loop of writes, each with its time.
func write(ctx context.Context, c systems.Caller, put load.Request, acks *acks) {
	defer c.Close()
	r := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	for ctx.Err() == nil {
		attempt, done := context.WithTimeout(ctx, failoverAttempt)
		err := put(attempt, r)
		done()
		if err == nil {
			acks.add()
		} else if sleep(ctx, time.Millisecond) != nil {
			return
		}
	}
}

// acks knows when writes were acknowledged, and the longest time without.
type acks struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration // that ended after mark
	marked  bool
}

func newAcks() *acks { return &acks{} }

func (a *acks) add() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.marked {
		a.longest = max(a.longest, now.Sub(a.last))
	}
	a.last = now
}

// mark has gaps count that end from now on, and returns the time.
func (a *acks) mark() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.marked = true
	return time.Now()
}

// gap returns the longest time without an acknowledgement, one that goes on too, and
// how long the last one is ago.
func (a *acks) gap() (longest, quiet time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	quiet = time.Since(a.last)
	return max(a.longest, quiet), quiet
}

// quiet is how long the last acknowledgement is ago.
func (a *acks) quiet() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.last)
}

// sleep waits; the error is ctx's.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Median returns the middle of values, the lower one of two; 0 where there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)-1)/2]
}
