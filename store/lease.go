package store

import "trivet/trivetpb"

// Bounds of leases. Apply keeps them: they must never change.
const (
	// MaxLeases is the most leases, those of locks and of single puts included.
	MaxLeases = 1_000_000
	// MaxLeaseKeys is the most keys of one lease: they are deleted in one go,
	// half a microsecond a key or more, and nothing else is done meanwhile.
	MaxLeaseKeys = 100_000
)

// lease is a lease, as it is for Views too: a change sets it anew.
type lease struct {
	ttlMS uint64
	// deadlineMS is when it may be ended. Until an Expire command does that, it
	// is alive, however late: time alone changes no state.
	deadlineMS uint64
	// lock is the lock that it holds; empty for none.
	lock string
	// own marks the lease of a put's ttl_ms, which ends with its last key.
	own bool
	// run belongs to the writer, and is the same for as long as the lease lives.
	run *leaseRun
}

// leaseRun is what of a lease no View looks at.
type leaseRun struct {
	due due
	// keys is the keys whose newest version names the lease.
	keys keySet
}

func (l *lease) hash(id uint64) uint64 {
	return mix(hashLease, id, l.ttlMS<<1|bit(l.own), l.deadlineMS, textHash(l.lock))
}

func (a *applier) leaseGrant(c *trivetpb.LeaseGrant, result *trivetpb.Result) *trivetpb.Problem {
	if p := a.roomForLease(); p != nil {
		return p
	}
	answerLease(result, a.grant(c.TtlMs, false, ""), c.TtlMs, 0)
	return nil
}

func (a *applier) leaseKeepAlive(c *trivetpb.LeaseKeepAlive, result *trivetpb.Result) *trivetpb.Problem {
	l, p := a.findLease(c.Lease)
	if p != nil {
		return p
	}
	a.renew(c.Lease, l)
	answerLease(result, c.Lease, l.ttlMS, 0)
	return nil
}

// leaseRevoke ends a lease, its keys at one revision. What is a lock's releases
// the lock.
func (a *applier) leaseRevoke(c *trivetpb.LeaseRevoke, result *trivetpb.Result) *trivetpb.Problem {
	l, p := a.findLease(c.Lease)
	if p != nil {
		return p
	}
	answerLease(result, c.Lease, l.ttlMS, a.endLease(c.Lease, l))
	return nil
}

func answerLease(result *trivetpb.Result, id, ttlMS, deleted uint64) {
	result.Result = &trivetpb.Result_Lease{Lease: &trivetpb.LeaseResult{Lease: id, TtlMs: ttlMS, Deleted: deleted}}
}

func (st *state) findLease(id uint64) (lease, *trivetpb.Problem) {
	l, ok := st.leases.get(id)
	if !ok {
		return l, problemf(trivetpb.Code_LEASE_NOT_FOUND, "there is no lease %d", id)
	}
	return l, nil
}

func (st *state) roomForLease() *trivetpb.Problem {
	if st.leases.len() >= MaxLeases {
		return problemf(trivetpb.Code_OVERLOADED, "there are %d leases, and may be no more", st.leases.len())
	}
	return nil
}

// grant makes a lease; there is room for it.
func (st *state) grant(ttlMS uint64, own bool, lock string) (id uint64) {
	id = st.drawID()
	l := lease{ttlMS: ttlMS, deadlineMS: after(st.clockMS, ttlMS), own: own, lock: lock}
	st.addLease(id, l)
	return id
}

// addLease adds a lease without keys.
func (st *state) addLease(id uint64, l lease) {
	l.run = &leaseRun{due: due{deadlineMS: l.deadlineMS, kind: dueLease, id: id}}
	st.leases.set(id, l)
	st.dues.push(&l.run.due)
	st.totals.rest += l.hash(id)
}

func (st *state) renew(id uint64, l lease) {
	st.totals.rest -= l.hash(id)
	l.deadlineMS = after(st.clockMS, l.ttlMS)
	st.totals.rest += l.hash(id)
	l.run.due.deadlineMS = l.deadlineMS
	st.leases.set(id, l)
}

// dropLease removes a lease that has no keys.
func (st *state) dropLease(id uint64, l lease) {
	st.totals.rest -= l.hash(id)
	st.dues.remove(&l.run.due)
	st.leases.remove(id)
}

// endLease deletes a lease's keys, in byte order, drops it and releases its
// lock. It returns how many keys there were.
func (a *applier) endLease(id uint64, l lease) uint64 {
	keys := l.run.keys.Keys() // a list of its own: erase detaches them one by one
	for _, key := range keys {
		c := a.table.find(key)
		a.erase(c, c.newest())
	}
	a.orphans = a.orphans[:0] // it ends here
	a.dropLease(id, l)
	if l.lock != "" {
		a.lockEnded(l.lock)
	}
	return uint64(len(keys))
}
