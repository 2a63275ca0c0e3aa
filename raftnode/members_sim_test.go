package raftnode

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// Members that come and go, in virtual time.

// A voter catches up and then counts, a replica serves and never does, and all
// of them hold the same.
func TestSimMembersJoin(t *testing.T) {
	runSimWith(t, 3, 2, nil, func(s *sim) {
		leader := s.leader()
		for i := range 100 {
			require.Nil(t, simPut(leader, "k"+strconv.Itoa(i), "v", time.Second))
		}
		s.join("n4", s.followers()[0], false)
		s.awaitRole("n4", "voter")
		s.join("n5", s.node("n4"), true)
		s.awaitRole("n5", "replica")
		require.Equal(t, "replica", s.node("n5").Status().Role)
		for i, n := range s.up() {
			require.Nil(t, simPut(n, "k", strconv.Itoa(i), time.Second))
			for _, r := range s.up() {
				v, err := simGet(r, "k", time.Second)
				require.NoError(t, err)
				require.Equal(t, strconv.Itoa(i), v)
			}
		}
		s.converge()
		// The replica stays one, also over a restart.
		s.crash("n5")
		s.start("n5")
		time.Sleep(10 * settlePause) // virtual
		s.awaitRole("n5", "replica")
		s.converge()

		// The replica makes no quorum: two of the four voters are not enough,
		// for a write or for a read, however well n5 is.
		s.isolate("n1", "n2")
		time.Sleep(2 * time.Second) // virtual
		for _, n := range s.up() {
			require.NotNil(t, simPut(n, "k", "x", time.Second))
			_, err := simGet(n, "k", time.Second)
			require.Error(t, err)
		}
		s.heal()
		s.converge()
	})
}

// Whoever asks for what is so already is told that it is.
func TestSimMembershipChangesCanBeRepeated(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		s.leader()
		ctx, cancel := within(50 * time.Second)
		defer cancel()
		for _, n := range s.up() { // the leader and others
			for round := range 2 {
				c, err := n.AddMember(ctx, NewMember{ID: "n4", Peer: "n4:1", Replica: true})
				require.NoError(t, err)
				require.Equal(t, round == 0, c.Changed)
				require.Len(t, c.Members, 4)
			}
			for round := range 2 {
				c, err := n.RemoveMember(ctx, "n4")
				require.NoError(t, err)
				require.Equal(t, round == 0, c.Changed)
			}
			_, err := n.PromoteMember(ctx, "n2")
			require.NoError(t, err)
			for range 2 {
				_, err := n.DemoteMember(ctx, "n2")
				require.NoError(t, err)
			}
			for range 2 {
				_, err := n.PromoteMember(ctx, "n2")
				require.NoError(t, err)
			}
			s.awaitRole("n2", "voter")
		}
		s.converge()
	})
}

