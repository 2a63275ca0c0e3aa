package raftnode

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// Far less than any timeout, and some more than the messages of an election and
// a marker take, in virtual time; a second round of questions included.
const atOnce = 60 * time.Millisecond

// Where the leader's process dies, another leads at once.
func TestSimKilledLeaderIsReplacedAtOnce(t *testing.T) {
	for _, members := range []int{3, 5} {
		t.Run(fmt.Sprint("members=", members), func(t *testing.T) {
			runSim(t, members, nil, func(s *sim) {
				for range 10 {
					old := s.leader()
					term := old.leads()
					s.converge()
					time.Sleep(time.Second) // virtual
					killed := time.Now()
					s.crash(old.ID())
					next := s.leaderAfter(term)
					require.Less(t, time.Since(killed), atOnce)
					require.Equal(t, term+1, next.leads(), "the first to stand won")
					require.NotZero(t, next.Stats().Replacements)
					require.Nil(t, simPut(next, "k", "v", time.Second))
					s.start(old.ID())
				}
			})
		})
	}
}

// Three of five are a majority, with another member dead before.
func TestSimKilledLeaderWithAnotherMemberDead(t *testing.T) {
	runSim(t, 5, nil, func(s *sim) {
		s.crash(s.followers()[0].ID())
		time.Sleep(time.Second) // virtual
		old := s.leader()
		term := old.leads()
		killed := time.Now()
		s.crash(old.ID())
		s.leaderAfter(term)
		require.Less(t, time.Since(killed), atOnce)
	})
}

// The voter with the longest log goes first, and so none stands that would not
// win.
func TestSimLongestLogGoesFirst(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		for round := range 6 {
			old, f, g := s.leader(), s.followers()[0], s.followers()[1]
			s.converge()
			term := old.leads()
			behind, ahead := f, g
			if round%2 == 1 {
				behind, ahead = g, f
			}
			s.net.mu.Lock()
			s.net.onWrite = func(c *simConn) writeFate {
				if c.local == old.ID() && c.remote == behind.ID() {
					return lost
				}
				return delivered
			}
			s.net.mu.Unlock()
			require.Nil(t, simPut(old, "k", fmt.Sprint(round), time.Second))
			require.Greater(t, ahead.raft.LastIndex(), behind.raft.LastIndex(), "the scenario")
			s.crash(old.ID())
			s.net.mu.Lock()
			s.net.onWrite = nil
			s.net.mu.Unlock()
			killed := time.Now()
			require.Equal(t, ahead.ID(), s.leaderAfter(term).ID())
			require.Less(t, time.Since(killed), atOnce)
			s.start(old.ID())
			s.converge()
		}
	})
}

// still fails the test where anything of an election happens while f runs.
func (s *sim) still(f func()) {
	s.t.Helper()
	var mu sync.Mutex
	var seen []string
	leader := s.leader()
	terms := map[string]uint64{}
	for _, n := range s.up() {
		terms[n.ID()] = n.raft.CurrentTerm()
		o := raft.NewObserver(nil, false, func(o *raft.Observation) bool {
			switch d := o.Data.(type) {
			case raft.RaftState:
				mu.Lock()
				seen = append(seen, fmt.Sprint(n.ID(), " became ", d))
				mu.Unlock()
			case raft.LeaderObservation:
				mu.Lock()
				seen = append(seen, fmt.Sprint(n.ID(), " takes ", d.LeaderID, " for the leader"))
				mu.Unlock()
			}
			return false
		})
		n.raft.RegisterObserver(o)
		defer n.raft.DeregisterObserver(o)
	}
	lead := leader.proposer.leading()
	f()
	mu.Lock()
	defer mu.Unlock()
	require.Empty(s.t, seen)
	require.Same(s.t, lead, leader.proposer.leading(), "the leader never ceased to lead")
	for _, n := range s.up() {
		if term, ok := terms[n.ID()]; ok {
			require.Equal(s.t, term, n.raft.CurrentTerm(), "the term of %s", n.ID())
		}
	}
}

// awaitDead waits until a member takes another one for dead.
func (s *sim) awaitDead(n *Node, id string) {
	s.t.Helper()
	for range 1000 {
		if n.liveness.dead(id) {
			return
		}
		time.Sleep(2 * time.Millisecond) // virtual
	}
	s.t.Fatalf("member %s does not take %s for dead", n.ID(), id)
}

