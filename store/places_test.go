package store

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func placesOf(at ...place) *places {
	p := &places{}
	for _, a := range at {
		p.add(a)
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
		"in any order":                {placesOf(place{12, 1}, place{11, 0}, place{12, 0}), 12, ""},
		"a revision without":          {placesOf(place{11, 0}, place{13, 0}, place{13, 1}), 13, "revision 12 are missing"},
		"the last without":            {placesOf(place{11, 0}, place{11, 1}), 12, "revision 12 are missing"},
		"one twice":                   {placesOf(place{11, 0}, place{11, 1}, place{11, 1}), 11, "revision 11 are not complete"},
		"a gap":                       {placesOf(place{11, 0}, place{11, 2}), 11, "revision 11 are not complete"},
		"a place of the next one's":   {placesOf(place{11, 1}, place{12, 0}), 12, "revision 11 are not complete"},
		"a number as high as can be":  {placesOf(place{11, math.MaxUint32}), 11, "revision 11 are not complete"},
		"more revisions than changes": {placesOf(place{11, 0}), math.MaxInt64, "and 1 changes"},
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

// Changes in any order come out by revision, then sub.
func TestChangesAreOrdered(t *testing.T) {
	const compact, revisions = 5, 700
	var all, mixed changeList
	for mod := uint64(compact + 1); mod <= compact+revisions; mod++ {
		for sub := range 1 + rand.Uint32N(7) {
			all.push(change{v: &version{mod: mod, sub: sub}})
		}
	}
	require.Greater(t, all.n, changeBlockLen, "the scenario")
	p := &places{}
	for _, i := range rand.Perm(all.n) {
		c := *all.at(i)
		mixed.push(c)
		p.add(place{c.v.mod, c.v.sub})
	}
	order, err := p.order(compact, compact+revisions)
	require.NoError(t, err)
	ordered := mixed.ordered(order)
	require.Equal(t, all.n, ordered.n)
	for i := range all.n {
		require.Same(t, all.at(i).v, ordered.at(i).v)
	}
	ordered.push(change{v: &version{mod: compact + revisions + 1}})
	require.EqualValues(t, compact+revisions+1, ordered.at(all.n).v.mod)
}