// What the membership does not allow is refused, and changes nothing.
func TestSimMembershipRefusals(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		s.leader()
		s.converge()
		before, index, _ := s.leader().confs.now()
		type call func(ctx context.Context, n *Node) error
		add := func(id, peer string) call {
			return func(ctx context.Context, n *Node) error {
				_, err := n.AddMember(ctx, NewMember{ID: id, Peer: peer})
				return err
			}
		}
		conflict, bad, missing := trivetpb.Code_MEMBER_CONFLICT, trivetpb.Code_BAD_REQUEST, trivetpb.Code_NOT_FOUND
		for _, c := range []struct {
			name   string
			call   call
			code   trivetpb.Code
			detail string
		}{
			{"an id with another address", add("n2", "n9:1"), conflict, "member n2 is at n2:1"},
			{"another's address", add("n4", "n2:1"), conflict, "the address n2:1 is that of member n2"},
			{"an id of a wrong form", add("n 4", "n4:1"), bad, `"n 4" is no member id`},
			{"no id", add("", "n4:1"), bad, `"" is no member id`},
			{"an address without a port", add("n4", "n4"), bad, `"n4" is not HOST:PORT`},
			{"port 0", add("n4", "n4:0"), bad, `"n4:0" is not HOST:PORT`},
			{"a port beyond all ports", add("n4", "n4:65536"), bad, `"n4:65536" is not HOST:PORT`},
			{"a port that is no number", add("n4", "n4:raft"), bad, `"n4:raft" is not HOST:PORT`},
			{"no address", add("n4", ""), bad, `"" is not HOST:PORT`},
			{"a voter as a replica", func(ctx context.Context, n *Node) error {
				_, err := n.AddMember(ctx, NewMember{ID: "n2", Peer: "n2:1", Replica: true})
				return err
			}, conflict, "member n2 is a voter"},
			{"a voter with another data folder", func(ctx context.Context, n *Node) error {
				_, err := n.AddMember(ctx, NewMember{ID: s.followers()[0].ID(), Peer: simAddr(s.followers()[0].ID()), Incarnation: "other"})
				return err
			}, conflict, "came back with another data folder: remove it and add it again"},
			{"promote nobody", func(ctx context.Context, n *Node) error { _, err := n.PromoteMember(ctx, "n4"); return err }, missing, "there is no member n4"},
			{"demote nobody", func(ctx context.Context, n *Node) error { _, err := n.DemoteMember(ctx, "n4"); return err }, missing, "there is no member n4"},
			{"transfer to nobody", func(ctx context.Context, n *Node) error { _, err := n.Transfer(ctx, "n4"); return err }, conflict, "no voter to transfer leadership to"},
		} {
			for _, n := range s.up() {
				ctx, cancel := within(2 * time.Second)
				p := problemOf(t, c.call(ctx, n))
				cancel()
				require.Equal(t, c.code, p.Code, "%s: %v", c.name, p)
				require.Contains(t, p.Detail, c.detail, c.name)
				require.False(t, p.Unknown, c.name)
			}
		}
		after, last, _ := s.leader().confs.now()
		require.Equal(t, before, after)
		require.Equal(t, index, last)
	})
}

// A change that would leave too few voters that are well is refused; to take
// away the one that is not is how to get well again.
func TestSimNoChangeLosesTheQuorum(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader := s.leader()
		dead := s.followers()[0].ID()
		well := s.followers()[1].ID()
		s.crash(dead)
		for _, change := range []func(context.Context, string) (MemberChange, error){leader.RemoveMember, leader.DemoteMember} {
			for _, id := range []string{well, leader.ID()} {
				ctx, cancel := within(3 * time.Second)
				_, err := change(ctx, id)
				cancel()
				p := problemOf(t, err)
				require.Equal(t, trivetpb.Code_MEMBER_CONFLICT, p.Code, "%v", p)
				require.Contains(t, p.Detail, "of the 2 voters that there would be, 1 are well")
				require.False(t, p.Unknown)
			}
		}
		require.Nil(t, simPut(s.leader(), "k", "v", time.Second))
		ctx, cancel := within(3 * time.Second)
		defer cancel()
		_, err := leader.RemoveMember(ctx, dead)
		require.NoError(t, err)
		_, err = leader.RemoveMember(ctx, well)
		require.NoError(t, err)
		_, err = leader.RemoveMember(ctx, leader.ID())
		require.Contains(t, problemOf(t, err).Detail, "is the only voter")
		require.Nil(t, simPut(leader, "k", "alone", time.Second))
	})
}

// A replica that has not caught up is not promoted: it would count, and could
// not yet help to commit anything.
func TestSimNoPromotionBeforeCatchingUp(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		leader := s.leader()
		ctx, cancel := within(5 * time.Second)
		defer cancel()
		c, err := leader.AddMember(ctx, NewMember{ID: "n4", Peer: "n4:1"}) // nobody is there
		require.NoError(t, err)
		require.True(t, c.Changed)
		require.True(t, c.CatchingUp)
		ctx, cancel = within(5 * time.Second)
		defer cancel()
		_, err = s.followers()[0].PromoteMember(ctx, "n4")
		p := problemOf(t, err)
		require.Equal(t, trivetpb.Code_MEMBER_CONFLICT, p.Code)
		require.Contains(t, p.Detail, "has not caught up")
		require.False(t, p.Unknown)
		s.awaitRole("n4", "replica")
		s.join("n4", leader, false)
		s.awaitRole("n4", "voter")
		s.converge()
	})
}

