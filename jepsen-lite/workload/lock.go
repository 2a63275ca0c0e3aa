package workload

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"trivet/client"
	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// locks has workers, one of them with the Go client, that take one of two locks, write under its guard, keep it
// or do not, now and then for longer than it lasts, and release it or forget it.
type locks struct{ run *Run }

const (
	lockWorkers = 4
	lockTTL     = time.Second
)

func newLock(run *Run) Workload { return &locks{run} }

func (l *locks) Workers() int { return lockWorkers + 1 }

func (l *locks) Work(ctx context.Context, w *Worker) {
	name := fmt.Sprintf("%slock/%d", l.run.Prefix, w.Rand.IntN(2))
	if w.Number == lockWorkers {
		l.workByClient(ctx, w, name)
		return
	}
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

// workByClient locks as a user's service would: the client keeps the lock, and
// says when it has lost it.
func (l *locks) workByClient(ctx context.Context, w *Worker, name string) {
	c, _ := w.state.(*client.Client)
	if c == nil {
		var err error
		if c, err = l.run.open(ctx, w); err != nil {
			return // ctx has ended
		}
		w.state = c
	}
	n := api.Node{ID: "client"}
	held := check.Lock{Name: name}
	p := w.begin("acquire", n, held)
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	lock, err := c.Lock(bounded, name, client.WithTTL(lockTTL), client.WithWait(time.Second))
	a := clientAnswer(err)
	if lock != nil {
		held.Token = lock.Token()
	}
	if w.end(p, a, held).Type != history.OK {
		return
	}
	for range 1 + w.Rand.IntN(10) {
		if w.stopped() || lock.Err() != nil {
			break
		}
		if w.Rand.IntN(2) == 0 {
			p := w.begin("guarded", n, held)
			put, err := c.Put(bounded, name+"/work", []byte(fmt.Sprint(held.Token)), lock.Guard())
			out := held
			out.Revision = put.Revision
			w.end(p, clientAnswer(err), out)
		}
		w.sleep(ctx, time.Duration(w.Rand.Int64N(int64(lockTTL)/2)))
		p := w.begin("held", n, held)
		w.end(p, clientAnswer(lock.Err()), held)
	}
	p = w.begin("release", n, held)
	ctx, cancelUnlock := context.WithTimeout(ctx, 5*time.Second)
	defer cancelUnlock()
	w.end(p, clientAnswer(lock.Unlock(ctx)), held)
}

func (l *locks) Final(context.Context, *Worker) {}

func (l *locks) Check(calls []history.Call, _ Limits) []*check.Result {
	return []*check.Result{check.Locks(calls, lockTTL)}
}
