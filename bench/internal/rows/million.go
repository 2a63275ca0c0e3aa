package rows

import (
	"context"
	"io"
	"sync"
	"time"

	"trivet/bench/internal/systems"
)

const (
	sizeCallers     = 64
	snapshotCallers = 16
	// restarts is how often a cluster is stopped and started.
	restarts = 3
)

// big measures what depends on how much is stored: on one cluster that grows, and
// for the smallest of the sizes on another, because what is written to that would
// be history in the memory of the first.
func (r *Runner) big(ctx context.Context, s systems.System) error {
	sizes := r.Plan.Sizes
	if !r.comparesSizes(s) {
		sizes = nil
	}
	if len(sizes) > 0 && sizes[0] < r.Plan.Million {
		ids := r.wanted(sizeID("put", sizes[0]), sizeID("get", sizes[0]))
		if len(ids) > 0 {
			if err := r.with(ctx, s, ids, 1, func(ctx context.Context, c systems.Cluster) error {
				return r.atSize(ctx, s, c, 0, sizes[0])
			}); err != nil {
				return err
			}
		}
		sizes = sizes[1:]
	}
	ids := r.wanted("memory", "restart", "snapshot")
	for _, n := range sizes {
		ids = append(ids, r.wanted(sizeID("put", n), sizeID("get", n))...)
	}
	if len(ids) == 0 {
		return nil
	}
	return r.with(ctx, s, ids, 1, func(ctx context.Context, c systems.Cluster) error {
		n := r.Plan.Million
		if err := r.load(ctx, s, c, 0, n, r.Plan.SmallBytes); err != nil {
			return err
		}
		m := measurement{Runner: r, cluster: c, system: s, way: s.Ways()[0], round: 1, keys: n, valueBytes: r.Plan.SmallBytes}
		if r.wants("memory") {
			m.tell(ctx, "memory", m.memory)
		}
		if r.wants("restart") {
			m.tell(ctx, "restart", m.restart)
		}
		for _, m.way = range s.Ways() {
			if r.wants("snapshot") {
				m.tell(ctx, "snapshot", m.snapshot)
			}
		}
		for _, size := range sizes {
			if err := r.atSize(ctx, s, c, n, size); err != nil {
				return err
			}
			n = max(n, size)
		}
		return ctx.Err()
	})
}

// comparesSizes: the others are no cluster, and are there for the rows on few keys.
func (r *Runner) comparesSizes(s systems.System) bool {
	return s.Name() == "trivet" || s.Name() == BaseSystem
}

// atSize loads what is missing of n keys and runs the loops.
func (r *Runner) atSize(ctx context.Context, s systems.System, c systems.Cluster, have, n int) error {
	if len(r.wanted(sizeID("put", n), sizeID("get", n))) == 0 {
		return nil
	}
	if n > have {
		if err := r.load(ctx, s, c, have, n, r.Plan.SmallBytes); err != nil {
			return err
		}
	}
	for round := 1; round <= r.Plan.Rounds; round++ {
		for _, way := range s.Ways() {
			m := measurement{Runner: r, cluster: c, system: s, way: way, round: round, keys: n, valueBytes: r.Plan.SmallBytes}
			for _, t := range []timedRow{{id: sizeID("put", n), callers: sizeCallers, request: measurement.put}, {id: sizeID("get", n), callers: sizeCallers, request: measurement.get}} {
				if r.wants(t.id) {
					m.tell(ctx, t.id, func(ctx context.Context) (Result, error) { return m.timed(ctx, t) })
				}
			}
		}
	}
	return ctx.Err()
}

// memory is the mean of the nodes: the proportional set size, which counts what
// processes of a node share once.
func (m measurement) memory(ctx context.Context) (Result, error) {
	if err := sleep(ctx, m.Plan.Settle); err != nil {
		return Result{}, err
	}
	var total, anonymous float64
	var result Result
	for i := range m.cluster.Nodes() {
		var node float64
		for _, pid := range m.cluster.PIDs(i) {
			pss, anon, err := processMemory(pid)
			if err != nil {
				return Result{}, err
			}
			node += pss
			anonymous += anon
		}
		total += node
		result.Samples = append(result.Samples, node)
	}
	nodes := float64(m.cluster.Nodes())
	result.Value = total / nodes
	result.Details = map[string]float64{"without_mapped_files_mib": anonymous / nodes}
	return result, nil
}

// restart stops all nodes as an operator would, starts them, and takes the time until
// the first of them answers a linearizable read.
func (m measurement) restart(ctx context.Context) (Result, error) {
	var result Result
	var all []float64
	for range restarts {
		for i := range m.cluster.Nodes() {
			if err := m.cluster.Stop(i); err != nil {
				return result, err
			}
		}
		began := time.Now()
		for i := range m.cluster.Nodes() {
			if err := m.cluster.Restart(i); err != nil {
				return result, err
			}
		}
		took := make([]time.Duration, m.cluster.Nodes())
		errs := make([]error, m.cluster.Nodes())
		var wg sync.WaitGroup
		for i := range took {
			wg.Go(func() {
				errs[i] = systems.FirstRead(ctx, m.cluster, m.way, i, m.valueBytes)
				took[i] = time.Since(began)
			})
		}
		wg.Wait()
		first, last := took[0], took[0]
		for i, t := range took {
			if errs[i] != nil {
				return result, errs[i]
			}
			first, last = min(first, t), max(last, t)
		}
		result.Samples, all = append(result.Samples, first.Seconds()), append(all, last.Seconds())
	}
	result.Value = Median(result.Samples)
	result.Details = map[string]float64{"all_nodes_s": Median(all)}
	return result, nil
}

// snapshot compares the p99 of writes while backups are taken, one after the other,
// with that before.
func (m measurement) snapshot(ctx context.Context) (Result, error) {
	var written countingWriter
	if err := m.cluster.Snapshot(ctx, &written); err != nil {
		return Result{}, err
	}
	without, err := m.run(ctx, systems.Options{}, snapshotCallers, nil, m.put)
	if err != nil {
		return Result{Load: &without}, err
	}
	backing, stop := context.WithCancel(ctx)
	backups := 0
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		for backing.Err() == nil {
			if err := m.cluster.Snapshot(backing, io.Discard); err != nil {
				if backing.Err() == nil {
					failed = err
				}
				return
			}
			backups++
		}
	})
	with, err := m.run(ctx, systems.Options{}, snapshotCallers, nil, m.put)
	stop()
	wg.Wait()
	if err == nil {
		err = failed
	}
	return Result{Load: &with, Value: with.P99.Seconds() / without.P99.Seconds(), Details: map[string]float64{
		"p99_without_ms": without.P99.Seconds() * 1000, "p99_with_ms": with.P99.Seconds() * 1000,
		"puts_per_second_without": without.OpsPerSecond, "puts_per_second_with": with.OpsPerSecond,
		"backups": float64(backups), "backup_bytes": float64(written),
	}}, err
}

// countingWriter counts what is written to it.
type countingWriter int64

func (w *countingWriter) Write(p []byte) (int, error) {
	*w += countingWriter(len(p))
	return len(p), nil
}
