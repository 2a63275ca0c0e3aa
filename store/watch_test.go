package store

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

func deleteCommand(key string) *trivetpb.Command {
	return opCommand(&trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{Key: []byte(key)}}})
}

func putText(key, value string) *trivetpb.Command { return putCommand([]byte(key), []byte(value)) }

// mustApply applies commands as one entry.
func mustApply(t testing.TB, s *Store, commands ...*trivetpb.Command) []*trivetpb.Result {
	t.Helper()
	results, err := s.Apply(s.Index()+1, &trivetpb.Entry{Commands: commands})
	require.NoError(t, err)
	return results
}

func keepRevisions(t testing.TB, s *Store, n uint64) {
	t.Helper()
	mustApply(t, s, &trivetpb.Command{Command: &trivetpb.Command_Marker{Marker: &trivetpb.Marker{
		Term: 1, Settings: &trivetpb.Settings{HistoryRevisions: n}}}})
}

func mustWatch(t testing.TB, s *Store, keys *trivetpb.KeyRange, from uint64) *Watcher {
	t.Helper()
	w, err := s.Watch(keys, from)
	require.NoError(t, err)
	t.Cleanup(w.Close)
	return w
}

// drain returns all frames there are, as text.
func drain(t testing.TB, w *Watcher) (frames []string) {
	t.Helper()
	for {
		f, err := w.Next()
		require.NoError(t, err)
		if f == nil {
			return frames
		}
		frames = append(frames, frameText(f))
		require.Equal(t, f.Revision, w.Through())
	}
}

// frameText is everything about a frame.
func frameText(f *Frame) string {
	var b strings.Builder
	fmt.Fprint(&b, f.Revision)
	for i := range f.Events {
		e := &f.Events[i]
		it := e.Item()
		fmt.Fprintf(&b, " %s", e.Key)
		switch {
		case e.Expired():
			b.WriteString(" expired")
		case e.Deleted():
			b.WriteString(" deleted")
		default:
			fmt.Fprintf(&b, "=%s(%d %d)", it.Value, it.CreateRevision, it.Version)
		}
		if it.ModRevision != f.Revision || e.Revision() != f.Revision {
			b.WriteString(" at another revision")
		}
		if prev, ok := e.Prev(); ok {
			fmt.Fprintf(&b, " before %s(%d %d)", prev.Value, prev.ModRevision, prev.Version)
		}
	}
	return b.String()
}

func problemOf(t testing.TB, err error) *trivetpb.Problem {
	t.Helper()
	var p *trivetpb.Problem
	require.ErrorAs(t, err, &p)
	return p
}

func isReady(w *Watcher) bool {
	select {
	case <-w.Ready():
		return true
	default:
		return false
	}
}

