package workload

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// locks has workers that take one of two locks, write under its guard, keep it
// or do not, now and then for longer than it lasts, and release it or forget it.
type locks struct{ run *Run }

const (
	lockWorkers = 4
	lockTTL     = time.Second
)

func newLock(run *Run) Workload { return &locks{run} }

func (l *locks) Workers() int { return lockWorkers }

func (l *locks) Work(ctx context.Context, w *Worker) {
	name := fmt.Sprintf("%slock/%d", l.run.Prefix, w.Rand.IntN(2))
	path := "/v1/locks/" + name
	n := w.node()
	held := check.Lock{Name: name}
	p := w.begin("acquire", n, held)
	var got struct{ Token uint64 }
	a := w.JSON(ctx, n, "POST", path, map[string]string{"ttl": lockTTL.String(), "wait": "800ms"}, &got, nil)
	held.Token = got.Token
	if c := w.end(p, a, held); c.Type != history.OK {
		return
	}
	for range w.Rand.IntN(6) {
		if w.stopped() {
			break
		}
		n := w.node()
		switch w.Rand.IntN(8) {
		case 0: // a worker that stands still, and does not know
			w.sleep(ctx, lockTTL+time.Duration(w.Rand.Int64N(int64(lockTTL))))
		case 1, 2:
			p := w.begin("keep", n, held)
			a := w.JSON(ctx, n, "PUT", path, map[string]uint64{"token": held.Token}, nil, nil)
			w.end(p, a, held)
		default:
			p := w.begin("guarded", n, held)
			revision, a := w.Put(ctx, n, name+"/work", fmt.Sprint(held.Token), nil,
				map[string]string{"Trivet-Guard": fmt.Sprintf("%s=%d", name, held.Token)})
			out := held
			out.Revision = revision
			w.end(p, a, out)
		}
		w.rest(ctx)
	}
	if w.Rand.IntN(4) == 0 {
		return // it ends by itself
	}
	n = w.node()
	p = w.begin("release", n, held)
	a = w.Do(ctx, n, api.Request{Method: "DELETE", Path: path, Query: url.Values{"token": {fmt.Sprint(held.Token)}}})
	w.end(p, a, held)
}

func (l *locks) Final(context.Context, *Worker) {}

func (l *locks) Check(calls []history.Call, _ Limits) []*check.Result {
	return []*check.Result{check.Locks(calls, lockTTL)}
}
