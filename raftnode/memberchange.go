package raftnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// A change of the membership, on the leader.
//
// It is decided on the newest committed configuration, and made on that one or
// not at all: raft takes a change with the entry (prevIndex) that its
// configuration must be. So nothing here needs to hold others up: of two changes
// that were decided on the same configuration one is made, and the other decided
// anew. raft itself takes none while one is not committed, which makes them one
// at a time (Raft dissertation §4.1), and none before something of its own term
// is committed, as that is not safe (Ongaro, "bug in single-server membership
// changes", raft-dev, 2015). Nor does this before the term's marker is applied:
// until then the committed configuration known here may be an old one.
//
// raft's future is one thing that is waited for; the others are the time, and
// the node's end, after which a future may never answer.

// changeHere makes a change if this node leads, and else answers NO_LEADER: look
// again.
func (n *Node) changeHere(ctx context.Context, req *trivetpb.MembershipRequest) *trivetpb.MembershipReply {
	maybe, changed := false, false
	refuse := func(p *trivetpb.Problem) *trivetpb.MembershipReply {
		return &trivetpb.MembershipReply{Problem: withOutcome(p, maybe)}
	}
	if req.Change == trivetpb.MembershipRequest_TRANSFER {
		if p := n.transferTo(ctx, req.Id); p != nil {
			return refuse(p)
		}
		_, index, _ := n.confs.now()
		return &trivetpb.MembershipReply{Index: index, Changed: true, Leader: n.awaitLeader(ctx)}
	}
	for {
		lead := n.proposer.leading()
		if lead == nil {
			return refuse(&trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: errNotLeading.Error()})
		}
		conf, index, _ := n.confs.now()
		step, p := n.decide(req, conf)
		switch {
		case p != nil:
			return refuse(p)
		case step == nil:
			return &trivetpb.MembershipReply{Index: index, Changed: changed, Members: configured(conf)}
		}
		if step.catchUp && !n.awaitCaughtUp(ctx, req.Id, step.do == nil) {
			if p := n.stillLeads(lead); p != nil {
				return refuse(p)
			}
			if req.Change == trivetpb.MembershipRequest_ADD {
				return &trivetpb.MembershipReply{Index: index, Changed: changed, CatchingUp: true, Members: configured(conf)}
			}
			return refuse(conflict("member %s has not caught up in the time that there was; it stays a replica", req.Id))
		}
		if step.do == nil {
			continue // its folder is known now
		}
		if step.voters != nil {
			if p := n.checkQuorum(ctx, step.voters); p != nil {
				return refuse(p)
			}
		}
		if step.self {
			// The leader that removes itself could commit that and then step down:
			// it would lead a cluster that it is no member of until then, and leave
			// one without a leader, that waits for an election timeout. Handed over
			// first, it is removed like any other, and writes go on.
			if p := n.transferTo(ctx, ""); p != nil && !lookAgain(p) {
				// Whoever leads now, nothing of the change itself was made.
				return refuse(&trivetpb.Problem{Code: p.Code, Detail: "leadership was not handed over before the change: " + p.Detail})
			}
			return refuse(&trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: "leadership was handed over before this node is removed or demoted"})
		}
		n.log.Info("changing the membership", "change", req.Change.String(), "member", req.Id, "address", req.Peer, "on", index)
		err := n.makeChange(ctx, step, index)
		switch {
		case err == nil:
			changed = true
		case errors.Is(err, errChangeUnknown):
			maybe = true
			return refuse(&trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Unknown: true, Detail: "the change was under way when its time was up"})
		case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
			maybe = true
			return refuse(&trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: "the leader was lost while the change was under way"})
		default:
			// Not made: another change came first, leadership is gone, or nobody
			// took it in time.
			n.log.Debug("a change of the membership was not made", "error", err)
			select {
			case <-ctx.Done():
				return refuse(&trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Detail: "the change was not made in time: " + err.Error()})
			case <-time.After(retryPause):
			}
		}
	}
}

func conflict(format string, args ...any) *trivetpb.Problem {
	return &trivetpb.Problem{Code: trivetpb.Code_MEMBER_CONFLICT, Detail: fmt.Sprintf(format, args...)}
}

// maxMembers bounds a cluster; each is in every configuration and is sent every
// entry by the leader.
const maxMembers = 64

// changeStep is one change of raft's configuration, and what has to hold first.
type changeStep struct {
	// catchUp: the member has to have caught up.
	catchUp bool
	// voters are those that vote after it, of whom a majority must answer; nil
	// where they stay who they are.
	voters []string
	// self: it takes the leader's own vote.
	self bool
	// do makes the change; nil where that takes a folder that is not known yet.
	do func(r *raft.Raft, prev uint64, timeout time.Duration) raft.IndexFuture
}

