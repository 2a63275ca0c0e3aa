package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// Members come and go one at a time (Raft dissertation §4.1 to §4.3), by entries
// of the log that hold the whole configuration. Any node takes a change and sends
// it to the leader (this file); the leader decides and makes it (memberchange.go).
// A change is a statement of how things shall be: it may be asked for again, by
// whoever does not know what became of it, and is a success where it is so
// already. That is why a change that may have been made goes out again without
// an identity.

// NewMember is a member to be added.
type NewMember struct {
	ID   string
	Peer string // HOST:PORT of its peer port
	// Replica: it never votes, unless it is promoted.
	Replica bool
	// Incarnation is that of its data folder where the member itself asks
	// (JoinRequest), else empty.
	Incarnation string
}

// MemberChange is what came of a change.
type MemberChange struct {
	// Index is the log entry of the configuration that holds now.
	Index uint64
	// Changed is unset where it was so before.
	Changed bool
	// CatchingUp says that a member that was added to be a voter does not vote
	// yet. It asks to be made one by itself, once it has caught up and as long as
	// it was started to be one.
	CatchingUp bool
	// Members are all members now.
	Members []ConfiguredMember

	leader string
}

// ConfiguredMember is a member as the configuration has it.
type ConfiguredMember struct {
	ID, Peer string
	Voter    bool
}

// AddMember adds a member, on any node. One that is to vote is added as one that
// does not, and promoted once it has caught up, for as long as ctx leaves time
// (MemberChange.CatchingUp). One that is a member already, at the same address
// and in the same role, is a success, and so is a replica that is to vote now.
//
// The error of this and of the other changes is a *trivetpb.Problem: BAD_REQUEST
// for an id or address of a wrong form; MEMBER_CONFLICT where the membership does
// not allow the change; NOT_FOUND for a member that is not there; NO_LEADER,
// TIMEOUT or DRAINING where no leader made it in time. Unknown is set where it
// may have been made, or may yet be.
func (n *Node) AddMember(ctx context.Context, m NewMember) (MemberChange, error) {
	return n.changeMembers(ctx, &trivetpb.MembershipRequest{
		Change: trivetpb.MembershipRequest_ADD, Id: m.ID, Peer: m.Peer, Voter: !m.Replica, Incarnation: m.Incarnation,
	})
}

// RemoveMember removes a member, on any node, the leader and this one included:
// a leader hands its leadership over first. The member is told when it next
// talks to another one, and stops. One that is not there is a success. Its id
// may be added again, with an empty data folder.
//
// MEMBER_CONFLICT where too few of the voters that would be left answer, or none
// would be left.
func (n *Node) RemoveMember(ctx context.Context, id string) (MemberChange, error) {
	return n.changeMembers(ctx, &trivetpb.MembershipRequest{Change: trivetpb.MembershipRequest_REMOVE, Id: id})
}

// PromoteMember makes a replica a voter once it has caught up, MEMBER_CONFLICT
// where it has not before ctx ends. A voter is a success.
func (n *Node) PromoteMember(ctx context.Context, id string) (MemberChange, error) {
	return n.changeMembers(ctx, &trivetpb.MembershipRequest{Change: trivetpb.MembershipRequest_PROMOTE, Id: id})
}

// DemoteMember makes a voter a replica. A replica is a success.
func (n *Node) DemoteMember(ctx context.Context, id string) (MemberChange, error) {
	return n.changeMembers(ctx, &trivetpb.MembershipRequest{Change: trivetpb.MembershipRequest_DEMOTE, Id: id})
}

// Transfer is TransferLeadership on any node, with the errors of AddMember. It
// returns who leads then, "" where that was not heard in time.
func (n *Node) Transfer(ctx context.Context, to string) (leader string, err error) {
	c, err := n.changeMembers(ctx, &trivetpb.MembershipRequest{Change: trivetpb.MembershipRequest_TRANSFER, Id: to})
	return c.leader, err
}

// maxChanging bounds the changes that wait at one node, this one's own included:
// one that waits for a member to catch up holds a place among the requests that
// the leader answers on a connection (maxServing), which are for writes and reads.
const maxChanging = 8

