package store

import (
	"hash/maphash"

	"trivet/trivetpb"
)

// warmKeys is how many keys warm has in hand at a time: more loads than a core
// can have under way.
const warmKeys = 32

// warm reads what the commands of an entry are about to read of the table, the
// chains and the versions, and does nothing with it but to add it up, so that no
// load is left out. To find one of a million keys takes four loads from memory,
// each of which needs the one before. Here the processor has those of many keys
// at hand and waits for all of them together: an entry of 256 puts takes half
// the time, and less than that of it under the lock.
//
// Only the writer changes what is read here, and it is the writer who calls, so
// it takes no lock. Nothing depends on what is found.
//
//go:noinline
func (t *table) warm(commands []*trivetpb.Command) (sum uint64) {
	if len(commands) == 1 && commands[0].GetOp().GetTxn() == nil {
		return 0 // there is nothing to wait for together with it
	}
	var w warming
	for _, c := range commands {
		txn := c.GetOp().GetTxn()
		if txn == nil {
			w.add(t, singleKey(c.GetOp()))
			continue
		}
		for _, compare := range txn.If {
			w.add(t, compare.Key)
		}
		// One of the two will be done, and mostly there is but one.
		for _, op := range txn.Then {
			w.add(t, singleKey(op))
		}
		for _, op := range txn.Else {
			w.add(t, singleKey(op))
		}
	}
	w.load(t)
	return w.sum
}

// warming is the keys that warm has in hand.
type warming struct {
	hashes [warmKeys]uint64
	n      int
	sum    uint64
}

// add takes a key in hand; an empty one is none.
func (w *warming) add(t *table, key []byte) {
	if len(key) == 0 {
		return
	}
	w.hashes[w.n] = maphash.Bytes(tableSeed, key)
	if w.n++; w.n == warmKeys {
		w.load(t)
	}
}

// load reads what there is of the keys in hand.
func (w *warming) load(t *table) {
	var chains [warmKeys]*chain
	for i, hash := range w.hashes[:w.n] {
		chains[i] = t.shard(hash).like(hash)
	}
	for _, c := range chains[:w.n] {
		if c != nil {
			w.sum += uint64(c.size) + c.head.Load().mod
		}
	}
	w.n = 0
}

// like returns the first chain whose hash is the same as far as it is kept: find,
// but for looking at the key.
func (s *tableShard) like(hash uint64) *chain {
	if s.used == 0 {
		return nil
	}
	low := uint32(hash)
	for i := s.home(low); ; i = s.next(i) {
		b := &s.buckets[i]
		for j, h := range b.hashes {
			if h == low && b.chains[j] != nil {
				return b.chains[j]
			}
		}
		if b.n < bucketChains {
			return nil
		}
	}
}

// singleKey is the key of an op that has one.
func singleKey(op *trivetpb.Op) []byte {
	switch op := op.GetOp().(type) {
	case *trivetpb.Op_Put:
		return op.Put.Key
	case *trivetpb.Op_Delete:
		return op.Delete.Key
	case *trivetpb.Op_Get:
		return op.Get.Key
	case *trivetpb.Op_Add:
		return op.Add.Key
	}
	return nil
}
