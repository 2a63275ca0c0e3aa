package raftnode

import (
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// Members whose state differs from the others', by a fault that no checksum sees.

// corrupting makes a cluster of n in which writes of the key "corrupt" go wrong on
// the members that corrupt names, each in its own way.
func corrupting(t *testing.T, n int, f func(s *sim, corrupt func(ids ...string))) {
	var victims sync.Map // by id
	runSim(t, n, func(c *Config) {
		id := c.ID
		c.onApplied = nil // it would fail the test
		c.SnapshotBytes = 4 << 10
		c.onEntry = func(_ uint64, e *trivetpb.Entry) {
			for _, command := range e.Commands {
				if p := command.GetOp().GetPut(); string(p.GetKey()) == "corrupt" {
					if _, victim := victims.Load(id); victim {
						p.Value = []byte("flipped bits of " + id)
					}
				}
			}
		}
	}, func(s *sim) {
		s.leader()
		s.converge()
		f(s, func(ids ...string) {
			for _, id := range ids {
				victims.Store(id, true)
			}
			require.Nil(t, simPut(s.leader(), "corrupt", "v", time.Second))
			time.Sleep(100 * time.Millisecond) // virtual: everybody that is there applies it
			victims.Clear()                    // what is read back from the log is right
		})
	})
}

// out waits until a member has taken itself out of service, and checks how.
func (s *sim) out(n *Node) {
	s.t.Helper()
	select {
	case <-n.Failed():
	case <-time.After(10 * time.Second): // virtual
		s.t.Fatalf("%s goes on", n.ID())
	}
	require.ErrorContains(s.t, n.Err(), "the state of this member is not that of the others: at log entry")
	require.Contains(s.t, n.Status().Failed, "its hash is")
	require.NotEmpty(s.t, n.Ready(0))
	st := n.Stats()
	require.True(s.t, st.Diverged)
	require.NotZero(s.t, st.HashMismatches)
	for _, c := range []Consistency{Linearizable, Bounded, Session, Stale} {
		ctx, cancel := within(time.Second)
		_, err := n.AwaitRead(ctx, ReadOptions{Consistency: c, MaxStaleness: time.Hour})
		cancel()
		var p *trivetpb.Problem
		require.ErrorAs(s.t, err, &p, "a read of what may be wrong, %v", c)
		require.Equal(s.t, trivetpb.Code_DRAINING, p.Code)
	}
}

// goOn checks that members write and read, and that none of them fails.
func (s *sim) goOn(nodes ...*Node) {
	s.t.Helper()
	for range 20 {
		for _, n := range nodes {
			require.Nil(s.t, simPut(n, "k", "v", 5*time.Second))
			_, err := simGet(n, "k", 5*time.Second)
			require.NoError(s.t, err)
		}
		time.Sleep(time.Second) // virtual
	}
	for _, n := range nodes {
		require.NoError(s.t, n.Err())
		require.False(s.t, n.Stats().Diverged)
	}
}

func others(all []*Node, not ...*Node) []*Node {
	var rest []*Node
	for _, n := range all {
		keep := true
		for _, m := range not {
			keep = keep && n != m
		}
		if keep {
			rest = append(rest, n)
		}
	}
	return rest
}

func TestSimAFollowerWhoseStateDiffersStops(t *testing.T) {
	corrupting(t, 3, func(s *sim, corrupt func(...string)) {
		bad := s.followers()[0]
		corrupt(bad.ID())
		start := time.Now()
		s.out(bad)
		require.Less(t, time.Since(start), 3*time.Second)
		s.goOn(others(s.up(), bad)...)
		// Started again, it makes its state from the log, and is right.
		s.crash(bad.ID())
		s.goOn(others(s.up(), s.start(bad.ID()))...)
		s.goOn(s.up()...)
	})
}

// No read gets between the finding and the failure.
func TestSimNoReadOfAStateThatDiffers(t *testing.T) {
	runSim(t, 1, nil, func(s *sim) {
		n := s.leader()
		n.counters.diverged.Store(true) // the first half of diverge
		ctx, cancel := within(time.Second)
		defer cancel()
		for _, c := range []Consistency{Linearizable, Bounded, Session, Stale} {
			_, err := n.AwaitRead(ctx, ReadOptions{Consistency: c, MaxStaleness: time.Hour})
			require.Error(t, err)
			require.Equal(t, trivetpb.Code_DRAINING, problemOf(t, err).Code)
		}
	})
}

func TestSimALeaderWhoseStateDiffersStops(t *testing.T) {
	corrupting(t, 3, func(s *sim, corrupt func(...string)) {
		bad := s.leader()
		corrupt(bad.ID())
		s.out(bad)
		rest := others(s.up(), bad)
		s.goOn(rest...)
		require.NotEqual(t, bad, s.another(bad))
		for _, n := range rest {
			item, _, _ := n.store.Get([]byte("corrupt"))
			require.Equal(t, "v", string(item.Value))
		}
	})
}

// With a third member that is away, nobody can say who is wrong: the two wait for
// it for a while. If it comes, it decides.
func TestSimAMemberThatReturnsDecides(t *testing.T) {
	corrupting(t, 3, func(s *sim, corrupt func(...string)) {
		bad := s.leader()
		away := s.followers()[0]
		good := others(s.up(), bad, away)[0]
		s.crash(away.ID())
		corrupt(bad.ID())
		time.Sleep(2500 * time.Millisecond) // virtual
		require.NoError(t, bad.Err())
		require.NoError(t, good.Err())
		back := s.start(away.ID())
		s.out(bad)
		s.goOn(good, back)
	})
}

// Where nobody decides, what differs from the leader stops: here that leaves no
// majority, and nothing is confirmed any more.
func TestSimWithoutAMajorityTheLeaderIsBelieved(t *testing.T) {
	for _, members := range []int{2, 3} {
		corrupting(t, members, func(s *sim, corrupt func(...string)) {
			leader := s.leader()
			bad := s.followers()[0]
			if members == 3 {
				s.crash(others(s.up(), leader, bad)[0].ID())
			}
			corrupt(bad.ID())
			s.out(bad)
			require.NoError(t, leader.Err())
			time.Sleep(5 * time.Second) // virtual
			_, err := simGet(leader, "k", time.Second)
			require.Error(t, err)
		})
	}
}

// What a voter has said counts though it has forgotten it by the time that the
// others are done without: under load that is soon.
func TestSimWhatWasSaidOfAForgottenIndexCounts(t *testing.T) {
	corrupting(t, 3, func(s *sim, corrupt func(...string)) {
		leader := s.leader()
		bad := s.followers()[0]
		s.crash(others(s.up(), leader, bad)[0].ID())
		corrupt(bad.ID())
		for bad.Stats().HashMismatches == 0 {
			time.Sleep(10 * time.Millisecond) // virtual
		}
		time.Sleep(compareEvery / 2) // virtual: it has asked once
		ring := &leader.compare.ring
		ring.mu.Lock()
		clear(ring.slots[:])
		ring.mu.Unlock()
		s.out(bad)
		require.NoError(t, leader.Err())
	})
}

// Five members, two of them wrong in different ways, one of these the leader.
func TestSimTwoOfFiveWhoseStatesDifferStop(t *testing.T) {
	corrupting(t, 5, func(s *sim, corrupt func(...string)) {
		a, b := s.leader(), s.followers()[0]
		rest := others(s.up(), a, b)
		corrupt(a.ID(), b.ID())
		s.out(a)
		s.out(b)
		s.goOn(rest...)
	})
}

// A replica compares itself too, and its word counts for nothing.
func TestSimAReplicaWhoseStateDiffersStops(t *testing.T) {
	corrupting(t, 4, func(s *sim, corrupt func(...string)) {
		bad := s.followers()[0]
		require.NoError(t, s.leader().raft.DemoteVoter(raftID(bad), 0, time.Second).Error())
		corrupt(bad.ID())
		s.out(bad)
		s.goOn(others(s.up(), bad)...)
	})
}

// Restarts, snapshots sent and taken, changes of leader: no false alarm, and the
// leader knows how far the others are.
func TestSimStatesThatAreTheSame(t *testing.T) {
	runSim(t, 3, func(c *Config) { c.SnapshotBytes = 4 << 10 }, func(s *sim) {
		s.leader()
		for round := range 6 {
			down := s.followers()[round%2]
			s.crash(down.ID())
			for i := range 200 { // enough for a snapshot, and to leave none of the log
				require.Nil(t, simPut(s.leader(), "k", string(make([]byte, i)), 5*time.Second))
			}
			s.start(down.ID())
			time.Sleep(3 * time.Second) // virtual
			if round%2 == 1 {
				old := s.leader()
				s.crash(old.ID())
				s.another(old)
				s.start(old.ID())
				time.Sleep(3 * time.Second) // virtual
			}
			for _, n := range s.up() {
				require.NoError(t, n.Err())
				require.NotZero(t, n.Stats().HashComparisons)
				require.Zero(t, n.Stats().HashMismatches)
			}
		}
		peers := s.leader().Stats().Peers
		require.Len(t, peers, 2)
		for _, p := range peers {
			require.Zero(t, p.Lag)
			require.Less(t, p.LastContact, 2*compareEvery)
		}
		require.Empty(t, s.followers()[0].Stats().Peers)
	})
}

func TestWhoIsWrong(t *testing.T) {
	const mine, other, third = 1, 2, 3
	for name, row := range map[string]struct {
		count hashCount
		late  bool
		want  verdict
	}{
		"the odd one of three":            {hashCount{voters: 3, answers: 3, members: map[uint64]int{mine: 1, other: 2}, leader: other, known: true}, false, isWrong},
		"the leader, the odd one":         {hashCount{voters: 3, answers: 3, members: map[uint64]int{mine: 1, other: 2}, leads: true, leader: mine, known: true}, false, isWrong},
		"with the majority":               {hashCount{voters: 3, answers: 2, members: map[uint64]int{mine: 2}}, false, isRight},
		"against a majority in part":      {hashCount{voters: 5, answers: 4, members: map[uint64]int{mine: 1, other: 3}}, false, isWrong},
		"one does not answer yet":         {hashCount{voters: 3, answers: 2, members: map[uint64]int{mine: 1, other: 1}, leader: other, known: true}, false, isOpen},
		"one never answers":               {hashCount{voters: 3, answers: 2, members: map[uint64]int{mine: 1, other: 1}, leader: other, known: true}, true, isWrong},
		"one never answers a leader":      {hashCount{voters: 3, answers: 2, members: map[uint64]int{mine: 1, other: 1}, leads: true}, true, isRight},
		"a tie of two":                    {hashCount{voters: 2, answers: 2, members: map[uint64]int{mine: 1, other: 1}, leader: other, known: true}, false, isWrong},
		"a tie of two, the leader":        {hashCount{voters: 2, answers: 2, members: map[uint64]int{mine: 1, other: 1}, leads: true, leader: mine, known: true}, false, isRight},
		"three ways":                      {hashCount{voters: 3, answers: 3, members: map[uint64]int{mine: 1, other: 1, third: 1}, leader: other, known: true}, false, isWrong},
		"two and two, with the leader":    {hashCount{voters: 4, answers: 4, members: map[uint64]int{mine: 2, other: 2}, leader: mine, known: true}, false, isRight},
		"two and two, not with it":        {hashCount{voters: 4, answers: 4, members: map[uint64]int{mine: 2, other: 2}, leader: other, known: true}, false, isWrong},
		"nobody answers":                  {hashCount{voters: 3, answers: 1, members: map[uint64]int{mine: 1}}, false, isOpen},
		"nobody ever answers":             {hashCount{voters: 3, answers: 1, members: map[uint64]int{mine: 1}}, true, isRight},
		"a replica against all":           {hashCount{voters: 3, answers: 3, members: map[uint64]int{other: 3}, leader: other, known: true}, false, isWrong},
		"half of four is no majority":     {hashCount{voters: 4, answers: 3, members: map[uint64]int{mine: 1, other: 2}, leader: other, known: true}, false, isOpen},
		"half of four, and nobody leads":  {hashCount{voters: 4, answers: 4, members: map[uint64]int{mine: 2, other: 2}}, false, isOpen},
		"the leader is with the minority": {hashCount{voters: 3, answers: 3, members: map[uint64]int{mine: 2, other: 1}, leader: other, known: true}, false, isRight},
	} {
		t.Run(name, func(t *testing.T) {
			got, why := row.count.verdict(mine, row.late)
			require.Equal(t, row.want, got, why)
		})
	}
}

func raftID(n *Node) raft.ServerID { return raft.ServerID(n.ID()) }
