package store

import (
	"cmp"
	"hash/maphash"
)

// rangeTree is the groups of ranges that are neither a key nor a prefix: a treap
// in the order of start, then end, each node of which knows how far the ranges
// below it reach. What a key is in is found by leaving out what begins behind
// the key and what ends before it. Which node is on top is decided by a hash of
// the range, seeded by chance, so that no order of coming and no choice of
// ranges makes the tree deep; the groups that are found are the same whatever
// its shape.
type rangeTree struct{ root *rangeNode }

type rangeNode struct {
	group       *watchGroup
	priority    uint64
	left, right *rangeNode
	// reach is the greatest end here and below; endless where one has none.
	reach   string
	endless bool
}

var rangeSeed = maphash.MakeSeed()

// find appends the groups of n and below whose range the key is in.
func (n *rangeNode) find(key string, to []*watchGroup) []*watchGroup {
	for n != nil && (n.endless || key < n.reach) {
		to = n.left.find(key, to)
		if key < n.group.start {
			return to
		}
		if n.group.holds(key) {
			to = append(to, n.group)
		}
		n = n.right
	}
	return to
}

func (t *rangeTree) add(g *watchGroup) {
	t.root = t.root.add(&rangeNode{group: g, priority: maphash.String(rangeSeed, g.id)})
}

func (t *rangeTree) remove(g *watchGroup) { t.root = t.root.remove(g) }

// compare orders groups by where they begin, then by where they end.
func (g *watchGroup) compare(other *watchGroup) int {
	return cmp.Or(cmp.Compare(g.start, other.start), cmp.Compare(g.end, other.end))
}

func (n *rangeNode) add(added *rangeNode) *rangeNode {
	switch {
	case n == nil:
		return added.extend()
	case added.priority > n.priority:
		added.left, added.right = n.split(added.group)
		return added.extend()
	case added.group.compare(n.group) < 0:
		n.left = n.left.add(added)
	default:
		n.right = n.right.add(added)
	}
	return n.extend()
}

// split parts the tree into what comes before g and what comes after it.
func (n *rangeNode) split(g *watchGroup) (before, after *rangeNode) {
	if n == nil {
		return nil, nil
	}
	if n.group.compare(g) < 0 {
		n.right, after = n.right.split(g)
		return n.extend(), after
	}
	before, n.left = n.left.split(g)
	return before, n.extend()
}

func (n *rangeNode) remove(g *watchGroup) *rangeNode {
	switch {
	case n.group == g:
		return n.left.merge(n.right)
	case g.compare(n.group) < 0:
		n.left = n.left.remove(g)
	default:
		n.right = n.right.remove(g)
	}
	return n.extend()
}

// merge joins two trees, all of the second behind all of the first.
func (n *rangeNode) merge(behind *rangeNode) *rangeNode {
	switch {
	case n == nil:
		return behind
	case behind == nil:
		return n
	case n.priority > behind.priority:
		n.right = n.right.merge(behind)
		return n.extend()
	}
	behind.left = n.merge(behind.left)
	return behind.extend()
}

// extend computes the reach anew, from the nodes right below.
func (n *rangeNode) extend() *rangeNode {
	n.reach, n.endless = n.group.end, n.group.end == ""
	for _, below := range [...]*rangeNode{n.left, n.right} {
		if below != nil {
			n.endless = n.endless || below.endless
			n.reach = max(n.reach, below.reach)
		}
	}
	return n
}
