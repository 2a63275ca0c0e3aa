package client

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Lock is a lock that was acquired by Client.Lock or TryLock. It is kept until
// Unlock, or until it is lost. Its methods may be called by any number of
// goroutines.
type Lock struct {
	c    *Client
	name string
	held LockHolder
	k    *keeper

	mu       sync.Mutex
	unlocked bool
	err      error // of Unlock
}

// Name returns the lock's name.
func (l *Lock) Name() string { return l.name }

// Token returns the fencing token: of the holders of a lock, a later one's is
// greater. What is written under it elsewhere than in this cluster is safe from
// those who held the lock before where the other side refuses lower tokens.
func (l *Lock) Token() uint64 { return l.held.Token }

// Lease returns the id of the lease that the lock is held by. Keys attached to
// it (WithLease) are deleted when the lock is unlocked or lost.
func (l *Lock) Lease() uint64 { return l.held.Lease }

// Guard is WithGuard of this lock: the write is applied only while it is held.
func (l *Lock) Guard() GuardOption { return WithGuard(l.name, l.held.Token) }

// Context is for the work that needs the lock: it ends when the lock is unlocked
// or lost, or may be lost, and when the Client is closed. context.Cause says
// which, as Err does. It has the values of the context that was given to Lock,
// and nothing of its end.
//
// That the lock may be lost is concluded without the cluster: a tenth of the ttl, or a
// second, before the ttl is over that began when the last renewal that succeeded was
// sent, by this machine's monotonic clock. The cluster cannot have given it to another
// before, and the work has that margin to stop in. Where the machine or the
// process stands still for a while, so does this; for that there is Guard.
func (l *Lock) Context() context.Context { return l.k.life }

// Lost is closed when Context ends.
func (l *Lock) Lost() <-chan struct{} { return l.k.life.Done() }

// Err is nil while the lock is held, ErrLockLost once it is lost or may be, and
// another error after Unlock or Close. It looks at the clock itself, and so may
// know a moment before Lost does.
func (l *Lock) Err() error { return l.k.err() }

// Unlock releases the lock; the next in its queue holds it then, and keys
// attached to its lease are deleted. It is tried again after any failure until
// ctx ends, which should therefore not be one that has ended already. The error
// is ErrGuardFailed where the lock was lost before. Whatever it is, the lock is no
// longer kept alive, and is free when its ttl is over.
//
// A second Unlock returns what the first did.
func (l *Lock) Unlock(ctx context.Context) error {
	l.k.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.unlocked {
		l.unlocked = true
		l.err = l.c.releaseLock(ctx, l.name, l.held.Token)
	}
	return l.err
}

// releaseLock releases a lock that is held by the token, once.
func (c *Client) releaseLock(ctx context.Context, name string, token uint64) error {
	r := &request{
		op: "unlock " + shown(name), method: http.MethodDelete, path: lockPath(name), write: true,
		decode: func(a *answer) error {
			var doc struct {
				Released bool `json:"released"`
			}
			if err := decodeJSON(a, &doc); err != nil {
				return err
			}
			if !doc.Released {
				return missing("released")
			}
			return nil
		},
	}
	r.query.add("token", strconv.FormatUint(token, 10))
	if e := r.identify([]IdempotencyOption{WithIdempotencyKey(randomKey())}); e != nil {
		return e
	}
	return c.do(ctx, r)
}

// keepLock starts the lock's ttl again.
func (c *Client) keepLock(ctx context.Context, name string, token uint64, ttl time.Duration) error {
	return c.do(ctx, &request{
		op: "keep alive " + shownLock(name), method: http.MethodPut, path: lockPath(name),
		contentType: jsonType, body: fmt.Appendf(nil, "{\"token\":%d}\n", token),
		write: true, harmless: true, patience: renewPatience(ttl),
		decode: func(a *answer) error {
			var doc holderJSON
			if err := decodeJSON(a, &doc); err != nil {
				return err
			}
			if doc.Token != token {
				return missing("token")
			}
			return nil
		},
	})
}

// locked returns the lock once it is held, and keeps it alive. It was renewed at
// sent. values is the context whose values the lock's own has.
func (c *Client) locked(values context.Context, name string, held LockHolder, sent time.Time) (*Lock, error) {
	l := &Lock{c: c, name: name, held: held}
	l.k = &keeper{
		op: "hold " + shownLock(name), lost: codeLockLost, ttl: held.TTL,
		renew: func(ctx context.Context) error { return c.keepLock(ctx, name, held.Token, held.TTL) },
	}
	if err := l.k.start(c, context.WithoutCancel(values), sent); err != nil {
		return nil, err
	}
	return l, nil
}
