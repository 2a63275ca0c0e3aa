package raftnode

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// What httpapi's tests do not make happen is counted too.
func TestSimStats(t *testing.T) {
	runSim(t, 3, func(c *Config) { c.SnapshotBytes, c.QueueBytes = 4<<10, 64<<10 }, func(s *sim) {
		old := s.leader()
		before := old.Stats()
		require.True(t, before.Leading)
		require.EqualValues(t, 1, before.Wins)
		for range 100 {
			require.Nil(t, simPut(old, "k", string(make([]byte, 100)), time.Second))
		}
		st := old.Stats()
		require.EqualValues(t, 100, st.ProposalsCommitted-before.ProposalsCommitted)
		require.Zero(t, st.Pending)
		require.GreaterOrEqual(t, st.SnapshotSeconds.Count, uint64(2))
		require.Greater(t, st.SnapshotBytes, int64(100))
		require.GreaterOrEqual(t, st.AppendSeconds.Count, uint64(100))
		require.GreaterOrEqual(t, st.AppendSeconds.Sum, 0.03, "a sync takes 300 µs")
		require.Equal(t, st.AppendSeconds.Count, st.AppendSeconds.Counts[len(st.AppendSeconds.Counts)-1], "all are within the last bound")

		// A write that is too much for the queue.
		hang := make(chan struct{})
		d := s.members[old.ID()].disk
		d.mu.Lock()
		d.hang = hang
		d.mu.Unlock()
		done := make(chan struct{})
		go func() {
			defer close(done)
			simPut(old, "a", string(make([]byte, 60<<10)), 20*time.Millisecond)
		}()
		time.Sleep(5 * time.Millisecond) // virtual
		require.EqualValues(t, 1, old.Stats().Pending)
		require.Greater(t, old.Stats().PendingBytes, int64(60<<10))
		require.Equal(t, trivetpb.Code_OVERLOADED, simPut(old, "b", string(make([]byte, 10<<10)), time.Second).GetCode())
		<-done
		d.mu.Lock()
		d.hang = nil
		d.mu.Unlock()
		close(hang)
		failed := old.Stats().ProposalsFailed
		require.EqualValues(t, 1, failed[FailedOverloaded])
		require.EqualValues(t, 1, failed[FailedUnknown], "it was under way")

		// Another leader, and the old one cut off.
		s.isolate(old.ID())
		next := s.another(old)
		time.Sleep(time.Second) // virtual
		require.Equal(t, trivetpb.Code_NO_LEADER, simPut(old, "k", "v", 10*time.Millisecond).GetCode())
		require.EqualValues(t, 1, old.Stats().ProposalsFailed[FailedNoLeader])
		require.False(t, old.Stats().Leading)
		require.False(t, old.Stats().HasLeader)
		require.NotZero(t, old.Stats().Elections)
		require.EqualValues(t, 1, next.Stats().Wins)
		require.EqualValues(t, 1, next.Stats().LeaderChanges)
		for _, p := range next.Stats().Peers {
			if p.ID == old.ID() {
				require.GreaterOrEqual(t, p.LastContact, time.Second, "never, since this one leads")
			}
		}
		s.heal()
		_, err := simGet(old, "k", 5*time.Second)
		require.NoError(t, err)
		require.EqualValues(t, 1, old.Stats().LeaderChanges)

		// Started again, it has the state from its snapshot.
		s.crash(old.ID())
		old = s.start(old.ID())
		require.EqualValues(t, 1, old.Stats().SnapshotsRestored)
		require.Greater(t, old.Stats().SnapshotBytes, int64(100))
		require.EqualValues(t, 0, old.Stats().ProposalsCommitted)
	})
}

func TestHistogram(t *testing.T) {
	h := newHistogram(1, 2, 4)
	for _, v := range []uint64{0, 1, 2, 3, 4, 5, 100} {
		h.observe(v)
	}
	got := h.read(1)
	require.Equal(t, Histogram{Bounds: []float64{1, 2, 4}, Counts: []uint64{2, 3, 5}, Count: 7, Sum: 115}, got)
	d := newDurations()
	d.observe(uint64(30 * time.Microsecond))
	require.Equal(t, []uint64{0, 0, 1}, d.seconds().Counts[:3])
	require.Equal(t, []float64{0.00001, 0.000025, 0.00005}, d.seconds().Bounds[:3])
	require.InDelta(t, 30e-6, d.seconds().Sum, 1e-12)
}
