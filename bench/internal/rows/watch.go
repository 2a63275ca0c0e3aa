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
//
// The watches are all of the client that writes, or each of a client of its own, as the
// instances of a service have it, which are processes with a client each. A library may
// have watches of one client share connections and more (etcd's: one gRPC stream to a
// node; Trivet's: the stream, where they follow the same). Clients share nothing. Plain
// HTTP has a connection for each watch in either case.
func (m measurement) watch(ctx context.Context, each bool) (Result, error) {
	client, err := m.cluster.Open(ctx, m.way, systems.Options{ValueBytes: m.valueBytes})
	if err != nil {
		return Result{}, err
	}
	defer client.Close()
	watching := make([]systems.Client, watchers)
	for i := range watching {
		watching[i] = client
		if !each {
			continue
		}
		// The nodes are named, so that nobody is asked who leads: these do not write.
		own, err := m.cluster.Open(ctx, m.way, systems.Options{ValueBytes: m.valueBytes, Nodes: []int{0, 1, 2}[:m.cluster.Nodes()]})
		if err != nil {
			return Result{}, err
		}
		defer own.Close()
		watching[i] = own
	}

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
			err := watching[i].Watch(ctx, i, isReady, func(n int) { arrived.Add(int64(n)) })
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
