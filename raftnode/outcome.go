package raftnode

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// What became of a command.
//
// The dispatcher uses none of raft's futures: they can hang after a shutdown,
// and ErrLeadershipLost says nothing. It watches three things instead.
//
//   - The log store tells (storing) at which index an entry of ours is about to be
//     written: before the write, since one that fails may be on disk all the same.
//   - The state machine tells (applied) what was applied at which index.
//   - The leadership loop tells (stepDown) that raft's leader loop of a term
//     has ended: from then on no entry of that term can be stored here, since
//     the fence refuses it in any later term.
//
// So an entry of ours
//
//   - that was applied has its results, even where another leader committed it
//     after this one was deposed;
//   - that was not about to be stored when its term ended was certainly not
//     applied: its commands go back to the front of the queue, to whoever leads
//     now;
//   - that may be stored at index i, where something else was applied at i (a
//     no-op is not seen; anything applied beyond i shows it), was certainly not
//     applied: entries are applied in the order of the log, and index i has
//     been passed. Back to the queue;
//   - that may be stored and is not decided when its term ends, or is passed by
//     a snapshot, goes back to the queue as well, as commands that may have been
//     applied: identity.go says why that is safe. A command without an identity
//     has an unknown outcome; what another member forwarded is told to look for
//     the leader again, with an unknown outcome, and has its identity there.

// storing notes where entries of ours are about to be written. Called by the log
// store in raft's main goroutine.
func (q *proposer) storing(logs []*raft.Log) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 {
		return
	}
	for _, l := range logs {
		if g := q.own(l); g != nil {
			g.index = l.Index
			if mutant.On("ack-before-commit") {
				for _, s := range g.segments {
					for c := s.from; c < s.to; c++ {
						q.conclude(s.p, c, &trivetpb.Result{})
					}
				}
			}
		}
	}
}

// own returns the group under way that an entry is, nil where it is none.
func (q *proposer) own(l *raft.Log) *group {
	if len(l.Extensions) != entryMetaLen ||
		binary.BigEndian.Uint64(l.Extensions[13:]) != q.boot {
		return nil
	}
	return q.entries[binary.BigEndian.Uint64(l.Extensions[21:])]
}

// applied concludes what an applied entry decides: its own group, if it was
// proposed here, and those that it shows to be lost. It returns the term of a
// marker of this node, 0 where the entry is none, and whether anybody may have been
// given a result. Called by the state machine, in the order of the log.
func (q *proposer) applied(l *raft.Log, results []*trivetpb.Result) (markerOf uint64, answered bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 {
		return 0, false
	}
	if g := q.own(l); g != nil {
		answered = true
		before := q.answered
		q.remove(g)
		if g.marker {
			markerOf = g.term
		}
		back := &group{}
		i := 0
		for _, s := range g.segments {
			for c := s.from; c < s.to; c++ {
				if q.expired(&s.p.commands[c], results[i]) {
					back.segments = append(back.segments, segment{s.p, c, c + 1})
				} else {
					q.conclude(s.p, c, results[i])
				}
				i++
			}
		}
		if len(back.segments) > 0 {
			q.putBack(back)
		}
		q.landed(&q.afterEntry, g, before)
		q.kick()
	}
	for _, g := range q.entries {
		if g.index != 0 && g.index <= l.Index {
			q.putBack(g)
		}
	}
	return markerOf, answered
}

// skipped puts back what a restored snapshot leaves open: an entry up to its
// index may be in it or not.
func (q *proposer) skipped(index uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, g := range q.entries {
		if g.index != 0 && g.index <= index {
			q.putBackMaybe(g)
		}
	}
}

// remove takes a group out of those under way.
func (q *proposer) remove(g *group) {
	delete(q.entries, g.seq)
	q.tellEmptied()
	if g.tick != nil {
		close(g.tick)
		g.tick = nil
	}
}

// conclude gives a command its result.
func (q *proposer) conclude(p *proposal, i int, r *trivetpb.Result) {
	c := &p.commands[i]
	if c.state == concluded {
		return
	}
	c.state = concluded
	p.results[i] = c.told(r)
	if !p.gaveUp { // else wait has counted it
		q.count(p, p.results[i])
	}
	q.bytes -= held(c.data)
	if p.then == nil {
		q.pending--
	}
	if c.session != nil {
		c.session.finish(c.seq)
	}
	if p.open--; p.open == 0 {
		close(p.done)
		if p.then == nil && !p.gaveUp {
			q.answered++
		}
	}
	if p.then != nil {
		p.then(r)
	}
}

// lose concludes a group whose outcome stays unknown.
func (q *proposer) lose(g *group, detail string) {
	q.remove(g)
	for _, s := range g.segments {
		for c := s.from; c < s.to; c++ {
			if s.p.hop {
				q.conclude(s.p, c, gone)
			} else {
				q.conclude(s.p, c, unknownResult(detail))
			}
		}
	}
}

