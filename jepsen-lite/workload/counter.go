package workload

import (
	"context"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// counter adds one without an identity, once, and never again.
type counter struct{ run *Run }

const counterWorkers = 2

func newCounter(run *Run) Workload { return &counter{run} }

func (c *counter) Workers() int { return counterWorkers }

func (c *counter) key() string { return c.run.Prefix + "counter" }

func (c *counter) Work(ctx context.Context, w *Worker) {
	n := w.node()
	if w.Rand.IntN(4) == 0 {
		readCounter(ctx, w, n, c.key())
		return
	}
	in := check.Count{Key: c.key()}
	p := w.begin("add", n, in)
	sum, a := w.Add(ctx, n, c.key(), 1, nil)
	in.Value = sum
	w.end(p, a, in)
}

func readCounter(ctx context.Context, w *Worker, n api.Node, key string) api.Answer {
	in := check.Count{Key: key}
	p := w.begin("read", n, in)
	item, found, a := w.Get(ctx, n, key, nil)
	in.Value = numberOf(item, found)
	w.end(p, a, in)
	return a
}

func (c *counter) Final(ctx context.Context, w *Worker) {
	w.everyNode(ctx, func(n api.Node) api.Answer { return readCounter(ctx, w, n, c.key()) })
}

func (c *counter) Check(calls []history.Call, _ Limits) []*check.Result {
	return []*check.Result{check.Counters(calls, false)}
}