// changeMembers takes a change to the leader, again and again until it has an
// answer or the time is up.
func (n *Node) changeMembers(ctx context.Context, req *trivetpb.MembershipRequest) (MemberChange, error) {
	if p := checkMembership(req); p != nil {
		return MemberChange{}, p
	}
	select {
	case n.changing <- struct{}{}:
		defer func() { <-n.changing }()
	default:
		return MemberChange{}, &trivetpb.Problem{Code: trivetpb.Code_OVERLOADED,
			Detail: fmt.Sprintf("%d changes of the membership wait here already", maxChanging)}
	}
	maybe := false // an attempt may have got through
	for {
		if err := n.stopped(); err != nil {
			if req.Change == trivetpb.MembershipRequest_REMOVE && req.Id == n.cfg.ID && errors.Is(n.failure(), ErrRemoved) {
				return MemberChange{Changed: true}, nil // the answer was cut off with it
			}
			return MemberChange{}, withOutcome(err.(*trivetpb.Problem), maybe)
		}
		signal := n.changes()
		r := n.askForChange(ctx, req)
		p := r.GetProblem()
		switch {
		case p == nil:
			n.awaitConfiguration(ctx, r.Index)
			return memberChange(r), nil
		case !lookAgain(p):
			return MemberChange{}, withOutcome(p, maybe)
		}
		maybe = maybe || p.Unknown
		n.awaitChange(ctx, signal)
		if ctx.Err() != nil {
			code := trivetpb.Code_NO_LEADER
			if maybe {
				code = trivetpb.Code_TIMEOUT
			}
			return MemberChange{}, &trivetpb.Problem{Code: code, Unknown: maybe,
				Detail: "no leader changed the membership until the time was up: " + p.Detail}
		}
	}
}

// awaitConfiguration waits until this node, too, has applied the configuration of
// an entry, so that who asks it next is told of it: for a moment at most, as the
// change is made whether or not this node has heard.
func (n *Node) awaitConfiguration(ctx context.Context, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	for {
		_, now, changed := n.confs.now()
		if now >= index {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-n.ctx.Done():
			return
		}
	}
}

// withOutcome is p after attempts that may have got through: a refusal then says
// nothing about them.
func withOutcome(p *trivetpb.Problem, maybe bool) *trivetpb.Problem {
	if maybe && !p.Unknown {
		p = proto.Clone(p).(*trivetpb.Problem)
		p.Unknown = true
	}
	return p
}

// askForChange makes one attempt: here, at the leader, or through any member
// that knows the leader where this one does not. One that has moved may be
// unknown to all but those that it calls (admission.go).
func (n *Node) askForChange(ctx context.Context, req *trivetpb.MembershipRequest) *trivetpb.MembershipReply {
	leader := n.leaderID()
	if leader == n.cfg.ID {
		return n.changeHere(ctx, req)
	}
	targets := []string{leader}
	passOn := false
	if leader == "" {
		targets, passOn = n.others(), true
	}
	problem := &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: "no leader is known"}
	unknown := false
	for _, id := range targets {
		r, err := n.callChange(ctx, id, req, passOn)
		switch {
		case err == nil && !lookAgain(r.GetProblem()):
			return r
		case err == nil:
			problem = r.Problem
		case errors.Is(err, errNotSent):
			problem = &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: err.Error()}
		default: // it may have been acted on
			problem = &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Unknown: true, Detail: err.Error()}
		}
		unknown = unknown || problem.Unknown
		if ctx.Err() != nil {
			break
		}
	}
	return &trivetpb.MembershipReply{Problem: withOutcome(problem, unknown)}
}

