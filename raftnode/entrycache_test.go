package raftnode

import (
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func TestEntryCacheHoldsTheNewest(t *testing.T) {
	var c entryCache
	for i := uint64(5); i < 5000; i++ {
		c.add(&raft.Log{Index: i, Data: make([]byte, 10)})
	}
	require.Nil(t, c.get(5))
	require.EqualValues(t, 4999, c.get(4999).Index)
	require.Nil(t, c.get(5000))
	held := 0
	for i := uint64(5); i < 5000; i++ {
		if l := c.get(i); l != nil {
			require.Equal(t, i, l.Index)
			held++
		}
	}
	require.Equal(t, cacheEntries-1, held)
	require.Equal(t, held*10, c.bytes)

	c.remove(4990, 4999) // a truncated suffix
	require.Nil(t, c.get(4985))
	c.add(&raft.Log{Index: 4990, Data: make([]byte, cacheBytes)})
	c.add(&raft.Log{Index: 4991, Data: make([]byte, 10)})
	require.Nil(t, c.get(4990), "past the bound on bytes")
	require.NotNil(t, c.get(4991))
	c.add(&raft.Log{Index: 4992})
	c.remove(1, 4991) // a compacted prefix
	require.Nil(t, c.get(4991))
	require.NotNil(t, c.get(4992))
}

func TestSizeIndexKeepsEntriesByBytes(t *testing.T) {
	var s sizeIndex
	for i := uint64(1); i <= 1000; i++ {
		s.add(i, 10<<10)
	}
	keep := s.newest(1 << 20)
	require.InDelta(t, 100, int(keep), 30, "a mebibyte in entries of ten kibibytes")
	require.EqualValues(t, 999, s.newest(1<<40))
	s.remove(1, 900)
	require.LessOrEqual(t, s.newest(1<<40), uint64(100))
}
