package store

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func placesOf(at ...place) *places {
	p := &places{}
	for _, a := range at {
		p.add(uint64(a.revision), a.sub)
	}
	return p
}

// Changes are complete where each revision has them, numbered from 0: whatever
// else a file says is refused, and no memory is made for what it merely says.
func TestPlacesAreComplete(t *testing.T) {
	const compact = 10
	for name, c := range map[string]struct {
		places   *places
		revision uint64
		err      string
	}{
		"none":                        {placesOf(), 10, ""},
		"in any order":                {placesOf(place{2, 1}, place{1, 0}, place{2, 0}), 12, ""},
		"a revision without":          {placesOf(place{1, 0}, place{3, 0}, place{3, 1}), 13, "revision 12 are missing"},
		"the last without":            {placesOf(place{1, 0}, place{1, 1}), 12, "revision 12 are missing"},
		"one twice":                   {placesOf(place{1, 0}, place{1, 1}, place{1, 1}), 11, "revision 11 are not complete"},
		"a gap":                       {placesOf(place{1, 0}, place{1, 2}), 11, "revision 11 are not complete"},
		"a place of the next one's":   {placesOf(place{1, 1}, place{2, 0}), 12, "revision 11 are not complete"},
		"a number as high as can be":  {placesOf(place{1, math.MaxUint32}), 11, "revision 11 are not complete"},
		"more revisions than changes": {placesOf(place{1, 0}), math.MaxInt64, "and 1 changes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.places.order(compact, c.revision)
			if c.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrSnapshotCorrupt)
			require.ErrorContains(t, err, c.err)
		})
	}
}

// A restored history has the changes of all keys by revision, then sub, each with
// its chain and what it counts, whatever the order of the keys is.
func TestHistoryIsFilledInOrder(t *testing.T) {
	const compact, revisions = 5, 700
	chains, p := newTree(), &places{}
	var keys []string
	for i := range 500 {
		keys = append(keys, fmt.Sprintf("key-%03d", i))
		c := newChain(keys[i])
		c.head.Store(newVersion(compact-1, 0, numbers{create: compact - 1, number: 1}, nil)) // not retained as a change
		chains.add(c)
	}
	var want []change
	var bytes uint64
	for mod := uint64(compact + 1); mod <= compact+revisions; mod++ {
		for sub := range 1 + rand.Uint32N(7) {
			c := chains.find(keys[rand.IntN(len(keys))])
			v := newVersion(mod, sub, numbers{create: compact - 1, number: 2}, make([]byte, rand.IntN(9)))
			v.prev = c.newest()
			c.head.Store(v)
			want = append(want, change{c, v, v.prev, uint32(itemBytes(c.key(), v))})
			bytes += itemBytes(c.key(), v)
		}
	}
	require.Greater(t, len(want), changeBlockLen, "the scenario")
	for _, i := range rand.Perm(len(want)) {
		require.True(t, p.add(want[i].v.mod-compact, want[i].v.sub))
	}
	order, err := p.order(compact, compact+revisions)
	require.NoError(t, err)
	var h history
	h.fill(chains, order)
	require.Equal(t, len(want), h.changes.n)
	require.Equal(t, bytes, h.bytes)
	for i, c := range want {
		require.Equal(t, c, *h.changes.at(i))
	}
	h.changes.push(change{v: newTombstone(compact+revisions+1, 0, false)})
	require.EqualValues(t, compact+revisions+1, h.changes.at(len(want)).v.mod)
}

// A revision so far from the compact one is refused before it is cut short.
func TestPlacesHaveABound(t *testing.T) {
	p := &places{}
	require.True(t, p.add(math.MaxUint32, 0))
	require.False(t, p.add(math.MaxUint32+1, 0))
	require.Equal(t, 1, p.n)
}