func TestWatchGivesWhatChanges(t *testing.T) {
	s := New()
	mustApply(t, s, putText("a/1", "x"), putText("b", "y")) // 2, 3
	from2 := mustWatch(t, s, PrefixRange([]byte("a/")), 2)
	now := mustWatch(t, s, PrefixRange([]byte("a/")), 0)
	one := mustWatch(t, s, keyAlone("a/2"), 0)
	some := mustWatch(t, s, &trivetpb.KeyRange{Start: []byte("a/2"), End: []byte("c")}, 3)
	all := mustWatch(t, s, nil, 4)
	require.Equal(t, 5, s.Watchers())
	require.EqualValues(t, 3, now.Opened())
	require.EqualValues(t, 3, now.Through())
	require.EqualValues(t, 1, from2.Through())
	require.False(t, isReady(now))
	require.True(t, isReady(from2), "there is something to read at once")
	require.Empty(t, drain(t, now))

	txn := &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{Then: []*trivetpb.Op{
		putText("a/2", "2").GetOp(), deleteCommand("a/1").GetOp(), putText("z", "").GetOp(),
	}}}}
	bad := &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{Then: []*trivetpb.Op{
		putText("a/2", "undone").GetOp(),
		{Op: &trivetpb.Op_Add{Add: &trivetpb.AddOp{Key: []byte("b"), Delta: 1}}},
	}}}}
	ready := now.Ready()
	mustApply(t, s, opCommand(txn), opCommand(bad), putText("a/2", "3"), deleteCommand("none"), putText("b", "4")) // 4, 5, 6
	<-ready
	require.Equal(t, []string{"2 a/1=x(2 1)", "4 a/2=2(4 1) a/1 deleted before x(2 1)", "5 a/2=3(4 2) before 2(4 1)"}, drain(t, from2))
	require.Equal(t, []string{"4 a/2=2(4 1) a/1 deleted before x(2 1)", "5 a/2=3(4 2) before 2(4 1)"}, drain(t, now))
	require.Equal(t, []string{"4 a/2=2(4 1)", "5 a/2=3(4 2) before 2(4 1)"}, drain(t, one))
	require.Equal(t, []string{"3 b=y(3 1)", "4 a/2=2(4 1)", "5 a/2=3(4 2) before 2(4 1)", "6 b=4(3 2) before y(3 1)"}, drain(t, some))
	require.Equal(t, []string{"4 a/2=2(4 1) a/1 deleted before x(2 1) z=(4 1)", "5 a/2=3(4 2) before 2(4 1)", "6 b=4(3 2) before y(3 1)"}, drain(t, all))
	for _, w := range []*Watcher{from2, now, one, some, all} {
		require.EqualValues(t, 6, w.Through(), "also past what did not concern it")
		require.False(t, isReady(w))
		w.Close()
		w.Close()
	}
	require.Zero(t, s.Watchers())
	requireNoWatches(t, s)
}

// requireNoWatches checks that nothing is left of watchers that are gone.
func requireNoWatches(t testing.TB, s *Store) {
	t.Helper()
	h := &s.watches
	require.Zero(t, h.present.Load())
	require.Zero(t, h.watchers.Load())
	require.Zero(t, h.groups.Len())
	require.Empty(t, h.index.root.nodes)
	require.Nil(t, h.index.ranges.root)
	require.Zero(t, h.ring.len())
	require.Zero(t, h.ring.bytes.Load())
}

func TestWatchFromWhereItCannot(t *testing.T) {
	s := New()
	keepRevisions(t, s, 3)
	for i := range 9 {
		mustApply(t, s, putText("k", fmt.Sprint(i))) // to 10
	}
	for _, from := range []uint64{1, 6, 7} {
		_, err := s.Watch(nil, from)
		p := problemOf(t, err)
		require.Equal(t, trivetpb.Code_COMPACTED, p.Code)
		require.EqualValues(t, 7, p.CompactRevision)
		require.EqualValues(t, 10, p.Revision)
	}
	_, err := s.Watch(nil, 12)
	p := problemOf(t, err)
	require.Equal(t, trivetpb.Code_FUTURE_REVISION, p.Code)
	require.EqualValues(t, 10, p.Revision)
	require.Len(t, drain(t, mustWatch(t, s, nil, 8)), 3)
	require.Empty(t, drain(t, mustWatch(t, s, nil, 11)))
	require.Equal(t, 2, s.Watchers())
}

// One that keeps up is not bothered by a history shorter than an entry.
func TestWatchKeepsUpWithAShortHistory(t *testing.T) {
	s := New()
	keepRevisions(t, s, 1)
	w := mustWatch(t, s, nil, 0)
	for range 3 {
		mustApply(t, s, putText("k", "1"), putText("k", "2"), deleteCommand("k"), putText("k", "3"))
		require.Len(t, drain(t, w), 4)
	}
}