// decide says what is to be done to a configuration next: nothing (nil) where it
// is as the change wants it.
func (n *Node) decide(req *trivetpb.MembershipRequest, conf raft.Configuration) (*changeStep, *trivetpb.Problem) {
	id := raft.ServerID(req.Id)
	s, there := serverOf(conf, req.Id)
	votes := there && s.Suffrage == raft.Voter
	peer, folder := splitAddress(s.Address)
	names := n.store.Level() >= levelFolders
	address := func(folder string) raft.ServerAddress {
		if !names {
			folder = ""
		}
		return serverAddress(req.Peer, folder)
	}
	if req.Change == trivetpb.MembershipRequest_ADD || req.Change == trivetpb.MembershipRequest_MOVE {
		for _, other := range conf.Servers {
			if other.ID != id && peerOf(other) == req.Peer {
				return nil, conflict("the address %s is that of member %s", req.Peer, other.ID)
			}
		}
	}
	promote := &changeStep{
		catchUp: !mutant.On("promote-at-once"),
		voters:  append(voters(conf), req.Id),
		do: func(r *raft.Raft, prev uint64, timeout time.Duration) raft.IndexFuture {
			return r.AddVoter(id, s.Address, prev, timeout)
		},
	}
	if names && folder == "" {
		promote.do = nil
	}
	left := without(voters(conf), req.Id)
	switch req.Change {
	case trivetpb.MembershipRequest_ADD:
		switch {
		case there && peer != req.Peer && folder != "" && folder == req.Incarnation && !mutant.On("joins-once"):
			// It was let in, did not hear of that, and asks again from elsewhere. It
			// cannot say so as a member: it does not run before it is let in.
			return moved(s, address(folder)), nil
		case there && peer != req.Peer:
			return nil, conflict("member %s is at %s; to be at %s it only has to be started there with its data folder", req.Id, peer, req.Peer)
		case there && req.Incarnation != "" && folder != req.Incarnation && (folder != "" || votes) && !mutant.On("any-folder"):
			// A voter without a known folder has one that acknowledged and voted, and
			// does not ask to be let in.
			return nil, conflict("member %s %v: remove it and add it again", req.Id, errOtherFolder)
		case there && votes && !req.Voter:
			return nil, conflict("member %s is a voter: demote it, or remove it first", req.Id)
		case there && names && folder == "" && req.Incarnation != "":
			return moved(s, address(req.Incarnation)), nil
		case there && !votes && req.Voter:
			return promote, nil
		case there:
			return nil, nil
		case len(conf.Servers) >= maxMembers:
			return nil, conflict("the cluster has %d members, the most that there may be", maxMembers)
		}
		return &changeStep{do: func(r *raft.Raft, prev uint64, timeout time.Duration) raft.IndexFuture {
			return r.AddNonvoter(id, address(req.Incarnation), prev, timeout)
		}}, nil

	case trivetpb.MembershipRequest_REMOVE:
		if !there {
			return nil, nil
		}
		step := &changeStep{do: func(r *raft.Raft, prev uint64, timeout time.Duration) raft.IndexFuture {
			return r.RemoveServer(id, prev, timeout)
		}}
		if votes {
			step.voters, step.self = left, req.Id == n.cfg.ID
		}
		return step, lastVoter(votes, left, req.Id)

	case trivetpb.MembershipRequest_PROMOTE:
		switch {
		case !there:
			return nil, noMember(req.Id)
		case votes:
			return nil, nil
		}
		return promote, nil

	case trivetpb.MembershipRequest_DEMOTE:
		switch {
		case !there:
			return nil, noMember(req.Id)
		case !votes:
			return nil, nil
		}
		return &changeStep{voters: left, self: req.Id == n.cfg.ID, do: func(r *raft.Raft, prev uint64, timeout time.Duration) raft.IndexFuture {
			return r.DemoteVoter(id, prev, timeout)
		}}, lastVoter(votes, left, req.Id)

	case trivetpb.MembershipRequest_MOVE:
		switch {
		case !there:
			return nil, noMember(req.Id)
		case folder != "" && req.Incarnation != "" && folder != req.Incarnation:
			return nil, conflict("member %s %v: remove it and add it again", req.Id, errOtherFolder)
		}
		if folder == "" {
			folder = req.Incarnation
		}
		if s.Address == address(folder) {
			return nil, nil
		}
		return moved(s, address(folder)), nil
	}
	return nil, &trivetpb.Problem{Code: trivetpb.Code_BAD_REQUEST, Detail: "an unknown change of the membership"}
}

// moved gives a member another address, or its folder, and leaves its role.
func moved(s raft.Server, to raft.ServerAddress) *changeStep {
	return &changeStep{do: func(r *raft.Raft, prev uint64, timeout time.Duration) raft.IndexFuture {
		if s.Suffrage == raft.Voter {
			return r.AddVoter(s.ID, to, prev, timeout)
		}
		return r.AddNonvoter(s.ID, to, prev, timeout)
	}}
}

func noMember(id string) *trivetpb.Problem {
	return &trivetpb.Problem{Code: trivetpb.Code_NOT_FOUND, Detail: fmt.Sprintf("there is no member %s", id)}
}

func lastVoter(votes bool, left []string, id string) *trivetpb.Problem {
	if votes && len(left) == 0 {
		return conflict("member %s is the only voter", id)
	}
	return nil
}

