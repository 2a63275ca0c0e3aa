package store

import "trivet/trivetpb"

// Which keys a lease has is said by the newest version of each key. The sets
// that leases hold are kept up to date by write, erase and undo alone, so there
// is no way for the two to differ.

// leaseFor is the lease that a put attaches its key to: the one that it names,
// one of its own for its ttl, or none.
func (a *applier) leaseFor(op *trivetpb.PutOp, key string) (uint64, *trivetpb.Problem) {
	switch {
	case op.TtlMs != 0:
		if p := a.roomForLease(); p != nil {
			return 0, p
		}
		id := a.grant(op.TtlMs, true, "")
		a.granted = append(a.granted, id)
		return id, nil
	case op.Lease != 0:
		l, p := a.findLease(op.Lease)
		if p != nil {
			return 0, p
		}
		if l.run.keys.Len() < MaxLeaseKeys {
			return op.Lease, nil
		}
		if _, has := l.run.keys.Get(key); has {
			return op.Lease, nil
		}
		p = problemf(trivetpb.Code_TOO_LARGE, "lease %d has %d keys, and may have no more", op.Lease, l.run.keys.Len())
		p.Limit = MaxLeaseKeys
		return 0, p
	}
	return 0, nil
}

// leaseOf is the lease of a key whose newest version is v.
func leaseOf(v *version) uint64 {
	if v.live() {
		return v.lease()
	}
	return 0
}

// move takes a key from one lease to another; 0 is none.
func (a *applier) move(key string, from, to uint64) {
	if from == to {
		return
	}
	if from != 0 {
		l, _ := a.leases.get(from) // it has a key, so it is there
		l.run.keys.Delete(key)
		if l.own {
			a.orphans = append(a.orphans, from)
		}
	}
	if to != 0 {
		l, _ := a.leases.get(to) // leaseFor found it
		l.run.keys.Set(key, struct{}{})
	}
}

// endOrphans ends the leases of single puts whose key the present command took
// away. It waits for the command's end: until then they may get a key again, by
// a later op of a txn or by undo.
func (a *applier) endOrphans() {
	for _, id := range a.orphans {
		if l, ok := a.leases.get(id); ok && l.run.keys.Len() == 0 {
			a.dropLease(id, l)
		}
	}
	a.orphans = a.orphans[:0]
}

// ungrant drops the leases that the present command, which is undone, had made.
// Their keys were taken back before.
func (a *applier) ungrant() {
	for _, id := range a.granted {
		l, _ := a.leases.get(id)
		a.dropLease(id, l)
	}
	a.granted, a.orphans = a.granted[:0], a.orphans[:0]
}