// One that lags reads the history for as long as that holds what it wants, and
// then hears that it is too late: once and for all.
func TestWatchThatFallsBehind(t *testing.T) {
	s := New()
	s.watches.ring.mostFrames = 2
	keepRevisions(t, s, 10)
	slow, slower := mustWatch(t, s, PrefixRange([]byte("k")), 0), mustWatch(t, s, PrefixRange([]byte("k")), 0)
	other := mustWatch(t, s, keyAlone("other"), 0)
	for i := range 10 {
		mustApply(t, s, putText(fmt.Sprint("k", i), ""))
	}
	require.Len(t, drain(t, slow), 10)
	mustApply(t, s, putText("other", ""), putText("k", "")) // 12, 13: 2 and 3 are compacted
	require.Equal(t, []string{"12 other=(12 1)"}, drain(t, other))
	f, err := slower.Next()
	require.Nil(t, f)
	p := problemOf(t, err)
	require.Equal(t, trivetpb.Code_COMPACTED, p.Code)
	require.EqualValues(t, 3, p.CompactRevision)
	require.EqualValues(t, 13, p.Revision)
	require.True(t, isReady(slower), "whoever waits for it must hear")
	for range 2 {
		mustApply(t, s, putText("k", ""))
		f, again := slower.Next()
		require.Nil(t, f)
		require.Equal(t, err, again)
	}
	require.Len(t, drain(t, slow), 3)
	for range 30 {
		mustApply(t, s, putText("k", ""))
	}
	mustApply(t, s, putText("other", "")) // 46
	require.Equal(t, []string{"46 other=(12 2) before (12 1)"}, drain(t, other), "nothing of what was compacted concerned it")
}

// Frames and encodings of one range are made once, and not held for long.
func TestWatchersOfOneRangeShareFrames(t *testing.T) {
	s := New()
	s.watches.ring.mostBytes = 10_000
	a, b, late := mustWatch(t, s, nil, 0), mustWatch(t, s, nil, 0), mustWatch(t, s, nil, 0)
	encodings := 0
	encode := func(f *Frame) []byte {
		encodings++
		return []byte(frameText(f))
	}
	var first *Frame
	for i := range 30 {
		mustApply(t, s, putText("k", strings.Repeat("v", 1000)))
		fa, err := a.Next()
		require.NoError(t, err)
		fb, err := b.Next()
		require.NoError(t, err)
		require.Same(t, fa, fb)
		if i == 0 {
			first = fa
		}
		require.Same(t, &fa.Encoded(0, encode)[0], &fb.Encoded(0, encode)[0])
		require.Equal(t, i+1, encodings)
		require.LessOrEqual(t, s.watches.ring.bytes.Load(), int64(10_000+1_100))
		require.LessOrEqual(t, s.watches.ring.len(), 6)
	}
	require.NotEmpty(t, first.Encoded(1, encode))
	require.NotEmpty(t, first.Encoded(1, encode))
	require.Equal(t, 32, encodings, "a frame that has left keeps nothing more")
	frames := 0
	for {
		f, err := late.Next()
		require.NoError(t, err)
		if f == nil {
			break
		}
		frames++
		require.EqualValues(t, frames+1, f.Revision)
	}
	require.Equal(t, 30, frames)
	for _, w := range []*Watcher{a, b, late} {
		w.Close()
	}
	requireNoWatches(t, s)
}

// A revision larger than what is read at a time still comes as one frame.
func TestWatchReadsALargeRevisionWhole(t *testing.T) {
	s := New()
	s.watches.readChanges = 7
	for i := range 50 {
		mustApply(t, s, putText(fmt.Sprintf("k%02d", i), ""))
	}
	mustApply(t, s, opCommand(&trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{Range: PrefixRange([]byte("k"))}}}))
	mustApply(t, s, putText("k", ""))
	w := mustWatch(t, s, PrefixRange([]byte("k1")), 2)
	frames := drain(t, w)
	require.Len(t, frames, 11)
	require.Equal(t, 10, strings.Count(frames[10], "deleted"))
	require.EqualValues(t, 53, w.Through())
}

func TestEventsOfExpiredKeys(t *testing.T) {
	e := Event{Key: "k", v: newTombstone(5, 0, true), prev: newVersion(2, 0, numbers{2, 1, 0}, nil)}
	require.True(t, e.Deleted())
	require.True(t, e.Expired())
	require.Equal(t, Item{Key: "k", Value: []byte{}, ModRevision: 5}, e.Item())
	e.v = newTombstone(5, 0, false)
	require.True(t, e.Deleted())
	require.False(t, e.Expired())
}

