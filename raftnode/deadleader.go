package raftnode

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// The fast path for a leader whose process is dead (liveness.go). Raft would
// wait for its timeouts; here the followers agree that there is nobody to wait
// for, and one of them stands for election at once.
//
//   - A voter that sees its leader dead asks the other voters whether they do
//     too, in a term that is not over, and where their logs end. One that has not
//     noticed yet waits a little before it says no: the streams of a process end
//     all at once, and word of it comes in any order.
//   - With a majority of all voters that see it dead, itself included, the voter
//     whose log is the longest (last term, last index, then the lesser id) gives
//     its own raft a TimeoutNow. So two do not stand at a time and split the
//     vote, nor one that would not get it.
//   - The others wait, and ask again, as often as it takes. Whoever is second in
//     rank stands if nothing has come of the first for some rounds, and so on.
//
// Logs may grow while this goes on, by what the leader sent last and what waits
// in the network or in raft. Then two may take each other for the first, and
// nobody stands until they ask again, a moment later. Or two may take themselves
// for the first: one of them has told the other where its log ended, and it grew
// since. So a voter that has answered one whose log was longer does not stand
// for a moment, whatever it is told then.
//
// A leader that is silent (stopped, cut off) is found out by raft: the first
// member whose timeout passes stands for election. But the others refuse it
// their pre-votes until their own timeouts, which are drawn at random, have
// passed too, and then it has to wait for another one, or they stand against each
// other. So from the first timeout on the same is done for a leader of which a
// majority has heard nothing for as long as the shortest timeout. A leader that
// a majority does not hear has lost its lease, or is about to.
//
// Safety. A TimeoutNow is a message that raft must bear at any time, from any
// leader: it makes a candidate, which needs a majority's votes in a new term
// like every other. No entry is lost, no term has two leaders and no read is old,
// whatever is wrong here. raft asks for no pre-vote after a TimeoutNow, and
// voters grant although they know a leader, since the vote request is marked as
// a transfer's. That is wanted: pre-vote and the refusal protect a leader that
// lives from a member that has lost it, and here a majority has found that it
// does not live. They protect a leader for its followers' sake, not for safety
// (Raft dissertation §4.2.3).
//
// What a wrong verdict costs. A leader that lives, while a majority cannot dial
// it and has lost the streams that it had, is deposed: an election, some
// milliseconds without writes. A minority that is wrong has no effect. A leader
// that was restarted leads nothing any more, whether it was refused just before
// or is back already. Refusals count for a short time only, so that a member
// that came back and leads is not taken for dead by what it was.
//
// Liveness. Raft's own timeouts go on all the while, and do what this does not:
// where the leader is silent rather than dead, where no majority sees it dead, or
// where whoever stood died of it. Nonvoters are not asked, do not count and never
// stand: raft would make a candidate of one that is told TimeoutNow.

// Waits, as parts of the heartbeat timeout.
const (
	// deadWait is how long a voter that is asked waits for its own verdict, and an
	// asker for answers.
	deadWait = 5
	// deadPause is how long it takes until the next round.
	deadPause = 10
)

// deadRounds is how many rounds the first in rank has before the second stands,
// and so on: long enough for an election on a slow disk.
const deadRounds = 4

// replaceDeadLeader runs until the node stops.
func (n *Node) replaceDeadLeader() {
	pause := n.cfg.Timing.Heartbeat / deadPause
	var leader string
	var term uint64
	var round int
	var next time.Time
	for {
		verdicts, changes := n.liveness.changes(), n.changes()
		n.noteTimeout()
		var again <-chan time.Time
		switch l, t := n.deadLeader(); {
		case l == "":
		case l != leader || t != term:
			leader, term, round, next = l, t, 0, time.Time{}
			fallthrough
		case !time.Now().Before(next):
			n.standForDead(leader, term, round)
			// Where there is no majority for long, ask less and less often.
			next = time.Now().Add(pause << min(max(round-2*deadRounds, 0), 5))
			round++
			continue
		default:
			again = time.After(time.Until(next))
		}
		select {
		case <-verdicts:
		case <-changes:
		case <-again:
		case <-n.ctx.Done():
			return
		}
	}
}

