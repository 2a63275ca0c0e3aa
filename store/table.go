package store

import "hash/maphash"

// table finds the chain of a key by the key's hash, for point reads and writes:
// three loads from memory (slot, chain, key) where a walk down the tree of a
// million keys has twenty. It is guarded by the store's lock.
//
// It is an array of small hash tables. Each doubles on its own, so that no write
// ever waits for a million keys to move: with ten million a table has some ten
// thousand. A Go map grows in parts as well, but hashes every key of a part
// again, a cache miss each, where these slots keep the hash; and reading one
// touches more lines of memory.
//
// The hash is seeded by chance, so that nobody can choose keys that collide.
// That is no part of the state: nothing ever iterates over a table.
type table struct {
	shards [1 << tableShardBits]tableShard
}

const (
	tableShardBits = 10
	tableLeastSize = 8
)

// tableShard is an open hash table with linear probing. At most three quarters
// of the slots are taken.
type tableShard struct {
	slots []tableSlot // a power of two of them, or none
	used  int
}

// tableSlot is free where chain is nil.
type tableSlot struct {
	hash  uint64
	chain *chain
}

var tableSeed = maphash.MakeSeed()

func (t *table) shard(hash uint64) *tableShard { return &t.shards[hash>>(64-tableShardBits)] }

// find returns the chain of key, nil where there is none.
func (t *table) find(key string) *chain {
	hash := maphash.String(tableSeed, key)
	slots := t.shard(hash).slots
	if len(slots) == 0 {
		return nil
	}
	mask := uint64(len(slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &slots[i]
		if s.chain == nil {
			return nil
		}
		if s.hash == hash && s.chain.key == key {
			return s.chain
		}
	}
}

// add adds the chain of a key that has none.
func (t *table) add(c *chain) {
	hash := maphash.String(tableSeed, c.key)
	s := t.shard(hash)
	if 4*(s.used+1) > 3*len(s.slots) {
		s.resize(max(tableLeastSize, 2*len(s.slots)))
	}
	s.put(tableSlot{hash, c})
	s.used++
}

// remove removes a chain that is there.
func (t *table) remove(c *chain) {
	hash := maphash.String(tableSeed, c.key)
	s := t.shard(hash)
	s.removeSlot(hash, c)
	if 8*s.used < len(s.slots) && len(s.slots) > tableLeastSize {
		s.resize(len(s.slots) / 2)
	}
}

// removeSlot frees the chain's slot. What comes after, up to the next free one,
// moves up into the gap, unless that were before the place where its search
// begins.
func (s *tableShard) removeSlot(hash uint64, c *chain) {
	mask := uint64(len(s.slots) - 1)
	gap := hash & mask
	for s.slots[gap].chain != c {
		gap = (gap + 1) & mask
	}
	for i := (gap + 1) & mask; s.slots[i].chain != nil; i = (i + 1) & mask {
		if begin := s.slots[i].hash & mask; (i-begin)&mask >= (i-gap)&mask {
			s.slots[gap] = s.slots[i]
			gap = i
		}
	}
	s.slots[gap] = tableSlot{}
	s.used--
}

// put puts a slot into the first free place from where its search begins.
func (s *tableShard) put(slot tableSlot) {
	mask := uint64(len(s.slots) - 1)
	i := slot.hash & mask
	for s.slots[i].chain != nil {
		i = (i + 1) & mask
	}
	s.slots[i] = slot
}

func (s *tableShard) resize(size int) {
	old := s.slots
	s.slots = make([]tableSlot, size)
	for _, slot := range old {
		if slot.chain != nil {
			s.put(slot)
		}
	}
}
