package workload

import (
	"context"
	"fmt"
	"sync"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// sets adds elements, each a key of its own that must not be there yet, and now
// and then reads a whole set. One that is full is left for the next.
type sets struct {
	run  *Run
	mu   sync.Mutex
	last int64 // value that was handed out, over all sets
}

const setWorkers, setSize = 3, 1000

func newSet(run *Run) Workload { return &sets{run: run} }

func (s *sets) Workers() int { return setWorkers }

func (s *sets) prefix(set int) string { return fmt.Sprintf("%sset/%d/", s.run.Prefix, set) }

func (s *sets) Work(ctx context.Context, w *Worker) {
	s.mu.Lock()
	set := int(s.last / setSize)
	read := w.Rand.IntN(40) == 0
	if !read {
		s.last++
		set = int(s.last / setSize)
	}
	value := s.last
	s.mu.Unlock()
	if read {
		s.read(ctx, w, w.node(), set)
		return
	}
	n := w.node()
	p := w.begin("add", n, check.Element{Set: set, Value: value})
	_, a := w.Put(ctx, n, fmt.Sprintf("%s%d", s.prefix(set), value), "", nil, map[string]string{"If-None-Match": "*"})
	w.end(p, a, nil)
}

func (s *sets) read(ctx context.Context, w *Worker, n api.Node, set int) api.Answer {
	p := w.begin("read", n, check.Elements{Set: set})
	items, a := w.Range(ctx, n, s.prefix(set), map[string][]string{"keys_only": {"true"}})
	out := check.Elements{Set: set, Values: []int64{}}
	for _, item := range items {
		out.Values = append(out.Values, decimal(item.Key[len(s.prefix(set)):]))
	}
	w.end(p, a, out)
	return a
}

// Final reads every set on every node.
func (s *sets) Final(ctx context.Context, w *Worker) {
	for set := range int(s.last/setSize) + 1 {
		w.everyNode(ctx, func(n api.Node) api.Answer { return s.read(ctx, w, n, set) })
	}
}

func (s *sets) Check(calls []history.Call, _ Limits) []*check.Result {
	return []*check.Result{check.Sets(calls)}
}
