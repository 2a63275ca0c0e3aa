package store

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// TestAnIteratorDoesNotHoldUpTheWriter would hang where a range held a lock.
func TestAnIteratorDoesNotHoldUpTheWriter(t *testing.T) {
	for _, o := range []RangeOptions{{}, {Reverse: true}} {
		s := New()
		do(t, s, putOp("a", "1"), putOp("b", "1"), putOp("c", "1"))
		v := view(t, s, 0)
		seen := ""
		for item := range v.Range(nil, o) {
			seen += item.Key + string(item.Value)
			do(t, s, putOp(item.Key, "2"), putOp(item.Key+"x", "2"), deleteOp("b"))
			other := view(t, s, 0)
			require.Equal(t, s.Revision(), other.Revision())
			other.Close()
		}
		require.Len(t, seen, 6)
		require.Equal(t, map[string]string{"a": "1", "b": "1", "c": "1"}, contents(v))
		seen = ""
		for item := range v.Range(nil, o) { // may stop early
			seen = item.Key
			break
		}
		require.Len(t, seen, 1)
	}
}

func TestViewsShareACopyUntilSomethingChanges(t *testing.T) {
	s := New()
	do(t, s, putOp("a", "1"))
	one, two := view(t, s, 0), view(t, s, 0)
	require.Same(t, one.tree.chains, two.tree.chains)
	do(t, s, getOp("a"), deleteOp("none"))
	require.Same(t, one.tree.chains, view(t, s, 0).tree.chains, "nothing changed")
	do(t, s, putOp("a", "2"), addOp("n", 1), deleteOp("n"))
	two = view(t, s, 0)
	require.NotSame(t, one.tree.chains, two.tree.chains)
	do(t, s, putOp("a", "3"))
	three := view(t, s, 0)
	require.Same(t, two.tree.chains, three.tree.chains, "no key came or went")
	require.Equal(t, []map[string]string{{"a": "1"}, {"a": "2"}, {"a": "3"}}, []map[string]string{contents(one), contents(two), contents(three)})
	do(t, s, deleteOp("a"))
	require.NotSame(t, three.tombstones, view(t, s, 0).tombstones)
}

func TestRevisionsOutOfReach(t *testing.T) {
	s := New()
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 2}))
	for i := range 5 {
		do(t, s, putOp("a", fmt.Sprint(i)))
	}
	require.EqualValues(t, 6, s.Revision())
	for revision, value := range map[uint64]string{0: "4", 6: "4", 5: "3", 4: "2"} {
		require.Equal(t, map[string]string{"a": value}, contents(view(t, s, revision)))
	}
	_, err := s.View(3)
	p, ok := err.(*trivetpb.Problem)
	require.True(t, ok)
	require.Equal(t, trivetpb.Code_COMPACTED, p.Code)
	require.EqualValues(t, 4, p.CompactRevision)
	require.EqualValues(t, 6, p.Revision)
	_, err = s.View(7)
	p, ok = err.(*trivetpb.Problem)
	require.True(t, ok)
	require.Equal(t, trivetpb.Code_FUTURE_REVISION, p.Code)
	require.EqualValues(t, 6, p.Revision)
	open, _ := s.state.pins.held.Get(4)
	require.Equal(t, []int{1, 4}, []int{s.state.pins.held.Len(), open}, "refused Views hold nothing")
}

func TestAClosedViewPanics(t *testing.T) {
	v := view(t, New(), 0)
	items := v.Range(nil, RangeOptions{})
	v.Close()
	v.Close()
	require.Panics(t, func() { v.Get([]byte("a")) })
	require.Panics(t, func() { v.Count(nil) })
	require.Panics(t, func() { v.Do(getOp("a")) })
	require.Panics(t, func() { _ = v.WriteSnapshot(&bytes.Buffer{}) })
	require.Panics(t, func() {
		for range items {
		}
	})
}

func TestAViewOnlyReads(t *testing.T) {
	s := New()
	do(t, s, putOp("a", "1"))
	do(t, s, putOp("a", "2"))
	v := view(t, s, 2)
	for _, op := range []*trivetpb.Op{putOp("a", ""), txnOp(putOp("a", "")), {}, nil, txnOp(txnOp())} {
		r := v.Do(op)
		require.Equal(t, trivetpb.Code_BAD_REQUEST, r.Problem.GetCode())
		require.Nil(t, r.Result)
	}
	require.Equal(t, trivetpb.Code_BAD_KEY, v.Do(getOp("")).Problem.GetCode())
	// A txn that only reads compares at the View's revision, too.
	op := txnOp(getOp("a"))
	op.GetTxn().If = []*trivetpb.Compare{{Key: []byte("a"), Value: []byte("1")}}
	r := v.Do(op)
	require.True(t, r.GetTxn().Succeeded)
	require.Equal(t, "1", string(r.GetTxn().Results[0].GetGet().Item.Value))
	require.EqualValues(t, 2, r.Revision)
	require.EqualValues(t, 2, r.GetTxn().Results[0].Revision)
}

// TestLargeCounts counts past countWalk, where ranks take over.
func TestLargeCounts(t *testing.T) {
	s := New()
	var ops []*trivetpb.Op
	for i := range 3 * countWalk {
		ops = append(ops, putOp(fmt.Sprintf("k%06d", i), ""))
	}
	do(t, s, ops...)
	half := s.Revision()
	do(t, s, deleteRangeOp("k000100", "k000200"), putOp("k", ""), putOp("k000150", ""), putOp("m", ""))
	keys := PrefixRange([]byte("k"))
	require.EqualValues(t, 3*countWalk-100+2, view(t, s, 0).Count(keys))
	require.EqualValues(t, 3*countWalk, view(t, s, half).Count(keys))
	require.EqualValues(t, 3*countWalk-100+3, do(t, s, rangeOp("", "")).GetRange().Count)
	in := do(t, s, txnOp(putOp("a", ""), deleteOp("m"), rangeOp("", "n"))).GetTxn().Results[2]
	require.EqualValues(t, 3*countWalk-100+3, in.GetRange().Count)
	require.True(t, in.GetRange().More)
	require.Len(t, in.GetRange().Items, DefaultRangeItems)
}

// A range has what it has against the order too, whatever its length and wherever it is
// left: keys are looked up some at a time.
func TestRangeOfAnyLength(t *testing.T) {
	const keys = 3*aheadKeys + 1
	s := New()
	e := &trivetpb.Entry{}
	for i := range keys {
		e.Commands = append(e.Commands, putCommand(benchKey(i), fmt.Append(nil, i)))
	}
	for i := 3; i < keys; i += 5 { // a tombstone each
		e.Commands = append(e.Commands, &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Delete{
			Delete: &trivetpb.DeleteOp{Key: benchKey(i)}}}}})
	}
	_, err := s.Apply(1, e)
	require.NoError(t, err)
	v, err := s.View(0)
	require.NoError(t, err)
	defer v.Close()
	for end := range keys + 1 {
		r := &trivetpb.KeyRange{Start: benchKey(1), End: benchKey(end)}
		want := slices.Collect(v.Range(r, RangeOptions{Reverse: true}))
		slices.Reverse(want)
		require.Equal(t, want, slices.Collect(v.Range(r, RangeOptions{})))
		for most := 1; most <= len(want); most++ {
			var got []Item
			for it := range v.Range(r, RangeOptions{}) {
				if got = append(got, it); len(got) == most {
					break
				}
			}
			require.Equal(t, want[:most], got)
		}
	}
}
