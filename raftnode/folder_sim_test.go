package raftnode

import (
	"io"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// Folders, as parts of the configuration, in virtual time.

// requireFolders checks that configurations have the folders that there are, and
// that nobody is shown one.
func (s *sim) requireFolders(conf raft.Configuration) {
	s.t.Helper()
	for _, srv := range conf.Servers {
		folder := folderOf(srv)
		if s.node(string(srv.ID)) != nil {
			require.Equal(s.t, s.members[string(srv.ID)].disk.incarnation, folder, "of %s in %v", srv.ID, conf)
		}
		require.True(s.t, folder != "" || srv.Suffrage != raft.Voter, "%s votes without a folder: %v", srv.ID, conf)
	}
}

// awaitFolders waits until the configuration has a folder for each of so many
// members.
func (s *sim) awaitFolders(members int) {
	s.t.Helper()
	for range 10_000 {
		if conf, _, _ := s.leader().confs.now(); len(conf.Servers) == members && len(foldersOf(conf)) == members {
			return
		}
		time.Sleep(5 * time.Millisecond) // virtual
	}
	conf, _, _ := s.leader().confs.now()
	s.t.Fatalf("not %d members with folders in 50 seconds: %v", members, conf)
}

// A member was away while an id was removed and added again, and hears of both by
// a snapshot alone. The removed folder, which calls it before the new one has, is
// nobody to it: with its vote it would lead without what the new one has
// acknowledged.
func TestSimRemovedFolderIsNoVoterAfterASnapshot(t *testing.T) {
	runSimWith(t, 3, 2, func(c *Config) { c.SnapshotBytes = 4 << 10 }, func(s *sim) {
		leader := s.leader()
		s.converge()
		away, id := s.followers()[0].ID(), s.followers()[1].ID()
		s.isolate(away)
		ctx, cancel := within(60 * time.Second)
		defer cancel()
		for _, more := range []string{"n4", "n5"} {
			s.join(more, leader, false)
			s.awaitVoter(more, leader)
		}
		removed := s.members[id].disk
		s.crash(id)
		_, err := leader.RemoveMember(ctx, id)
		require.NoError(t, err)
		s.wipe(id)
		s.join(id, leader, false)
		s.awaitVoter(id, leader)
		for _, more := range []string{"n4", "n5"} {
			_, err = leader.RemoveMember(ctx, more)
			require.NoError(t, err)
			s.crash(more)
		}
		for i := range 100 {
			require.Nil(t, simPut(leader, "k"+strconv.Itoa(i%10), string(make([]byte, 200)), time.Second))
		}
		require.True(t, simCompacted(leader), "the scenario: the log was compacted")

		// It comes back while the new folder is down.
		s.crash(id)
		s.heal()
		require.Nil(t, simPut(leader, "k", "v", 10*time.Second))
		_, err = simGet(s.node(away), "k", 10*time.Second)
		require.NoError(t, err)
		require.Positive(t, s.node(away).Stats().SnapshotsRestored, "the scenario: it came by a snapshot")

		// What it does not have, the new folder acknowledged.
		s.isolate(away)
		s.start(id)
		require.Nil(t, simPut(leader, "k", "w", 10*time.Second))
		added := s.members[id].disk
		s.crash(id)
		s.crash(leader.ID())
		s.heal()
		s.members[id].disk = removed
		old := s.start(id)
		time.Sleep(10 * time.Second) // virtual
		require.Nil(t, s.node(away).proposer.leading(), "%s is elected by a folder that was removed", away)
		require.Error(t, old.Err())
		s.crash(id)
		s.members[id].disk = added
		s.start(id)
		s.start(leader.ID())
		s.converge()
		v, err := simGet(s.node(away), "k", 5*time.Second)
		require.NoError(t, err)
		require.Equal(t, "w", v)
	})
}

func simCompacted(n *Node) bool {
	first, err := n.logs.FirstIndex()
	return err == nil && first > 1
}

func (s *sim) awaitVoter(id string, n *Node) {
	s.t.Helper()
	for range 10_000 {
		if conf, _, _ := n.confs.now(); roleIn(conf, id) == "voter" {
			return
		}
		time.Sleep(5 * time.Millisecond) // virtual
	}
	s.t.Fatalf("%s is no voter in 50 seconds", id)
}

// A cluster of a version that knew no folders in configurations gets them once all
// members know them, each by its own word; a wiped member is none of it, before and
// after.
func TestSimFoldersComeWithTheirLevel(t *testing.T) {
	simVersions(t, 3, 4, func(s *sim, knows func(string, uint64)) {
		for _, id := range s.first {
			s.wipe(id)
			s.members[id].disk.formed = true // as that version left it
			knows(id, 0)
		}
		knows("n4", 0)
		for _, id := range s.first {
			s.start(id)
		}
		s.leader()
		s.requireLevel(0)
		s.join("n4", s.leader(), true)
		require.Empty(t, foldersOf(s.leader().configuration()))
		for _, id := range s.ids {
			s.requireLevel(0)
			require.Empty(t, foldersOf(s.leader().configuration()))
			knows(id, levelFolders)
		}
		s.awaitLevel(s.leader(), levelFolders)
		s.awaitFolders(4)
		s.requireFolders(s.leader().configuration())
		s.awaitRole("n4", "replica")
		s.awaitRole("n1", "voter")
		s.converge()

		id := s.followers()[0].ID()
		kept := s.members[id].disk
		s.wipe(id)
		require.ErrorIs(t, s.awaitFailure(s.start(id)), errRefusedFolder)
		s.crash(id)
		s.members[id].disk = kept
		s.start(id)
		s.converge()
	})
}

// While configurations have no folders yet, a wiped voter takes no part, whether it
// comes as one of the first or asks to be let in.
func TestSimWipedVoterOfAnEarlierVersion(t *testing.T) {
	simVersions(t, 3, 3, func(s *sim, knows func(string, uint64)) {
		for i, id := range s.first {
			s.wipe(id)
			s.members[id].disk.formed = true
			knows(id, uint64(min(i, 1))) // n1 keeps the level down
		}
		for _, id := range s.first {
			s.start(id)
		}
		s.leader()
		s.requireLevel(0)
		s.wipe("n3")
		require.ErrorIs(t, s.awaitFailure(s.start("n3")), errRefusedFolder)
		s.crash("n3")
		ctx, cancel := within(5 * time.Second)
		defer cancel()
		require.ErrorContains(t, s.letIn(ctx, "n3", s.leader(), false), "came back with another data folder")
		_, err := s.leader().RemoveMember(ctx, "n3")
		require.NoError(t, err)
		s.join("n3", s.leader(), false)
		s.awaitRole("n3", "voter")
		knows("n1", 1)
		s.awaitFolders(3)
		s.converge()
	})
}

// Somebody added a member before it had a folder. It has that written down itself
// when it runs, and votes only after that.
func TestSimMemberAddedBeforeItHasAFolder(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		leader := s.leader()
		ctx, cancel := within(60 * time.Second)
		defer cancel()
		c, err := leader.AddMember(ctx, NewMember{ID: "n4", Peer: "n4:1", Replica: true})
		require.NoError(t, err)
		srv, _ := serverOf(leader.configuration(), "n4")
		require.Empty(t, folderOf(srv))
		m := s.members["n4"]
		m.disk.joined = &Joined{Cluster: "sim", Index: c.Index, Members: s.peers()}
		m.in = true
		s.start("n4")
		_, err = leader.PromoteMember(ctx, "n4")
		require.NoError(t, err)
		s.awaitRole("n4", "voter")
		s.converge()

		// Its role and its address change, and its folder does not.
		_, err = leader.DemoteMember(ctx, "n4")
		require.NoError(t, err)
		s.converge()
		s.crash("n4")
		m.at = "n4b:1"
		s.start("n4")
		for range 1000 {
			if srv, _ = serverOf(leader.configuration(), "n4"); peerOf(srv) == m.at {
				break
			}
			time.Sleep(10 * time.Millisecond) // virtual
		}
		require.Equal(t, m.at, peerOf(srv))
		s.converge()
		status, err := leader.Cluster(ctx)
		require.NoError(t, err)
		for _, shown := range status.Members {
			require.True(t, isAddress(shown.Peer) && peerOf(raft.Server{Address: raft.ServerAddress(shown.Peer)}) == shown.Peer, shown.Peer)
		}
	})
}

