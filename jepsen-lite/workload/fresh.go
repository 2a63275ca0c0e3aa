package workload

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"time"

	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// fresh writes a few keys and reads them in every way but linearizably.
type fresh struct {
	run *Run
	mu  sync.Mutex
	// highest is the highest revision that anybody has seen: any reader may be
	// told of it, and ask for it.
	highest uint64
	values  int
}

const freshWriters, freshReaders, freshKeys = 1, 4, 3

func newFresh(run *Run) Workload { return &fresh{run: run} }

func (f *fresh) Workers() int { return freshWriters + freshReaders }

func (f *fresh) see(revision uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.highest = max(f.highest, revision)
	return f.highest
}

func (f *fresh) Work(ctx context.Context, w *Worker) {
	n := w.node()
	key := fmt.Sprintf("%sfresh/%d", f.run.Prefix, w.Rand.IntN(freshKeys))
	if w.Number < freshWriters {
		f.values++ // there is one writer
		p := w.begin("write", n, check.FreshSeen{Key: key})
		revision, a := w.Put(ctx, n, key, strconv.Itoa(f.values), nil, nil)
		w.end(p, a, check.FreshSeen{Key: key, ModRevision: revision, Revision: revision})
		if a.Type == history.OK {
			f.see(revision)
		}
		return
	}
	in := check.FreshRead{Key: key}
	kind := []string{"session", "bounded", "stale"}[w.Rand.IntN(3)]
	query := url.Values{"consistency": {kind}}
	switch kind {
	case "session":
		in.MinRevision = f.see(1)
		query.Set("min_revision", strconv.FormatUint(in.MinRevision, 10))
	case "bounded":
		in.MaxStaleness = time.Duration(1+w.Rand.IntN(500)) * time.Millisecond
		query.Set("max_staleness", in.MaxStaleness.String())
	}
	p := w.begin(kind, n, in)
	item, _, a := w.Get(ctx, n, key, query)
	out := check.FreshSeen{Key: key, ModRevision: item.ModRevision, Revision: a.Revision(), Staleness: -1}
	if ms, err := strconv.ParseInt(a.Header.Get("Trivet-Staleness"), 10, 64); err == nil {
		out.Staleness = time.Duration(ms) * time.Millisecond
	}
	w.end(p, a, out)
	if a.Type == history.OK && kind != "stale" {
		f.see(out.Revision)
	}
}

func (f *fresh) Final(context.Context, *Worker) {}

func (f *fresh) Check(calls []history.Call, limits Limits) []*check.Result {
	return []*check.Result{check.Fresh(calls, limits.Restarts)}
}
