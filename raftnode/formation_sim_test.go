package raftnode

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A new cluster begins when all its first members have met, and not before.
func TestSimClusterBeginsWithAll(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		for _, id := range s.ids { // anew, one after the other
			s.wipe(id)
		}
		s.start("n1")
		s.start("n2")
		time.Sleep(10 * time.Second) // virtual
		for _, n := range s.up() {
			require.Zero(t, n.raft.CurrentTerm(), "nobody stands for election")
			require.Contains(t, strings.Join(n.Ready(0), "; "), "not yet here: n3")
			require.Equal(t, "follower", n.Status().Role)
			require.NotNil(t, simPut(n, "k", "v", time.Second))
		}
		start := time.Now()
		s.start("n3")
		s.leader()
		require.Less(t, time.Since(start), 2*time.Second) // virtual
		s.converge()
		// Later any minority may be away.
		s.crash("n3")
		require.Nil(t, simPut(s.leader(), "k", "v", 5*time.Second))
		s.start("n3")
		s.converge()
	})
}

// Two of three that have lost their folders do not begin a new cluster while the
// third, which has everything, is down; and not when it is back either.
func TestSimWipedMajorityDoesNotBeginAnew(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		require.Nil(t, simPut(s.leader(), "k", "v", time.Second))
		s.converge()
		for _, id := range s.ids {
			s.crash(id)
		}
		for _, id := range []string{"n2", "n3"} {
			s.wipe(id)
			s.start(id)
		}
		time.Sleep(10 * time.Second) // virtual
		for _, n := range s.up() {
			require.Nil(t, n.proposer.leading())
			require.Zero(t, n.raft.CurrentTerm())
		}
		s.start("n1")
		for _, id := range []string{"n2", "n3"} {
			require.ErrorIs(t, s.awaitFailure(s.node(id)), errRefusedFolder)
			s.crash(id)
		}
		require.Nil(t, s.node("n1").failure())
	})
}

// Wherever the first members crash while they meet, they go on from there.
func TestSimCrashesWhileTheFirstMembersMeet(t *testing.T) {
	for seed := range int64(20) {
		runSim(t, 3, nil, func(s *sim) {
			for _, id := range s.ids {
				s.wipe(id)
			}
			rnd := newRandom(seed)
			for range 10 {
				for _, id := range s.ids {
					if s.node(id) == nil {
						s.start(id)
					}
				}
				time.Sleep(time.Duration(rnd.Intn(2000)) * time.Microsecond) // virtual
				s.crash(s.ids[rnd.Intn(3)])
				s.crash(s.ids[rnd.Intn(3)])
			}
			for _, id := range s.ids {
				if s.node(id) == nil {
					s.start(id)
				}
			}
			s.leader()
			s.converge()
		})
	}
}

// A folder that is wiped before the cluster has begun costs nothing.
func TestSimWipedBeforeTheBeginning(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		for _, id := range s.ids {
			s.wipe(id)
		}
		s.start("n1")
		s.start("n2")
		time.Sleep(time.Second) // virtual
		s.wipe("n2")
		s.start("n2")
		time.Sleep(time.Second) // virtual
		s.start("n3")
		s.leader()
		s.converge()
	})
}

// The term and the first entry of a new cluster are two writes; a crash may come
// between.
func TestSimCrashInTheMiddleOfTheBeginning(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		for _, id := range s.ids {
			s.wipe(id)
		}
		disk := s.members["n3"].disk
		disk.boot, disk.formed, disk.folders = true, true, map[string]string{}
		for _, id := range s.ids {
			disk.folders[id] = s.members[id].disk.incarnation
		}
		stable, err := newGuardedStable(disk, "simulated stable store", nil)
		require.NoError(t, err)
		require.NoError(t, stable.claim("n3", true))
		require.NoError(t, stable.SetUint64(keyTerm, 1))
		for _, id := range s.ids {
			s.start(id)
		}
		s.leader()
		s.converge()
	})
}

// A first member whose list leads to a cluster that is there already, another one,
// is told so and stops. That one has not noticed.
func TestSimFirstMemberOfAnotherClusterStops(t *testing.T) {
	other := false
	change := func(c *Config) {
		if other {
			c.storage.cluster = "another"
		}
	}
	runSimWith(t, 3, 0, change, func(s *sim) {
		s.leader()
		s.converge()
		s.wipe("n3")
		before := s.leader()
		other = true
		err := s.awaitFailure(s.start("n3"))
		require.ErrorIs(t, err, errOtherCluster)
		require.ErrorContains(t, err, "belongs to cluster sim, not another")
		s.crash("n3")
		require.Nil(t, simPut(before, "k", "v", time.Second))
		require.Equal(t, before, s.leader())
		for _, n := range s.up() {
			require.NoError(t, n.Err())
		}
	})
}