// A member that was let in ended before it heard of that, and asks again from
// another address. It is the same one, by its folder; another folder is not, and
// nobody takes an address that is in use.
func TestSimMemberJoinsFromElsewhere(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		leader := s.leader()
		s.converge()
		ctx, cancel := within(30 * time.Second)
		defer cancel()
		m := s.members["n4"]
		require.NoError(t, s.letIn(ctx, "n4", leader, false))
		m.at = simAddr("n1")
		require.ErrorContains(t, s.letIn(ctx, "n4", leader, false), "is that of member n1")
		m.at = "n4b:1"
		_, err := leader.AddMember(ctx, NewMember{ID: "n4", Peer: m.at, Replica: true, Incarnation: "other"})
		require.ErrorContains(t, err, "member n4 is at "+simAddr("n4"))
		s.join("n4", leader, false)
		s.awaitRole("n4", "voter")
		srv, _ := serverOf(leader.configuration(), "n4")
		require.Equal(t, serverAddress(m.at, m.disk.incarnation), srv.Address)
		s.converge()
	})
}

// A removed folder that comes back under an id that was added again is told so, by
// members that know it from the log, and stops; it can move nothing either.
func TestSimRemovedFolderUnderANewMembersID(t *testing.T) {
	runSimWith(t, 3, 0, nil, func(s *sim) {
		leader := s.leader()
		s.converge()
		id := s.followers()[0].ID()
		removed := s.members[id].disk
		s.crash(id)
		ctx, cancel := within(30 * time.Second)
		defer cancel()
		_, err := leader.RemoveMember(ctx, id)
		require.NoError(t, err)
		s.wipe(id)
		s.join(id, leader, false)
		s.awaitRole(id, "voter")
		s.converge()
		added := s.members[id].disk
		s.crash(id)
		s.members[id].disk, s.members[id].at = removed, "elsewhere:1"
		require.ErrorIs(t, s.awaitFailure(s.start(id)), ErrRemoved)
		s.crash(id)
		require.Empty(t, leader.port.at[id])
		s.members[id].disk, s.members[id].at = added, simAddr(id)
		s.start(id)
		s.converge()
	})
}

