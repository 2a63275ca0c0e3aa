package store

import (
	"trivet/trivetpb"
)

// reading is a tree read as of a revision: by a View, and by the ops of a
// command that is being applied.
type reading struct {
	tree       tree
	tombstones *keySet
	// table is nil in a View: it knows the present keys only.
	table *table
	// revision is the one to read at; newer versions are passed by.
	revision uint64
	// newer is the changes after revision that the trees have, oldest first.
	newer changeList
}

// hit is a version with its chain.
type hit struct {
	chain *chain
	v     *version
}

// at is the live version that a key had at the revision, nil where it was
// missing.
func (r *reading) at(c *chain) *version {
	if v := c.at(r.revision); v.live() {
		return v
	}
	return nil
}

func (r *reading) get(key string) *version {
	if r.table != nil {
		return r.at(r.table.find(key))
	}
	return r.at(r.tree.find(key))
}

// walk calls visit for all chains of the range, in byte order.
func (r *reading) walk(keys *trivetpb.KeyRange, visit func(c *chain) bool) {
	end := keyString(keys.GetEnd())
	r.tree.ascend(keyString(keys.GetStart()), func(c *chain) bool {
		return (end == "" || c.key() < end) && visit(c)
	})
}

// scan calls visit for the live keys of the range, in byte order or against it,
// until it returns false. A nil range is the whole key space. The tree must not
// change meanwhile.
func (r *reading) scan(keys *trivetpb.KeyRange, reverse bool, visit func(c *chain, v *version) bool) {
	if !reverse {
		r.walk(keys, func(c *chain) bool {
			v := r.at(c)
			return v == nil || visit(c, v)
		})
		return
	}
	start, end := keyString(keys.GetStart()), keyString(keys.GetEnd())
	down := func(c *chain) bool {
		key := c.key()
		if key < start {
			return false
		}
		if end != "" && key >= end { // the end itself, where the descent begins
			return true
		}
		v := r.at(c)
		return v == nil || visit(c, v)
	}
	if end == "" {
		r.tree.reverse(down)
	} else {
		r.tree.descend(end, down)
	}
}

// aheadKeys is how many keys scanAhead looks up before it goes on to visit them.
const aheadKeys = 16

// scanAhead is scan, in byte order, for who does much with each item. Keys and versions
// lie anywhere in memory: looked up one after the other and some together, the processor
// waits for several of them at a time, and not for each after the work on the one before.
// A few more are looked up than are visited.
func (r *reading) scanAhead(keys *trivetpb.KeyRange, visit func(c *chain, v *version) bool) {
	var found [aheadKeys]hit
	n := 0
	visitFound := func() bool {
		for i := range found[:n] {
			found[i].v = r.at(found[i].chain)
		}
		for i := range found[:n] {
			if v := found[i].v; v != nil && !visit(found[i].chain, v) {
				return false
			}
		}
		n = 0
		return true
	}
	stopped := false
	r.walk(keys, func(c *chain) bool {
		found[n].chain = c
		if n++; n == aheadKeys {
			stopped = !visitFound()
		}
		return !stopped
	})
	if !stopped {
		visitFound()
	}
}

// op answers an op that only reads, but for its revision. The op was checked.
// It is given as the oneof, as the caller has it at hand.
func (r *reading) op(result *trivetpb.Result, op any, b *budget) *trivetpb.Problem {
	switch op := op.(type) {
	case *trivetpb.Op_Get:
		answer := &trivetpb.GetResult{}
		result.Result = &trivetpb.Result_Get{Get: answer}
		key := keyString(op.Get.Key)
		v := r.get(key)
		if v == nil {
			return nil
		}
		answer.Item = &trivetpb.Item{}
		// The key is copied: at a View, the op belongs to the caller.
		v.fill(answer.Item, string(op.Get.Key))
		return b.item(key, v)
	case *trivetpb.Op_Range:
		return r.rangeOp(result, op.Range, b)
	case *trivetpb.Op_Txn:
		return r.txn(result, op.Txn, b)
	}
	return problemf(trivetpb.Code_BAD_REQUEST, "the op does not only read")
}

func (r *reading) rangeOp(result *trivetpb.Result, op *trivetpb.RangeOp, b *budget) *trivetpb.Problem {
	answer := &trivetpb.RangeResult{}
	result.Result = &trivetpb.Result_Range{Range: answer}
	if op.CountOnly {
		answer.Count = r.count(op.Range)
		return nil
	}
	limit := int(op.Limit)
	if limit == 0 {
		limit = DefaultRangeItems
	}
	var problem *trivetpb.Problem
	found := make([]hit, 0, 16)
	r.scan(op.Range, false, func(c *chain, v *version) bool {
		if len(found) == limit {
			answer.More = true
			return false
		}
		if op.KeysOnly {
			problem = b.spend(c.key(), 0)
		} else {
			problem = b.item(c.key(), v)
		}
		found = append(found, hit{c, v})
		return problem == nil
	})
	if problem != nil {
		return problem
	}
	slab := make([]trivetpb.Item, len(found))
	answer.Items = make([]*trivetpb.Item, len(found))
	for i, h := range found {
		h.v.fill(&slab[i], h.chain.key())
		if op.KeysOnly {
			slab[i].Value = nil
		}
		answer.Items[i] = &slab[i]
	}
	answer.Count = uint64(len(found))
	if answer.More {
		answer.Count = r.count(op.Range)
	}
	return nil
}

// budget bounds the answer to one command or read, so that no txn of many
// ranges, and no deletion with prev, makes an answer that cannot be sent.
type budget struct{ spent uint64 }

// answerItemBytes is more than an item's numbers and framing come to.
const answerItemBytes = 64

func (b *budget) item(key string, v *version) *trivetpb.Problem {
	return b.spend(key, uint64(v.valueLen()))
}

func (b *budget) spend(key string, valueBytes uint64) *trivetpb.Problem {
	b.spent += uint64(len(key)) + valueBytes + answerItemBytes
	if b.spent <= MaxResultBytes {
		return nil
	}
	p := problemf(trivetpb.Code_TOO_LARGE, "the answer is larger than %d bytes", MaxResultBytes)
	p.Limit = MaxResultBytes
	return p
}