func without(ids []string, id string) []string {
	kept := []string{}
	for _, other := range ids {
		if other != id {
			kept = append(kept, other)
		}
	}
	return kept
}

// errChangeUnknown says that a change was under way when its time was up.
var errChangeUnknown = errors.New("raftnode: the change was under way")

// makeChange gives raft a change, on the configuration of an entry, and returns
// nil once it is applied here. errChangeUnknown, raft.ErrLeadershipLost and
// raft.ErrRaftShutdown leave open what became of it; after any other error it
// was not made.
func (n *Node) makeChange(ctx context.Context, step *changeStep, on uint64) error {
	timeout := maxMembershipWait
	if deadline, ok := ctx.Deadline(); ok {
		if timeout = time.Until(deadline); timeout <= 0 {
			return context.DeadlineExceeded
		}
	}
	done := make(chan error, 1)
	go func() { done <- step.do(n.raft, on, timeout).Error() }() // may hang after the node's end
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	case <-n.ctx.Done():
	case <-n.raftStopped:
	}
	return errChangeUnknown
}

// checkQuorum refuses a change after which too few of the voters answer: it could
// not even be committed, as its own configuration counts for that (Raft
// dissertation §4.1), and nothing after it.
func (n *Node) checkQuorum(ctx context.Context, voters []string) *trivetpb.Problem {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	well := 0
	var silent []string
	for _, id := range voters {
		wg.Go(func() {
			r := n.askMember(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			if r != nil && r.Failed == "" {
				well++
			} else {
				silent = append(silent, id)
			}
		})
	}
	wg.Wait()
	slices.Sort(silent)
	if well <= len(voters)/2 && !mutant.On("no-quorum-check") {
		return conflict("of the %d voters that there would be, %d are well: too few for a majority; start %s first, or add others", len(voters), well, strings.Join(silent, ", "))
	}
	return nil
}

// askMember asks a member about itself; nil where it does not answer.
func (n *Node) askMember(ctx context.Context, id string) *trivetpb.MemberReply {
	if id == n.cfg.ID {
		return n.serveMember(nil)
	}
	reply, err := n.peers.call(ctx, id, &trivetpb.PeerRequest{Request: &trivetpb.PeerRequest_Member{Member: &trivetpb.MemberRequest{}}})
	if err != nil {
		return nil
	}
	return reply.GetMember()
}

// catchUpPause is how often a member that catches up is asked how far it is.
const catchUpPause = 10 * time.Millisecond

// awaitCaughtUp waits until a member has applied all that is committed, but for
// what came within an election timeout: a voter that is farther behind would
// keep the others from committing (Raft dissertation §4.2.1). It goes by rounds:
// in each the member applies what was committed when the round began, and the
// last one was short. Where its folder is not known yet, that is waited for too: it
// asks for it to be written down as it is let in, or once it runs. It answers in
// time for its caller to say so.
func (n *Node) awaitCaughtUp(ctx context.Context, id string, named bool) bool {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)*9/10)
		defer cancel()
	}
	round, target := time.Now(), n.raft.CommitIndex()
	for {
		ask, cancel := context.WithTimeout(ctx, memberTimeout)
		r := n.askMember(ask, id)
		cancel()
		if r != nil && r.Failed == "" && r.AppliedIndex >= target {
			if time.Since(round) <= n.cfg.Timing.Election && (!named || n.named(id)) {
				return true
			}
			round, target = time.Now(), n.raft.CommitIndex()
		}
		select {
		case <-time.After(catchUpPause):
		case <-ctx.Done():
			return false
		case <-n.ctx.Done():
			return false
		}
		if n.proposer.leading() == nil {
			return false
		}
	}
}

// named says whether a member's folder is known, by the newest applied configuration.
func (n *Node) named(id string) bool {
	conf, _, _ := n.confs.now()
	s, ok := serverOf(conf, id)
	return !ok || folderOf(s) != ""
}

// transferTo is TransferLeadership with its errors as problems: NO_LEADER where
// this node does not lead.
func (n *Node) transferTo(ctx context.Context, to string) *trivetpb.Problem {
	err := n.TransferLeadership(ctx, to)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotLeader):
		return &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: err.Error()}
	case errors.Is(err, ErrNotVoter), errors.Is(err, ErrNotCaughtUp):
		return conflict("%v", err)
	}
	if p := n.stopped(); p != nil {
		return p.(*trivetpb.Problem)
	}
	// The other may win yet.
	return &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Unknown: true, Detail: err.Error()}
}

// awaitLeader waits a moment until this node has heard who leads; "" where it
// has not.
func (n *Node) awaitLeader(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.Timing.Election)
	defer cancel()
	for {
		signal := n.changes()
		if id := n.leaderID(); id != "" || ctx.Err() != nil || n.ctx.Err() != nil {
			return id
		}
		n.awaitChange(ctx, signal)
	}
}

// stillLeads says to look again where a leadership is over.
func (n *Node) stillLeads(lead *leadership) *trivetpb.Problem {
	if n.proposer.leading() != lead {
		return &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: errNotLeading.Error()}
	}
	return nil
}
