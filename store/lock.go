package store

import (
	"unicode/utf8"

	"github.com/tidwall/btree"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// Bounds of locks. Apply keeps them: they must never change.
const (
	// MaxLockNameBytes is the longest name; the shortest has one byte.
	MaxLockNameBytes = 1024
	MaxOwnerBytes    = 1024
	// MaxWaitMS is the longest that one may wait for a lock.
	MaxWaitMS = 60 * 60 * 1000
	// MaxWaiters is the most that wait, for all locks together.
	MaxWaiters = 100_000
)

// lock is a lock that is held: there is none of a lock that nobody holds.
//
// Tokens are drawn when somebody comes, not when he gets the lock, from one
// sequence for all locks. As a queue is first come, first served, its order is
// that of the tokens, and of the holders of a lock a later one's is greater: what
// a fencing token must be.
type lock struct {
	token uint64
	// lease is what it is held by, for as long as that lives. The lease names
	// the lock.
	lease uint64
	owner string
	// queue is the tokens of those who wait; nil where nobody ever did. It
	// belongs to the writer, and Views make it up from the waiters.
	queue *btree.Map[uint64, struct{}]
}

// waiter is one who waits for a lock.
type waiter struct {
	lock       string
	owner      string
	ttlMS      uint64 // of the lease to be
	deadlineMS uint64 // of the wait
	due        *due   // belongs to the writer
}

func (l *lock) hash(name string) uint64 {
	return mix(hashLock, textHash(name), l.token, l.lease, textHash(l.owner))
}

func (w *waiter) hash(token uint64) uint64 {
	return mix(hashWaiter, token, textHash(w.lock), textHash(w.owner), w.ttlMS, w.deadlineMS)
}

func (a *applier) lockAcquire(c *trivetpb.LockAcquire, result *trivetpb.Result) *trivetpb.Problem {
	name := keyString(c.Name)
	l, held := a.locks.get(name)
	switch {
	case !held:
		if p := a.roomForLease(); p != nil {
			return p
		}
		if !mutant.On("token-same") || a.nextToken == 0 {
			a.nextToken++
		}
		l = a.hold(name, lock{}, a.nextToken, c.Owner, c.TtlMs)
		a.answerHolder(result, l)
		return nil
	case c.WaitMs == 0:
		p := problemf(trivetpb.Code_LOCKED, "the lock is held with token %d", l.token)
		p.Holder = a.holder(l)
		return p
	case a.waiters.len() >= MaxWaiters:
		return problemf(trivetpb.Code_OVERLOADED, "%d wait for locks, and no more may", a.waiters.len())
	}
	a.nextToken++
	a.addWaiter(name, l, a.nextToken, waiter{
		lock: name, owner: c.Owner, ttlMS: c.TtlMs, deadlineMS: after(a.clockMS, c.WaitMs),
	})
	a.stirred = append(a.stirred, a.nextToken)
	result.Result = &trivetpb.Result_Lock{Lock: &trivetpb.LockResult{
		Holder:  &trivetpb.LockHolder{Token: a.nextToken, Owner: c.Owner, TtlMs: c.TtlMs},
		Waiting: true,
	}}
	return nil
}

func (a *applier) lockKeepAlive(c *trivetpb.LockKeepAlive, result *trivetpb.Result) *trivetpb.Problem {
	l, p := a.heldWith(c.Name, c.Token)
	if p != nil {
		return p
	}
	held, _ := a.leases.get(l.lease)
	a.renew(l.lease, held)
	a.answerHolder(result, l)
	return nil
}

// lockRelease ends the lock's lease, and with it the keys that are attached to
// it.
func (a *applier) lockRelease(c *trivetpb.LockRelease, result *trivetpb.Result) *trivetpb.Problem {
	l, p := a.heldWith(c.Name, c.Token)
	if p != nil {
		return p
	}
	held, _ := a.leases.get(l.lease)
	a.endLease(l.lease, held)
	result.Result = &trivetpb.Result_Lock{Lock: &trivetpb.LockResult{}}
	return nil
}

func (a *applier) lockCancel(c *trivetpb.LockCancel, result *trivetpb.Result) *trivetpb.Problem {
	w, waits := a.waiters.get(c.Token)
	if waits && w.lock == keyString(c.Name) {
		a.leaveQueue(c.Token, w)
		result.Result = &trivetpb.Result_Lock{Lock: &trivetpb.LockResult{}}
		return nil
	}
	if c.Release {
		return a.lockRelease(&trivetpb.LockRelease{Name: c.Name, Token: c.Token}, result)
	}
	l, p := a.heldWith(c.Name, c.Token)
	if p != nil {
		return p
	}
	a.answerHolder(result, l)
	return nil
}

// heldWith is the lock as the token holds it.
func (st *state) heldWith(name []byte, token uint64) (lock, *trivetpb.Problem) {
	l, held := st.locks.get(keyString(name))
	switch {
	case !held:
		return l, problemf(trivetpb.Code_GUARD_FAILED, "nobody holds the lock %q", name)
	case l.token != token:
		return l, problemf(trivetpb.Code_GUARD_FAILED, "the lock %q is held with token %d, not %d", name, l.token, token)
	}
	return l, nil
}

func (st *state) holder(l lock) *trivetpb.LockHolder {
	held, _ := st.leases.get(l.lease)
	return &trivetpb.LockHolder{Token: l.token, Lease: l.lease, Owner: l.owner, TtlMs: held.ttlMS}
}

func (a *applier) answerHolder(result *trivetpb.Result, l lock) {
	result.Result = &trivetpb.Result_Lock{Lock: &trivetpb.LockResult{Holder: a.holder(l)}}
}

// hold makes the token the lock's holder from now on. There is room for the
// lease.
func (a *applier) hold(name string, l lock, token uint64, owner string, ttlMS uint64) lock {
	l.token, l.owner = token, owner
	l.lease = a.grant(ttlMS, false, name)
	a.setLock(name, l)
	a.stirred = append(a.stirred, token)
	return l
}

func (st *state) setLock(name string, l lock) {
	st.locks.set(name, l)
	st.totals.rest += l.hash(name)
}

// lockEnded is what follows from the end of a lock's lease: the next one in the
// queue holds it, with a lease for all of his ttl. It takes the place of the one
// that ended, so there is room.
func (a *applier) lockEnded(name string) {
	l, _ := a.locks.get(name)
	a.stirred = append(a.stirred, l.token)
	a.totals.rest -= l.hash(name)
	if l.queue != nil {
		if token, _, waits := l.queue.Min(); waits {
			w, _ := a.waiters.get(token)
			a.dropWaiter(token, w, l)
			a.hold(name, l, token, w.owner, w.ttlMS)
			return
		}
	}
	a.locks.remove(name)
}

// leaveQueue ends a wait without the lock.
func (a *applier) leaveQueue(token uint64, w waiter) {
	l, _ := a.locks.get(w.lock) // who waits, waits for somebody
	a.dropWaiter(token, w, l)
	a.stirred = append(a.stirred, token)
}

// addWaiter puts somebody at the end of the queue: his token is the greatest.
func (st *state) addWaiter(name string, l lock, token uint64, w waiter) {
	if l.queue == nil {
		l.queue = new(btree.Map[uint64, struct{}])
		st.locks.set(name, l)
	}
	l.queue.Set(token, struct{}{})
	w.due = &due{deadlineMS: w.deadlineMS, kind: dueWaiter, id: token}
	st.dues.push(w.due)
	st.waiters.set(token, w)
	st.totals.rest += w.hash(token)
}

func (st *state) dropWaiter(token uint64, w waiter, l lock) {
	l.queue.Delete(token)
	st.dues.remove(w.due)
	st.waiters.remove(token)
	st.totals.rest -= w.hash(token)
}

func checkLockName(name []byte) *trivetpb.Problem {
	if n := len(name); n == 0 || n > MaxLockNameBytes {
		return problemf(trivetpb.Code_BAD_REQUEST, "the lock's name has %d bytes, and may have 1 to %d", n, MaxLockNameBytes)
	}
	return nil
}

func checkLockAcquire(c *trivetpb.LockAcquire) *trivetpb.Problem {
	if p := checkLockName(c.Name); p != nil {
		return p
	}
	if p := checkTTL(c.TtlMs); p != nil {
		return p
	}
	switch n := len(c.Owner); {
	case c.WaitMs > MaxWaitMS:
		return problemf(trivetpb.Code_BAD_REQUEST, "the wait is %d ms, and may be %d", c.WaitMs, uint64(MaxWaitMS))
	case n > MaxOwnerBytes:
		return problemf(trivetpb.Code_BAD_REQUEST, "the owner has %d bytes, and may have %d", n, MaxOwnerBytes)
	case !utf8.ValidString(c.Owner):
		return problemf(trivetpb.Code_BAD_REQUEST, "the owner is not UTF-8")
	}
	return nil
}
