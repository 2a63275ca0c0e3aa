package store

import "trivet/trivetpb"

// keyOrder verifies that versions come in order, and that each follows from the
// one before it as a put, add or delete makes it.
type keyOrder struct {
	in    *snapshotReader
	chain *chain   // of the last key; nil before the first
	last  *version // nil before the first, and once its key is finished
}

// add returns the version, and the chain of its key, which has none of its
// versions. m may be used again.
func (k *keyOrder) add(m *trivetpb.SnapshotVersion) (*chain, *version, error) {
	in := k.in
	key := keyString(m.Key) // until m is used again
	bad := func(what string) (*chain, *version, error) {
		return nil, nil, corruptf("record %d, a version of revision %d: %s", in.records-1, m.ModRevision, what)
	}
	switch {
	case hasUnknown(m):
		return bad("a field is not known")
	case len(key) == 0 || len(key) > MaxKeyBytes:
		return bad("the key's length")
	case len(m.Value) > HardMaxValueBytes:
		return bad("the value's length")
	case m.ModRevision < 2 || m.ModRevision > in.header.Revision:
		return bad("the revision is not one of the store's")
	case m.Deleted && (m.CreateRevision != 0 || m.Version != 0 || m.Lease != 0 || len(m.Value) != 0):
		return bad("a tombstone has more than a key and a revision")
	case !m.Deleted && (m.CreateRevision < 2 || m.CreateRevision > m.ModRevision || m.Version < 1):
		return bad("the create revision or the version")
	case !m.Deleted && m.Expired:
		return bad("what is there has not expired")
	}
	var v *version
	if m.Deleted {
		v = newTombstone(m.ModRevision, m.Sub, m.Expired)
	} else {
		v = newVersion(m.ModRevision, m.Sub, numbers{m.CreateRevision, m.Version, m.Lease}, m.Value)
		if v.flags&isApart != 0 {
			m.Value = nil // it is the version's
		}
	}
	before := k.last
	if k.chain == nil || key != k.chain.key() {
		if before != nil {
			if key < k.chain.key() {
				return bad("the key is not after the one before")
			}
			if err := k.finishKey(); err != nil {
				return nil, nil, err
			}
			before = nil
		}
		k.chain = newChain(key)
	}
	retained := v.mod > in.header.CompactRevision
	created := v.create() == v.mod && v.number() == 1
	switch {
	case before != nil && v.mod <= before.mod:
		return bad("it is not after the version before")
	case before != nil && !retained:
		return bad("it is not the first of its key, and not after the compact revision")
	case !before.live() && m.Deleted:
		return bad("it deletes what is not there")
	case before.live() && !m.Deleted && (v.create() != before.create() || v.number() != before.number()+1):
		return bad("it does not follow from the version before")
	case !before.live() && !m.Deleted && retained && !created:
		return bad("its creation is missing")
	}
	if v.live() {
		v.hash = itemHash(key, v)
	}
	if retained && !in.places.add(v.mod-in.header.CompactRevision, v.sub) {
		return bad("it is too far from the compact revision")
	}
	in.versions++
	k.last = v
	return k.chain, v, nil
}

// finishKey counts the newest version of a key, and attaches it to its lease.
// Older versions may name leases that ended since.
func (k *keyOrder) finishKey() error {
	if !k.last.live() {
		return nil
	}
	if id := k.last.lease(); id != 0 {
		l, ok := k.in.rest.leases.get(id)
		if !ok {
			return corruptf("a key of revision %d has the lease %d, which does not exist", k.last.mod, id)
		}
		if l.run.keys.Load(k.chain.key(), struct{}{}); l.run.keys.Len() > MaxLeaseKeys {
			return corruptf("lease %d has more than %d keys", id, MaxLeaseKeys)
		}
	}
	k.in.totals.keys++
	k.in.totals.bytes += itemBytes(k.chain.key(), k.last)
	k.in.totals.sum += k.last.hash
	k.last = nil
	return nil
}