// silence is what this voter knows of a leader that may be silent.
type silence struct {
	mu sync.Mutex
	// The last leader that was known, and its term.
	leader string
	term   uint64
	// passed is the last term in which a voter's timeout has passed.
	passed uint64
}

// noteTimeout notes whom this voter follows, and that its own timeout has passed
// where it does not any more: raft forgets the leader then, and asks for
// pre-votes in the same term.
func (n *Node) noteTimeout() {
	term, leader := n.raft.CurrentTerm(), n.leaderID()
	if n.raft.CurrentTerm() != term {
		return // it changes: there is another notice
	}
	s := &n.silence
	s.mu.Lock()
	defer s.mu.Unlock()
	if leader != "" {
		s.leader, s.term = leader, term
	} else if s.term == term && n.raft.State() == raft.Candidate {
		s.passed = term
	}
}

// silent reports whether nothing was heard of the leader for a heartbeat timeout,
// and for how long something has to go unheard of yet.
func (n *Node) silent() (bool, time.Duration) {
	left := n.cfg.Timing.Heartbeat - time.Since(n.raft.LastContact())
	return left <= 0, left
}

// deadLeader returns the leader of this voter's term that it sees dead, or
// silent where somebody's timeout has passed; "" where there is none.
func (n *Node) deadLeader() (leader string, term uint64) {
	if mutant.On("no-fast-path") {
		return "", 0
	}
	s := &n.silence
	s.mu.Lock()
	if quiet, _ := n.silent(); !quiet {
		s.passed = 0 // it was heard of since, whoever's timeout had passed
	}
	leader, term = s.leader, s.term
	passed := s.passed == term
	s.mu.Unlock()
	if leader == "" || leader == n.cfg.ID || n.leaving() || !n.votes() {
		return "", 0
	}
	gone := passed || (n.liveness.dead(leader) && n.leaderID() == leader)
	if !gone || n.raft.State() == raft.Leader || n.raft.CurrentTerm() != term {
		return "", 0
	}
	return leader, term
}

// votes reports whether this node is a voter.
func (n *Node) votes() bool {
	for _, s := range n.configuration().Servers {
		if string(s.ID) == n.cfg.ID {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

// logEnd is where a log ends, and whose it is.
type logEnd struct {
	term, index uint64
	id          string
}

// before reports whether a goes before b in standing for election.
func (a logEnd) before(b logEnd) bool {
	switch {
	case a.term != b.term:
		return a.term > b.term
	case a.index != b.index:
		return a.index > b.index
	}
	return a.id < b.id
}

// standForDead asks the voters once, and stands for election where a majority
// sees the leader dead and it is this one's turn.
func (n *Node) standForDead(leader string, term uint64, round int) {
	ctx, cancel := context.WithTimeout(n.ctx, 2*n.cfg.Timing.Heartbeat/deadWait)
	defer cancel()
	mine, ok := n.logEnd(ctx)
	if !ok {
		return // raft hangs: it could not stand either
	}
	n.silence.mu.Lock()
	silent := n.silence.passed == term
	n.silence.mu.Unlock()
	others := n.otherVoters()
	answers := make(chan *logEnd, len(others)) // nil: does not see it dead
	for _, id := range others {
		if id == leader || !n.spawn(func() {
			reply, err := n.peers.call(ctx, id, &trivetpb.PeerRequest{
				Request: &trivetpb.PeerRequest_LeaderDead{LeaderDead: &trivetpb.LeaderDeadRequest{
					Leader: leader, Term: term, LastTerm: mine.term, LastIndex: mine.index, Silent: silent,
				}},
			})
			r := reply.GetLeaderDead()
			if err != nil || !r.GetDead() {
				n.log.Debug("a voter does not see the leader dead", "voter", id, "leader", leader, "term", term, "error", err)
				answers <- nil
				return
			}
			answers <- &logEnd{r.LastTerm, r.LastIndex, id}
		}) {
			answers <- nil
		}
	}
	agree, rank := 1, 0
	for range others {
		theirs := <-answers // each comes by the time that the context ends
		if theirs == nil {
			continue
		}
		agree++
		if theirs.before(mine) {
			rank++
		}
	}
	n.log.Debug("the leader is dead or silent", "leader", leader, "term", term, "silent", silent, "agree", agree, "rank", rank, "round", round)
	if agree <= (len(others)+1)/2 || (rank > 0 && round <= rank*deadRounds) || time.Since(n.started) < time.Duration(n.concededUntil.Load()) {
		return
	}
	// As late as can be: raft takes a TimeoutNow in any state. What changes from
	// here until it does costs an election.
	if l, t := n.deadLeader(); l != leader || t != term {
		return
	}
	n.log.Info("standing for election: the leader is dead or silent", "leader", leader, "term", term, "silent", silent, "agree", agree)
	if n.raft.State() == raft.Candidate {
		// It asks for pre-votes, and would not begin anew before its timer says
		// so. A heartbeat of the leader that it had makes it a follower again.
		n.transport.inject(&raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader), Addr: []byte(leader)},
			Term:      term,
		}, nil)
	}
	n.counters.replacements.Add(1)
	n.standNow(leader)
}

