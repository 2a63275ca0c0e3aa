package workload

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// A key has at most so many operations, and so many of unknown outcome: the
// search for an order is exponential in the latter.
const (
	registerOps   = 240
	registerInfos = 10
)

// register has groups of workers, each at one key at a time.
type register struct {
	run    *Run
	groups []*registerGroup
}

type registerGroup struct {
	mu    sync.Mutex
	key   int // counts the group's keys
	ops   int
	infos int
	next  int64 // the next value
}

const registerGroups, registerGroupSize = 3, 4

func newRegister(run *Run) Workload {
	r := &register{run: run}
	for range registerGroups {
		r.groups = append(r.groups, &registerGroup{})
	}
	return r
}

func (r *register) Workers() int { return registerGroups * registerGroupSize }

// take returns the group's present key and a value that it never had.
func (g *registerGroup) take() (key int, value int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ops >= registerOps || g.infos >= registerInfos {
		g.key, g.ops, g.infos, g.next = g.key+1, 0, 0, 0
	}
	g.ops++
	g.next++
	return g.key, g.next
}

func (g *registerGroup) unknown(key int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.key == key {
		g.infos++
	}
}

func (r *register) Work(ctx context.Context, w *Worker) {
	g := r.groups[w.Number%registerGroups]
	n := w.node()
	number, value := g.take()
	in := check.Register{Key: fmt.Sprintf("%sregister/%d.%d", r.run.Prefix, w.Number%registerGroups, number)}
	var c history.Call
	switch k := w.Rand.IntN(10); {
	case k < 5:
		p := w.begin("read", n, in)
		item, found, a := w.Get(ctx, n, in.Key, nil)
		c = w.end(p, a, check.Register{Key: in.Key, Value: numberOf(item, found), Revision: a.Revision()})
	case k < 8 || value < 3:
		in.Value = value
		p := w.begin("write", n, in)
		revision, a := w.Put(ctx, n, in.Key, strconv.FormatInt(value, 10), nil, nil)
		out := in
		out.Revision = revision
		c = w.end(p, a, out)
	default:
		in.Value, in.Old = value, value-1-w.Rand.Int64N(2)
		p := w.begin("cas", n, in)
		result, a := w.Txn(ctx, n, api.Txn{
			If:   []api.Compare{{"key": in.Key, "target": "value", "op": "==", "value": strconv.FormatInt(in.Old, 10)}},
			Then: []api.Op{{"op": "put", "key": in.Key, "value": strconv.FormatInt(value, 10)}},
		}, false, nil)
		out := in
		out.Swapped, out.Revision = &result.Succeeded, result.Revision
		c = w.end(p, a, out)
	}
	if c.Type == history.Info {
		g.unknown(number)
	}
}

// noNumber is what a text is that is none. No workload writes it, so whoever
// reads it has read what nobody wrote.
const noNumber = -1

func decimal(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return noNumber
	}
	return n
}

// numberOf is what a key holds: 0 where it is not there, which is not the same as
// one that is there and holds nothing.
func numberOf(item api.Item, found bool) int64 {
	if !found {
		return 0
	}
	return decimal(item.Value)
}

// Final reads all keys, also those that were done with long ago: what a fault took from
// them later shows here alone.
func (r *register) Final(ctx context.Context, w *Worker) {
	for i, g := range r.groups {
		for number := range g.key + 1 {
			in := check.Register{Key: fmt.Sprintf("%sregister/%d.%d", r.run.Prefix, i, number)}
			w.everyNode(ctx, func(n api.Node) api.Answer {
				p := w.begin("read", n, in)
				item, found, a := w.Get(ctx, n, in.Key, nil)
				w.end(p, a, check.Register{Key: in.Key, Value: numberOf(item, found), Revision: a.Revision()})
				return a
			})
		}
	}
}

func (r *register) Check(calls []history.Call, limits Limits) []*check.Result {
	var seen []check.Seen
	for i, c := range calls {
		if c.Type != history.OK {
			continue
		}
		out := c.Out.(check.Register)
		write := c.F == "write" || (c.F == "cas" && *out.Swapped)
		seen = append(seen, check.Seen{Call: &calls[i], Revision: out.Revision, Write: write})
	}
	return []*check.Result{check.Registers(calls, limits.Checker), check.Revisions(seen)}
}
