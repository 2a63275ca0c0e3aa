package store

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

func TestHistoryByAge(t *testing.T) {
	s := New()
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryMs: 100}))
	apply(t, s, entryOf(1000, putOp("a", "1"), putOp("a", "2"))) // revisions 2 and 3
	apply(t, s, entryOf(1050, putOp("a", "3")))                  // 4
	apply(t, s, entryOf(1099))
	require.EqualValues(t, 1, s.Stats().CompactRevision)
	apply(t, s, entryOf(1100))
	require.EqualValues(t, 3, s.Stats().CompactRevision, "the state of 100 ms ago can be read, older ones cannot")
	require.Equal(t, map[string]string{"a": "2"}, contents(view(t, s, 3)))
	apply(t, s, entryOf(1149))
	require.EqualValues(t, 3, s.Stats().CompactRevision)
	apply(t, s, entryOf(9999))
	require.EqualValues(t, 4, s.Stats().CompactRevision)
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryMs: 1 << 60}))
	require.EqualValues(t, 4, s.Stats().CompactRevision, "it never goes back")
	require.Zero(t, s.Stats().HistoryBytes)
}

// TestHistoryByBytes: a few large values bound the history long before their
// number does. The values share their bytes.
func TestHistoryByBytes(t *testing.T) {
	s := New()
	value := make([]byte, HardMaxValueBytes)
	const fit = MaxHistoryBytes / (HardMaxValueBytes + ItemOverheadBytes + 1)
	for range fit {
		do(t, s, &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte("a"), Value: value}}})
	}
	require.EqualValues(t, 1, s.Stats().CompactRevision)
	for range 3 {
		do(t, s, &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte("a"), Value: value}}})
	}
	require.EqualValues(t, 4, s.Stats().CompactRevision)
	require.LessOrEqual(t, s.Stats().HistoryBytes, uint64(MaxHistoryBytes))
	requireSound(t, s, true)
}

// TestViewsOutliveCompaction: what a View reads stays while it is open, and
// goes, a bounded number of changes at a time, once it is closed.
func TestViewsOutliveCompaction(t *testing.T) {
	s := New()
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 1}))
	do(t, s, txnOp(putOp("a", "old"), putOp("b", "old"), putOp("c", "old")))
	do(t, s, putOp("a", "newer"))
	old := view(t, s, 2)
	raw := rawRecords(t, old)
	const writes = 5 * cutBase
	var ops []*trivetpb.Op
	for i := range writes {
		ops = append(ops, putOp("a", fmt.Sprint(i)))
	}
	do(t, s, append(ops, deleteOp("b"))...)
	require.Equal(t, s.Revision()-1, s.Stats().CompactRevision, "the logical state does not wait")
	require.Equal(t, map[string]string{"a": "old", "b": "old", "c": "old"}, contents(old))
	require.Equal(t, raw, rawRecords(t, old))
	require.Equal(t, 1+writes+1, s.state.history.changes.n)
	old.Close()
	held := s.state.history.changes.n
	for held > 1 {
		apply(t, s, entryOf(0))
		require.Less(t, s.state.history.changes.n, held)
		require.GreaterOrEqual(t, s.state.history.changes.n, held-cutBase)
		held = s.state.history.changes.n
	}
	do(t, s, putOp("a", "last"))
	require.Equal(t, 2, s.state.tree.Len(), "b's tombstone is gone")
	requireSound(t, s, true)
}

func TestARestoreLeavesOpenViewsAlone(t *testing.T) {
	s := New()
	do(t, s, putOp("a", "1"))
	file := snapshotOf(t, s)
	do(t, s, putOp("a", "2"), deleteOp("a"))
	v := view(t, s, 3)
	require.NoError(t, s.Restore(file))
	require.EqualValues(t, 2, s.Revision())
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 1, HistoryMs: 1}))
	for range 10 {
		apply(t, s, entryOf(1_000_000, putOp("a", "3")))
	}
	require.Equal(t, map[string]string{"a": "2"}, contents(v))
	requireSound(t, s, true) // the View holds nothing of the new state
}
