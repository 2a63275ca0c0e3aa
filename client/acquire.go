package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"time"
	"unicode/utf8"

	"trivet/trivetpb"
)

// Acquiring a lock.
//
// The queue is the cluster's: a request stands in it, in the order of the log,
// whatever becomes of the nodes. It carries an idempotency key of its own, so
// that the client may send it again after any failure and finds its place, and
// so that the lock is never taken twice. The cluster remembers a key for ten
// minutes; a wait that is longer is asked for in parts, each with a key of its
// own and, but for the first, at the end of the queue.
const (
	// askWait is the longest wait of one request.
	askWait = 5 * time.Minute
	// askFor is how long one request is repeated. It leaves room for the clock of
	// the cluster, which runs without a leader no further.
	askFor = 8 * time.Minute
	// askPatience is how long one node is waited for. It has no reason to answer
	// before the lock is free; to ask again is to find out whether it lives.
	askPatience = 20 * time.Second

	// forGood is a wait that has no end but the context's.
	forGood = 100 * 365 * 24 * time.Hour

	defaultLockTTL = 10 * time.Second
	// maxOwnerBytes is the longest owner that a server takes.
	maxOwnerBytes = 1024
)

// Lock acquires a lock, and waits for it where others hold it: first come, first
// served. It waits until ctx ends, unless WithWait says otherwise. The lock is
// then kept alive in the background until Unlock or the end of the Client; ctx
// has no part in that.
//
// The error is ErrLocked, with Error.Holder, where the wait is over. Where ctx has
// no deadline and no node serves the request for Config.Timeout, it is
// ErrUnavailable. Where ctx ends in the middle, the client leaves the queue in the
// background, as soon as its turn comes; where it is closed before, the lock may
// still be given to it, and is free again when the ttl is over (but see
// LeaveWithConnection).
func (c *Client) Lock(ctx context.Context, name string, opts ...LockOption) (*Lock, error) {
	p := params{ttl: defaultLockTTL}
	for _, o := range opts {
		o.toLock(&p)
	}
	a := &acquisition{c: c, op: "lock " + shown(name), name: name, ttl: p.ttl, owner: p.owner, leaves: p.leaves}
	if e := firstOf(checkLockName(a.op, name), checkTTL(a.op, p.ttl), p.checkLock(a.op)); e != nil {
		return nil, e
	}
	// Somewhat less than the context has: the cluster takes the request out of the
	// queue by itself then, and its word on it still arrives.
	wait := min(timeLeft(ctx), forGood)
	wait -= min(wait/10, 100*time.Millisecond)
	if p.hasWait {
		wait = min(wait, p.wait)
	}
	a.until = time.Now().Add(wait)
	return a.run(ctx)
}

// TryLock acquires a lock if it is free. The error is ErrLocked, with
// Error.Holder, where it is not.
func (c *Client) TryLock(ctx context.Context, name string, opts ...LockOption) (*Lock, error) {
	return c.Lock(ctx, name, append(opts[:len(opts):len(opts)], WithWait(0))...)
}

func (p *params) checkLock(op string) *Error {
	switch {
	case p.wait < 0:
		return refusal(op, trivetpb.Code_BAD_REQUEST, "the wait is negative")
	case len(p.owner) > maxOwnerBytes:
		return refusal(op, trivetpb.Code_BAD_REQUEST, "the owner has %d bytes, the most is %d", len(p.owner), maxOwnerBytes)
	case !utf8.ValidString(p.owner):
		return refusal(op, trivetpb.Code_BAD_REQUEST, "the owner is no UTF-8")
	}
	return nil
}

// acquisition is a lock on its way.
type acquisition struct {
	c        *Client
	op, name string
	ttl      time.Duration
	owner    string
	// leaves: see LeaveWithConnection. The request has no key then.
	leaves bool
	// until is the end of the waiting, unless the context ends before.
	until time.Time
}

// waits says that there is time left to wait: a wait is whole milliseconds.
func (a *acquisition) waits(ctx context.Context) bool {
	return ctx.Err() == nil && time.Until(a.until) >= time.Millisecond
}

