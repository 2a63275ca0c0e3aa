package raftnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"trivet/trivetpb"
)

// Leadership is handed over by a request of our own: the leader asks a voter
// whose log is as long as its own to stand for election now, which makes that
// one give its raft a TimeoutNow (Raft dissertation §3.10). raft's own transfer
// picks a peer that may be dead and can stay stuck, refusing every write (its
// issue 696); this one changes nothing here until the other has won.
//
// In order, for the term that this node leads:
//
//  1. The other voters are asked where their logs end. The longest goes first;
//     one that does not answer is not chosen.
//  2. The proposer pauses: what comes from here on waits in the queue. What is
//     under way is awaited. From then on this log grows no more, so that the
//     chosen one's can become as long, and stays so: otherwise, under load, it
//     would stand with a log that is an entry short, and get no vote from here.
//  3. The chosen one is told this log's end. It answers once its own is as long,
//     having put a TimeoutNow before its raft.
//  4. It wins, and this node steps down: what waits goes to it. Or it does not
//     within an election timeout: the proposer goes on.
//
// No safety rests on any of it: whoever wins has won an election of Raft's. The
// pause lasts two election timeouts at most (2 and 3), and one more (4).

// Errors of TransferLeadership.
var (
	// ErrNotLeader says that the node that was asked does not lead.
	ErrNotLeader = errors.New("this member does not lead")
	// ErrNotVoter says that the target is no voter of the cluster, or that there
	// is no other voter.
	ErrNotVoter = errors.New("no voter to transfer leadership to")
	// ErrNotCaughtUp says that no target had the whole log before the time was
	// up, or that none could be reached or was willing. This node leads on.
	ErrNotCaughtUp = errors.New("the target does not have the whole log")
	// ErrNotElected says that the target stood for election and did not win in
	// time. This node may lead on, or another one by now.
	ErrNotElected = errors.New("the target was not elected")
)

// errAllGone is the end of a transfer that nobody is there to take.
var errAllGone = fmt.Errorf("%w: nobody is there to take over: dead, failed or stopping", ErrNotCaughtUp)

// TransferLeadership gives leadership to the voter named to; "" is the one with
// the longest log of those that answer. It returns nil once this node does not
// lead and, where to was named, that one does. Reads and writes go on
// meanwhile: writes wait while the other stands for election, and go to it.
// Naming this node is no transfer: nil while it leads.
//
// The error wraps ErrNotLeader, ErrNotVoter, ErrNotCaughtUp or ErrNotElected;
// none of them has done harm. It wraps ctx's where ctx ended first. One transfer
// goes on at a time, later ones wait for it.
func (n *Node) TransferLeadership(ctx context.Context, to string) error {
	select {
	case n.transferring <- struct{}{}:
		defer func() { <-n.transferring }()
	case <-ctx.Done():
		return fmt.Errorf("transferring leadership: waiting for another transfer: %w", ctx.Err())
	case <-n.ctx.Done():
		return fmt.Errorf("transferring leadership: %w", errStopped)
	}
	term := n.leads()
	switch {
	case term == 0:
		return fmt.Errorf("transferring leadership: %w", ErrNotLeader)
	case to == n.cfg.ID:
		return nil
	}
	voters := n.otherVoters()
	if to != "" && !slices.Contains(voters, to) {
		return fmt.Errorf("transferring leadership: %w: %q is none", ErrNotVoter, to)
	}
	if to != "" {
		voters = []string{to}
	}
	if len(voters) == 0 {
		return fmt.Errorf("transferring leadership: %w: there is no other one", ErrNotVoter)
	}
	if err := n.transfer(ctx, term, voters); err != nil {
		return fmt.Errorf("transferring leadership of term %d: %w", term, err)
	}
	if to == "" {
		return nil
	}
	// The term is over here; who won the next is heard from its first message.
	ctx, cancel := context.WithTimeout(ctx, 2*n.cfg.Timing.Election)
	defer cancel()
	for {
		signal := n.changes()
		leader := n.leaderID()
		switch {
		case leader == to:
			return nil
		case leader != "":
			return fmt.Errorf("transferring leadership of term %d: %w: member %s was", term, ErrNotElected, leader)
		case ctx.Err() != nil:
			return fmt.Errorf("transferring leadership of term %d: %w: no leader is known", term, ErrNotElected)
		}
		n.awaitChange(ctx, signal)
	}
}

