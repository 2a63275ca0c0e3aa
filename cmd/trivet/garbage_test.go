package main

import (
	"testing"

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

	// A small heap is collected by bytes, whatever collecting costs.
	require.Equal(t, startGarbage, newHeap(0, 0).collect(1, 0))
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
