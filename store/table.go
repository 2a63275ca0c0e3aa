package store

import "hash/maphash"

// table finds the chain of a key by the key's hash, for point reads and writes:
// two loads from memory (bucket, chain with its key) where a walk down the tree of
// a million keys has twenty. It is guarded by the store's lock.
//
// It is an array of small hash tables. Each grows on its own, so that no write
// ever waits for a million keys to move: with ten million a table has some ten
// thousand. A Go map grows in parts as well, but hashes every key of a part
// again, a cache miss each, where these buckets keep the hash; and reading one
// touches more lines of memory.
//
// The hash is seeded by chance, so that nobody can choose keys that collide.
// That is no part of the state: nothing ever iterates over a table.
type table struct {
	shards [1 << tableShardBits]tableShard
}

const (
	tableShardBits = 10
	// bucketChains fills a bucket to 64 bytes, which is a line of the cache.
	bucketChains = 5
)

// tableShard is a hash table with linear probing from one bucket to the next.
// Between a half and four fifths of the places are taken, but for small ones: it
// grows by a quarter at a time, since doubling would leave it half empty more
// often than not.
type tableShard struct {
	buckets []tableBucket
	used    int // chains
}

// tableBucket holds chains, in its first n places, each with the hash's lower
// half. A chain stands in the bucket that its hash says, or in the first behind it
// (around the end) that had room; so the search for one ends with a bucket that is
// not full.
type tableBucket struct {
	hashes [bucketChains]uint32
	n      uint32
	chains [bucketChains]*chain
}

var tableSeed = maphash.MakeSeed()

func (t *table) shard(hash uint64) *tableShard { return &t.shards[hash>>(64-tableShardBits)] }

// home is the bucket where the search for a hash begins. There is one at least.
func (s *tableShard) home(hash uint32) int {
	return int(uint64(hash) * uint64(len(s.buckets)) >> 32)
}

// next is the bucket behind i.
func (s *tableShard) next(i int) int {
	if i++; i < len(s.buckets) {
		return i
	}
	return 0
}

// find returns the chain of key, nil where there is none.
func (t *table) find(key string) *chain {
	hash := maphash.String(tableSeed, key)
	s := t.shard(hash)
	if s.used == 0 {
		return nil
	}
	low := uint32(hash)
	for i := s.home(low); ; i = s.next(i) {
		b := &s.buckets[i]
		for j, h := range b.hashes {
			if h == low && b.chains[j] != nil && b.chains[j].key() == key {
				return b.chains[j]
			}
		}
		if b.n < bucketChains {
			return nil
		}
	}
}

// add adds the chain of a key that has none.
func (t *table) add(c *chain) {
	hash := maphash.String(tableSeed, c.key())
	s := t.shard(hash)
	if 5*(s.used+1) > 4*bucketChains*len(s.buckets) {
		s.resize(len(s.buckets) + len(s.buckets)/4 + 1)
	}
	s.put(uint32(hash), c)
	s.used++
}

// expect counts a chain that fill is to add: soon after it was made, while its key
// is in the cache.
func (t *table) expect(c *chain) { t.shard(maphash.String(tableSeed, c.key())).used++ }

// fill adds the chains of a tree, all of which were expected, to a table that has
// none. It makes each shard at its size, where chains that come one by one have it
// grow a dozen times, and waits for many loads from memory at once.
func (t *table) fill(chains tree) {
	for i := range t.shards {
		if s := &t.shards[i]; s.used > 0 {
			s.buckets = make([]tableBucket, 3*s.used/(2*bucketChains)+1) // two thirds
		}
	}
	chains.scan(func(c *chain) bool {
		hash := maphash.String(tableSeed, c.key())
		t.shard(hash).put(uint32(hash), c)
		return true
	})
}

// remove removes a chain that is there.
func (t *table) remove(c *chain) {
	hash := maphash.String(tableSeed, c.key())
	s := t.shard(hash)
	s.take(uint32(hash), c)
	s.used--
	if n := len(s.buckets); 2*s.used < bucketChains*n && n > 1 {
		s.resize(n - (n+3)/4)
	}
}

// put puts a chain into the first place from its home on.
func (s *tableShard) put(hash uint32, c *chain) {
	i := s.home(hash)
	for s.buckets[i].n == bucketChains {
		i = s.next(i)
	}
	s.buckets[i].push(hash, c)
}

// take takes a chain out. Where its bucket was full, searches went on behind it:
// one of the chains there that had no room moves up, then one into its place, and
// so on up to the first bucket that was not full.
func (s *tableShard) take(hash uint32, c *chain) {
	gap := s.home(hash)
	at := s.buckets[gap].index(c)
	for at < 0 {
		gap = s.next(gap)
		at = s.buckets[gap].index(c)
	}
	full := s.buckets[gap].drop(at)
	for i := s.next(gap); full && i != gap; i = s.next(i) {
		b := &s.buckets[i]
		more := b.n == bucketChains
		for j := range int(b.n) {
			if s.distance(s.home(b.hashes[j]), i) >= s.distance(gap, i) {
				s.buckets[gap].push(b.hashes[j], b.chains[j])
				b.drop(j)
				gap = i
				break
			}
		}
		if !more {
			return
		}
	}
}

// distance is how many buckets behind from to is, around the end.
func (s *tableShard) distance(from, to int) int {
	if to >= from {
		return to - from
	}
	return to - from + len(s.buckets)
}

// index is the place of a chain, -1 where it is not there.
func (b *tableBucket) index(c *chain) int {
	for j, other := range b.chains {
		if other == c {
			return j
		}
	}
	return -1
}

func (b *tableBucket) push(hash uint32, c *chain) {
	b.hashes[b.n], b.chains[b.n] = hash, c
	b.n++
}

// drop clears a place, into which the last one moves, and says whether the bucket
// was full.
func (b *tableBucket) drop(at int) (full bool) {
	full = b.n == bucketChains
	b.n--
	b.hashes[at], b.chains[at] = b.hashes[b.n], b.chains[b.n]
	b.hashes[b.n], b.chains[b.n] = 0, nil
	return full
}

func (s *tableShard) resize(buckets int) {
	old := s.buckets
	s.buckets = make([]tableBucket, buckets)
	for i := range old {
		b := &old[i]
		for j := range b.n {
			s.put(b.hashes[j], b.chains[j])
		}
	}
}
