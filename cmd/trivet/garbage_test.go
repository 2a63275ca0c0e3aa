package main

import (
	"context"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// heapOf is a heap that is looked at each second, on one processor.
type heapOf struct {
	garbageShare
	heapState
}

// collect lets so many seconds pass, of which the last ends a collection that took
// a part of them all.
func (h *heapOf) collect(seconds int, part float64) (percent int) {
	for i := range seconds {
		h.allocated += 100 << 20
		if i == seconds-1 {
			h.collections++
			h.collecting += part * float64(seconds)
		}
		percent, _ = h.look(h.heapState, 1, 1)
	}
	return percent
}

// rest lets a second pass in which nothing happens.
func (h *heapOf) rest() (percent int, giveBack bool) { return h.look(h.heapState, 1, 1) }

func newHeap(live, held uint64) *heapOf {
	return &heapOf{garbageShare{percent: leastGarbage}, heapState{live: live, held: held}}
}

// The least where little is done, the runtime's own where collecting takes much, and
// as before in between.
func TestGarbageFollowsWhatCollectingCosts(t *testing.T) {
	h := newHeap(1<<30, 1<<30)
	require.Equal(t, leastGarbage, h.collect(1, 0))
	require.Equal(t, 2*leastGarbage, h.collect(1, 0.05))
	require.Equal(t, 2*leastGarbage, h.collect(1, 0.02))
	for range 3 {
		h.collect(1, 0.5)
	}
	require.Equal(t, mostGarbage, h.collect(1, 0.5))
	// Collections that are far apart: what they took counts over all the time.
	require.Equal(t, mostGarbage, h.collect(60, 0.5))
	require.Equal(t, mostGarbage, h.collect(60, 0.02))
	require.Equal(t, 3*mostGarbage/4, h.collect(60, 0.005))
	for range 10 {
		h.collect(1, 0)
	}
	require.Equal(t, leastGarbage, h.collect(1, 0))

	// A busy node with a small heap has a number of bytes, which does not grow with it.
	h = newHeap(64<<20, 64<<20)
	for range 10 {
		h.collect(1, 0.5)
	}
	require.Equal(t, 100*busyGarbage/(64<<20), h.collect(1, 0.5))
	// It has them for less than a larger share takes, and keeps them.
	require.Equal(t, 100*busyGarbage/(64<<20), h.collect(1, 0.005))
	require.Less(t, h.collect(1, 0.002), 100*busyGarbage/(64<<20))
	require.Equal(t, 100*busyGarbage/(64<<20), h.collect(1, 0.011))
	h.live *= 4
	require.Equal(t, mostGarbage, h.collect(1, 0.02))
	require.Equal(t, mostGarbage, h.collect(1, 0.02))

	// With less garbage collecting takes more: the share comes to rest all the same, and
	// goes beyond those bytes where the larger part is taken alone.
	for live := uint64(32 << 20); live < 2<<30; live += 8 << 20 {
		for _, atFull := range []float64{0.001, 0.006, 0.009, 0.02, 0.05} { // with as much again as lives
			h := newHeap(live, live)
			percent, changes := leastGarbage, 0
			for range 40 {
				p := h.collect(1, atFull*100/float64(percent))
				if changes++; p == percent {
					changes = 0
				}
				percent = p
			}
			require.Zero(t, changes, "%d MiB, %g: %d %%", live>>20, atFull, percent)
			if atFull*100/leastGarbage <= busyCollecting {
				require.LessOrEqual(t, uint64(percent)*live/100, max(uint64(busyGarbage), live/4))
			}
		}
	}

	// A small heap is collected by bytes, whatever collecting costs.
	require.Equal(t, mostFreeGarbage, newHeap(0, 0).collect(1, 0))
	require.Equal(t, 75, newHeap(32<<20, 0).collect(1, 0))
	require.Equal(t, leastGarbage, newHeap(freeGarbage*100/leastGarbage, 0).collect(1, 0))
}

// Once next to nothing has been allocated for a while, and only where there is
// something to give. A busy node whose collections are far apart is not idle: each
// time it gives memory back its whole heap is collected.
func TestAnIdleNodeGivesMemoryBack(t *testing.T) {
	h := newHeap(400<<20, 501<<20)
	h.percent = mostGarbage
	for range 60 {
		h.allocated += 2 * idleAllocation
		percent, giveBack := h.rest()
		require.False(t, giveBack, "it is busy")
		require.Equal(t, mostGarbage, percent)
	}
	for range quietLooks - 1 {
		_, giveBack := h.rest()
		require.False(t, giveBack)
	}
	percent, giveBack := h.rest()
	require.True(t, giveBack)
	require.Less(t, percent, mostGarbage)
	h.held = 500 << 20
	_, giveBack = h.rest()
	require.False(t, giveBack, "nothing is left to give")
	h.held = 501 << 20
	_, giveBack = h.rest()
	require.True(t, giveBack, "more has gathered")
	h.collect(1, 0)
	_, giveBack = h.rest()
	require.False(t, giveBack, "it was busy a moment ago")
	small := newHeap(1<<20, 20<<20)
	for range 2 * quietLooks {
		_, giveBack = small.rest()
		require.False(t, giveBack)
	}
}

// The runtime has the metrics that are asked for.
func TestReadHeap(t *testing.T) {
	require.NotZero(t, readHeap().allocated)
}

// While a node starts, a small heap may gather a number of bytes and a large one
// as much as lives in it, so that no start takes more than that beside its state.
func TestGarbageOfAStartIsBounded(t *testing.T) {
	for live := uint64(0); live < 8<<30; live += 3 << 20 {
		garbage := max(live, leastHeap) * uint64(startShare(heapState{live: live, collections: 1}, heapState{})) / 100
		require.LessOrEqual(t, garbage, max(live, startGarbage))
		require.GreaterOrEqual(t, garbage, max(live, startGarbage)*9/10)
	}
}

// What a restored snapshot takes counts as alive until it is known what does: with
// the share of what lived before, it would be collected at once.
func TestGarbageBehindASnapshotIsBounded(t *testing.T) {
	for objects := uint64(0); objects < 8<<30; objects += 3 << 20 {
		restored := heapState{live: 1 << 20, objects: objects, collections: 1}
		goal := uint64(leastHeap) * uint64(100+startShare(restored, restored)) / 100
		garbage := max(objects, startGarbage)
		require.InDelta(t, objects+garbage, goal, float64(garbage)/10)
	}
}

// never: no snapshot is restored.
func never() bool { return false }

// Nothing is collected while a snapshot is restored, and the start is not over, however
// little is allocated meanwhile.
func TestNothingIsCollectedWhileASnapshotIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := debug.SetGCPercent(100)
		defer debug.SetGCPercent(set)
		percent := func() int {
			p := debug.SetGCPercent(-1)
			debug.SetGCPercent(p)
			return p
		}
		heap := heapState{objects: 1 << 30}
		began := time.Now()
		restoring := func() bool {
			d := time.Since(began)
			require.True(t, d <= startEvery || percent() == -1)
			return d < 5*time.Second
		}
		last := (&garbageShare{}).start(t.Context(), func() heapState { return heap }, restoring, func() bool { return true })
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Equal(t, startShare(heap, heap), last)
		require.Equal(t, last, percent())
	})
}

// A start is over once the node says so, once it does nothing, or with the process.
func TestGarbageOfAStartEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := debug.SetGCPercent(100) // as it is
		defer debug.SetGCPercent(set)
		var heap heapState
		read := func() heapState { return heap }
		looks := 0
		(&garbageShare{}).start(t.Context(), read, never, func() bool { looks++; return looks == 7 })
		require.Equal(t, 7, looks)

		// It allocates for three seconds, and then no more than an idle node does.
		began := time.Now()
		(&garbageShare{}).start(t.Context(), read, never, func() bool {
			if time.Since(began) < 3*time.Second {
				heap.allocated += idleAllocation
			}
			return false
		})
		require.Equal(t, 4*time.Second, time.Since(began))

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		looks = 0
		(&garbageShare{}).start(ctx, read, never, func() bool { looks++; return false })
		require.LessOrEqual(t, looks, 1)

		// A node that is told to stop while it restores collects again.
		ctx, cancel = context.WithTimeout(t.Context(), 3*startEvery+startEvery/2)
		defer cancel()
		require.Equal(t, leastGarbage, (&garbageShare{}).start(ctx, read, func() bool { return true }, func() bool { return false }))
		require.Equal(t, leastGarbage, debug.SetGCPercent(100))
	})
}