// A leader that lives is not deposed because one follower takes it for dead.
func TestSimOneWrongVerdictElectsNobody(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader, f := s.leader(), s.followers()[0]
		s.converge()
		s.still(func() {
			// It cannot dial the leader any more, and its stream to it ends; what
			// raft has goes on.
			s.net.mu.Lock()
			s.net.refuse = func(from, to string) bool { return from == f.ID() && to == leader.ID() }
			s.net.mu.Unlock()
			s.net.reset(f.ID(), leader.ID())
			for range 20 {
				time.Sleep(50 * time.Millisecond) // virtual
				require.Nil(t, simPut(leader, "k", "v", time.Second))
			}
			s.awaitDead(f, leader.ID())
			l, term := f.deadLeader()
			require.Equal(t, leader.ID(), l)
			ctx, cancel := within(time.Second)
			defer cancel()
			for _, other := range s.up() {
				r := other.serveLeaderDead(ctx, "x", &trivetpb.LeaderDeadRequest{Leader: l, Term: term})
				require.Equal(t, other == f, r.Dead, other.ID())
			}
		})
		s.net.mu.Lock()
		s.net.refuse = nil
		s.net.mu.Unlock()
		time.Sleep(2 * time.Second) // virtual
		require.False(t, f.liveness.dead(leader.ID()), "it looks again")
		s.converge()
	})
}

// A leader that nobody can dial, and whose streams have ended, is as good as
// dead; that it lives costs an election and no more.
func TestSimLeaderThatRefusesAllIsReplaced(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		old := s.leader()
		require.Nil(t, simPut(old, "k", "v", time.Second))
		time.Sleep(time.Second) // virtual
		term := old.leads()
		s.net.mu.Lock()
		s.net.refuse = func(from, to string) bool { return to == old.ID() }
		s.net.mu.Unlock()
		began := time.Now()
		for _, f := range s.followers() {
			s.net.reset(f.ID(), old.ID())
		}
		next := s.leaderAfter(term)
		require.Less(t, time.Since(began), atOnce)
		require.NotEqual(t, old.ID(), next.ID())
		require.Nil(t, simPut(next, "k", "w", time.Second))
		s.net.mu.Lock()
		s.net.refuse = nil
		s.net.mu.Unlock()
		v, err := simGet(old, "k", 5*time.Second)
		require.NoError(t, err)
		require.Equal(t, "w", v)
		s.converge()
	})
}

// A leader that takes itself out of service is replaced at once.
func TestSimFailedLeaderIsReplacedAtOnce(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		old := s.leader()
		s.converge()
		term := old.leads()
		failed := time.Now()
		old.fail(fmt.Errorf("as if the disk had failed"))
		next := s.leaderAfter(term)
		require.Less(t, time.Since(failed), atOnce)
		require.Nil(t, simPut(next, "k", "v", time.Second))
	})
}

// A partition ends no stream: nobody is dead, raft's timeouts decide.
func TestSimPartitionedLeaderIsNotDead(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		old := s.leader()
		s.converge()
		term := old.leads()
		s.isolate(old.ID())
		cut := time.Now()
		for s.leader() == old {
			for _, n := range s.up() {
				for _, id := range s.ids {
					require.False(t, n.liveness.dead(id), "%s to %s", id, n.ID())
				}
			}
			time.Sleep(5 * time.Millisecond) // virtual
		}
		s.leaderAfter(term)
		require.GreaterOrEqual(t, time.Since(cut), 200*time.Millisecond, "an election timeout: virtual time")
		s.heal()
		s.converge()
	})
}

// From the first timeout on, a leader that fell silent is replaced without
// waiting for those of the others, whoever has the longest log.
func TestSimSilentLeaderIsReplacedSoon(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		rnd := newRandom(1)
		for range 40 {
			old := s.leader()
			s.converge()
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					for ctx.Err() == nil {
						simPut(old, fmt.Sprint(i), "v", time.Second)
					}
				})
			}
			time.Sleep(time.Duration(rnd.Intn(100_000)) * time.Microsecond) // virtual
			term := old.leads()
			s.isolate(old.ID())
			cut := time.Now()
			s.leaderAfter(term)
			require.Less(t, time.Since(cut), 1200*time.Millisecond)
			cancel()
			wg.Wait()
			s.heal()
		}
	})
}