// callChange asks another member, which has a little less time than there is, so
// that its answer still arrives.
func (n *Node) callChange(ctx context.Context, id string, req *trivetpb.MembershipRequest, passOn bool) (*trivetpb.MembershipReply, error) {
	req = proto.Clone(req).(*trivetpb.MembershipRequest)
	req.PassOn, req.TimeoutMs = passOn, uint64(maxMembershipWait.Milliseconds())
	if deadline, ok := ctx.Deadline(); ok {
		req.TimeoutMs = uint64(max(0, time.Until(deadline)).Milliseconds() * 9 / 10)
	}
	ctx, cancel := context.WithTimeout(ctx, maxMembershipWait)
	defer cancel()
	reply, err := n.peers.call(ctx, id, &trivetpb.PeerRequest{Request: &trivetpb.PeerRequest_Membership{Membership: req}})
	if err != nil {
		return nil, err
	}
	if reply.GetMembership() == nil {
		return nil, fmt.Errorf("member %s is of a version that knows no changes of membership: %w", id, errNotSent)
	}
	return reply.GetMembership(), nil
}

// maxMembershipWait bounds a change that another member asks for.
const maxMembershipWait = 60 * time.Second

// serveMembership answers another member's request for a change.
func (n *Node) serveMembership(ctx context.Context, from string, req *trivetpb.MembershipRequest) *trivetpb.MembershipReply {
	if p := checkMembership(req); p != nil {
		return &trivetpb.MembershipReply{Problem: p}
	}
	ctx, cancel := context.WithTimeout(ctx, min(time.Duration(req.TimeoutMs)*time.Millisecond, maxMembershipWait))
	defer cancel()
	leader := n.leaderID()
	if leader == n.cfg.ID || leader == "" || leader == from || !req.PassOn {
		return n.changeHere(ctx, req)
	}
	r, err := n.callChange(ctx, leader, req, false)
	if err != nil {
		return &trivetpb.MembershipReply{Problem: &trivetpb.Problem{
			Code: trivetpb.Code_NO_LEADER, Unknown: !errors.Is(err, errNotSent), Detail: err.Error(),
		}}
	}
	return r
}

// checkMembership says what is wrong with a change whatever the membership is.
func checkMembership(req *trivetpb.MembershipRequest) *trivetpb.Problem {
	bad := func(format string, args ...any) *trivetpb.Problem {
		return &trivetpb.Problem{Code: trivetpb.Code_BAD_REQUEST, Detail: fmt.Sprintf(format, args...)}
	}
	withAddress := req.Change == trivetpb.MembershipRequest_ADD || req.Change == trivetpb.MembershipRequest_MOVE
	switch {
	case req.Change == trivetpb.MembershipRequest_UNSPECIFIED || trivetpb.MembershipRequest_Change_name[int32(req.Change)] == "":
		return bad("this version knows no change %d of the membership", req.Change)
	case req.Change == trivetpb.MembershipRequest_TRANSFER && req.Id == "":
	case !idPattern.MatchString(req.Id):
		return bad("%.100q is no member id (1 to 64 of a-z, A-Z, 0-9, '.', '-', '_')", req.Id)
	case withAddress && !isAddress(req.Peer):
		return bad("peer %.100q is not HOST:PORT", req.Peer)
	case req.Incarnation != "" && !folderPattern.MatchString(req.Incarnation):
		return bad("%.100q is no incarnation (1 to 64 of a-z, A-Z, 0-9)", req.Incarnation)
	}
	return nil
}

func memberChange(r *trivetpb.MembershipReply) MemberChange {
	c := MemberChange{Index: r.Index, Changed: r.Changed, CatchingUp: r.CatchingUp, leader: r.Leader}
	for _, m := range r.Members {
		c.Members = append(c.Members, ConfiguredMember{ID: m.Id, Peer: m.Peer, Voter: m.Voter})
	}
	return c
}

// others lists the other members as far as this one knows them: by its log or,
// where that holds none yet, as they were when it was let in.
func (n *Node) others() []string {
	var ids []string
	for _, s := range n.configuration().Servers {
		if string(s.ID) != n.cfg.ID {
			ids = append(ids, string(s.ID))
		}
	}
	if len(ids) == 0 {
		for id := range n.storage.peers {
			if id != n.cfg.ID {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func configured(conf raft.Configuration) []*trivetpb.ConfiguredMember {
	var members []*trivetpb.ConfiguredMember
	for _, s := range conf.Servers {
		members = append(members, &trivetpb.ConfiguredMember{Id: string(s.ID), Peer: peerOf(s), Voter: s.Suffrage == raft.Voter})
	}
	return members
}