// A removed member stops, whether it runs when that happens or comes back later,
// and no term changes.
func TestSimRemovedMemberStopsAndDisturbsNobody(t *testing.T) {
	for _, down := range []bool{false, true} {
		t.Run(fmt.Sprint("down=", down), func(t *testing.T) {
			runSim(t, 4, nil, func(s *sim) {
				leader := s.leader()
				gone := s.followers()[0]
				id := gone.ID()
				term := leader.raft.CurrentTerm()
				if down {
					s.crash(id)
				}
				ctx, cancel := within(5 * time.Second)
				defer cancel()
				_, err := leader.RemoveMember(ctx, id)
				require.NoError(t, err)
				if down {
					gone = s.start(id)
				}
				err = s.awaitFailure(gone)
				require.ErrorIs(t, err, ErrRemoved)
				require.ErrorContains(t, err, "member "+id+" was removed from the cluster at log entry")
				time.Sleep(5 * time.Second) // virtual
				require.Equal(t, term, leader.raft.CurrentTerm())
				require.Equal(t, leader, s.leader())
				// Again, over the same disk: the same end, and no harm.
				s.crash(id)
				require.ErrorIs(t, s.awaitFailure(s.start(id)), ErrRemoved)
				require.Equal(t, term, leader.raft.CurrentTerm())
				s.crash(id)
				s.converge()
			})
		})
	}
}

// Nothing is left that connects with a removed member, and nothing that tries to.
func TestSimRemovedMemberIsCutOff(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader := s.leader()
		id := s.followers()[0].ID()
		s.isolate(id) // so that it does not stop by itself
		ctx, cancel := within(5 * time.Second)
		defer cancel()
		_, err := leader.RemoveMember(ctx, id)
		require.NoError(t, err)
		require.Nil(t, simPut(leader, "k", "v", time.Second))
		time.Sleep(10 * time.Second) // virtual
		for _, n := range s.up() {
			if n.ID() == id {
				continue
			}
			for _, with := range n.port.open() {
				require.NotEqual(t, id, with.id)
			}
		}
		s.heal()
		require.ErrorIs(t, s.awaitFailure(s.node(id)), ErrRemoved)
		s.crash(id)
	})
}

// The leader can be removed like any other, asked itself or through another
// member; writes go on.
func TestSimRemovedLeader(t *testing.T) {
	runSim(t, 5, nil, func(s *sim) {
		for round := range 2 {
			old := s.leader()
			via := old
			if round == 1 {
				via = s.followers()[0]
			}
			ctx, cancel := within(10 * time.Second)
			_, err := via.RemoveMember(ctx, old.ID())
			cancel()
			require.NoError(t, err)
			require.ErrorIs(t, s.awaitFailure(old), ErrRemoved)
			s.crash(old.ID())
			require.Nil(t, simPut(s.leader(), "k", "v", time.Second))
			s.converge()
		}
	})
}

// A member whose disk is gone is nobody that the others talk to, so that it
// cannot vote twice or help to elect a leader that has less. Removed and added
// again it is a member like any other, and the old disk stays out.
func TestSimWipedMember(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader := s.leader()
		s.converge()
		id := s.followers()[0].ID()
		old := s.members[id].disk
		s.wipe(id)
		n := s.start(id) // as a first member of the cluster, like the first time
		require.ErrorContains(t, s.awaitFailure(n), "came back with another data folder: remove it and add it again")
		s.crash(id)
		ctx, cancel := within(10 * time.Second)
		defer cancel()
		err := s.letIn(ctx, id, leader, false)
		require.Equal(t, trivetpb.Code_MEMBER_CONFLICT, problemOf(t, err).Code)
		require.ErrorContains(t, err, "came back with another data folder")

		_, err = leader.RemoveMember(ctx, id)
		require.NoError(t, err)
		wiped := newSimDisk()
		s.members[id].disk = old
		require.Error(t, s.awaitFailure(s.start(id)))
		s.crash(id)
		s.members[id].disk = wiped
		s.join(id, leader, false)
		s.awaitRole(id, "voter")
		s.converge()
		s.crash(id)
		s.members[id].disk = old
		require.Error(t, s.awaitFailure(s.start(id)))
		s.crash(id)
		s.members[id].disk = wiped
		s.start(id)
		s.converge()
	})
}

