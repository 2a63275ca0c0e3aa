package raftnode

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// Leadership goes where it is told to, under load, with no write failed and
// none kept waiting for longer than an election takes.
func TestSimTransferLeadership(t *testing.T) {
	runSim(t, 5, nil, func(s *sim) {
		s.leader()
		ctx, cancel := within(10 * time.Second)
		defer cancel()
		var wg sync.WaitGroup
		var longest [16]time.Duration
		for i := range longest {
			wg.Go(func() {
				n := s.up()[i%len(s.ids)]
				for ctx.Err() == nil {
					start := time.Now()
					if p := simPut(n, fmt.Sprint("w", i), "v", 10*time.Second); p != nil {
						t.Errorf("a write failed: %v", p)
						return
					}
					longest[i] = max(longest[i], time.Since(start))
				}
			})
		}
		for round := range 20 {
			time.Sleep(50 * time.Millisecond) // virtual
			from, to := s.leader(), s.up()[round%len(s.ids)]
			require.NoError(t, from.TransferLeadership(ctx, to.ID()))
			require.Equal(t, to.ID(), s.leader().ID())
			require.Equal(t, to.ID(), from.leaderID(), "whoever asked for it sees it")
			for s.leader().TransferLeadership(ctx, "") != nil {
				t.Error("to anybody: failed")
				return
			}
		}
		cancel()
		wg.Wait()
		for i, l := range longest {
			require.Less(t, l, 40*time.Millisecond, "writer %d, in virtual time", i)
		}
		s.converge()
	})
}

// What cannot be is refused, by name, and changes nothing.
func TestSimTransferIsRefused(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader, f, g := s.leader(), s.followers()[0], s.followers()[1]
		term := leader.leads()
		transfer := func(n *Node, to string) error {
			ctx, cancel := within(time.Second)
			defer cancel()
			return n.TransferLeadership(ctx, to)
		}
		require.ErrorIs(t, transfer(f, g.ID()), ErrNotLeader)
		require.ErrorIs(t, transfer(f, f.ID()), ErrNotLeader)
		require.ErrorIs(t, transfer(leader, "nobody"), ErrNotVoter)
		require.NoError(t, transfer(leader, leader.ID()), "it leads already")

		// One that is cut off is not waited for with writes held up.
		s.isolate(f.ID())
		held := time.Now()
		require.ErrorIs(t, transfer(leader, f.ID()), ErrNotCaughtUp)
		require.Equal(t, time.Second, time.Since(held), "as long as the context lets it")
		require.Nil(t, simPut(leader, "k", "v", 10*time.Millisecond))
		s.heal()

		// One that is on its way out does not take over; the other does.
		require.NoError(t, g.Resign(context.Background()))
		require.NotEmpty(t, g.Ready(0))
		require.ErrorContains(t, transfer(leader, g.ID()), "nobody is there to take over")
		require.ErrorIs(t, transfer(leader, g.ID()), ErrNotCaughtUp)
		require.Equal(t, term, leader.leads())
		require.NoError(t, transfer(leader, ""))
		require.Equal(t, f.ID(), s.leaderAfter(term).ID())

		// A nonvoter leads nothing.
		require.NoError(t, f.raft.DemoteVoter(raft.ServerID(g.ID()), 0, time.Second).Error())
		require.ErrorIs(t, transfer(f, g.ID()), ErrNotVoter)
		s.crash(leader.ID())
		s.start(leader.ID())
	})
}

// A transfer whose target dies in the middle of it gives up, and the leader
// goes on with what waited.
func TestSimTransferToOneThatDies(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader, f := s.leader(), s.followers()[0]
		ctx, cancel := within(5 * time.Second)
		defer cancel()
		time.Sleep(time.Second) // virtual: all is applied everywhere
		term := leader.leads()
		// It takes the promotion, and nothing that it says from then on arrives.
		s.net.mu.Lock()
		s.net.onWrite = func(c *simConn) writeFate {
			if c.local == f.ID() && f.raft.State() == raft.Candidate {
				return lost
			}
			return delivered
		}
		s.net.mu.Unlock()
		done := make(chan error)
		go func() { done <- leader.TransferLeadership(ctx, f.ID()) }()
		time.Sleep(10 * time.Millisecond) // virtual
		start := time.Now()
		require.Nil(t, simPut(leader, "k", "v", 5*time.Second), "it waits, and is written after all")
		require.Less(t, time.Since(start), time.Second)
		require.ErrorIs(t, <-done, ErrNotElected)
		require.Equal(t, term, leader.leads())
	})
}

// A target whose answer is lost may be standing for election: it is waited for, and
// nobody else is asked to stand against it.
func TestSimTransferWhoseAnswerIsLost(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader, f := s.leader(), s.followers()[0]
		s.converge()
		s.net.mu.Lock()
		s.net.onWrite = func(c *simConn) writeFate {
			if c.local == f.ID() {
				return lost
			}
			return delivered
		}
		s.net.mu.Unlock()
		ctx, cancel := within(5 * time.Second)
		defer cancel()
		term := leader.leads()
		require.NoError(t, leader.promote(ctx, term, f.ID()))
		for f.raft.CurrentTerm() == term { // it does stand
			time.Sleep(time.Millisecond) // virtual
		}
	})
}

// Who resigns is not made the leader again, and goes on serving.
func TestSimResignedMemberServes(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		old := s.leader()
		ctx, cancel := within(5 * time.Second)
		defer cancel()
		term := old.leads()
		require.NoError(t, old.Resign(ctx))
		require.NotEqual(t, old.ID(), s.leaderAfter(term).ID())
		require.Contains(t, old.Ready(0), "the node is stopping")
		for range 5 {
			leader := s.leader()
			term = leader.leads()
			require.NoError(t, leader.TransferLeadership(ctx, ""))
			require.NotEqual(t, old.ID(), s.leaderAfter(term).ID())
			require.Nil(t, simPut(old, "k", "v", time.Second))
			_, err := simGet(old, "k", time.Second)
			require.NoError(t, err)
		}
		require.NoError(t, old.Close(ctx))
	})
}

// Where all members are stopped at once, none waits for another to take over.
func TestSimAllResignAtOnce(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		s.leader()
		s.converge()
		ctx, cancel := within(5 * time.Second)
		defer cancel()
		start := time.Now()
		var wg sync.WaitGroup
		for _, n := range s.up() {
			wg.Go(func() { n.Close(ctx) })
		}
		wg.Wait()
		require.Less(t, time.Since(start), time.Second) // virtual
	})
}
