package store

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestChangeListIsASlice: a queue that is pushed to, popped and truncated over
// many blocks, and what was taken of it on the way.
func TestChangeListIsASlice(t *testing.T) {
	type taken struct {
		list changeList
		want []change
	}
	var list changeList
	var slice []change
	var views []taken
	revision := uint64(1)
	requireEqual := func(want []change, got *changeList) {
		t.Helper()
		require.Equal(t, len(want), got.n)
		for i := range want {
			require.Same(t, want[i].v, got.at(i).v)
		}
	}
	for range 300 {
		mark := list.n
		for range rand.IntN(500) {
			if rand.IntN(3) > 0 {
				revision++
			}
			c := change{v: newTombstone(revision, 0, false)}
			list.push(c)
			slice = append(slice, c)
		}
		if rand.IntN(3) == 0 { // undone: nothing of it was taken
			list.truncate(mark)
			slice = slice[:mark:mark]
		}
		if list.n > 0 && rand.IntN(2) == 0 {
			i := rand.IntN(list.n)
			after := slice[i].v.mod
			for i < len(slice) && slice[i].v.mod == after {
				i++
			}
			views = append(views, taken{list.after(after), slice[i:]})
		}
		for range min(list.n, rand.IntN(450)) {
			// Not what a View still reads: it pins that.
			if len(views) > 0 && views[0].list.n > 0 && views[0].want[0].v == slice[0].v {
				requireEqual(views[0].want, &views[0].list)
				views = views[1:]
				break
			}
			list.pop()
			slice = slice[1:]
		}
		requireEqual(slice, &list)
	}
}