// otherVoters lists the voters but this node.
func (n *Node) otherVoters() []string {
	var ids []string
	for _, s := range n.configuration().Servers {
		if s.Suffrage == raft.Voter && string(s.ID) != n.cfg.ID {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// transferLag is how far behind, in entries, a target may be when the proposer
// pauses for it: what is sent in one message or two.
const transferLag = 128

// transfer hands the term over to one of the voters, and returns nil once this
// node does not lead it any more.
func (n *Node) transfer(ctx context.Context, term uint64, voters []string) error {
	// One that is far behind is let catch up first, with nobody waiting.
	var ranked []string
	for {
		var gone int
		ranked, gone = n.rankVoters(ctx, term, voters)
		if len(ranked) > 0 || n.leads() != term {
			break
		}
		if gone == len(voters) {
			return errAllGone
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNotCaughtUp, ctx.Err())
		case <-n.ctx.Done():
			return errStopped
		}
	}
	emptied := n.proposer.pause(term)
	defer n.proposer.resume(term)
	ready, cancel := context.WithTimeout(ctx, 2*n.cfg.Timing.Election)
	defer cancel()
	select {
	case <-emptied:
	case <-ready.Done():
		return fmt.Errorf("%w: entries are under way that no majority has yet", ErrNotCaughtUp)
	case <-n.ctx.Done():
		return errStopped
	}
	lastErr := fmt.Errorf("%w: none was asked", ErrNotCaughtUp)
	for _, id := range ranked {
		if n.leads() != term {
			return nil
		}
		if err := n.promote(ready, term, id); err != nil {
			lastErr = fmt.Errorf("%w: %w", ErrNotCaughtUp, err)
			continue
		}
		n.log.Info("handing leadership over", "to", id, "term", term)
		elected, cancel := context.WithTimeout(ctx, n.cfg.Timing.Election)
		for signal := n.changes(); n.leads() == term && elected.Err() == nil; signal = n.changes() {
			n.awaitChange(elected, signal)
		}
		cancel()
		if n.leads() != term {
			return nil
		}
		// Not the next one at once: this one may yet be at it.
		return fmt.Errorf("%w: member %s", ErrNotElected, id)
	}
	return lastErr
}

// rankVoters asks voters where their logs end, and returns those that follow
// this node in the term and are not far behind, the longest log first; and how
// many are dead or take no leadership. It waits for all of them, but not long for
// some once others have answered.
func (n *Node) rankVoters(ctx context.Context, term uint64, voters []string) (ids []string, gone int) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.Election)
	defer cancel()
	type end struct {
		id   string
		last uint64
		gone bool
	}
	answers := make(chan end, len(voters))
	for _, id := range voters {
		if !n.spawn(func() {
			reply, err := n.peers.call(ctx, id, &trivetpb.PeerRequest{
				Request: &trivetpb.PeerRequest_Member{Member: &trivetpb.MemberRequest{}},
			})
			switch m := reply.GetMember(); {
			case err != nil:
				answers <- end{gone: errors.Is(err, syscall.ECONNREFUSED)}
			case m.GetFailed() != "" || m.GetResigned():
				answers <- end{gone: true}
			case m.GetTerm() != term:
				answers <- end{}
			default:
				answers <- end{id: id, last: m.GetLastIndex()}
			}
		}) {
			answers <- end{}
		}
	}
	var ends []end
	var late <-chan time.Time
collect:
	for range voters {
		select {
		case e := <-answers:
			switch {
			case e.gone:
				gone++
			case e.id != "" && e.last+transferLag >= n.raft.LastIndex():
				ends = append(ends, e)
				if late == nil {
					timer := time.NewTimer(n.cfg.Timing.Election / 10)
					defer timer.Stop()
					late = timer.C
				}
			}
		case <-late:
			break collect
		case <-ctx.Done():
			break collect
		}
	}
	slices.SortFunc(ends, func(a, b end) int {
		return cmp.Or(cmp.Compare(b.last, a.last), cmp.Compare(a.id, b.id))
	})
	for _, e := range ends {
		ids = append(ids, e.id)
	}
	return ids, gone
}

