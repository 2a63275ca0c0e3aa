package store

import (
	"math"
	"strings"
	"sync/atomic"
	"unsafe"
)

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
//
// A chain is the beginning of a record that holds the key as well: who finds a
// chain in the table, or compares keys in the tree, has the key at hand.
type chain struct {
	head atomic.Pointer[version]
	// size is the length of the key, whose bytes follow; keyApart where they do
	// not, and this is the beginning of a chainApart.
	size uint16
}

// chainApart is a chain whose key is too long for a record.
type chainApart struct {
	chain
	key string
}

const (
	keyApart = math.MaxUint16 // longer than any key
	// keyOffset is where the key begins in a record.
	keyOffset = unsafe.Offsetof(chain{}.size) + unsafe.Sizeof(chain{}.size)
)

// newChain returns a chain without versions. The key is copied.
func newChain(key string) *chain {
	if size := int(keyOffset) + len(key); size <= maxRecord {
		c := (*chain)(newRecord(size))
		c.size = uint16(len(key))
		copy(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(c), keyOffset)), len(key)), key)
		return c
	}
	return probe(strings.Clone(key))
}

// probe is a chain to look for others with: it aliases the key.
func probe(key string) *chain {
	return &(&chainApart{chain: chain{size: keyApart}, key: key}).chain
}

// key is the chain's key. It lives as long as anybody has it.
func (c *chain) key() string {
	if c.size == keyApart {
		return (*chainApart)(unsafe.Pointer(c)).key
	}
	return unsafe.String((*byte)(unsafe.Add(unsafe.Pointer(c), keyOffset)), int(c.size))
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
