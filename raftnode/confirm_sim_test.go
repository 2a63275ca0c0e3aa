package raftnode

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// How a leader proves that it leads: by the word of who asks, or by a round.

// farTiming has nobody stand for election, nor a leader step down, by itself while
// a scenario goes on.
func farTiming(c *Config) {
	c.Timing = Timing{Heartbeat: 10 * time.Second, Election: 10 * time.Second, Lease: 10 * time.Second, RPC: 10 * time.Second}
}

// toldBy returns how many read indexes a leader has told without a round, and by one.
func toldBy(n *Node) (word, round uint64) {
	s := n.Stats()
	return s.ConfirmedByAsker, s.Confirmations
}

// A follower's read takes no round where the follower's word and the leader's are a
// majority of the voters, and one where they are not.
func TestSimAskersWordSavesTheRound(t *testing.T) {
	for _, members := range []int{2, 3, 4, 5} {
		runSim(t, members, nil, func(s *sim) {
			leader := s.leader()
			s.converge()
			word, round := toldBy(leader)
			for _, f := range s.followers() {
				for range 3 {
					v, err := simGet(f, "end", time.Second)
					require.NoError(t, err)
					require.Equal(t, "end", v)
				}
			}
			reads := uint64(3 * (members - 1))
			if members <= 3 {
				word += reads
			} else {
				round += reads
			}
			w, r := toldBy(leader)
			require.Equal(t, word, w, "%d members", members)
			require.Equal(t, round, r, "%d members", members)
		})
	}
}

// Whose word it is, in which term, and of which folder: all has to be as the leader
// knows it.
func TestSimWhoseWordCounts(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader, f, g := s.leader(), s.followers()[0], s.followers()[1]
		s.converge()
		require.NoError(t, leader.raft.DemoteVoter(raft.ServerID(g.ID()), 0, time.Second).Error())
		require.NoError(t, leader.raft.AddVoter("n9", "n9:1#abc", 0, 0).Error()) // votes, and never runs
		term := leader.leads()
		is := func(n *Node) caller { return caller{n.ID(), n.storage.incarnation} }
		counts := func(who caller, term uint64) bool {
			return leader.readIndexAtOnce(who, &trivetpb.ReadIndexRequest{Term: term}) != nil
		}
		require.NotZero(t, term)
		require.True(t, counts(is(f), term))
		require.False(t, counts(is(f), 0), "of a version that says none")
		require.False(t, counts(is(f), term-1))
		require.False(t, counts(is(f), term+1))
		require.False(t, counts(is(g), term), "it does not vote")
		require.False(t, counts(caller{f.ID(), "f00d"}, term), "another folder is another voter")
		require.False(t, counts(caller{f.ID(), ""}, term), "nor does nobody know whose it is")
		require.False(t, counts(caller{"n8", is(f).folder}, term), "no member")
		require.False(t, f.readIndexAtOnce(is(leader), &trivetpb.ReadIndexRequest{Term: term}) != nil, "it does not lead")

		q := leader.proposer
		lead := q.leading()
		q.mu.Lock()
		q.lead = nil // as between winning and the marker
		q.mu.Unlock()
		require.False(t, counts(is(f), term), "the term's marker is not applied")
		q.serve(lead)
		require.True(t, counts(is(f), term))
		require.NoError(t, leader.raft.RemoveServer("n9", 0, time.Second).Error())
	})
}

// Somebody is elected whom the leader and one that asks it have not heard of: the
// two are two of three, but one of them does not vote.
func TestSimWordOfANonvoter(t *testing.T) {
	runSim(t, 4, farTiming, func(s *sim) {
		old, f := s.leader(), s.followers()[0]
		require.NoError(t, old.raft.DemoteVoter(raft.ServerID(f.ID()), 0, time.Second).Error())
		s.electBehind(old, f)
	})
}

// The same, and the two are two of five.
func TestSimWordOfOneOfFive(t *testing.T) {
	runSim(t, 5, farTiming, func(s *sim) { s.electBehind(s.leader(), s.followers()[0]) })
}

