package raftnode

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// How a member and the others know each other.
//
// In the handshake each side says who it is: its data folder (folder.go) and, for
// the one that called, the newest configuration known to it that has that (its
// claim). There are two questions, and they differ.
//
// Whom to let in. The one that was called lets a folder in if it is a member by a
// configuration that either knows: the newest one in the log here, committed or
// not, or the claim, if that is newer than what is known to be committed here. So
// a member that has fallen behind lets in those that came after: it may need them
// to hear of it. Where neither holds, the caller is told so, with the index of the
// committed configuration that does not have it. One that knows of no newer one
// that does has been removed: it stops. One that does know tries again later.
// What is asked of a member is answered without regard to its own configuration
// (Raft dissertation §4.1): a candidate or a leader counts by its own, and is one
// only by the log that it has.
//
// Whose answers to count. Who calls counts what it hears by the newest
// configuration in its log, so it talks to nobody but the folder that has there.
// If that is a removed one, the answers are good in the configuration that they are
// counted by. If another one has come in its place, of which the caller has not
// heard, that one's votes and acknowledgements must not be counted: a member that
// was away could else be elected by one that has forgotten who was, or commit with
// it what the others never hear of. It may call meanwhile, and be answered.
//
// Both are asked again when a configuration comes or goes, and connections that
// it does not allow any more are closed before anything is counted by it
// (reconfigured).
//
// A removed member disturbs nobody: it is let in by nobody who has heard of its
// removal, and raft's pre-vote keeps it from raising terms before it has heard.

// ErrRemoved is wrapped by why a node took itself out of service that is no
// member of its cluster any more.
var ErrRemoved = errors.New("was removed from the cluster")

// errRefusedFolder is wrapped by why a node took itself out of service whose id is
// that of a member with another data folder.
var errRefusedFolder = errors.New("the others refuse this data folder")

// errOtherFolder is wrapped by why a member's folder is not the one it was.
var errOtherFolder = errors.New("came back with another data folder")

// errOtherCluster is wrapped by why a first member took itself out of service
// whose list of first members leads to another cluster.
var errOtherCluster = errors.New("another cluster is there")

// errNotItsFolder is the end of a call to a folder that is not the one by which
// this node knows the member.
var errNotItsFolder = errors.New("has another data folder than the one that is the member, as far as this one has heard")

// errLaterFolder is the same, where that configuration has no folders (folder.go):
// this one was let in after it.
var errLaterFolder = errors.New("its data folder was let in later than this member has heard of")

var _ members = (*Node)(nil)

// introduce says who this member is, and returns what takes the answer.
func (n *Node) introduce(id string, h *trivetpb.Hello) (answered func(*trivetpb.HelloReply) error) {
	h.Incarnation, h.JoinedAt = n.storage.incarnation, n.storage.joinedAt
	h.ConfigIndex = n.confs.claim()
	h.Address, h.Forming = n.cfg.AdvertisePeer, n.forming()
	h.Level = n.store.KnownLevel()
	asked := n.formation.asking()
	return func(r *trivetpb.HelloReply) error { return n.answered(id, asked, r) }
}

func (n *Node) admit(h *trivetpb.Hello, r *trivetpb.HelloReply) {
	k := n.confs.known()
	r.ConfigIndex = k.index
	r.Incarnation, r.JoinedAt = n.storage.incarnation, n.storage.joinedAt
	r.Forming = n.forming()
	known, there := serverOf(k.newest, h.From)
	if at := n.storage.peers[h.From]; r.Forming && at != "" {
		known, there = raft.Server{Address: raft.ServerAddress(at)}, true
	}
	switch {
	case r.Forming && !there, !r.Forming && !k.lets(h.From, h.Incarnation, h.ConfigIndex) && !h.Forming:
		r.Code = trivetpb.HelloReply_NOT_A_MEMBER
		r.Refused = fmt.Sprintf("member %s is no member of the cluster as of log entry %d", h.From, k.index)
		if hasServer(k.certain, h.From) {
			r.Refused = fmt.Sprintf("member %s has another data folder as of log entry %d", h.From, k.index)
		}
	case h.Forming:
		n.admitFirst(k, h, r)
	}
	if r.Refused == "" && there && isFolder(known, h.Incarnation) && peerOf(known) != h.Address && isAddress(h.Address) {
		n.port.moved(h.From, h.Address)
	}
}

// answered takes what a member that was called answered; asked says when that was.
func (n *Node) answered(id string, asked uint64, r *trivetpb.HelloReply) error {
	switch {
	case r.Code == trivetpb.HelloReply_NOT_A_MEMBER && r.ConfigIndex > n.confs.claim():
		n.fail(fmt.Errorf("member %s %w at log entry %d or before", n.cfg.ID, ErrRemoved, r.ConfigIndex))
	case r.Code == trivetpb.HelloReply_OTHER_CLUSTER && n.forming():
		// One that has begun goes on, whatever an address of its cluster leads to by
		// now: the others may have moved, and look for it where it is.
		n.fail(fmt.Errorf("%w: %s", errOtherCluster, r.Refused))
	case r.Code == trivetpb.HelloReply_OTHER_FOLDER:
		n.fail(fmt.Errorf("%w: %s", errRefusedFolder, r.Refused))
	case r.Refused != "":
	case n.forming():
		n.formation.heard(id, asked, r)
	default:
		k := n.confs.known()
		s, there := serverOf(k.newest, id)
		switch {
		case !k.counts(id, r.Incarnation):
			return errNotItsFolder
		case there && folderOf(s) == "" && r.JoinedAt > max(k.index, 1) && !mutant.On("later-folder"):
			return fmt.Errorf("%w: at entry %d, and this member knows who the members were at entry %d", errLaterFolder, r.JoinedAt, k.index)
		}
	}
	return nil
}
