package rows

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"trivet/bench/internal/load"
	"trivet/bench/internal/systems"
)

// Runner measures.
type Runner struct {
	Plan    Plan
	Systems []systems.System
	// Dir is where the servers' data are; each cluster has a folder in it, which is
	// removed behind it.
	Dir  string
	Port func() (int, error)
	// Result is told each measurement, Log what goes on.
	Result func(Result)
	Log    func(format string, args ...any)
}

// Run measures everything, and returns early where ctx ends. A row that fails is a
// Result with an Error; the others go on.
func (r *Runner) Run(ctx context.Context) error {
	for round := 1; round <= r.Plan.Rounds; round++ {
		for _, s := range r.Systems {
			if err := r.round(ctx, s, round); err != nil {
				return err
			}
		}
	}
	for _, s := range r.Systems {
		if err := r.big(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// round measures the rows on few keys. That a system does not start is a Result of
// each row.
func (r *Runner) round(ctx context.Context, s systems.System, round int) error {
	wanted := r.wanted(timedIDs()...)
	if round == 1 && r.wants("failover") {
		wanted = append(wanted, "failover")
	}
	if len(wanted) == 0 {
		return nil
	}
	return r.with(ctx, s, wanted, round, func(ctx context.Context, c systems.Cluster) error {
		if err := r.load(ctx, s, c, 0, r.Plan.Keys, r.Plan.ValueBytes); err != nil {
			return err
		}
		for _, way := range s.Ways() {
			m := measurement{Runner: r, cluster: c, system: s, way: way, round: round, keys: r.Plan.Keys, valueBytes: r.Plan.ValueBytes}
			for _, t := range timed {
				if r.wants(t.id) {
					m.tell(ctx, t.id, func(ctx context.Context) (Result, error) { return m.timed(ctx, t) })
				}
			}
			if r.wants("watch") {
				m.tell(ctx, "watch", func(ctx context.Context) (Result, error) { return m.watch(ctx, false) })
			}
			if r.wants("watch-each") {
				m.tell(ctx, "watch-each", func(ctx context.Context) (Result, error) { return m.watch(ctx, true) })
			}
		}
		for _, way := range s.Ways() {
			if slices.Contains(wanted, "failover") {
				m := measurement{Runner: r, cluster: c, system: s, way: way, round: round, keys: r.Plan.Keys, valueBytes: r.Plan.ValueBytes}
				m.tell(ctx, "failover", m.failover)
			}
		}
		return ctx.Err()
	})
}

// load loads keys and waits until every node has them.
func (r *Runner) load(ctx context.Context, s systems.System, c systems.Cluster, from, to, valueBytes int) error {
	r.Log("%s: loading %s keys", s.Name(), Count(to-from))
	began := time.Now()
	if err := c.Load(ctx, from, to, valueBytes); err != nil {
		return err
	}
	for i := range c.Nodes() {
		if err := systems.FirstRead(ctx, c, s.Ways()[0], i, valueBytes); err != nil {
			return err
		}
	}
	r.Log("%s: loaded in %v", s.Name(), time.Since(began).Round(time.Millisecond))
	return nil
}

// with starts a system, in a folder of its own, for a function, whose failure is
// that of the rows. The error is ctx's.
func (r *Runner) with(ctx context.Context, s systems.System, rows []string, round int, f func(context.Context, systems.Cluster) error) error {
	dir := filepath.Join(r.Dir, s.Name())
	err := func() error {
		// Others than the owner go through it: PostgreSQL does not run as root.
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		c, err := s.Start(ctx, systems.Env{Dir: dir, Port: r.Port})
		if err != nil {
			return err
		}
		defer c.Close()
		return f(ctx, c)
	}()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.Log("%s: %v", s.Name(), err)
		for _, way := range s.Ways() {
			for _, row := range rows {
				r.Result(Result{System: s.Name(), Way: way, Row: row, Round: round, Error: err.Error()})
			}
		}
	}
	return nil
}

// wants says whether a row is in the plan, wanted which of some are.
func (r *Runner) wants(row string) bool { return r.Plan.Rows == nil || r.Plan.Rows.MatchString(row) }

func (r *Runner) wanted(rows ...string) []string {
	return slices.DeleteFunc(rows, func(row string) bool { return !r.wants(row) })
}

// measurement is of a running cluster through one way.
type measurement struct {
	*Runner
	cluster          systems.Cluster
	system           systems.System
	way              string
	round            int
	keys, valueBytes int
}

// tell measures a row and tells its result.
func (m measurement) tell(ctx context.Context, row string, measure func(context.Context) (Result, error)) {
	if ctx.Err() != nil {
		return
	}
	result, err := measure(ctx)
	if ctx.Err() != nil {
		return
	}
	result.System, result.Way, result.Row, result.Round = m.system.Name(), m.way, row, m.round
	switch {
	case errors.Is(err, systems.ErrUnsupported):
		result.Unsupported = true
	case err != nil:
		result.Error = err.Error()
		m.Log("%s %s %s: %v", m.system.Name(), m.way, row, err)
	default:
		m.Log("%s %s %s: %s", m.system.Name(), m.way, row, brief(result))
	}
	m.Result(result)
}

// brief is a result in a line.
func brief(r Result) string {
	text := fmt.Sprintf("%.4g", r.Value)
	if l := r.Load; l != nil {
		text += fmt.Sprintf(" (%.0f/s, p50 %v, p99 %v)", l.OpsPerSecond, l.P50.Round(time.Microsecond), l.P99.Round(time.Microsecond))
	}
	return text
}

// run runs a closed loop over the way.
func (m measurement) run(ctx context.Context, o systems.Options, callers int, observe func(), request func(systems.Caller) load.Request) (load.Summary, error) {
	o.ValueBytes = m.valueBytes
	client, err := m.cluster.Open(ctx, m.way, o)
	if err != nil {
		return load.Summary{}, err
	}
	defer client.Close()
	return m.runOn(ctx, client, callers, observe, request)
}

// runOn is run with a client that is open.
func (m measurement) runOn(ctx context.Context, client systems.Client, callers int, observe func(), request func(systems.Caller) load.Request) (load.Summary, error) {
	var open []systems.Caller
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	return load.Run(ctx, load.Config{
		Callers: callers, Warmup: m.Plan.Warmup, Measure: m.Plan.Measure, PIDs: func() []int { return systems.AllPIDs(m.cluster) }, Observe: observe,
		Caller: func(i int) (load.Request, error) {
			c, err := client.Caller(i)
			if err != nil {
				return nil, err
			}
			open = append(open, c)
			send := request(c)
			if i == 0 {
				// Whether the system can do it at all is known before the loop begins.
				err = send(ctx, rand.New(rand.NewPCG(1, 2)))
			}
			return send, err
		},
	})
}
