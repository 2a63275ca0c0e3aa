package store

import "github.com/tidwall/btree"

// tree is the chains of all keys, tombstones included until they are cut, in
// byte order. A copy is O(1); after it, a write that adds or removes a key copies
// the nodes it touches. Any number of goroutines may read a tree that nobody
// writes to.
//
// A node has pointers to chains alone: the keys are in the chains, and a
// comparison costs the same load from memory as that of a key whose pointer and
// length were in the node, which would be three times as large.
type tree struct {
	chains *btree.BTreeG[*chain]
}

func newTree() tree {
	return tree{btree.NewBTreeGOptions(func(a, b *chain) bool { return a.key() < b.key() }, btree.Options{NoLocks: true})}
}

func (t tree) copy() tree { return tree{t.chains.Copy()} }

// add adds a chain whose key is not there.
func (t tree) add(c *chain) { t.chains.Set(c) }

// addLast is add for keys that come in order.
func (t tree) addLast(c *chain) { t.chains.Load(c) }

func (t tree) remove(c *chain) { t.chains.Delete(c) }

func (t tree) find(key string) *chain {
	c, _ := t.chains.Get(probe(key)) // nil where there is none
	return c
}

// Len is the number of chains.
func (t tree) Len() int { return t.chains.Len() }

// KeyAt is the key at a place, from 0.
func (t tree) KeyAt(i int) string {
	c, _ := t.chains.GetAt(i)
	return c.key()
}

// scan calls visit for all chains, in order, until it returns false.
func (t tree) scan(visit func(c *chain) bool) { t.chains.Scan(visit) }

// ascend is scan from the first key on that is not before start.
func (t tree) ascend(start string, visit func(c *chain) bool) {
	if start == "" {
		t.chains.Scan(visit)
		return
	}
	t.chains.Ascend(probe(start), visit)
}

// reverse is scan against the order.
func (t tree) reverse(visit func(c *chain) bool) { t.chains.Reverse(visit) }

// descend is reverse from the last key on that is not after start.
func (t tree) descend(start string, visit func(c *chain) bool) {
	t.chains.Descend(probe(start), visit)
}