// electBehind cuts a leader and a follower off from the others, which elect another
// leader and write; then it reads through the follower.
func (s *sim) electBehind(old, f *Node) {
	t := s.t
	require.Nil(t, simPut(old, "k", "old", time.Second))
	s.converge()
	s.isolate(old.ID(), f.ID())
	var next *Node
	for _, n := range s.followers() {
		if n != f {
			next = n
		}
	}
	require.True(t, next.standNow(old.ID()))
	time.Sleep(50 * time.Millisecond) // virtual
	require.Nil(t, simPut(next, "k", "new", time.Second))
	require.Equal(t, raft.Leader, old.raft.State(), "the scenario: it does not know yet")
	require.Equal(t, old.ID(), f.leaderID(), "the scenario")
	v, err := simGet(f, "k", time.Second)
	if err == nil && v != "new" {
		t.Errorf("a read of %q was confirmed by two members, with %q acknowledged by the others", v, "new")
	}
	require.Error(t, err)
	s.heal()
	v, err = simGet(f, "k", 30*time.Second)
	require.NoError(t, err)
	require.Equal(t, "new", v)
}

// A follower asks, and votes for another leader while its question is under way,
// which comes late. Its word is good for what it asked. It is not for a read of the
// deposed leader's own, which began after that vote.
func TestSimAWordIsForItsReadsAlone(t *testing.T) {
	runSim(t, 3, farTiming, func(s *sim) {
		old, next, f := s.leader(), s.followers()[0], s.followers()[1]
		require.Nil(t, simPut(old, "k", "old", time.Second))
		s.converge()
		word, _ := toldBy(old)
		s.slowTo(old, 2*time.Second)
		asked := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			simGet(f, "k", 5*time.Second)
		}()
		time.Sleep(50 * time.Millisecond) // virtual
		s.net.set(s.ids, func(from, _ string) bool { return from == old.ID() })
		require.True(t, next.standNow(old.ID()))
		time.Sleep(50 * time.Millisecond) // virtual
		require.Nil(t, simPut(next, "k", "new", time.Second))
		time.Sleep(2020*time.Millisecond - time.Since(asked)) // virtual
		got, _ := toldBy(old)
		require.Equal(t, word+1, got, "the scenario: the question has arrived, and was answered")
		require.Equal(t, raft.Leader, old.raft.State(), "the scenario: it does not know yet")
		v, err := simGet(old, "k", 5*time.Second)
		if err == nil && v != "new" {
			t.Errorf("a read of %q was confirmed by the word that came with another", v)
		}
		<-done
		s.slowTo(old, 0)
		s.heal()
		v, err = simGet(old, "k", 30*time.Second)
		require.NoError(t, err)
		require.Equal(t, "new", v)
		s.converge()
	})
}

// The same, and the next read is of the same follower: it waits for a round of its
// own, and takes nothing from the one that was under way when it began.
func TestSimReadJoinsNoRoundUnderWay(t *testing.T) {
	runSim(t, 3, farTiming, func(s *sim) {
		old, next, f := s.leader(), s.followers()[0], s.followers()[1]
		require.Nil(t, simPut(old, "k", "old", time.Second))
		s.converge()
		word, _ := toldBy(old)
		s.slowTo(old, 2*time.Second)
		done := make(chan struct{})
		go func() {
			defer close(done)
			simGet(f, "k", 5*time.Second)
		}()
		time.Sleep(50 * time.Millisecond) // virtual
		require.True(t, next.standNow(old.ID()))
		time.Sleep(50 * time.Millisecond) // virtual
		require.Nil(t, simPut(next, "k", "new", time.Second))
		// It has the entry, and does not hear that it is committed.
		s.net.set(s.ids, func(from, to string) bool { return from == next.ID() && to == f.ID() })
		v, err := simGet(f, "k", 4*time.Second)
		if err == nil && v != "new" {
			t.Errorf("a read of %q was confirmed by a round that began before it", v)
		}
		<-done
		got, _ := toldBy(old)
		require.Equal(t, word+1, got, "the scenario: the first round was answered")
		s.slowTo(old, 0)
		s.heal()
		v, err = simGet(f, "k", 30*time.Second)
		require.NoError(t, err)
		require.Equal(t, "new", v)
		s.converge()
	})
}

// slowTo has all that is sent to a member take longer.
func (s *sim) slowTo(n *Node, d time.Duration) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.net.delay = func(_, to string) time.Duration {
		if to == n.ID() {
			return d
		}
		return 0
	}
}
