package store

import (
	"cmp"

	"github.com/tidwall/btree"
)

// cow is an ordered map of which Views hold copies. A copy costs O(1), and all
// Views that are opened until the map changes share one; after it, a change
// copies the nodes that it touches. What the map holds is therefore never
// changed in place, but set anew. (Sessions are an exception: see session.)
type cow[K cmp.Ordered, V any] struct {
	m btree.Map[K, V]
	// frozen is a copy of m as it is, nil until one is wanted.
	frozen *btree.Map[K, V]
}

func (c *cow[K, V]) get(key K) (V, bool) { return c.m.Get(key) }

func (c *cow[K, V]) len() int { return c.m.Len() }

func (c *cow[K, V]) set(key K, value V) {
	c.m.Set(key, value)
	c.frozen = nil
}

func (c *cow[K, V]) remove(key K) {
	c.m.Delete(key)
	c.frozen = nil
}

// freeze makes the copy that the next Views share, where there is none. Like
// the map's changes, it needs the store's lock for writing.
func (c *cow[K, V]) freeze() {
	if c.frozen == nil {
		c.frozen = c.m.Copy()
	}
}
