package client

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// An index is what a map would be, whatever is put in and taken out, and one that was
// taken before stays as it was.
func TestIndexIsAMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	x, model := &index{}, map[string]uint64{}
	type past struct {
		x     *index
		model map[string]uint64
	}
	var kept []past
	check := func(x *index, model map[string]uint64) {
		keys := slices.Sorted(maps.Keys(model))
		var got []string
		for it := range x.between("", "") {
			got = append(got, it.Key)
			require.Equal(t, model[it.Key], it.ModRevision)
		}
		require.Equal(t, keys, got)
		require.Equal(t, len(keys), x.count)
		for _, c := range x.chunks {
			require.NotEmpty(t, c.items)
			require.LessOrEqual(t, len(c.items), chunkItems)
			require.Equal(t, c.first, c.items[0].Key)
		}
	}
	check(x, model)
	for step := range 12_000 {
		// It grows for a while, then shrinks to next to nothing.
		key := fmt.Sprintf("%04d", rnd.IntN(3000))
		if rnd.IntN(100) < map[bool]int{true: 70, false: 15}[step < 6_000] {
			x, model[key] = x.with(&Item{Key: key, ModRevision: uint64(step)}), uint64(step)
		} else {
			x = x.without(key)
			delete(model, key)
		}
		if step%1000 == 0 {
			kept = append(kept, past{x, maps.Clone(model)})
			check(x, model)
		}
		start, end := fmt.Sprintf("%04d", rnd.IntN(3000)), fmt.Sprintf("%04d", rnd.IntN(3000))
		if step%100 == 0 {
			var got, want []string
			for it := range x.between(start, end) {
				got = append(got, it.Key)
			}
			for _, k := range slices.Sorted(maps.Keys(model)) {
				if k >= start && k < end {
					want = append(want, k)
				}
			}
			require.Equal(t, want, got, "%s to %s", start, end)
		}
		if it := x.get(start); it == nil {
			require.NotContains(t, model, start)
		} else {
			require.Equal(t, model[start], it.ModRevision)
		}
	}
	check(x, model)
	for _, p := range kept {
		check(p.x, p.model)
	}
	var sorted []*Item
	for _, k := range slices.Sorted(maps.Keys(kept[3].model)) {
		sorted = append(sorted, &Item{Key: k, ModRevision: kept[3].model[k]})
	}
	check(indexOf(sorted), kept[3].model)
}