// A wiped member acknowledges nothing: with another one down there is no
// majority, where otherwise an empty one would make it.
func TestSimWipedMemberMakesNoMajority(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader := s.leader()
		s.converge()
		a, b := s.followers()[0].ID(), s.followers()[1].ID()
		s.isolate(a)
		require.Nil(t, simPut(leader, "k", "v", time.Second)) // on the leader and b
		s.crash(leader.ID())
		s.wipe(b)
		s.heal()
		s.start(b)
		time.Sleep(10 * time.Second) // virtual
		for _, n := range s.up() {
			require.Nil(t, n.proposer.leading(), "%s leads without the write", n.ID())
		}
		s.crash(b)
		s.start(leader.ID())
		v, err := simGet(s.node(a), "k", 5*time.Second)
		require.NoError(t, err)
		require.Equal(t, "v", v)
	})
}

// A member that was away while another one came lets that one in, and votes for
// it: else neither the new one, whom it does not know, nor the other one, which
// has less, could ever win.
func TestSimVoteForAMemberThatIsNotKnownYet(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		leader := s.leader()
		away := s.followers()[0].ID()
		behind := s.followers()[1].ID()
		s.crash(away)
		s.join("n4", leader, false)
		s.awaitRole("n4", "voter")
		require.Nil(t, simPut(leader, "k", "v", time.Second))
		// An entry that the leader and n4 alone have.
		s.isolate(behind)
		require.NotNil(t, simPut(leader, "k", "w", 100*time.Millisecond))
		require.Equal(t, leader.raft.LastIndex(), s.node("n4").raft.LastIndex())
		s.crash(leader.ID())
		s.isolate(leader.ID()) // what it has sent to the one that is behind is lost with it
		s.start(away)
		require.Equal(t, "n4", s.leader().ID())
		require.Nil(t, simPut(s.leader(), "k", "x", 5*time.Second))
		s.awaitRole("n4", "voter")
		s.heal()
		s.start(leader.ID())
		s.converge()
	})
}

// A member that joins when the log does not go back to its beginning gets a
// snapshot, and crashes in between are gone on from.
func TestSimJoinBySnapshot(t *testing.T) {
	runSimWith(t, 3, 1, func(c *Config) { c.SnapshotBytes = 4 << 10 }, func(s *sim) {
		leader := s.leader()
		for i := range 100 {
			require.Nil(t, simPut(leader, "k"+strconv.Itoa(i%10), fmt.Sprintf("%0200d", i), time.Second))
		}
		first, err := leader.logs.FirstIndex()
		require.NoError(t, err)
		require.Greater(t, first, uint64(1), "the scenario: the log was compacted")
		s.join("n4", leader, false)
		for range 5 { // wherever that is
			time.Sleep(7 * time.Millisecond) // virtual
			s.crash("n4")
			s.start("n4")
		}
		s.awaitRole("n4", "voter")
		s.converge()
	})
}

// A crash at any step of a join is gone on from by the same command.
func TestSimJoinGoesOnAfterACrash(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		leader := s.leader()
		ctx, cancel := within(20 * time.Second)
		defer cancel()
		// Let in, and gone before that was written down.
		disk := s.members["n4"].disk
		require.NoError(t, s.letIn(ctx, "n4", leader, false))
		disk.joined = nil
		require.NoError(t, s.letIn(ctx, "n4", leader, false))
		// Written down, and gone before it ran; then before it heard of anybody.
		s.isolate("n4")
		s.start("n4")
		time.Sleep(time.Second) // virtual
		s.crash("n4")
		s.heal()
		s.start("n4")
		s.awaitRole("n4", "voter")
		s.converge()
		// With the log that it has, and with the leader that let it in gone.
		s.crash("n4")
		s.crash(leader.ID())
		s.start("n4")
		s.awaitRole("n4", "voter")
		s.start(leader.ID())
		s.converge()
	})
}

// A member that has moved is found at once, as it says itself where it is, and
// the configuration follows. Two at a time too.
func TestSimMembersMove(t *testing.T) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			runSim(t, 3, nil, func(s *sim) {
				s.leader()
				s.converge()
				moved := s.ids[:n]
				for _, id := range moved {
					s.crash(id)
				}
				for _, id := range moved {
					s.members[id].at = id + "b:1"
					s.start(id)
				}
				for range 10_000 {
					conf, _, _ := s.leader().confs.now()
					there := 0
					for _, id := range moved {
						if srv, _ := serverOf(conf, id); peerOf(srv) == id+"b:1" {
							there++
						}
					}
					if there == n {
						break
					}
					time.Sleep(5 * time.Millisecond) // virtual
				}
				for _, id := range moved {
					srv, _ := serverOf(s.leader().configuration(), id)
					require.Equal(t, id+"b:1", peerOf(srv))
					require.Equal(t, raft.Voter, srv.Suffrage)
				}
				s.converge()
				for _, id := range s.ids {
					s.crash(id)
				}
				for _, id := range s.ids {
					s.start(id)
				}
				s.converge()
			})
		})
	}
}

