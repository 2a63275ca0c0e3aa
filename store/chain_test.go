package store

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// failing is a txn of the ops that is undone after the last of them. It needs
// the key "text" with a value that is no number.
func failing(ops ...*trivetpb.Op) *trivetpb.Op { return txnOp(append(ops, addOp("text", 1))...) }

// TestViewsSeeNothingNewer is for the race detector as well: every revision sets
// all keys to its own number, in txns some of which are undone, and Views walk
// the chains meanwhile.
func TestViewsSeeNothingNewer(t *testing.T) {
	s := New()
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 3}))
	do(t, s, putOp("text", "none"))
	keys := strings.Split("abcdefgh", "")
	all := func(value string) (ops []*trivetpb.Op) {
		for _, k := range keys {
			ops = append(ops, putOp(k, value))
		}
		return ops
	}
	writeAll := func(revision uint64) { do(t, s, txnOp(all(fmt.Sprint(revision))...)) }
	writeAll(s.Revision() + 1)
	writeAll(s.Revision() + 1)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for round := 0; ; round++ {
				select {
				case <-done:
					return
				default:
				}
				var revision uint64 // the present one
				if round%2 == 1 {
					revision = s.Revision() - 1
				}
				v, err := s.View(revision)
				if err != nil {
					continue
				}
				before := rawRecords(t, v)
				for range 20 {
					want := fmt.Sprint(v.Revision())
					for item := range v.Range(&trivetpb.KeyRange{End: []byte("i")}, RangeOptions{Reverse: round%3 == 0}) {
						if item.ModRevision != v.Revision() || string(item.Value) != want {
							t.Errorf("%q of revision %d at revision %s", item.Value, item.ModRevision, want)
						}
					}
					if item, ok := v.Get([]byte("c")); !ok || item.ModRevision != v.Revision() {
						t.Errorf("%v of revision %d at revision %s", ok, item.ModRevision, want)
					}
					if _, ok := v.Get([]byte("new")); ok {
						t.Errorf("what was undone at revision %s", want)
					}
					if n := v.Count(nil); n != uint64(len(keys)+1) {
						t.Errorf("%d keys", n)
					}
				}
				if string(before) != string(rawRecords(t, v)) {
					t.Error("a View's snapshot changed")
				}
				v.Close()
			}
		})
	}
	for i := range 3_000 {
		switch i % 3 {
		case 0:
			r := do(t, s, failing(append(all("undone"), putOp("new", "undone"))...))
			require.Equal(t, trivetpb.Code_NOT_A_NUMBER, r.Problem.GetCode())
		case 1:
			r := do(t, s, failing(deleteRangeOp("a", "i"), putOp("new", "undone")))
			require.Equal(t, trivetpb.Code_NOT_A_NUMBER, r.Problem.GetCode())
		default:
			writeAll(s.Revision() + 1)
		}
	}
	close(done)
	readers.Wait()
	for s.state.history.done > 0 { // what the Views pinned
		apply(t, s, entryOf(0))
	}
	requireSound(t, s, true)
}

// TestUndoPutsTheHeadsBack: under an open View, and when the key's head is a
// value, a tombstone, or nothing.
func TestUndoPutsTheHeadsBack(t *testing.T) {
	s := New()
	do(t, s, putOp("text", "none"), putOp("value", "1"), putOp("gone", "1"), deleteOp("gone"))
	v := view(t, s, 0)
	old := view(t, s, 4)
	want, wantOld, raw := contents(v), contents(old), rawRecords(t, v)
	require.Equal(t, map[string]string{"text": "none", "value": "1"}, want)
	require.Equal(t, map[string]string{"text": "none", "value": "1", "gone": "1"}, wantOld)
	heads := map[string]*version{}
	for _, k := range []string{"text", "value", "gone", "new"} {
		heads[k] = s.state.table.find(k).newest()
	}
	for _, op := range []*trivetpb.Op{
		failing(putOp("value", "2"), putOp("gone", "2"), putOp("new", "2")),
		failing(deleteRangeOp("value", ""), putOp("gone", "2"), putOp("new", "2")),
	} {
		require.Equal(t, trivetpb.Code_NOT_A_NUMBER, do(t, s, op).Problem.GetCode())
		for k, head := range heads {
			require.Same(t, head, s.state.table.find(k).newest(), k)
		}
		require.Equal(t, raw, rawRecords(t, v))
		for _, v := range []*View{v, view(t, s, 0)} {
			require.Equal(t, want, contents(v))
			require.EqualValues(t, 2, v.countByRank(nil))
		}
		require.Equal(t, wantOld, contents(old))
		require.EqualValues(t, 3, old.countByRank(nil))
		requireSound(t, s, true)
	}
	// The revision that was not made is made by another command.
	do(t, s, putOp("value", "3"), putOp("new", "3"))
	require.Equal(t, want, contents(v))
	require.Equal(t, raw, rawRecords(t, v))
	require.Equal(t, map[string]string{"text": "none", "value": "3", "new": "3"}, contents(view(t, s, 0)))
}

