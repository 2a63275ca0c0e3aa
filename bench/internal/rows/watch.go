package rows

import (
	"context"
	"sync"
	"sync/atomic"

	"trivet/bench/internal/systems"
)

const (
	watchers     = 100
	watchWriters = 16
)

// watch counts how many changes arrive at all watchers together, each of which is
// told every write.
func (m measurement) watch(ctx context.Context) (Result, error) {
	client, err := m.cluster.Open(ctx, m.way, systems.Options{ValueBytes: m.valueBytes})
	if err != nil {
		return Result{}, err
	}
	defer client.Close()

	ctx, cancel := context.WithCancelCause(ctx)
	var arrived atomic.Int64
	var wg, ready sync.WaitGroup
	// They end before the client is closed.
	defer wg.Wait()
	defer cancel(nil)
	ready.Add(watchers)
	for i := range watchers {
		wg.Go(func() {
			isReady := sync.OnceFunc(ready.Done)
			defer isReady()
			err := client.Watch(ctx, i, isReady, func(n int) { arrived.Add(int64(n)) })
			if err != nil {
				cancel(err)
			}
		})
	}
	ready.Wait()
	if ctx.Err() != nil {
		return Result{}, context.Cause(ctx)
	}

	var counts []int64
	s, err := m.runOn(ctx, client, watchWriters, func() { counts = append(counts, arrived.Load()) }, m.put)
	if ctx.Err() != nil { // a watcher failed
		return Result{}, context.Cause(ctx)
	}
	if err != nil {
		return Result{Load: &s}, err
	}
	return Result{
		Load: &s, Value: float64(counts[1]-counts[0]) / s.Seconds,
		Details: map[string]float64{"puts_per_second": s.OpsPerSecond},
	}, nil
}
