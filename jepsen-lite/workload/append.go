package workload

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// appends is transactions over a few lists. There are two kinds of lists, since
// they take different ways through the store:
//
//   - "many" lists, of a key an element: an append is a put of a new key, a read
//     is a range, sorted by the revisions at which the elements came. A
//     transaction is one request, and nothing in it depends on what was read
//     before.
//   - "one" lists, in one value: a transaction reads what it needs, and then
//     writes on condition that nothing of it has changed. Where something has,
//     it fails.
//
// A transaction is over lists of one kind.
type appends struct {
	run *Run
	mu  sync.Mutex
	// next is the next value of each list; a list that is full is left for another.
	next  map[string]int64
	first [2]int // the number of the oldest active list, by kind
}

const (
	appendWorkers = 6
	activeLists   = 4
	listLength    = 40
)

func newAppend(run *Run) Workload { return &appends{run: run, next: map[string]int64{}} }

func (a *appends) Workers() int { return appendWorkers }

// list is the name of a list.
func list(kind, number int) string {
	return fmt.Sprintf("%s%d", [...]string{"many", "one"}[kind], number)
}

// mops makes a transaction of one to four micro-operations.
func (a *appends) mops(w *Worker, kind int) []check.Mop {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []check.Mop
	reading := w.Rand.IntN(3) == 0
	for range 1 + w.Rand.IntN(4) {
		number := a.first[kind] + w.Rand.IntN(activeLists)
		m := check.Mop{F: "r", Key: list(kind, number)}
		if !reading && w.Rand.IntN(2) == 0 {
			m.F = "append"
			a.next[m.Key]++
			m.Value = a.next[m.Key]
			if m.Value >= listLength {
				// Those beside it are about as full.
				a.first[kind] = max(a.first[kind], number+1)
			}
		}
		out = append(out, m)
	}
	return out
}

func (a *appends) Work(ctx context.Context, w *Worker) {
	kind := w.Number % 2
	a.txn(ctx, w, w.node(), kind, a.mops(w, kind))
}

func (a *appends) txn(ctx context.Context, w *Worker, n api.Node, kind int, in []check.Mop) api.Answer {
	p := w.begin("txn", n, in)
	var out []check.Mop
	var answer api.Answer
	if kind == 0 {
		out, answer = a.many(ctx, w, n, in)
	} else {
		out, answer = a.one(ctx, w, n, in)
	}
	w.end(p, answer, out)
	return answer
}

func (a *appends) key(list string) string { return a.run.Prefix + "append/" + list + "/" }

// many is a transaction over lists with a key an element.
func (a *appends) many(ctx context.Context, w *Worker, n api.Node, in []check.Mop) ([]check.Mop, api.Answer) {
	var t api.Txn
	read := true
	for _, m := range in {
		if m.F == "append" {
			read = false
			// The digits keep the order of one transaction's appends, which have
			// one revision.
			t.Then = append(t.Then, api.Op{"op": "put", "key": fmt.Sprintf("%s%06d", a.key(m.Key), m.Value), "value": ""})
		} else {
			t.Then = append(t.Then, api.Op{"op": "range", "prefix": a.key(m.Key)})
		}
	}
	result, answer := w.Txn(ctx, n, t, read, nil)
	if answer.Type != history.OK {
		return nil, answer
	}
	out := slices.Clone(in)
	for i, m := range out {
		if m.F == "append" {
			continue
		}
		items := result.Results[i].Items
		slices.SortStableFunc(items, func(x, y api.Item) int { return int(x.CreateRevision) - int(y.CreateRevision) })
		out[i].List = []int64{}
		for _, item := range items {
			out[i].List = append(out[i].List, decimal(strings.TrimLeft(item.Key[strings.LastIndexByte(item.Key, '/')+1:], "0")))
		}
	}
	return out, answer
}

// one is a transaction over lists in one value each.
func (a *appends) one(ctx context.Context, w *Worker, n api.Node, in []check.Mop) ([]check.Mop, api.Answer) {
	var read api.Txn
	at := map[string]int{}
	for _, m := range in {
		if _, known := at[m.Key]; !known {
			at[m.Key] = len(read.Then)
			read.Then = append(read.Then, api.Op{"op": "get", "key": a.key(m.Key)})
		}
	}
	before, answer := w.Txn(ctx, n, read, true, nil)
	if answer.Type != history.OK {
		return nil, answer
	}
	lists := map[string][]int64{}
	write := api.Txn{Then: []api.Op{}}
	for key, i := range at {
		item := before.Results[i].Item
		for _, word := range strings.Fields(item.Value) {
			lists[key] = append(lists[key], decimal(word))
		}
		write.If = append(write.If, api.Compare{"key": a.key(key), "target": "mod_revision", "op": "==", "number": item.ModRevision})
	}
	out := slices.Clone(in)
	changed := map[string]bool{}
	for i, m := range out {
		if m.F == "append" {
			lists[m.Key] = append(lists[m.Key], m.Value)
			changed[m.Key] = true
			continue
		}
		out[i].List = append([]int64{}, lists[m.Key]...)
	}
	if len(changed) == 0 {
		return out, answer // what was read belongs together
	}
	for key := range changed {
		var words []string
		for _, v := range lists[key] {
			words = append(words, strconv.FormatInt(v, 10))
		}
		write.Then = append(write.Then, api.Op{"op": "put", "key": a.key(key), "value": strings.Join(words, " ")})
	}
	result, answer := w.Txn(ctx, n, write, false, nil)
	if answer.Type == history.OK && !result.Succeeded {
		answer.Type, answer.Why = history.Fail, "somebody else was faster"
	}
	return out, answer
}

// Final reads every list that was in use.
func (a *appends) Final(ctx context.Context, w *Worker) {
	for kind, first := range a.first {
		for number := range first + activeLists {
			m := []check.Mop{{F: "r", Key: list(kind, number)}}
			w.insist(ctx, func(n api.Node) api.Answer { return a.txn(ctx, w, n, kind, m) })
		}
	}
}

func (a *appends) Check(calls []history.Call, limits Limits) []*check.Result {
	return []*check.Result{check.Appends(calls, limits.Checker)}
}
