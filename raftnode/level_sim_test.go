package raftnode

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// simVersions makes a cluster whose members can be of later versions.
func simVersions(t *testing.T, members, machines int, f func(s *sim, knows func(id string, level uint64))) {
	var mu sync.Mutex
	levels := map[string]uint64{}
	runSimWith(t, members, machines-members, func(c *Config) {
		mu.Lock()
		if level, ok := levels[c.ID]; ok {
			c.knownLevel = &level
		}
		mu.Unlock()
		c.SnapshotBytes = 2 << 10
	}, func(s *sim) {
		f(s, func(id string, level uint64) {
			mu.Lock()
			levels[id] = level
			mu.Unlock()
			if s.node(id) != nil {
				s.crash(id)
				s.start(id)
			}
		})
	})
}

// requireLevel checks the level of all members that are up, now and after a while
// with writes and other leaders.
func (s *sim) requireLevel(level uint64) {
	s.t.Helper()
	for range 3 {
		leader := s.leader()
		s.converge()
		for _, n := range s.up() {
			require.Equal(s.t, level, n.store.Level(), "member %s", n.ID())
		}
		term := leader.raft.CurrentTerm()
		ctx, cancel := within(10 * time.Second)
		_, err := leader.Transfer(ctx, "")
		cancel()
		require.NoError(s.t, err)
		s.leaderAfter(term)
		time.Sleep(5 * time.Second) // virtual
	}
}

// awaitLevel waits until a member's state has the level.
func (s *sim) awaitLevel(n *Node, level uint64) {
	s.t.Helper()
	for range 1000 {
		if n.store.Level() == level {
			return
		}
		time.Sleep(10 * time.Millisecond) // virtual
	}
	s.t.Fatalf("member %s has level %d, not %d", n.ID(), n.store.Level(), level)
}

// An upgrade, one member after the other: the level stays until all know the
// next, whoever leads, and is raised then. It never goes back, and a member put
// back to the older version stops rather than skip what it does not know.
func TestSimLevelWaitsForAllMembers(t *testing.T) {
	simVersions(t, 3, 3, func(s *sim, knows func(string, uint64)) {
		s.leader()
		s.requireLevel(1)
		for i, id := range []string{"n1", "n2", "n3"} {
			if i == 2 {
				s.requireLevel(1) // one of the older version left
				s.crash(id)
				time.Sleep(10 * time.Second) // virtual
				for _, n := range s.up() {
					require.EqualValues(t, 1, n.store.Level(), "one that is down keeps it down")
				}
				s.start(id)
				s.requireLevel(1)
			}
			knows(id, 3)
		}
		s.awaitLevel(s.leader(), 3)
		s.requireLevel(3)

		// Back to the older one: it stops, and names the entry and both levels.
		s.crash("n2")
		c := s.config("n2")
		level := uint64(2)
		c.knownLevel = &level
		old, err := Open(c)
		if err == nil { // nothing in its snapshot yet
			<-old.Failed()
			err = old.Err()
			old.Close(t.Context())
		}
		require.ErrorContains(t, err, "level 3, and this version")
		require.ErrorContains(t, err, "knows up to 2")
		s.goOn(s.up()...)
		// With a version that knows it, it is back.
		s.start("n2")
		s.requireLevel(3)
		// All at once, from their disks.
		for _, id := range s.first {
			s.crash(id)
		}
		for _, id := range s.first {
			s.start(id)
		}
		s.requireLevel(3)
	})
}

// The level is the least that anybody knows, replicas included, and an older
// version that joins afterwards is let in and stops by itself.
func TestSimLevelIsTheLeastOfAllMembers(t *testing.T) {
	simVersions(t, 3, 5, func(s *sim, knows func(string, uint64)) {
		for _, id := range []string{"n1", "n2", "n3"} {
			knows(id, 4)
		}
		knows("n4", 2)
		r := s.join("n4", s.leader(), true)
		s.awaitLevel(r, 2)
		s.requireLevel(2)
		ctx, cancel := within(10 * time.Second)
		defer cancel()
		_, err := s.leader().RemoveMember(ctx, "n4")
		require.NoError(t, err)
		s.crash("n4")
		s.awaitLevel(s.leader(), 4)
		s.requireLevel(4)

		knows("n5", 3)
		late := s.join("n5", s.leader(), false)
		<-late.Failed()
		require.ErrorContains(t, late.Err(), "this version")
		require.ErrorContains(t, late.Err(), "knows up to 3")
		s.crash("n5")
		s.requireLevel(4)
	})
}

// A member of a version from before there were levels says nothing of them, and
// its state's hash is what it was.
func TestSimLevelOfAVersionWithoutLevels(t *testing.T) {
	var r trivetpb.MemberReply
	require.NoError(t, r.UnmarshalVT([]byte{0x12, 3, 'd', 'e', 'v'}))
	require.Zero(t, r.Level)
}
