package raftnode

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// leaseWithKey grants a lease and attaches a key to it.
func leaseWithKey(t *testing.T, n *Node, ttl time.Duration, key string) uint64 {
	t.Helper()
	id := simDo(t, n, &trivetpb.Command{Command: &trivetpb.Command_LeaseGrant{
		LeaseGrant: &trivetpb.LeaseGrant{TtlMs: uint64(ttl.Milliseconds())},
	}}, 10*time.Second).GetLease().Lease
	c := put(key, "v")
	c.GetOp().GetPut().Lease = id
	simDo(t, n, c, 10*time.Second)
	return id
}

func keepAlive(t *testing.T, n *Node, lease uint64) {
	t.Helper()
	simDo(t, n, &trivetpb.Command{Command: &trivetpb.Command_LeaseKeepAlive{
		LeaseKeepAlive: &trivetpb.LeaseKeepAlive{Lease: lease},
	}}, 10*time.Second)
}

// led is how long something took, and how much of that somebody led.
type led struct {
	since, with time.Duration
}

// untilGone waits for a key to go, and calls meanwhile all the time. It looks
// every millisecond, whatever meanwhile does.
func (s *sim) untilGone(key string, meanwhile func(at time.Duration)) led {
	s.t.Helper()
	var l led
	start := time.Now()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for ; l.since < 10*time.Minute; l.since = time.Since(start) {
			leads := false
			for _, n := range s.up() {
				if n.proposer.leading() == nil {
					continue
				}
				leads = true
				if _, ok, _ := n.store.Get([]byte(key)); !ok {
					return
				}
			}
			if leads {
				l.with += time.Millisecond
			}
			time.Sleep(time.Millisecond) // virtual
		}
	}()
	for {
		select {
		case <-gone:
			if l.since >= 10*time.Minute {
				s.t.Fatal("the key does not go")
			}
			return l
		case <-time.After(time.Millisecond):
			meanwhile(time.Since(start))
		}
	}
}

// A lease of ten seconds ends between ten and twelve after its last keepalive,
// whatever happens to leaders, time without one added: never early, never
// started again.
func TestSimLeaseEndsOnTime(t *testing.T) {
	const ttl = 10 * time.Second
	for _, c := range []struct {
		name  string
		every time.Duration // something happens
		what  func(s *sim)
	}{
		{"nothing happens", time.Hour, nil},
		{"leaders die", 2500 * time.Millisecond, func(s *sim) {
			old := s.leader()
			s.crash(old.ID())
			s.another(old)
			s.start(old.ID())
		}},
		{"leaders are cut off", 2500 * time.Millisecond, func(s *sim) {
			old := s.leader()
			s.isolate(old.ID())
			s.another(old)
			s.heal()
		}},
		{"leaders hand over", time.Second, func(s *sim) {
			s.makeLead(s.followers()[0])
		}},
		{"everybody starts again", 3 * time.Second, func(s *sim) {
			for _, id := range s.ids {
				s.crash(id)
			}
			for _, id := range s.ids {
				s.start(id)
			}
			s.leader()
		}},
		{"nobody leads for long", 4 * time.Second, func(s *sim) {
			s.net.set(s.ids, func(string, string) bool { return true })
			time.Sleep(time.Minute) // virtual
			s.heal()
			s.leader()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			runSim(t, 3, func(c *Config) { c.SnapshotBytes = 4 << 10 }, func(s *sim) {
				lease := leaseWithKey(t, s.leader(), ttl, "k")
				for range 5 { // kept alive, it does not end
					time.Sleep(ttl * 9 / 10) // virtual
					keepAlive(t, s.followers()[0], lease)
				}
				_, ok, _ := s.leader().store.Get([]byte("k"))
				require.True(t, ok)
				next := c.every
				took := s.untilGone("k", func(at time.Duration) {
					if at >= next {
						began := time.Now()
						c.what(s)
						next = at + time.Since(began) + c.every
					}
				})
				require.GreaterOrEqual(t, took.since, ttl, "early")
				require.GreaterOrEqual(t, took.with, ttl-50*time.Millisecond, "time without a leader was counted: %v in all", took.since)
				require.LessOrEqual(t, took.with, ttl+2*time.Second, "late: %v in all", took.since)
				s.converge()
				for _, n := range s.up() {
					_, found := n.store.Lease(lease)
					require.False(t, found)
				}
			})
		})
	}
}

// Ten thousand leases that end at once end in several entries, at revisions of
// their own, the same everywhere; writes go in between.
func TestSimManyLeasesEndAtOnce(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		const leases = 10_000
		n := s.leader()
		for from := 0; from < leases; from += 1000 {
			commands := make([]*trivetpb.Command, 1000)
			for i := range commands {
				commands[i] = put(fmt.Sprintf("lease/%d", from+i), "v")
				commands[i].GetOp().GetPut().TtlMs = 10_000
			}
			ctx, cancel := within(10 * time.Second)
			_, err := n.Propose(ctx, commands)
			cancel()
			require.NoError(t, err)
		}
		require.EqualValues(t, leases, n.store.Stats().Leases)
		before := n.store.Stats()
		for n.store.Stats().Leases == leases {
			time.Sleep(100 * time.Microsecond) // virtual
		}
		left := n.store.Stats().Leases
		require.Positive(t, left, "all at once")
		require.Nil(t, simPut(s.followers()[0], "other", "v", time.Second))
		require.Positive(t, n.store.Stats().Leases, "a write had to wait for all of them")
		for n.store.Stats().Leases > 0 {
			time.Sleep(time.Millisecond) // virtual
		}
		after := n.store.Stats()
		require.EqualValues(t, leases+1, after.Revision-before.Revision)
		require.Greater(t, after.Index-before.Index, uint64(20))
		s.converge()
	})
}

// While nothing has a deadline, nothing is written; while something has, hardly
// anything is.
func TestSimAnIdleClusterIsQuiet(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		n := s.leader()
		time.Sleep(time.Second) // virtual
		before := n.store.Index()
		time.Sleep(5 * time.Minute) // virtual
		require.Equal(t, before, n.store.Index())

		simDo(t, n, &trivetpb.Command{Command: &trivetpb.Command_LeaseGrant{
			LeaseGrant: &trivetpb.LeaseGrant{TtlMs: 24 * 3_600_000},
		}}, time.Second)
		time.Sleep(5 * time.Minute) // virtual
		require.LessOrEqual(t, n.store.Index()-before, uint64(5*60*1000/tickMost+3))
	})
}

// History grows old while nobody writes.
func TestSimHistoryIsCompactedByAge(t *testing.T) {
	runSim(t, 3, func(c *Config) { c.History = time.Minute }, func(s *sim) {
		n := s.leader()
		for i := range 10 {
			require.Nil(t, simPut(n, "k", fmt.Sprint(i), time.Second))
		}
		require.EqualValues(t, 1, n.store.Stats().CompactRevision)
		time.Sleep(2 * time.Minute) // virtual
		st := n.store.Stats()
		require.Equal(t, st.Revision, st.CompactRevision)
		s.converge()
	})
}