// putBack returns a group that was certainly not applied to the front of the
// queue, but for commands that nobody waits for any more.
func (q *proposer) putBack(g *group) {
	q.remove(g)
	front := make([]segment, 0, len(g.segments)+len(q.queue))
	for _, s := range g.segments {
		for i := s.from; i < s.to; i++ {
			c := &s.p.commands[i]
			switch {
			case c.state == concluded:
			case s.p.gaveUp:
				// Its caller was told that the outcome is unknown.
				q.conclude(s.p, i, unknownResult("nobody waits for it"))
			case c.maybe && s.p.hop:
				q.conclude(s.p, i, gone)
			case c.maybe && c.kind == bare:
				q.conclude(s.p, i, unknownResult("the leader was lost while the write was under way"))
			case q.ended:
				q.conclude(s.p, i, &trivetpb.Result{Problem: q.closed})
			case s.p.hop && q.lead == nil:
				q.conclude(s.p, i, notLeading)
			default:
				c.state = queued
				q.stats.Retried++
			}
		}
		front = append(front, s)
	}
	q.queue = append(front, q.queue...)
	q.kick()
}

// putBackMaybe is putBack of a group that may have been applied, or may yet be.
func (q *proposer) putBackMaybe(g *group) {
	for _, s := range g.segments {
		for i := s.from; i < s.to; i++ {
			s.p.commands[i].maybe = true
		}
	}
	q.putBack(g)
}

// notLeading answers what another member forwarded to a node that does not
// lead: certainly not applied, look for the leader again.
var notLeading = &trivetpb.Result{Problem: &trivetpb.Problem{
	Code: trivetpb.Code_NO_LEADER, Detail: "the node that the write was forwarded to does not lead",
}}

// gone answers it where the node led and may have done it, or may yet: that
// member looks again, with the same identity.
var gone = &trivetpb.Result{Problem: &trivetpb.Problem{
	Code: trivetpb.Code_NO_LEADER, Unknown: true,
	Detail: "the node that the write was forwarded to ceased to lead while the write was under way",
}}

// serve says that this node leads from here on: its marker was applied. The
// notice that the term is over may have come before; then it is not served.
func (q *proposer) serve(l *leadership) {
	q.mu.Lock()
	if l.term > q.over {
		q.lead = l
		q.afterEntry.drop()
		q.forwardTo("") // what went to the leader before goes out from here
	}
	q.mu.Unlock()
	q.kick()
}

// leading returns the present leadership, nil where there is none.
func (q *proposer) leading() *leadership {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lead
}

// stepDown says that a leader loop of raft has ended, and which term raft leads
// now (0: none). The notice may be late: raft may have won again since, and
// entries of that term may be under way. Those are left alone. A term that was
// marked and is not led now is over for good, as no term is led twice.
func (q *proposer) stepDown(leads uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.marked != leads {
		q.over = q.marked
	}
	if q.lead != nil && q.lead.term != leads {
		q.lead = nil
	}
	for _, g := range q.entries {
		switch {
		case g.term == leads:
		case g.index == 0:
			q.putBack(g)
		default:
			q.putBackMaybe(g)
		}
	}
	if leads != 0 {
		return
	}
	for _, s := range q.queue {
		if !s.p.hop {
			continue
		}
		for c := s.from; c < s.to; c++ {
			if s.p.commands[c].state == queued {
				q.conclude(s.p, c, notLeading)
			}
		}
	}
	q.kick()
}

// forwarded takes what became of a forward: why it did not get through (err),
// why the member that it went to took none of it (refused), or the results, one
// for each command.
func (q *proposer) forwarded(g *group, results []*trivetpb.Result, refused *trivetpb.Problem, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if g.epoch == q.epoch {
		q.forwards--
	}
	before := q.answered
	back := &group{}
	i := 0
	for _, s := range g.segments {
		for c := s.from; c < s.to; c++ {
			cmd := &s.p.commands[c]
			var r *trivetpb.Result
			switch {
			case err != nil:
				cmd.maybe = cmd.maybe || !errors.Is(err, errNotSent)
			case refused != nil:
				if again := lookAgain(refused) || cmd.maybe; !again {
					r = &trivetpb.Result{Problem: refused}
				}
			case lookAgain(results[i].Problem):
				cmd.maybe = cmd.maybe || results[i].Problem.Unknown
			case !q.expired(cmd, results[i]):
				r = results[i]
			}
			if r == nil {
				back.segments = append(back.segments, segment{s.p, c, c + 1})
			} else {
				q.conclude(s.p, c, r)
			}
			i++
		}
	}
	if len(back.segments) > 0 {
		if g.epoch == q.epoch {
			q.holdUntil = time.Now().Add(retryPause)
		}
		q.putBack(back)
	}
	if g.epoch == q.epoch {
		q.landed(&q.afterForward, g, before)
	}
	q.kick()
}

// lookAgain says that the member asked does not lead, or not any more. All
// other problems are answers.
func lookAgain(p *trivetpb.Problem) bool {
	return p != nil && (p.Code == trivetpb.Code_NO_LEADER || p.Code == trivetpb.Code_DRAINING)
}

// close refuses what comes from here on with why.
func (q *proposer) close(why *trivetpb.Problem) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed == nil {
		q.closed = why
	}
	q.kick() // what is held is not any more
}

// idle reports whether nothing waits and nothing is under way.
func (q *proposer) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes == 0
}

// abandon concludes everything: what waits was certainly not applied, what is
// under way may have been.
func (q *proposer) abandon(why *trivetpb.Problem) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.ended, q.lead = why, true, nil
	for _, s := range q.queue {
		for c := s.from; c < s.to; c++ {
			if s.p.commands[c].state == queued {
				q.conclude(s.p, c, &trivetpb.Result{Problem: why})
			}
		}
	}
	q.queue = nil
	for _, g := range q.entries {
		q.lose(g, "the node stopped with the write under way")
	}
}
