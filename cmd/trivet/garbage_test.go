package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGarbageFollowsWhatCollectingCosts: the least where little is done, the
// runtime's own where collecting takes much, and as before in between.
func TestGarbageFollowsWhatCollectingCosts(t *testing.T) {
	const large = 1 << 30
	g := garbageShare{percent: leastGarbage}
	require.Equal(t, leastGarbage, g.next(large, 0))
	require.Equal(t, 2*leastGarbage, g.next(large, 0.05))
	require.Equal(t, 2*leastGarbage, g.next(large, 0.02))
	for range 3 {
		g.next(large, 0.5)
	}
	require.Equal(t, mostGarbage, g.next(large, 0.5))
	for range 10 {
		g.next(large, 0)
	}
	require.Equal(t, leastGarbage, g.next(large, 0))

	// A small heap is collected by bytes, whatever collecting costs.
	require.Equal(t, startGarbage, g.next(0, 0))
	require.Equal(t, 75, g.next(32<<20, 0))
	require.Equal(t, leastGarbage, g.next(freeGarbage*100/leastGarbage, 0))
}

// TestAnIdleNodeGivesMemoryBack: once nothing has been collected for a while, and
// only where there is something to give.
func TestAnIdleNodeGivesMemoryBack(t *testing.T) {
	full, fine := heapState{live: 400 << 20, held: 501 << 20}, heapState{live: 400 << 20, held: 500 << 20}
	g := garbageShare{percent: leastGarbage}
	for range quietLooks - 1 {
		require.False(t, g.idle(full, true))
	}
	require.True(t, g.idle(full, true))
	require.False(t, g.idle(fine, true), "nothing is left to give")
	require.True(t, g.idle(full, true), "more has gathered")
	require.False(t, g.idle(full, false))
	require.False(t, g.idle(full, true), "it was busy a moment ago")
	small := heapState{live: 1 << 20, held: 20 << 20}
	for range 2 * quietLooks {
		require.False(t, g.idle(small, true))
	}
}

// TestReadHeap: the runtime has the metrics that are asked for.
func TestReadHeap(t *testing.T) {
	require.NotPanics(t, func() { readHeap() })
}