// TestAViewCatchesAHeadThatIsUndone does by hand what the timing of a reader
// seldom does: it reads in the midst of a command, and goes on from a head that
// was put back meanwhile.
func TestAViewCatchesAHeadThatIsUndone(t *testing.T) {
	s := New()
	do(t, s, putOp("a", "1"), putOp("b", "1"))
	do(t, s, putOp("a", "2"))
	v := view(t, s, 0)
	a := applier{state: s.state, mark: s.state.history.changes.n, before: s.state.totals}
	c := a.table.find("a")
	caught := a.write("a", c, []byte("undone"), 0)
	a.erase(a.table.find("b"), a.table.find("b").newest())
	a.write("c", nil, nil, 0)
	require.Same(t, caught, c.newest())
	require.Equal(t, map[string]string{"a": "2", "b": "1"}, contents(v))
	a.undo()
	require.Equal(t, map[string]string{"a": "2", "b": "1"}, contents(v))
	require.Same(t, c.newest(), caught.prev, "a reader that has the version goes on to the old head")
	requireSound(t, s, false)
}

// TestAKeyComesBackUnderOpenViews: deleted, compacted away, created anew.
func TestAKeyComesBackUnderOpenViews(t *testing.T) {
	s := New()
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 1}))
	do(t, s, putOp("a", "first"), putOp("other", "1"))
	first := s.state.table.find("a")
	before := view(t, s, 0) // pins what it sees: nothing of it is dropped
	do(t, s, deleteOp("a"), putOp("other", "2"), putOp("other", "3"))
	after := view(t, s, 0) // finds the tombstone, which is compacted but not cut
	require.Same(t, first, s.state.table.find("a"))
	do(t, s, putOp("a", "second"))
	require.Same(t, first, s.state.table.find("a"), "its history is pinned")
	requireViews := func() {
		t.Helper()
		require.Equal(t, map[string]string{"a": "first", "other": "1"}, contents(before))
		require.Equal(t, map[string]string{"other": "3"}, contents(after))
		require.EqualValues(t, 2, before.countByRank(nil))
		require.EqualValues(t, 1, after.countByRank(nil))
	}
	requireViews()
	rawBefore, rawAfter := rawRecords(t, before), rawRecords(t, after)

	do(t, s, deleteOp("a"), putOp("other", "4"), putOp("other", "5"))
	gone := view(t, s, 0)
	rawGone := rawRecords(t, gone)
	require.Same(t, first, gone.tree.find("a"), "it is in the View's tree")
	requireViews()
	require.Equal(t, rawBefore, rawRecords(t, before))
	require.Equal(t, rawAfter, rawRecords(t, after))
	before.Close()
	after.Close()
	apply(t, s, entryOf(0)) // cuts up to what gone pins
	require.Nil(t, s.state.table.find("a"))
	require.Equal(t, 1, s.state.tree.Len())
	do(t, s, putOp("a", "third"))
	require.NotSame(t, first, s.state.table.find("a"))
	_, ok := gone.Get([]byte("a"))
	require.False(t, ok)
	require.Equal(t, map[string]string{"other": "5"}, contents(gone))
	require.EqualValues(t, 1, gone.countByRank(nil))
	require.Equal(t, rawGone, rawRecords(t, gone))
	item, ok, _ := s.Get([]byte("a"))
	require.True(t, ok)
	require.Equal(t, "third", string(item.Value))
	require.EqualValues(t, 1, item.Version)
	requireSound(t, s, true)
}

// TestLargeDeletes: a command deletes no more than MaxDeleteKeys keys by ranges,
// or nothing.
func TestLargeDeletes(t *testing.T) {
	s := New()
	e := &trivetpb.Entry{}
	for i := range MaxDeleteKeys + 1 {
		e.Commands = append(e.Commands, putCommand(fmt.Appendf(nil, "k%06d", i), nil))
	}
	apply(t, s, e)
	before := s.Stats()
	refused := func(op *trivetpb.Op, prefix string) {
		t.Helper()
		r := do(t, s, op)
		require.Equal(t, trivetpb.Code_TOO_LARGE, r.Problem.GetCode())
		require.EqualValues(t, MaxDeleteKeys, r.Problem.Limit)
		require.True(t, strings.HasPrefix(r.Problem.Detail, prefix), r.Problem.Detail)
		require.Contains(t, r.Problem.Detail, "in parts")
		after := s.Stats()
		after.Index = before.Index
		require.Equal(t, before, after)
	}
	refused(deleteRangeOp("", ""), "ranges of 100001 keys")
	refused(txnOp(putOp("a", ""), deleteRangeOp("k", "k000003"), deleteRangeOp("k", "")), "then[2]: ")
	for _, r := range do(t, s, txnOp(deleteRangeOp("", "k000001"), deleteRangeOp("", "k000002"))).GetTxn().Results {
		require.EqualValues(t, 1, r.GetDelete().Deleted)
	}
	require.EqualValues(t, MaxDeleteKeys-1, do(t, s, deleteRangeOp("", "")).GetDelete().Deleted)
	require.Zero(t, s.Stats().Keys)
	// As many as may be. Tombstones do not count.
	apply(t, s, e)
	require.EqualValues(t, 1, do(t, s, deleteOp("k000000")).GetDelete().Deleted)
	require.EqualValues(t, MaxDeleteKeys, do(t, s, deleteRangeOp("", "")).GetDelete().Deleted)
	require.Zero(t, s.Stats().Keys)
}
