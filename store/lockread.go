package store

import (
	"context"
	"slices"
	"sync"

	"github.com/tidwall/btree"

	"trivet/trivetpb"
)

// LockHolder is who holds a lock, or waits for it.
type LockHolder struct {
	// Token is the fencing token: of the holders of one lock, a later one's is
	// greater. One who waits has it already, but holds nothing yet.
	Token uint64
	// Lease is the lease that the lock is held by; 0 for one who waits.
	Lease uint64
	Owner string
	TTLMS uint64
	// RemainingMS is what is left of the lease or, of one who waits, of the wait.
	RemainingMS uint64
}

// LockInfo is a lock that is held, with those who wait for it, first come first.
type LockInfo struct {
	Name string
	// Holder is never nil.
	Holder *LockHolder
	// Queue is the first of those who wait, Waiting how many there are in all.
	Queue   []LockHolder
	Waiting int
}

// Lock returns who holds the lock, and up to queueLimit of those who wait for
// it. It is false where nobody holds it; then nobody waits either.
func (s *Store) Lock(name string, queueLimit int) (LockInfo, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, held := s.state.locks.get(name)
	if !held {
		return LockInfo{}, false
	}
	holder := s.state.lockHolder(l)
	info := LockInfo{Name: name, Holder: &holder}
	if l.queue != nil {
		info.Waiting = l.queue.Len()
		l.queue.Scan(func(token uint64, _ struct{}) bool {
			if len(info.Queue) >= queueLimit {
				return false
			}
			w, _ := s.state.waiters.get(token)
			info.Queue = append(info.Queue, LockHolder{
				Token: token, Owner: w.owner, TTLMS: w.ttlMS, RemainingMS: s.state.remaining(w.deadlineMS),
			})
			return true
		})
	}
	return info, true
}

func (st *state) lockHolder(l lock) LockHolder {
	held, _ := st.leases.get(l.lease)
	return LockHolder{
		Token: l.token, Lease: l.lease, Owner: l.owner, TTLMS: held.ttlMS, RemainingMS: st.remaining(held.deadlineMS),
	}
}

// AwaitLock waits until the token holds the lock, and says how. The error is a
// *trivetpb.Problem, LOCKED (with the holder, where there is one), as soon as
// the token neither holds the lock nor waits for it: its wait is over, it was
// cancelled, or what it held has ended. Else it is the context's.
//
// A token that this store has not seen drawn yet is waited for: whoever has it
// from another node's answer need not first wait for this node to catch up.
func (s *Store) AwaitLock(ctx context.Context, name string, token uint64) (LockHolder, error) {
	for {
		// Registered first, looked at then: what changes in between wakes it.
		stirred := s.awaiting.add(token)
		holder, waits, err := s.standing(name, token)
		if !waits {
			s.awaiting.drop(token, stirred)
			return holder, err
		}
		select {
		case <-stirred:
		case <-ctx.Done():
			s.awaiting.drop(token, stirred)
			return LockHolder{}, ctx.Err()
		}
	}
}

// standing is how the token stands to the lock: it still waits, or there is an
// answer for AwaitLock.
func (s *Store) standing(name string, token uint64) (holder LockHolder, waits bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if token > s.state.nextToken {
		return LockHolder{}, true, nil // not drawn yet
	}
	if w, ok := s.state.waiters.get(token); ok && w.lock == name {
		return LockHolder{}, true, nil
	}
	l, held := s.state.locks.get(name)
	if held && l.token == token {
		return s.state.lockHolder(l), false, nil
	}
	p := problemf(trivetpb.Code_LOCKED, "token %d neither holds the lock nor waits for it any more", token)
	if held {
		p.Holder = s.state.holder(l)
	}
	return LockHolder{}, false, p
}

// awaiting is the calls of AwaitLock that wait, by token.
type awaiting struct {
	mu    sync.Mutex
	calls btree.Map[uint64, []chan struct{}]
}

// add returns a channel that is closed once the token's standing may have
// changed.
func (w *awaiting) add(token uint64) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	stirred := make(chan struct{})
	calls, _ := w.calls.Get(token)
	w.calls.Set(token, append(calls, stirred))
	return stirred
}

// drop gives up a channel, which may have been closed meanwhile.
func (w *awaiting) drop(token uint64, stirred chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls, _ := w.calls.Get(token)
	calls = slices.DeleteFunc(calls, func(c chan struct{}) bool { return c == stirred })
	if len(calls) == 0 {
		w.calls.Delete(token)
	} else {
		w.calls.Set(token, calls)
	}
}

// wake wakes those who await one of the tokens, each of which was drawn, came to
// hold its lock, or is out of it.
func (w *awaiting) wake(tokens []uint64) {
	if len(tokens) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, token := range tokens {
		calls, _ := w.calls.Delete(token)
		for _, c := range calls {
			close(c)
		}
	}
}

// wakeAll is for a state that was replaced.
func (w *awaiting) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls.Scan(func(_ uint64, calls []chan struct{}) bool {
		for _, c := range calls {
			close(c)
		}
		return true
	})
	w.calls.Clear()
}