// Followers that die, and come back at once or later, disturb nobody.
func TestSimRestartOfAFollowerDisturbsNobody(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader, f := s.leader(), s.followers()[0].ID()
		s.converge()
		lead := leader.proposer.leading()
		for _, away := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond, 3 * time.Second} {
			s.crash(f)
			time.Sleep(away) // virtual
			if away > time.Second {
				s.awaitDead(leader, f)
			}
			s.start(f)
			require.Nil(t, simPut(leader, "k", "v", time.Second))
			time.Sleep(2 * time.Second) // virtual
			require.Same(t, lead, leader.proposer.leading())
		}
		s.converge()
	})
}

// A leader whose process is replaced so fast that hardly anybody notices: it
// does not lead any more, and somebody does soon.
func TestSimLeaderRestartsQuickly(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		for _, away := range []time.Duration{0, 100 * time.Microsecond, 300 * time.Microsecond, time.Millisecond, 5 * time.Millisecond} {
			old := s.leader()
			s.converge()
			term := old.leads()
			s.crash(old.ID())
			time.Sleep(away) // virtual
			s.start(old.ID())
			began := time.Now()
			next := s.leaderAfter(term)
			require.Less(t, time.Since(began), 2*time.Second)
			require.Nil(t, simPut(next, "k", "v", time.Second))
			s.converge()
		}
	})
}

// A nonvoter is not asked, does not count, and never stands.
func TestSimNonvotersDoNotStand(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader, f, g := s.leader(), s.followers()[0], s.followers()[1]
		require.NoError(t, leader.raft.DemoteVoter(raft.ServerID(g.ID()), 0, time.Second).Error())
		s.converge()
		term := leader.leads()
		s.crash(leader.ID())
		time.Sleep(100 * time.Millisecond) // virtual
		s.awaitDead(f, leader.ID())
		s.awaitDead(g, leader.ID())
		l, _ := g.deadLeader()
		require.Empty(t, l)
		ctx, cancel := within(time.Second)
		defer cancel()
		r := g.serveLeaderDead(ctx, "x", &trivetpb.LeaderDeadRequest{Leader: leader.ID(), Term: term})
		require.False(t, r.Dead)
		time.Sleep(3 * time.Second) // virtual
		require.Equal(t, term, g.raft.CurrentTerm(), "one of two voters is no majority")
		require.NotEqual(t, raft.Candidate, g.raft.State())
		s.start(leader.ID())
		s.leaderAfter(term)
		s.converge()
	})
}

// Killing one leader after the other under load: no write lost or done twice,
// no old read, and every leader is replaced at once.
func TestSimManyKills(t *testing.T) {
	for _, members := range []int{3, 5} {
		t.Run(fmt.Sprint("members=", members), func(t *testing.T) {
			runSim(t, members, nil, func(s *sim) {
				s.leader()
				rnd := newRandom(int64(members))
				s.net.mu.Lock()
				s.net.latency = func() time.Duration { return time.Duration(50+rnd.Intn(300)) * time.Microsecond }
				s.net.mu.Unlock()
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				wg := s.load(ctx, int64(members), 8, 4)
				defer wg.Wait()
				defer cancel()
				var slow int
				for range 20 {
					old := s.leader()
					term := old.leads()
					if term == 0 {
						continue
					}
					killed := time.Now()
					s.crash(old.ID())
					s.leaderAfter(term)
					if took := time.Since(killed); took >= atOnce {
						t.Logf("%s: term %d took %v", killed.Format("05.000"), term+1, took)
						slow++
					}
					time.Sleep(time.Duration(rnd.Intn(100)) * time.Millisecond) // virtual
					s.start(old.ID())
					time.Sleep(time.Duration(500+rnd.Intn(500)) * time.Millisecond) // virtual
				}
				require.Zero(t, slow, "kills whose leader was not replaced at once")
				cancel()
				wg.Wait()
				s.converge()
				s.checkHistory(500)
				s.checkCounter()
			})
		})
	}
}

// A lone write that hangs with a leader that fell silent goes to the next one as
// soon as that is known, whether or not anything else waits.
func TestSimLoneWriteLeavesASilentLeader(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		old, f, g := s.leader(), s.followers()[0], s.followers()[1]
		require.Nil(t, simPut(f, "k", "before", time.Second))
		s.isolate(old.ID())
		done := make(chan *trivetpb.Problem)
		go func() { done <- simPut(f, "k", "v", 5*time.Second) }()
		time.Sleep(10 * time.Millisecond) // virtual: it is under way
		require.True(t, g.standNow(old.ID()))
		began := time.Now()
		require.Nil(t, <-done)
		require.Less(t, time.Since(began), atOnce)
		s.heal()
		s.converge()
	})
}
