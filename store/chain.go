package store

import "sync/atomic"

// chain is a key and its versions, newest first. There is one for each key that
// has a version, a tombstone included; the tree, the table and the history all
// point to it. A write to a key that is there replaces the head and touches
// nothing else, whatever Views are open.
//
// The writer changes heads under the store's lock. Point reads load them under
// that lock too, so they see them between two entries only. Views load them
// without it, at any time, through their own copies of the tree. What a View of
// revision r, opened when the present was p ≥ r and the compact revision c ≤ r,
// finds at its key is what the key was at r, because:
//
//   - A version is complete before the head that publishes it is stored, and
//     never changes again but for prev. The head is atomic, so whoever loads it
//     sees the whole version, and every older one behind it.
//   - What the writer made after the View was opened has a revision greater
//     than p, so at passes it by. That holds for the versions of a command that
//     fails as well: they carry the revision that it would have made. A View may
//     catch such a version as the head before undo puts the old one back, or go
//     on from it after that; its prev is the old head and stays so, as what was
//     undone is not in the history and cut never meets it.
//   - at follows prev from versions newer than r only. cut takes prev from
//     versions that are not newer than the least compact revision of all open
//     Views, so at most c ≤ r: the two never meet at one version, which is why
//     prev needs no atomic. And of the versions newer than r none is missing
//     a prev, so the one that the key had at r is reached.
//   - A key that was created after the View was opened either has a chain that
//     is not in the View's tree, or only versions that are passed by.
//   - cut drops a chain once its head is a tombstone that is not newer than c of
//     any open View, so not newer than r: to the View the key is missing, and the
//     chain, which its tree still holds, says so for good, as nothing is ever
//     written to a chain that was dropped. A key that comes back gets a chain of
//     its own. That one the View does not know, and need not: its versions are
//     all newer than p.
type chain struct {
	key  string
	head atomic.Pointer[version]
}

// newest is the head; nil for no chain.
func (c *chain) newest() *version {
	if c == nil {
		return nil
	}
	return c.head.Load()
}

// at is the version, perhaps a tombstone, that the key had at the revision; nil
// where it had none. It costs a step for each version since.
func (c *chain) at(revision uint64) *version {
	v := c.newest()
	for v != nil && v.mod > revision {
		v = v.prev
	}
	return v
}
