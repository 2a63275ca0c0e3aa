package main

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHugeBytes(t *testing.T) {
	const free = 8 << 30
	require.Zero(t, hugeBytes(0, free))
	require.Zero(t, hugeBytes(leastHuge/stateOfFile-1, free), "too little to ask for")
	require.Equal(t, stateOfFile*100<<20, hugeBytes(100<<20, free))
	require.Equal(t, free/2, hugeBytes(free, free), "half of what is free at most")
	require.Equal(t, free/2, hugeBytes(math.MaxInt64, free))
	require.Zero(t, hugeBytes(100<<20, 0), "nobody knows what is free")
}

// Only pages that lie in the memory as a whole: what is around it belongs to others.
func TestWholePages(t *testing.T) {
	require.Equal(t, addresses{2 * hugePage, 5 * hugePage}, wholePages(2*hugePage, 3*hugePage))
	require.Equal(t, addresses{2 * hugePage, 4 * hugePage}, wholePages(hugePage+8, 3*hugePage))
	a := wholePages(hugePage+8, hugePage)
	require.Equal(t, a.begin, a.end)
}
