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
		for _, s := range t.shards[i].slots {
			if s.chain != nil {
				n++
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
			require.LessOrEqual(t, 4*s.used, 3*len(s.slots))
			require.True(t, len(s.slots) <= tableLeastSize || 8*s.used >= len(s.slots), "%d of %d", s.used, len(s.slots))
		}
	}
	for round, share := range []float64{0.7, 0.5, 0.05, 0.9, 0} { // of the names that are there after it
		for _, i := range rand.Perm(len(names)) {
			name := names[i]
			c, there := chains[name]
			switch keep := rand.Float64() < share; {
			case keep && !there:
				chains[name] = &chain{key: name}
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

// TestTableShardsWhereHashesMeet: slots whose searches begin at few places, so
// that they push each other on, around the end and back to the front.
func TestTableShardsWhereHashesMeet(t *testing.T) {
	for range 200 {
		s := &tableShard{}
		s.resize(16)
		var in []tableSlot
		for range 12 {
			slot := tableSlot{hash: 13 + rand.Uint64N(4) + 1<<20*rand.Uint64N(1<<20), chain: &chain{}}
			s.put(slot)
			s.used++
			in = append(in, slot)
		}
		for len(in) > 0 {
			i := rand.IntN(len(in))
			s.removeSlot(in[i].hash, in[i].chain)
			in = append(in[:i], in[i+1:]...)
			for _, slot := range in {
				at := slot.hash & uint64(len(s.slots)-1)
				for s.slots[at].chain != slot.chain {
					require.NotNil(t, s.slots[at].chain, "the search ends before it finds the slot")
					at = (at + 1) & uint64(len(s.slots)-1)
				}
			}
		}
	}
}

// TestKeysOfOneHash: a hash that two keys share does not make them one.
func TestKeysOfOneHash(t *testing.T) {
	var table table
	hash := maphash.String(tableSeed, "a")
	other := &chain{key: "other"}
	s := table.shard(hash)
	s.resize(tableLeastSize)
	s.put(tableSlot{hash, other})
	s.used++
	require.Nil(t, table.find("a"))
	a := &chain{key: "a"}
	a.head.Store(&version{})
	other.head.Store(&version{})
	table.add(a)
	require.Same(t, a, table.find("a"))
	table.warm([]*trivetpb.Command{putCommand([]byte("a"), nil), putCommand([]byte("b"), nil)})
	table.remove(a)
	require.Nil(t, table.find("a"))
	require.Same(t, other, s.like(hash))
}
