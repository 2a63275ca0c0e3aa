package store

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// len is the number of chains, counted.
func (t *table) len() int {
	n := 0
	for i := range t.shards {
		for _, b := range t.shards[i].buckets {
			for _, c := range b.chains {
				if c != nil {
					n++
				}
			}
		}
	}
	return n
}

// TestTableIsAMap: against a Go map, growing to 40,000 keys and back to none.
func TestTableIsAMap(t *testing.T) {
	var table table
	chains := map[string]*chain{}
	names := make([]string, 60_000)
	for i := range names {
		names[i] = fmt.Sprint("key", i)
	}
	requireAll := func() {
		t.Helper()
		require.Equal(t, len(chains), table.len())
		for _, name := range names {
			require.Same(t, chains[name], table.find(name))
		}
		for i := range table.shards {
			s := &table.shards[i]
			places := bucketChains * len(s.buckets)
			require.LessOrEqual(t, 5*s.used, 4*places)
			require.True(t, len(s.buckets) <= 1 || 2*s.used >= places, "%d of %d", s.used, places)
		}
	}
	for round, share := range []float64{0.7, 0.5, 0.05, 0.9, 0} { // of the names that are there after it
		for _, i := range rand.Perm(len(names)) {
			name := names[i]
			c, there := chains[name]
			switch keep := rand.Float64() < share; {
			case keep && !there:
				chains[name] = newChain(name)
				table.add(chains[name])
			case !keep && there:
				table.remove(c)
				delete(chains, name)
			}
		}
		requireAll()
		require.True(t, round < 4 || table.len() == 0)
	}
}

// TestTableFilled: with every chain of a tree, and then as any.
func TestTableFilled(t *testing.T) {
	for _, n := range []int{0, 1, 5, 3_000, 40_000} {
		var table table
		chains := newTree()
		for i := range n {
			c := newChain(fmt.Sprint("key", i))
			chains.add(c)
			table.expect(c)
		}
		table.fill(chains)
		require.Equal(t, n, table.len())
		used := 0
		for i := range table.shards {
			s := &table.shards[i]
			used += s.used
			require.LessOrEqual(t, 5*s.used, 4*bucketChains*len(s.buckets))
		}
		require.Equal(t, n, used)
		chains.scan(func(c *chain) bool {
			require.Same(t, c, table.find(c.key()))
			return true
		})
		more := newChain("more")
		table.add(more)
		chains.scan(func(c *chain) bool {
			table.remove(c)
			return true
		})
		require.Equal(t, 1, table.len())
		require.Same(t, more, table.find("more"))
	}
}

// TestTableShardsWhereHashesMeet: chains whose searches begin at few places, so
// that they push each other on, around the end and back to the front.
func TestTableShardsWhereHashesMeet(t *testing.T) {
	for range 200 {
		const buckets = 8
		s := &tableShard{}
		s.resize(buckets)
		type entry struct {
			hash  uint32
			chain *chain
		}
		var in []entry
		for range bucketChains * (buckets - 1) {
			e := entry{uint32((6+rand.Uint64N(3))%buckets<<29 + rand.Uint64N(1<<29)), newChain("")}
			s.put(e.hash, e.chain)
			in = append(in, e)
		}
		for len(in) > 0 {
			i := rand.IntN(len(in))
			s.take(in[i].hash, in[i].chain)
			in = append(in[:i], in[i+1:]...)
			for _, e := range in {
				at := s.home(e.hash)
				for s.buckets[at].index(e.chain) < 0 {
					require.EqualValues(t, bucketChains, s.buckets[at].n, "the search ends before it finds the chain")
					at = s.next(at)
				}
			}
			held := 0
			for _, b := range s.buckets {
				held += int(b.n)
			}
			require.Len(t, in, held)
		}
	}
}

// TestKeysOfOneHash: a hash that two keys share does not make them one.
func TestKeysOfOneHash(t *testing.T) {
	var table table
	hash := maphash.String(tableSeed, "a")
	other := newChain("other")
	s := table.shard(hash)
	s.resize(2)
	s.put(uint32(hash), other)
	s.used++
	require.Nil(t, table.find("a"))
	a := newChain("a")
	a.head.Store(newTombstone(1, 0, false))
	other.head.Store(newTombstone(1, 0, false))
	table.add(a)
	require.Same(t, a, table.find("a"))
	table.warm([]*trivetpb.Command{putCommand([]byte("a"), nil), putCommand([]byte("b"), nil)})
	table.remove(a)
	require.Nil(t, table.find("a"))
	require.Same(t, other, s.like(hash))
}