// promote asks a voter to stand for election, and returns nil once it does, or may
// do so: where its answer is lost.
func (n *Node) promote(ctx context.Context, term uint64, id string) error {
	wait := n.cfg.Timing.Election
	ctx, cancel := context.WithTimeout(ctx, wait+wait/2)
	defer cancel()
	reply, err := n.peers.call(ctx, id, &trivetpb.PeerRequest{
		Request: &trivetpb.PeerRequest_Promote{Promote: &trivetpb.PromoteRequest{
			Term: term, LastIndex: n.raft.LastIndex(), WaitMs: uint64(wait.Milliseconds()),
		}},
	})
	switch {
	case errors.Is(err, errNotSent):
		return err
	case err != nil:
		n.log.Debug("whether a voter stands for election is not known", "voter", id, "error", err)
	case reply.GetPromote().GetRefused() != "":
		return fmt.Errorf("member %s: %s", id, reply.GetPromote().GetRefused())
	}
	return nil
}

// servePromote stands for election if the asking leader is this member's, and
// this member's log is as long as that leader's, or is so within the wait.
func (n *Node) servePromote(ctx context.Context, from string, r *trivetpb.PromoteRequest) *trivetpb.PromoteReply {
	refuse := func(format string, args ...any) *trivetpb.PromoteReply {
		return &trivetpb.PromoteReply{Refused: fmt.Sprintf(format, args...)}
	}
	wait := min(time.Duration(r.WaitMs)*time.Millisecond, 2*n.cfg.Timing.Election)
	deadline := time.Now().Add(wait)
	for {
		last := n.raft.LastIndex()
		switch {
		case n.leaving():
			return refuse("is stopping")
		case n.raft.State() != raft.Follower || n.leaderID() != from || n.raft.CurrentTerm() != r.Term:
			return refuse("does not follow %s in term %d", from, r.Term)
		case last >= r.LastIndex:
			if !n.standNow(from) {
				return refuse("is stopping")
			}
			return &trivetpb.PromoteReply{}
		case ctx.Err() != nil || !time.Now().Before(deadline):
			return refuse("its log ends at %d, not %d", last, r.LastIndex)
		}
		time.Sleep(time.Millisecond) // an entry takes about as long
	}
}

// standNow makes raft stand for election now, as if the member named had asked
// for it; false where the transport has closed. raft asks nobody beforehand
// (pre-vote) and the voters grant though they know a leader: the vote requests
// say that it is a transfer.
func (n *Node) standNow(from string) bool {
	return n.transport.inject(&raft.TimeoutNowRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(from), Addr: []byte(from)},
	}, nil)
}

// Resign hands leadership over, if this node leads, and takes none from here on
// as long as others can have it; Ready says that the node is stopping. The node
// goes on taking reads and writes. It is what comes first where a node is to be
// stopped; Close does it too. It returns once this node does not lead, or why it
// still does. There is no way back.
func (n *Node) Resign(ctx context.Context) error {
	n.failMu.Lock()
	n.resigned = true
	n.failMu.Unlock()
	if len(n.otherVoters()) == 0 {
		return nil // there is nobody to take over
	}
	return n.handOver(ctx)
}

// leaving reports whether the node stands for no election that it can help.
func (n *Node) leaving() bool {
	n.failMu.Lock()
	defer n.failMu.Unlock()
	return n.resigned || n.stopping
}

// handOver gives leadership to whoever can have it, and returns once this node
// does not lead any more.
func (n *Node) handOver(ctx context.Context) error {
	for {
		err := n.TransferLeadership(ctx, "")
		if err == nil || errors.Is(err, ErrNotLeader) {
			return nil
		}
		if ctx.Err() != nil || n.ctx.Err() != nil || errors.Is(err, ErrNotVoter) || errors.Is(err, errAllGone) {
			return err
		}
		n.log.Debug("leadership was not handed over yet", "error", err)
		n.awaitChange(ctx, n.changes())
	}
}

// drain waits until nothing waits to be written and nothing is under way.
func (n *Node) drain(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !n.proposer.idle() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
