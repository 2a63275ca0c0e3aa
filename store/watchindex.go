package store

import (
	"slices"
	"strings"
)

// watchIndex finds the groups whose range a key is in.
//
// Most ranges are one key or all keys with a prefix. Those are in a radix tree of
// the watched bytes, which a lookup walks down along the key: it costs a step
// for each place where watched keys part ways on the key's own path, and nothing
// for all the others. Any other range [start, end) is in an ordered tree of
// intervals (watchranges.go), which costs O(log n) and is not looked at while it
// is empty. That tree could hold all of them, but costs fifteen or so
// comparisons of keys that lie apart in memory where this one costs two or three
// steps; and a radix tree cannot hold a range without cutting it into up to 255
// prefixes for each byte of its bounds.
type watchIndex struct {
	root   watchNode
	ranges rangeTree
}

// watchNode is a place in the radix tree. Its path is the labels from the root
// down to it.
type watchNode struct {
	label string
	// key is the group of the one key that is the path, prefix that of all keys
	// that begin with it.
	key, prefix *watchGroup
	// nodes are the ones below, firsts the first bytes of their labels, in
	// order: no two are equal.
	firsts string
	nodes  []*watchNode
}

// find appends the groups whom a change of the key concerns.
func (x *watchIndex) find(key string, to []*watchGroup) []*watchGroup {
	if x.ranges.root != nil {
		to = x.ranges.root.find(key, to)
	}
	n := &x.root
	for {
		if n.prefix != nil {
			to = append(to, n.prefix)
		}
		if key == "" {
			if n.key != nil {
				to = append(to, n.key)
			}
			return to
		}
		i := strings.IndexByte(n.firsts, key[0])
		if i < 0 {
			return to
		}
		n = n.nodes[i]
		if !strings.HasPrefix(key, n.label) {
			return to
		}
		key = key[len(n.label):]
	}
}

// slot is where the radix tree has the group: the path, and which of the node's
// two groups it is. ok is false where the group's range is neither a key nor a
// prefix.
func (g *watchGroup) slot() (path string, prefix, ok bool) {
	if g.end == g.start+"\x00" {
		return g.start, false, true
	}
	if g.end == string(PrefixRange(keyBytes(g.start)).End) {
		return g.start, true, true
	}
	return "", false, false
}

// add adds a group whose range no other has.
func (x *watchIndex) add(g *watchGroup) {
	path, prefix, ok := g.slot()
	if !ok {
		x.ranges.add(g)
		return
	}
	n := &x.root
	for path != "" {
		n, path = n.down(path)
	}
	if prefix {
		n.prefix = g
	} else {
		n.key = g
	}
}

// down goes as far along the path as one node below takes it, making that node
// where it has to, and returns what is left of the path.
func (n *watchNode) down(path string) (*watchNode, string) {
	i, found := n.place(path[0])
	if !found {
		below := &watchNode{label: path}
		n.firsts = n.firsts[:i] + path[:1] + n.firsts[i:]
		n.nodes = slices.Insert(n.nodes, i, below)
		return below, ""
	}
	below := n.nodes[i]
	same := 0
	for same < len(path) && same < len(below.label) && path[same] == below.label[same] {
		same++
	}
	if same < len(below.label) {
		// The label parts from the path: what they share gets a node.
		upper := &watchNode{label: below.label[:same], firsts: below.label[same : same+1], nodes: []*watchNode{below}}
		below.label = below.label[same:]
		n.nodes[i] = upper
		below = upper
	}
	return below, path[same:]
}

// place is where the node whose label begins with b is, or belongs.
func (n *watchNode) place(b byte) (int, bool) {
	return slices.BinarySearch([]byte(n.firsts), b)
}

// remove removes a group that is there, and every node that is there for it
// alone.
func (x *watchIndex) remove(g *watchGroup) {
	path, prefix, ok := g.slot()
	if !ok {
		x.ranges.remove(g)
		return
	}
	x.root.remove(path, prefix)
}

func (n *watchNode) remove(path string, prefix bool) {
	if path == "" {
		if prefix {
			n.prefix = nil
		} else {
			n.key = nil
		}
		return
	}
	i, _ := n.place(path[0])
	below := n.nodes[i]
	below.remove(path[len(below.label):], prefix)
	switch {
	case below.key != nil || below.prefix != nil || len(below.nodes) > 1:
	case len(below.nodes) == 0:
		n.firsts = n.firsts[:i] + n.firsts[i+1:]
		n.nodes = slices.Delete(n.nodes, i, i+1)
	default:
		// Nothing parts here any more: the one below takes the place.
		last := below.nodes[0]
		last.label = below.label + last.label
		n.nodes[i] = last
	}
}