// A configuration that comes closes the connections with folders that are no members
// by it, in either direction, and leaves those of others.
func TestSimFolderOfAConnection(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		leader := s.leader()
		s.converge()
		id := s.followers()[0].ID()
		folder := s.members[id].disk.incarnation
		with := map[string]peerConn{
			"called":            {id: id, folder: folder, met: true},
			"called, other":     {id: id, folder: "other", met: true},
			"called, under way": {id: id},
			"calls":             {id: id, folder: folder, met: true, incoming: true, claim: 1},
			"calls, removed":    {id: id, folder: "other", met: true, incoming: true, claim: 1},
			"calls, later":      {id: id, folder: "other", met: true, incoming: true, claim: 1 << 40},
		}
		conns := map[string]net.Conn{}
		for name, c := range with {
			a, b := net.Pipe()
			require.True(t, leader.port.track(a, c))
			conns[name] = b
		}
		ctx, cancel := within(5 * time.Second)
		defer cancel()
		_, err := leader.AddMember(ctx, NewMember{ID: "n4", Peer: "n4:1", Replica: true})
		require.NoError(t, err)
		for name, c := range conns {
			c.SetReadDeadline(time.Now())
			_, err := c.Read(make([]byte, 1))
			if name == "called, other" || name == "calls, removed" {
				require.ErrorIs(t, err, io.EOF, name)
			} else {
				require.ErrorIs(t, err, os.ErrDeadlineExceeded, name)
			}
		}
	})
}
