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
// In the handshake each side says who it is: its data folder (met.go) and, for
// the one that called, the newest configuration known to it that has it (its
// claim). The one that was called lets it in if it is a member by a configuration
// that either knows: the newest one in the log here, committed or not, or the
// claim, if that is newer than what is known to be committed here. So a member
// that has fallen behind lets in those that came after: it may need them to
// hear of it. Where neither holds, the caller is told so, with the index of the
// committed configuration that does not have it. One that knows of no newer one
// that does has been removed: it stops. One that does know tries again later.
//
// A removed member disturbs nobody: it is let in by nobody who has applied its
// removal, all connections with it are closed as that is applied, and raft's
// pre-vote keeps it from raising terms before it has heard.

// ErrRemoved is wrapped by why a node took itself out of service that is no
// member of its cluster any more.
var ErrRemoved = errors.New("was removed from the cluster")

// errRefusedFolder is wrapped by why a node took itself out of service that others
// know with another data folder.
var errRefusedFolder = errors.New("the others refuse this data folder")

// errOtherCluster is wrapped by why a first member took itself out of service
// whose list of first members leads to another cluster.
var errOtherCluster = errors.New("another cluster is there")

// errLaterFolder is the end of a call to a folder that was let in after the
// configuration by which this node knows its id. That configuration means the
// folder before it, of which this one knows nothing: its votes and its
// acknowledgements must not be counted there. A member that was away could else
// be elected by one that has forgotten who was, or commit with it what the others
// never hear of. It is called again once the configuration that has it is known
// to be committed here; meanwhile it may call, and be answered: what it counts, it
// counts by its own.
var errLaterFolder = errors.New("its data folder was let in later than this member has heard of")

var _ members = (*Node)(nil)

func (n *Node) introduce(h *trivetpb.Hello) {
	h.Incarnation, h.JoinedAt = n.storage.incarnation, n.storage.joinedAt
	h.ConfigIndex = n.confs.claim()
	h.Address, h.Forming = n.cfg.AdvertisePeer, n.forming()
}

func (n *Node) admit(h *trivetpb.Hello, r *trivetpb.HelloReply) {
	_, index, _ := n.confs.now()
	r.ConfigIndex = index
	r.Incarnation, r.JoinedAt = n.storage.incarnation, n.storage.joinedAt
	r.Forming = n.forming()
	r.Knew = h.Incarnation != "" && n.met.folder(h.From) == h.Incarnation
	conf := n.configuration()
	known, there := serverOf(conf, h.From)
	if r.Forming {
		if known.Address = raft.ServerAddress(n.storage.peers[h.From]); known.Address != "" {
			there = true
		}
	}
	if !there && h.ConfigIndex <= index {
		r.Code = trivetpb.HelloReply_NOT_A_MEMBER
		r.Refused = fmt.Sprintf("member %s is no member of the cluster as of log entry %d", h.From, index)
		return
	}
	if h.Forming && !r.Forming && !r.Knew && !mutant.On("any-folder") {
		// It is not written down, or it would be known the next time.
		r.Code = trivetpb.HelloReply_OTHER_FOLDER
		r.Refused = fmt.Sprintf("member %s %v: remove it and add it again", h.From, errOtherFolder)
		return
	}
	if err := n.meet(h.From, h.Incarnation, h.JoinedAt); err != nil {
		r.Refused = err.Error()
		if errors.Is(err, errOtherFolder) || errors.Is(err, errNotAnew) {
			r.Code = trivetpb.HelloReply_OTHER_FOLDER
		}
		return
	}
	if there && string(known.Address) != h.Address && isAddress(h.Address) {
		n.port.moved(h.From, h.Address)
	}
}

func (n *Node) answered(id string, r *trivetpb.HelloReply) error {
	switch {
	case r.Code == trivetpb.HelloReply_NOT_A_MEMBER && r.ConfigIndex > n.confs.claim():
		n.fail(fmt.Errorf("member %s %w at log entry %d or before", n.cfg.ID, ErrRemoved, r.ConfigIndex))
	case r.Code == trivetpb.HelloReply_OTHER_CLUSTER && n.forming():
		// One that has begun goes on, whatever an address of its cluster leads to by
		// now: the others may have moved, and look for it where it is.
		n.fail(fmt.Errorf("%w: %s", errOtherCluster, r.Refused))
	case r.Code == trivetpb.HelloReply_OTHER_FOLDER:
		n.fail(fmt.Errorf("%w: %s", errRefusedFolder, r.Refused))
	case r.Refused == "":
		if err := n.meet(id, r.Incarnation, r.JoinedAt); err != nil {
			return err
		}
		if certain := n.confs.certain(); r.JoinedAt > certain && hasServer(n.configuration(), id) && !mutant.On("later-folder") {
			return fmt.Errorf("%w: at entry %d, and this member knows who the members were at entry %d", errLaterFolder, r.JoinedAt, certain)
		}
		n.formation.met(id, r)
	}
	return nil
}

// meet checks a member's data folder, and ends the connections of the one that
// it takes the place of.
func (n *Node) meet(id, incarnation string, joinedAt uint64) error {
	if len(incarnation) > maxIncarnation {
		return fmt.Errorf("member %s names its data folder by %d characters", id, len(incarnation))
	}
	before := n.met.folder(id)
	if err := n.met.check(id, incarnation, joinedAt, n.forming()); err != nil {
		return err
	}
	if before != "" && incarnation != "" && before != incarnation {
		n.port.cutOff(joinedAt-1, func(other string) bool { return other != id })
	}
	return nil
}