// A snapshot that was installed goes on where the watchers are, if it reaches
// back to them.
func TestWatchAcrossRestore(t *testing.T) {
	leader, s := New(), New()
	entries := func(n int, to ...*Store) {
		for range n {
			for _, st := range to {
				mustApply(t, st, putText("k", fmt.Sprint(st.Revision()+1)), putText("other", ""))
			}
		}
	}
	install := func() {
		v, err := leader.View(0)
		require.NoError(t, err)
		defer v.Close()
		var file bytes.Buffer
		require.NoError(t, v.WriteSnapshot(&file))
		require.NoError(t, s.Restore(&file))
	}
	entries(2, leader, s) // to 5
	keepsUp, lags := mustWatch(t, s, keyAlone("k"), 0), mustWatch(t, s, keyAlone("k"), 2)
	entries(1, leader, s) // 7
	require.Len(t, drain(t, keepsUp), 1)
	ready := keepsUp.Ready()
	entries(2, leader) // 11
	install()
	<-ready
	require.Equal(t, []string{"8 k=8(2 4) before 6(6 3)", "10 k=10(2 5) before 8(8 4)"}, drain(t, keepsUp))
	require.Len(t, drain(t, lags), 5)
	entries(1, leader, s)
	require.Len(t, drain(t, lags), 1)
	require.Len(t, drain(t, keepsUp), 1)

	keepRevisions(t, leader, 2)
	entries(3, leader)
	ready = keepsUp.Ready()
	install()
	<-ready
	_, err := keepsUp.Next()
	require.Equal(t, trivetpb.Code_COMPACTED, problemOf(t, err).Code)
}

// Whoever was there when a backup was restored through the log is too late, also
// for what came before it in the same entry, and after it.
func TestWatchAcrossARestoredBackup(t *testing.T) {
	old := New()
	mustApply(t, old, putText("k", "backed up"))
	file := snapshotOf(t, old).Bytes()
	for _, together := range []bool{true, false} {
		s := New()
		mustApply(t, s, putText("k", "1"))
		w, idle := mustWatch(t, s, nil, 0), mustWatch(t, s, keyAlone("idle"), 0)
		waits := idle.Ready()
		commands := append([]*trivetpb.Command{putText("k", "2")}, uploadAll(1, file, 1<<20)...)
		commands = append(commands, putText("k", "3"))
		if together {
			mustApply(t, s, commands...)
		} else {
			for _, c := range commands {
				mustApply(t, s, c)
			}
		}
		<-waits
		require.EqualValues(t, 5, s.Revision())
		late, from := mustWatch(t, s, nil, 0), mustWatch(t, s, nil, 5)
		mustApply(t, s, putText("k", "4"))
		require.Equal(t, []string{"6 k=4(2 3) before 3(5 2)"}, drain(t, late))
		require.Equal(t, []string{"5 k=3(2 2) before backed up(2 1)", "6 k=4(2 3) before 3(5 2)"}, drain(t, from))
		for _, w := range []*Watcher{w, idle} {
			_, err := w.Next()
			p := problemOf(t, err)
			require.Equal(t, trivetpb.Code_COMPACTED, p.Code)
			require.EqualValues(t, 4, p.CompactRevision)
		}
	}
}

// A cluster never sets a store back; a watcher that is ahead of it then ends.
func TestWatchOfAStoreThatIsSetBack(t *testing.T) {
	s := New()
	mustApply(t, s, putText("k", "1"))
	w := mustWatch(t, s, nil, 0)
	require.NoError(t, s.Restore(snapshotOf(t, New())))
	_, err := w.Next()
	require.Equal(t, trivetpb.Code_FUTURE_REVISION, problemOf(t, err).Code)
}

// The keys of a lease that ends are deleted as expired.
func TestWatchSeesWhatExpires(t *testing.T) {
	s := New()
	mustApply(t, s, opCommand(ttlPut("k", "v", 1000)), grant(1000))
	w := mustWatch(t, s, nil, 0)
	fine(t, s, 5000, expire())
	require.Equal(t, []string{"3 k expired before v(2 1)"}, drain(t, w))
}
