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
	var hashes [warmKeys]uint64
	var chains [warmKeys]*chain
	for len(commands) > 1 {
		n := 0
		for n < warmKeys && len(commands) > 0 {
			if key := singleKey(commands[0].GetOp()); len(key) > 0 {
				hashes[n] = maphash.Bytes(tableSeed, key)
				n++
			}
			commands = commands[1:]
		}
		for i, hash := range hashes[:n] {
			chains[i] = t.shard(hash).like(hash)
		}
		for _, c := range chains[:n] {
			if c != nil {
				sum += uint64(c.size) + c.head.Load().mod
			}
		}
	}
	return sum
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
