package raftnode

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// slow gives every sync, and every way over the network, its time.
func (s *sim) slow(sync, way time.Duration) {
	for _, id := range s.ids {
		s.onDisk(id, func(d *simDisk) { d.delay = func() time.Duration { return sync } })
	}
	s.net.mu.Lock()
	s.net.latency = func() time.Duration { return way }
	s.net.mu.Unlock()
}

// A put takes the sync of a follower and the way there and back, and the leader's
// own sync beside it: not one sync after the other.
func TestSimPutWaitsForOneSync(t *testing.T) {
	const sync, way = 7 * time.Millisecond, 2 * time.Millisecond
	for _, members := range []int{3, 5} {
		runSim(t, members, nil, func(s *sim) {
			leader := s.leader()
			s.converge()
			s.slow(sync, way)
			require.Nil(t, simPut(leader, "k", "first", time.Second))
			time.Sleep(time.Second) // virtual
			for i := range 20 {
				began := time.Now()
				require.Nil(t, simPut(leader, "k", strconv.Itoa(i), time.Second))
				require.Equal(t, way+sync+way, time.Since(began))
			}
			s.converge()
		})
	}
}

// addOnce adds one to the counter through n, and returns what became of it.
func (s *sim) addOnce(n *Node) (added, maybe bool) {
	before, beforeMaybe := s.added, s.maybeAdded
	s.add(n)
	return s.added > before, s.maybeAdded > beforeMaybe
}

// The leader cannot write what its followers have by then: its disk fails, or
// hangs until it gives up or dies. They commit it under another leader. Nobody was
// told that it was not applied, it is applied once, and the member that comes
// back takes it from them.
func TestSimEntryThatTheLeaderNeverWrote(t *testing.T) {
	for _, fault := range []string{"fails", "hangs", "dies"} {
		for _, from := range []string{"leader", "follower"} {
			t.Run(fault+"/"+from, func(t *testing.T) {
				runSim(t, 3, nil, func(s *sim) {
					leader := s.leader()
					asked := leader
					if from == "follower" {
						asked = s.followers()[0]
					}
					added, _ := s.addOnce(asked)
					require.True(t, added)
					s.converge()
					id, last := leader.ID(), leader.raft.LastIndex()
					term := leader.proposer.leading().term
					hang := make(chan struct{})
					s.onDisk(id, func(d *simDisk) {
						if fault == "fails" {
							d.failing = syscall.EIO
						} else {
							d.hang = hang
						}
					})
					var maybe bool
					done := make(chan struct{})
					go func() {
						defer close(done)
						added, maybe = s.addOnce(asked)
					}()
					time.Sleep(20 * time.Millisecond) // virtual
					if fault != "fails" {             // then there may be another leader by now
						for _, n := range others(s.up(), leader) {
							require.Equal(t, last+1, n.raft.LastIndex(), "the scenario: it was sent before it was written")
						}
					}
					require.Equal(t, last, leader.raft.LastIndex())
					if fault == "dies" {
						s.onDisk(id, func(d *simDisk) { d.failing = syscall.EIO }) // nothing of it is there
						close(hang)
					} else if fault == "hangs" {
						<-leader.Failed()
						s.onDisk(id, func(d *simDisk) { d.failing = syscall.EIO })
						close(hang)
					}
					s.crash(id)
					<-done
					require.True(t, maybe || added && from == "follower", "it was said to be added, or not to be")
					next := s.leaderAfter(term)
					s.onDisk(id, func(d *simDisk) { d.hang, d.failing = nil, nil })
					s.start(id)
					s.converge()
					item, _, _ := next.store.Get([]byte("counter"))
					require.Equal(t, "2", string(item.Value))
					s.checkCounter()
				})
			})
		}
	}
}

// Early requests of a leader that is deposed arrive after the next leader has
// written something else: they are refused, and what they held goes out again.
func TestSimEarlyRequestOfADeposedLeader(t *testing.T) {
	slow := Timing{Heartbeat: 10 * time.Second, Election: 10 * time.Second, Lease: 10 * time.Second, RPC: 10 * time.Second}
	runSim(t, 3, func(c *Config) { c.Timing = slow }, func(s *sim) {
		old, next := s.leader(), s.followers()[0]
		added, _ := s.addOnce(old)
		require.True(t, added)
		s.converge()
		s.net.mu.Lock()
		s.net.delay = func(from, _ string) time.Duration {
			if from == old.ID() {
				return time.Second
			}
			return 0
		}
		s.net.mu.Unlock()
		last, term := old.raft.LastIndex(), old.proposer.leading().term
		done := make(chan error, 1)
		go func() {
			ctx, cancel := within(time.Minute)
			defer cancel()
			_, err := old.Propose(ctx, addCounter())
			done <- err
		}()
		time.Sleep(10 * time.Millisecond) // virtual
		require.Equal(t, last+1, old.raft.LastIndex())
		// It hears of the election late, and goes on leading until then.
		s.net.set(s.ids, func(from, to string) bool { return to == old.ID() })
		require.True(t, next.standNow(old.ID()))
		require.Equal(t, next, s.leaderAfter(term))
		require.Nil(t, simPut(next, "k", "new", 5*time.Second))
		require.Equal(t, raft.Leader, old.raft.State(), "the scenario: it does not know yet")
		time.Sleep(2 * time.Second) // virtual: what it sent has come
		require.Equal(t, next, s.leader())
		s.net.mu.Lock()
		s.net.delay = nil
		s.net.mu.Unlock()
		s.heal()
		require.NoError(t, <-done)
		s.converge()
		item, _, _ := next.store.Get([]byte("counter"))
		require.Equal(t, "2", string(item.Value))
	})
}

// Connections break all the time, before or after what goes over them has arrived,
// under load: nothing is lost or done twice, and the logs stay the same.
func TestSimEarlyRequestsAreLost(t *testing.T) {
	first, seeds := simSeeds(t, 4)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			runSim(t, 3, nil, func(s *sim) {
				s.leader()
				rnd := newRandom(int64(seed))
				ctx, cancel := within(10 * time.Second)
				defer cancel()
				wg := s.load(ctx, int64(seed), 8, 4)
				defer wg.Wait()
				s.net.mu.Lock()
				s.net.onWrite = func(c *simConn) writeFate {
					if c.dialled && c.kind == streamRaft {
						switch rnd.Intn(40) {
						case 0:
							return lost
						case 1:
							return last
						}
					}
					return delivered
				}
				s.net.mu.Unlock()
				wg.Wait()
				s.net.mu.Lock()
				s.net.onWrite = nil
				s.net.mu.Unlock()
				s.converge()
				s.checkCounter()
				s.checkHistory(500)
				s.checkLogs()
			})
		})
	}
}

// checkLogs fails the test where two members have another entry at an index, as
// far as both have one.
func (s *sim) checkLogs() {
	s.t.Helper()
	type held struct {
		id string
		l  *raft.Log
	}
	by := map[uint64]held{}
	compared := 0
	for _, id := range s.ids {
		s.onDisk(id, func(d *simDisk) {
			for i, l := range d.entries {
				if one, ok := by[i]; ok {
					compared++
					require.Equal(s.t, one.l.Term, l.Term, "entry %d of %s and %s", i, one.id, id)
					require.Equal(s.t, one.l.Data, l.Data, "entry %d of %s and %s", i, one.id, id)
				}
				by[i] = held{id, l}
			}
		})
	}
	require.NotZero(s.t, compared)
}
