package client

import (
	"context"
	"errors"
	"iter"
)

// Election is one among any number of candidates, of whom one leads at a time. It is
// made by Client.Election, holds nothing, and may be used by any number of goroutines.
//
// It is a lock and a key of the same name: who holds the lock leads, and the key has
// what the leader says of itself, for as long as it leads. The key is attached to the
// lock's lease, and so goes with the leadership, however that ends.
type Election struct {
	c    *Client
	name string
}

// Election returns the election of a name, which is also the key of the leader's
// value. Nothing is asked of the cluster, and a name that does not do is refused by
// the calls.
func (c *Client) Election(name string) *Election { return &Election{c, name} }

// Leadership is a won election. It is kept alive until Resign, or until it is lost.
type Leadership struct {
	lock *Lock
}

// Campaign waits until this candidate leads: first come, first served, as with Lock,
// whose options it takes and whose errors it returns. A change of the cluster's own
// leader, or the loss of a node, is a delay. The value is what others learn of the
// leader (Leader, Observe).
//
// Where the value cannot be written, the election is resigned from before the error of
// Put is returned.
func (e *Election) Campaign(ctx context.Context, value []byte, opts ...LockOption) (*Leadership, error) {
	if err := checkKey("campaign for "+shown(e.name), e.name); err != nil {
		return nil, err
	}
	lock, err := e.c.Lock(ctx, e.name, opts...)
	if err != nil {
		return nil, err
	}
	l := &Leadership{lock}
	if err := l.Proclaim(ctx, value); err != nil {
		// Also where ctx has ended. At worst the ttl does it.
		_ = e.c.background(func() {
			ctx, cancel := context.WithTimeout(e.c.ctx, e.c.cfg.Timeout)
			defer cancel()
			_ = lock.Unlock(ctx)
		})
		return nil, err
	}
	return l, nil
}

// Context is for the work of the leader: it ends before anybody else can lead. See
// Lock.Context.
func (l *Leadership) Context() context.Context { return l.lock.Context() }

// Err is nil while the leadership is held. See Lock.Err.
func (l *Leadership) Err() error { return l.lock.Err() }

// Token is the fencing token: a later leader's is greater.
func (l *Leadership) Token() uint64 { return l.lock.Token() }

// Guard has a write applied only while this leadership is held, whatever the clock of
// this process says. What a leader writes should have it.
func (l *Leadership) Guard() GuardOption { return l.lock.Guard() }

// Proclaim replaces the value that others learn. The error is ErrGuardFailed where the
// leadership was lost.
func (l *Leadership) Proclaim(ctx context.Context, value []byte) error {
	_, err := l.lock.c.Put(ctx, l.lock.name, value, WithLease(l.lock.Lease()), l.Guard())
	if errors.Is(err, ErrLeaseNotFound) {
		// The lease is the lock's, and so is its end.
		e := &Error{op: "proclaim " + shown(l.lock.name), Code: codeLockLost, Detail: "it has ended", Outcome: NotApplied, causes: []error{err, ErrGuardFailed}}
		return e
	}
	return err
}

// Resign ends the leadership: the value goes, and the next candidate leads. It is
// Lock.Unlock.
func (l *Leadership) Resign(ctx context.Context) error { return l.lock.Unlock(ctx) }

// Leader returns the leader's value, as an item: its CreateRevision is another for
// each leadership. The error is ErrNotFound where nobody leads.
func (e *Election) Leader(ctx context.Context, opts ...GetOption) (Item, error) {
	return e.c.Get(ctx, e.name, opts...)
}

// Observe tells who leads: at once, and whenever that changes, until ctx ends or the
// caller breaks off. Nil is for nobody. Where changes come faster than the caller takes
// them none is left out; where the watch was away for longer than history is, it goes
// on with who leads then. The error comes as a last pair, as of Watch.
func (e *Election) Observe(ctx context.Context) iter.Seq2[*Item, error] {
	return func(yield func(*Item, error) bool) {
		if err := checkKey("observe "+shown(e.name), e.name); err != nil {
			yield(nil, err)
			return
		}
		var first *Item
		for f, err := range e.c.Watch(ctx, Key(e.name), Initial(), WithResync()) {
			if err != nil {
				yield(nil, err)
				return
			}
			switch f.Kind {
			case FrameReset:
				first = nil
			case FrameItems:
				first = &f.Items[0]
			case FrameSynced:
				if !yield(first, nil) {
					return
				}
			case FrameChange:
				for i := range f.Events {
					var leader *Item
					if f.Events[i].Type == EventPut {
						leader = &f.Events[i].Item
					}
					if !yield(leader, nil) {
						return
					}
				}
			}
		}
	}
}
