package store

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// TestNothingEndsEarly: to the millisecond.
func TestNothingEndsEarly(t *testing.T) {
	s := New()
	fine(t, s, 1000, grant(1000), opCommand(ttlPut("k", "", 2000)), acquire("lock", "", 3000, 0), acquire("lock", "", 9000, 1500),
		openSession(2500, false), under(opCommand(putOp("a", "")), "key", "put"), restoreChunk(1, 0, []byte("x")))
	counts := func() []uint64 {
		st := s.Stats()
		upload := uint64(0)
		if s.state.upload != nil {
			upload = 1
		}
		return []uint64{st.Leases, st.Waiters, st.Sessions, st.Answers, upload}
	}
	require.Equal(t, []uint64{3, 1, 1, 1, 1}, counts())
	for _, step := range []struct {
		at   uint64
		want []uint64
	}{
		{1999, []uint64{3, 1, 1, 1, 1}}, {2000, []uint64{2, 1, 1, 1, 1}},
		{2499, []uint64{2, 1, 1, 1, 1}}, {2500, []uint64{2, 0, 1, 1, 1}},
		{2999, []uint64{2, 0, 1, 1, 1}}, {3000, []uint64{1, 0, 1, 1, 1}},
		{3499, []uint64{1, 0, 1, 1, 1}}, {3500, []uint64{1, 0, 0, 1, 1}},
		{3999, []uint64{1, 0, 0, 1, 1}}, {4000, []uint64{0, 0, 0, 1, 1}},
		{60_999, []uint64{0, 0, 0, 1, 1}}, {61_000, []uint64{0, 0, 0, 1, 0}},
		{600_999, []uint64{0, 0, 0, 1, 0}}, {601_000, []uint64{0, 0, 0, 0, 0}},
	} {
		fine(t, s, step.at, expire())
		require.Equal(t, step.want, counts(), "at %d ms", step.at)
	}
	for {
		next, ok := s.NextDeadline()
		if !ok {
			break
		}
		require.Positive(t, s.Stats().HistoryRevisions)
		fine(t, s, next, expire())
	}
	require.Zero(t, s.Stats().HistoryRevisions, "the history was compacted by age at last")
}

// TestWhoWaitsToTheVeryEndGetsTheLock: the lease is ended before the wait.
func TestWhoWaitsToTheVeryEndGetsTheLock(t *testing.T) {
	s := New()
	fine(t, s, 0, acquire("lock", "first", 1000, 0), acquire("lock", "too short", 1000, 999), acquire("lock", "just right", 1000, 1000), acquire("lock", "longer", 1000, 5000))
	fine(t, s, 30_000, expire())
	info, ok := s.Lock("lock", 10)
	require.True(t, ok)
	require.Equal(t, "just right", info.Holder.Owner)
	require.EqualValues(t, 1000, info.Holder.RemainingMS, "his ttl begins when he holds it")
	require.Empty(t, info.Queue, "the other one's wait was over at 5,000")
}

// TestExpireIsBounded: so many things a command, so many keys, and at least one
// thing.
func TestExpireIsBounded(t *testing.T) {
	const leases = 10_000
	s := New()
	var ids []uint64
	for range leases {
		ids = append(ids, fineFast(t, s, grant(1000)).GetLease().Lease)
	}
	e := &trivetpb.Entry{}
	for i, id := range ids[:leases/2] {
		e.Commands = append(e.Commands, opCommand(leasePut(fmt.Sprintf("k%05d", i), "", id)))
	}
	apply(t, s, e)
	s2 := restored(t, s)
	commands := 0
	for s.Stats().Leases > 0 {
		next, ok := s.NextDeadline()
		require.True(t, ok && next == 1000, "more is due")
		before := s.Stats().Leases
		for _, s := range []*Store{s, s2} {
			apply(t, s, &trivetpb.Entry{ClockMs: 2000, Commands: []*trivetpb.Command{expire()}})
		}
		require.Equal(t, s.Stats(), s2.Stats(), "which ones are ended first is part of the state")
		require.Equal(t, max(before, MaxExpired)-MaxExpired, s.Stats().Leases)
		commands++
	}
	require.Equal(t, (leases+MaxExpired-1)/MaxExpired, commands)

	// Keys: 1,500 + 1,500 fit, the third lease waits; the large one ends alone.
	s = New()
	many := func(n int) {
		id := fineFast(t, s, grant(1000)).GetLease().Lease
		e := &trivetpb.Entry{}
		for i := range n {
			e.Commands = append(e.Commands, opCommand(leasePut(fmt.Sprintf("%d/%d", id, i), "", id)))
		}
		apply(t, s, e)
	}
	for _, n := range []int{1500, 1500, 1500, 1500} {
		many(n)
	}
	var left []uint64
	for s.Stats().Leases > 0 {
		apply(t, s, &trivetpb.Entry{ClockMs: 2000, Commands: []*trivetpb.Command{expire()}})
		left = append(left, s.Stats().Leases)
	}
	require.Equal(t, []uint64{2, 0}, left)
	many(MaxExpiredKeys + 1)
	many(1)
	for s.Stats().Leases > 0 {
		apply(t, s, &trivetpb.Entry{ClockMs: 9000, Commands: []*trivetpb.Command{expire()}})
		left = append(left, s.Stats().Leases)
	}
	require.LessOrEqual(t, len(left), 4)
	require.Zero(t, s.Stats().Keys)
}

// fineFast is fine without looking into the store.
func fineFast(t testing.TB, s *Store, c *trivetpb.Command) *trivetpb.Result {
	t.Helper()
	r := apply(t, s, &trivetpb.Entry{Commands: []*trivetpb.Command{c}})[0]
	require.Nil(t, r.Problem)
	return r
}

// TestAnIdleClusterCompactsInSteps: a busy second that has passed is compacted
// by some entries, not by one for each of its milliseconds.
func TestAnIdleClusterCompactsInSteps(t *testing.T) {
	s := New()
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryMs: 3200}))
	for ms := range 1000 {
		apply(t, s, entryOf(5000+uint64(ms), putOp("a", fmt.Sprint(ms))))
	}
	steps := 0
	for {
		next, ok := s.NextDeadline()
		if !ok {
			break
		}
		before := s.Stats()
		require.Greater(t, next, before.ClockMS)
		apply(t, s, &trivetpb.Entry{ClockMs: next, Commands: []*trivetpb.Command{expire()}})
		require.Greater(t, s.Stats().CompactRevision, before.CompactRevision, "something is compacted each time")
		steps++
	}
	require.Zero(t, s.Stats().HistoryRevisions)
	require.LessOrEqual(t, steps, 11)
	require.GreaterOrEqual(t, steps, 10)
}

func TestDeadlinesAtTheEndOfTime(t *testing.T) {
	s := New()
	fine(t, s, never-10, grant(1000), acquire("lock", "", 1000, 0), openSession(1000, false))
	fine(t, s, never-1, expire())
	_, ok := s.NextDeadline()
	require.False(t, ok)
	fine(t, s, never, expire())
	require.EqualValues(t, 2, s.Stats().Leases, "clocks end here, and nothing more does")
}
