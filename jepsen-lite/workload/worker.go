package workload

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/history"
)

// Worker is one worker of a workload. It belongs to its goroutine.
type Worker struct {
	*api.Caller
	Run *Run
	// Number is the worker's, from 0 within its workload.
	Number int
	Rand   *rand.Rand
	// Stopping is closed when no new operation is to begin.
	Stopping <-chan struct{}

	workload string
	process  int
	// ended is done when the worker is: what it holds is given back then.
	ended context.Context
	// state is the workload's own, for this worker.
	state any
}

// processStride is between the processes that one worker is, one after the other.
const processStride = 1000

// Start starts all workers of a workload; they end after stop is closed, and
// with ctx at the latest.
func (r *Run) Start(ctx context.Context, name string, load Workload, stop <-chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	for i := range load.Workers() {
		w := r.worker(name, i, stop)
		wg.Go(func() {
			defer w.Close()
			var end context.CancelFunc
			w.ended, end = context.WithCancel(context.Background())
			defer end()
			for !w.stopped() && ctx.Err() == nil {
				load.Work(ctx, w)
				w.rest(ctx)
			}
		})
	}
	return &wg
}

// Finish runs the last reads of a workload.
func (r *Run) Finish(ctx context.Context, name string, load Workload) {
	w := r.worker(name, load.Workers(), make(chan struct{}))
	defer w.Close()
	load.Final(ctx, w)
}

func (r *Run) worker(name string, number int, stop <-chan struct{}) *Worker {
	r.mu.Lock()
	process := r.processes
	r.processes++
	r.mu.Unlock()
	return &Worker{
		Caller: api.NewCaller(r.Timeout), Run: r, Number: number, Stopping: stop, workload: name, process: process,
		Rand: rand.New(rand.NewPCG(uint64(r.Seed), uint64(process))),
	}
}

func (w *Worker) stopped() bool {
	select {
	case <-w.Stopping:
		return true
	default:
		return false
	}
}

// rest waits a while, on average the run's pace.
func (w *Worker) rest(ctx context.Context) {
	w.sleep(ctx, time.Duration(w.Rand.Int64N(int64(2*w.Run.Pace)+1)))
}

// sleep waits; less where the run ends.
func (w *Worker) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-w.Stopping:
	}
}

// node is any node.
func (w *Worker) node() api.Node { return w.Run.Nodes[w.Rand.IntN(len(w.Run.Nodes))] }

// begin records the invocation of an operation on a node.
func (w *Worker) begin(f string, n api.Node, in any) *history.Pending {
	return w.Run.Recorder.Begin(w.workload, w.process, f, n.ID, in)
}

// end records what became of it. out is nil unless the answer is OK.
func (w *Worker) end(p *history.Pending, a api.Answer, out any) history.Call {
	if a.Type == history.Info {
		defer func() { w.process += processStride }()
	}
	if a.Type != history.OK {
		out = nil
	}
	return p.End(a.Type, out, a.Why)
}

// insist calls f, at one node after the other, until it is OK or ctx ends; for
// what a workload cannot do without.
func (w *Worker) insist(ctx context.Context, f func(api.Node) api.Answer) bool {
	for ctx.Err() == nil {
		if a := f(w.node()); a.Type == history.OK {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return false
}

// everyNode calls f for each node until it is OK, and returns false where it was
// not on some node before ctx ended. The nodes take turns: one that is down does
// not keep f from the others.
func (w *Worker) everyNode(ctx context.Context, f func(api.Node) api.Answer) bool {
	left := slices.Clone(w.Run.Nodes)
	for {
		left = slices.DeleteFunc(left, func(n api.Node) bool { return ctx.Err() == nil && f(n).Type == history.OK })
		if len(left) == 0 || ctx.Err() != nil {
			return len(left) == 0
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}