// serveLeaderDead answers another voter's question.
func (n *Node) serveLeaderDead(ctx context.Context, from string, r *trivetpb.LeaderDeadRequest) *trivetpb.LeaderDeadReply {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.Heartbeat/deadWait)
	defer cancel()
	no := &trivetpb.LeaderDeadReply{}
	for {
		verdicts := n.liveness.changes()
		// One that lags in its term knows no later leader either.
		if n.raft.CurrentTerm() > r.Term || r.Leader == n.cfg.ID || !n.votes() {
			return no
		}
		dead := n.liveness.dead(r.Leader)
		var later <-chan time.Time
		if r.Silent && !dead {
			var left time.Duration
			if dead, left = n.silent(); !dead {
				later = time.After(left)
			}
		}
		if dead {
			end, ok := n.logEnd(ctx)
			if !ok {
				return no // raft hangs: it would not vote
			}
			if (logEnd{r.LastTerm, r.LastIndex, from}).before(end) {
				n.concededUntil.Store(int64(time.Since(n.started) + n.cfg.Timing.Heartbeat/deadPause))
			}
			n.heardOfTimeout(r)
			return &trivetpb.LeaderDeadReply{Dead: true, LastTerm: end.term, LastIndex: end.index}
		}
		select {
		case <-verdicts:
		case <-later:
		case <-ctx.Done():
			return no
		}
	}
}

// heardOfTimeout notes that another voter's timeout has passed: this one may be
// the one to stand.
func (n *Node) heardOfTimeout(r *trivetpb.LeaderDeadRequest) {
	s := &n.silence
	s.mu.Lock()
	news := r.Silent && s.term == r.Term && s.leader == r.Leader && s.passed < r.Term
	if news {
		s.passed = r.Term
	}
	s.mu.Unlock()
	if news {
		n.changed()
	}
}

// logEnd returns where this node's log ends once raft's main goroutine has done
// what it was at: the last messages of a leader may have arrived just before
// its death was noticed. The question goes the way of those messages, as one
// that means nothing: of term 0, and so of a leader that was deposed long ago.
// false where raft does not come to it in time.
func (n *Node) logEnd(ctx context.Context) (logEnd, bool) {
	reply := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{RespChan: reply, Command: &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.cfg.ID), Addr: []byte(n.cfg.ID)},
	}}
	select {
	case n.transport.out <- rpc:
	case <-n.transport.stop:
		return logEnd{}, false
	case <-ctx.Done():
		return logEnd{}, false
	}
	select {
	case <-reply:
	case <-ctx.Done():
		return logEnd{}, false
	}
	end := logEnd{id: n.cfg.ID}
	stats := n.raft.Stats()
	for _, of := range []string{"last_log", "last_snapshot"} {
		index, _ := strconv.ParseUint(stats[of+"_index"], 10, 64) // raft wrote them
		term, _ := strconv.ParseUint(stats[of+"_term"], 10, 64)
		if index > end.index {
			end.index, end.term = index, term
		}
	}
	return end, true
}
