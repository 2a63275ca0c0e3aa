package store

import (
	"sort"

	"trivet/trivetpb"
)

// countWalk is how many keys are counted one by one before ranks are used: to
// find the ranks costs about as much as a walk over a thousand keys.
const countWalk = 1024

// count is the number of live keys in the range at the revision.
//
// A range's answer carries the count of the whole range, so a listing of n keys
// in pages of p would walk n²/2p keys. Past countWalk it is computed instead:
// the difference of two ranks in the tree, less that of two ranks among the
// tombstones, less what the changes after the revision made of it (+1 for a key
// that was created, -1 for one that was deleted).
func (r *reading) count(keys *trivetpb.KeyRange) uint64 {
	var n uint64
	walked := 0 // of missing keys as well: there may be a great many
	r.walk(keys, func(c *chain) bool {
		if r.at(c) != nil {
			n++
		}
		walked++
		return walked <= countWalk
	})
	if walked <= countWalk {
		return n
	}
	return r.countByRank(keys)
}

func (r *reading) countByRank(keys *trivetpb.KeyRange) uint64 {
	start, end := keyString(keys.GetStart()), keyString(keys.GetEnd())
	total := ranks(r.tree, start, end) - ranks(r.tombstones, start, end)
	for i := range r.newer.n {
		c := r.newer.at(i)
		if key := c.chain.key(); key < start || (end != "" && key >= end) {
			continue
		}
		switch {
		case !c.v.live():
			total++
		case c.v.number() == 1:
			total--
		}
	}
	return uint64(total)
}

// ranked is what of a tree ranks needs.
type ranked interface {
	Len() int
	KeyAt(i int) string
}

// ranks is the number of keys of a tree in [start, end).
func ranks(t ranked, start, end string) int {
	rank := func(key string) int {
		return sort.Search(t.Len(), func(i int) bool {
			return t.KeyAt(i) >= key
		})
	}
	to := t.Len()
	if end != "" {
		to = rank(end)
	}
	return max(0, to-rank(start))
}