// Changes that wait are bounded, so that they leave the connection to the leader
// to writes and reads.
func TestSimWaitingChangesAreBounded(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		n := s.followers()[0]
		ctx, cancel := within(3 * time.Second)
		defer cancel()
		_, err := n.AddMember(ctx, NewMember{ID: "n4", Peer: "n4:1", Replica: true}) // nobody is there
		require.NoError(t, err)
		done := make(chan trivetpb.Code, 100)
		for range 100 {
			go func() {
				_, err := n.PromoteMember(ctx, "n4")
				var p *trivetpb.Problem
				errors.As(err, &p)
				done <- p.GetCode()
			}()
		}
		time.Sleep(100 * time.Millisecond) // virtual
		require.Len(t, done, 100-maxChanging)
		require.Nil(t, simPut(n, "k", "v", time.Second))
		count := map[trivetpb.Code]int{}
		for range 100 {
			count[<-done]++
		}
		require.Equal(t, 100-maxChanging, count[trivetpb.Code_OVERLOADED])
		require.Equal(t, maxChanging, count[trivetpb.Code_MEMBER_CONFLICT])
	})
}

// A folder that came in the place of another one does not stand for that one in
// the eyes of a member that was away meanwhile: in the configuration that this
// one knows, a majority would be two members of which one has forgotten what the
// other's id once acknowledged.
func TestSimAnotherFolderIsNoVoterOfAnOlderConfiguration(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		away := s.leader()
		require.Nil(t, simPut(away, "k", "v", time.Second))
		s.converge()
		term := away.proposer.leading().term
		s.isolate(away.ID())
		leader := s.leaderAfter(term)
		wiped := without(without(s.first, away.ID()), leader.ID())[0]
		ctx, cancel := within(30 * time.Second)
		defer cancel()
		s.join("n4", leader, true)
		_, err := leader.PromoteMember(ctx, "n4")
		require.NoError(t, err)
		_, err = leader.RemoveMember(ctx, wiped)
		require.NoError(t, err)
		s.wipe(wiped)
		require.NoError(t, s.letIn(ctx, wiped, leader, true))
		// Before the new folder has an entry, it is with the one that was away.
		s.isolate(away.ID(), wiped)
		s.start(wiped)
		time.Sleep(10 * time.Second) // virtual
		require.Nil(t, away.proposer.leading(), "%s is elected by a folder that is no voter", away.ID())
		require.NotNil(t, simPut(away, "k", "w", time.Second))
		_, err = away.peers.call(ctx, wiped, &trivetpb.PeerRequest{Request: &trivetpb.PeerRequest_Member{Member: &trivetpb.MemberRequest{}}})
		require.ErrorIs(t, err, errNotItsFolder)
		for _, folder := range []string{s.members[wiped].disk.incarnation, foldersOf(away.configuration())[wiped]} {
			require.NotContains(t, err.Error(), folder, "what users are shown has no folder")
		}
		s.heal()
		s.converge()
		v, err := simGet(away, "k", 5*time.Second)
		require.NoError(t, err)
		require.Equal(t, "v", v)
	})
}

// A voter's folder that the leader has never seen is no reason to let another one
// in under its id: the wiped one may have acknowledged and voted.
func TestSimWipedVoterThatTheLeaderHasNotMet(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		leader := s.leader()
		away := s.followers()[0].ID()
		s.crash(away)
		s.join("n4", leader, false)
		s.awaitRole("n4", "voter")
		s.wipe("n4")
		s.makeLead(s.start(away))
		s.converge()
		ctx, cancel := within(10 * time.Second)
		defer cancel()
		for _, replica := range []bool{false, true} {
			_, err := s.leader().AddMember(ctx, NewMember{
				ID: "n4", Peer: s.members["n4"].at, Replica: replica, Incarnation: s.members["n4"].disk.incarnation,
			})
			require.Error(t, err)
			require.Equal(t, trivetpb.Code_MEMBER_CONFLICT, problemOf(t, err).Code)
			require.ErrorContains(t, err, "came back with another data folder")
		}
	})
}
