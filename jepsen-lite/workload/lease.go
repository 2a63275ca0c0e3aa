package workload

import (
	"context"
	"fmt"
	"net/url"
	"sync"
	"time"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// leases has workers that each have one key with a lease at a time: they keep it
// for a while, look at it all the time, and see it end, or revoke it.
type leases struct {
	run *Run
	mu  sync.Mutex
	n   int
	// left are the keys that were there when their worker stopped.
	left []string
}

const (
	leaseWorkers = 4
	leaseTTL     = 1500 * time.Millisecond
)

func newLease(run *Run) Workload { return &leases{run: run} }

func (l *leases) Workers() int { return leaseWorkers }

func (l *leases) Work(ctx context.Context, w *Worker) {
	l.mu.Lock()
	l.n++
	key := fmt.Sprintf("%slease/%d", l.run.Prefix, l.n)
	l.mu.Unlock()
	in := check.Lease{Key: key}

	n := w.node()
	p := w.begin("grant", n, in)
	var lease struct{ Lease uint64 }
	a := w.JSON(ctx, n, "POST", "/v1/leases", map[string]string{"ttl": leaseTTL.String()}, &lease, nil)
	if w.end(p, a, in).Type != history.OK {
		return // one that there may be has no keys, and ends by itself
	}
	path := fmt.Sprintf("/v1/leases/%d", lease.Lease)
	n = w.node()
	p = w.begin("attach", n, in)
	_, a = w.Put(ctx, n, key, "", url.Values{"lease": {fmt.Sprint(lease.Lease)}}, nil)
	if w.end(p, a, in).Type != history.OK {
		return
	}
	keeps := w.Rand.IntN(5)
	revoke := w.Rand.IntN(5) == 0
	next := w.Run.Recorder.Now()
	for ctx.Err() == nil {
		if w.stopped() {
			l.mu.Lock()
			l.left = append(l.left, key)
			l.mu.Unlock()
			return
		}
		n := w.node()
		if now := w.Run.Recorder.Now(); now >= next {
			next = now + int64(leaseTTL)/2 + w.Rand.Int64N(int64(leaseTTL)/3)
			switch {
			case keeps > 0:
				keeps--
				p := w.begin("keep", n, in)
				a := w.JSON(ctx, n, "PUT", path, nil, nil, nil)
				w.end(p, a, in)
			case revoke:
				revoke = false
				p := w.begin("revoke", n, in)
				a := w.Do(ctx, n, api.Request{Method: "DELETE", Path: path})
				w.end(p, a, in)
			}
		}
		if present, ok := l.read(ctx, w, n, key); ok && !present {
			// Once more, elsewhere: it stays gone.
			l.read(ctx, w, w.node(), key)
			return
		}
		w.sleep(ctx, 30*time.Millisecond)
	}
}

func (l *leases) read(ctx context.Context, w *Worker, n api.Node, key string) (present, ok bool) {
	in := check.Lease{Key: key}
	p := w.begin("read", n, in)
	_, found, a := w.Get(ctx, n, key, nil)
	in.Present = found
	return found, w.end(p, a, in).Type == history.OK
}

// Final looks at what is left until it has ended, or should have by far.
func (l *leases) Final(ctx context.Context, w *Worker) {
	ctx, cancel := context.WithTimeout(ctx, leaseTTL+check.LeaseLate+2*time.Second)
	defer cancel()
	for _, key := range l.left {
		for ctx.Err() == nil {
			if present, ok := l.read(ctx, w, w.node(), key); ok && !present {
				break
			}
			w.sleep(ctx, 50*time.Millisecond)
		}
	}
}

func (l *leases) Check(calls []history.Call, _ Limits) []*check.Result {
	return []*check.Result{check.Leases(calls, leaseTTL)}
}