// nextWait is how long the next request may wait.
func (a *acquisition) nextWait() time.Duration {
	return max(min(askWait, time.Until(a.until)), 0).Truncate(time.Millisecond)
}

func (a *acquisition) run(ctx context.Context) (*Lock, error) {
	_, deadline := ctx.Deadline()
	for round := 0; ; round++ {
		ask := a.newAsk(a.nextWait(), deadline)
		lock, err := ask.run(ctx)
		switch {
		case err == nil:
			return lock, nil
		case !a.waits(ctx):
			return nil, err
		case errors.Is(err, ErrLocked), errors.Is(err, ErrGuardFailed), ask.over():
			// This request's time is over, and not that of the call; or the lock was
			// lost again before it was known to be held.
		case a.leaves && errors.Is(err, ErrUnknown) && errors.Is(err, ErrUnavailable):
			// It is out of the queue with its connection.
		default:
			return nil, err
		}
		// The pause is for a cluster that has the request wait for nothing.
		if !a.c.pause(ctx, round, 0) {
			return nil, err
		}
	}
}

// ask is one request for the lock, with a key of its own.
type ask struct {
	*acquisition
	r     *request
	wait  time.Duration
	began time.Time
	held  LockHolder // once it is
}

func (a *acquisition) newAsk(wait time.Duration, deadline bool) *ask {
	k := &ask{acquisition: a, wait: wait, began: time.Now()}
	k.r = &request{op: a.op, method: http.MethodPost, path: lockPath(a.name), contentType: jsonType, write: true}
	if wait > 0 {
		k.r.endless, k.r.parked, k.r.patience = true, true, askPatience
		k.r.bounded = !deadline
	}
	// Strings alone: it has no way to fail.
	k.r.body, _ = json.Marshal(struct {
		TTL   string `json:"ttl"`
		Wait  string `json:"wait"`
		Owner string `json:"owner,omitempty"`
	}{a.ttl.String(), wait.String(), a.owner})
	if !a.leaves {
		_ = k.r.identify([]IdempotencyOption{WithIdempotencyKey(randomKey())}) // the key is one
	}
	k.r.decode = func(ans *answer) error {
		var doc holderJSON
		if err := decodeJSON(ans, &doc); err != nil {
			return err
		}
		if doc.Token == 0 || doc.Lease == 0 || doc.TTL <= 0 {
			return missing("token, lease or ttl")
		}
		k.held = doc.holder()
		return nil
	}
	return k
}

// randomKey is an idempotency key that nobody else has.
func randomKey() string { return rand.Text() }

// over says that the request is no longer worth repeating.
func (k *ask) over() bool { return time.Since(k.began) >= askFor }

// run carries out the request. Where the lock may be held without the caller's
// having it, or come to be, that is undone in the background.
func (k *ask) run(ctx context.Context) (*Lock, error) {
	asking := ctx
	if k.r.endless {
		// Behind the wait the cluster has as long to answer as for any call.
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, min(askFor, k.wait+k.c.cfg.Timeout))
		defer cancel()
	}
	if err := k.c.do(asking, k.r); err != nil {
		if errors.Is(err, ErrUnknown) && !k.leaves {
			k.undo(false)
		}
		return nil, err
	}
	sent := k.began
	if time.Since(sent) > k.held.TTL/3 {
		// The ttl began when the lock's turn came, which may be long ago.
		sent = time.Now()
		if err := k.c.keepLock(ctx, k.name, k.held.Token, k.held.TTL); err != nil {
			k.undo(true)
			return nil, err
		}
	}
	lock, err := k.c.locked(ctx, k.name, k.held, sent)
	if err != nil {
		k.undo(true)
	}
	return lock, err
}

// undo gives the lock back in the background: at once where it is held, else when
// its turn comes. It asks by the same key, and so for the very place in the
// queue that the request has, if it has one. Where the client is closed first,
// the ttl does the same.
func (k *ask) undo(held bool) {
	_ = k.c.background(func() {
		ctx, cancel := context.WithTimeout(k.c.ctx, max(askFor-time.Since(k.began), k.c.cfg.Timeout))
		defer cancel()
		if held || k.c.do(ctx, k.r) == nil {
			_ = k.c.releaseLock(ctx, k.name, k.held.Token)
		}
	})
}
