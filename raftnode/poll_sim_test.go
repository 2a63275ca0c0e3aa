package raftnode

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// Whom a leader's rounds ask, and when. Times are virtual: a round trip is 0.2 ms.

// questions counts the peer requests that a node sends to each other one.
func (s *sim) questions(n *Node) map[string]*atomic.Int64 {
	counts := map[string]*atomic.Int64{}
	for _, id := range s.ids {
		counts[id] = new(atomic.Int64)
	}
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.net.onWrite = func(c *simConn) writeFate {
		s.net.mu.Lock()
		defer s.net.mu.Unlock()
		if c.local == n.ID() && c.dialled && c.kind == streamPeer {
			counts[c.remote].Add(1)
		}
		return delivered
	}
	return counts
}

// read confirms a read on the leader, and returns how long that took.
func (s *sim) read(n *Node) time.Duration {
	s.t.Helper()
	start := time.Now()
	_, err := simGet(n, "end", 5*time.Second)
	require.NoError(s.t, err)
	return time.Since(start)
}

// lineOf is the line of a node that makes no round now.
func lineOf(n *Node) []string {
	var ids []string
	for _, v := range n.poll.line {
		ids = append(ids, v.id)
	}
	return ids
}

// A round asks one of two others, and two of four.
func TestSimARoundAsksNoMoreThanItNeeds(t *testing.T) {
	for _, members := range []int{3, 5} {
		runSim(t, members, nil, func(s *sim) {
			leader := s.leader()
			s.converge()
			time.Sleep(2 * askAllEvery) // virtual
			s.read(leader)              // asks all
			time.Sleep(10 * time.Millisecond)
			counts := s.questions(leader)
			for range 20 {
				require.Less(t, s.read(leader), time.Millisecond)
			}
			line, needed := lineOf(leader), members/2
			for i, id := range line {
				if i < needed {
					require.EqualValues(t, 20, counts[id].Load(), "%s of %v", id, line)
				} else {
					require.Zero(t, counts[id].Load(), "%s of %v", id, line)
				}
			}
			time.Sleep(askAllEvery) // virtual
			s.read(leader)
			for _, id := range line {
				require.NotZero(t, counts[id].Load(), "now and then all are asked")
			}
		})
	}
}

// Whoever stands at the front of the line and says nothing any more holds up one
// round, for as long as the others are left in peace, and none that come after.
func TestSimASilentVoterHoldsUpOneRound(t *testing.T) {
	for _, members := range []int{3, 5} {
		runSim(t, members, farTiming, func(s *sim) {
			leader := s.leader()
			s.converge()
			s.read(leader)
			front := lineOf(leader)[0]
			s.isolate(front)
			took := s.read(leader)
			require.GreaterOrEqual(t, took, minPatience)
			require.Less(t, took, minPatience+time.Millisecond)
			require.Equal(t, front, lineOf(leader)[members-2])
			for range 10 {
				require.Less(t, s.read(leader), time.Millisecond)
			}
			for range 5 { // those that ask all wait for it no more than others
				time.Sleep(askAllEvery) // virtual
				require.Less(t, s.read(leader), time.Millisecond)
			}
			// The next one too, if a majority is left.
			if members == 5 {
				s.isolate(front, lineOf(leader)[0])
				require.Less(t, s.read(leader), minPatience+time.Millisecond)
				require.Less(t, s.read(leader), time.Millisecond)
			}
			s.heal()
		})
	}
}

// A voter that is dead is no wait at all: the others are asked at once.
func TestSimADeadVoterHoldsUpNoRound(t *testing.T) {
	runSim(t, 3, farTiming, func(s *sim) {
		leader := s.leader()
		s.converge()
		s.read(leader)
		front := lineOf(leader)[0]
		s.crash(front)
		for range 5 {
			require.Less(t, s.read(leader), minPatience)
			require.Equal(t, front, lineOf(leader)[1])
		}
	})
}

// Who is nearer is found, although a round needs nobody but the other.
func TestSimANearerVoterComesToTheFront(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader := s.leader()
		s.converge()
		s.read(leader)
		front, other := lineOf(leader)[0], lineOf(leader)[1]
		s.slowTo(s.node(front), minPatience/2)
		time.Sleep(askAllEvery) // virtual
		require.Less(t, s.read(leader), time.Millisecond)
		require.Equal(t, []string{other, front}, lineOf(leader))
		for range 10 {
			require.Less(t, s.read(leader), time.Millisecond)
		}
	})
}

// Patience grows with what rounds take, so that far members are not all asked, and
// has a bound.
func TestPatienceIsThatOfTheNetwork(t *testing.T) {
	for _, row := range []struct{ round, want time.Duration }{
		{0, minPatience},
		{100 * time.Microsecond, minPatience},
		{5 * time.Millisecond, 20 * time.Millisecond},
		{time.Second, 125 * time.Millisecond},
	} {
		p := poll{}
		for range 100 {
			p.took(row.round)
		}
		require.InDelta(t, row.want, p.patience(Timing{Heartbeat: 250 * time.Millisecond}), float64(row.want)/100)
	}
	p := poll{average: time.Second}
	require.Equal(t, minPatience, p.patience(Timing{Heartbeat: time.Millisecond}))
}

// The line has who votes in the configuration, each once, and keeps the order.
func TestTheLineFollowsTheConfiguration(t *testing.T) {
	p := poll{}
	server := func(id string, s raft.ServerSuffrage) raft.Server {
		return raft.Server{ID: raft.ServerID(id), Suffrage: s}
	}
	ids := func() (ids []string) {
		for _, v := range p.line {
			ids = append(ids, v.id)
		}
		return ids
	}
	conf := raft.Configuration{Servers: []raft.Server{
		server("a", raft.Voter), server("b", raft.Voter), server("c", raft.Voter), server("d", raft.Nonvoter),
	}}
	own, voters := p.begin(conf, "a")
	require.Equal(t, []int{1, 3}, []int{own, voters})
	require.Equal(t, []string{"b", "c"}, ids())
	p.alarm(time.Hour)
	p.answered(p.find("c"))
	p.end()
	p.begin(conf, "a")
	require.Equal(t, []string{"c", "b"}, ids())
	p.end()
	conf.Servers[1].Suffrage, conf.Servers[3].Suffrage = raft.Nonvoter, raft.Voter
	own, voters = p.begin(conf, "x")
	require.Equal(t, []int{0, 3}, []int{own, voters})
	require.Equal(t, []string{"c", "a", "d"}, ids())
	p.end()
}

// Who waits for a round when the node ends is told; so is who comes later.
func TestSimRoundsEndWithTheNode(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader := s.leader()
		s.converge()
		s.isolate(leader.ID())
		errs := make(chan error)
		for range 2 { // one is under way, one waits for the next
			go func() {
				_, err := leader.confirmRounds.join(context.Background())
				errs <- err
			}()
			time.Sleep(10 * time.Millisecond) // virtual
		}
		s.crash(leader.ID())
		require.Error(t, <-errs)
		require.Error(t, <-errs)
		_, err := leader.confirmRounds.join(context.Background())
		require.True(t, errors.Is(err, errStopped))
	})
}
