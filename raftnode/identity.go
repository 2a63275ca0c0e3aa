package raftnode

import (
	"encoding/binary"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// Exactly once. A command whose outcome is not known goes out again, to
// whoever leads by then, until it has an answer or its caller gives up. It is
// applied once all the same, because it has an identity: the state machine
// remembers the answer to each, and gives a repeat that answer (store/answers.go).
//
// Where the caller gave none, the node does. It has a session of its own in the
// replicated state, opened with its first write and again when it has ended,
// and stamps each command with the session's id and the next seq. (RIFL calls
// these completion records: Lee et al., SOSP 2015; sessions are in §6.3 of the
// Raft dissertation.) A stamp also carries ack, up to which every seq is done
// with: the state forgets those answers.
//
// Three things make that safe.
//
//   - A seq is acked only when it has its answer or will never go out again. A
//     copy of it that is still on its way somewhere (a log that may yet be
//     committed, a frame in a network) is refused, once the ack is there, and
//     before that is applied as the first or told to be a repeat.
//   - A command gets a new stamp only where it was certainly not applied under
//     the old one: its session had ended before it first went out.
//   - What went out once and may have been applied is never reported as not
//     applied because of what somebody outside the state machine says, or
//     because it happens to wait in the queue again (pending.maybe).

// session is this node's session. It is used under proposer.mu.
type session struct {
	id    uint64
	last  uint64 // the last seq given
	acked uint64 // every seq up to here is done with
	// done says it of acked+1 and those after it.
	done []bool
}

// sessionTTL is how long a node's session outlives its last write, by the
// replicated clock. It costs an entry every few seconds while it lasts
// (clock.go), and a write after it costs one more entry.
const sessionTTLMS = 10 * 60 * 1000

func (s *session) next() uint64 {
	s.last++
	s.done = append(s.done, false)
	return s.last
}

func (s *session) finish(seq uint64) {
	if seq <= s.acked {
		return
	}
	s.done[seq-s.acked-1] = true
	n := 0
	for n < len(s.done) && s.done[n] {
		n++
	}
	s.acked += uint64(n)
	s.done = s.done[n:]
}

// stamp is a command's identity in a session of this node; the zero value is
// none.
type stamp struct {
	session *session
	seq     uint64
}

// maxStampBytes bounds an encoded stamp.
const maxStampBytes = 3 * (1 + binary.MaxVarintLen64)

// The fields of trivetpb.Command, all varints.
const (
	tagSession = 3 << 3
	tagSeq     = 4 << 3
	tagAck     = 5 << 3
)

// appendStamp appends the stamp to an encoded command. Fields of a message may
// come in any order, so that is the command with an identity.
func (s *stamp) appendStamp(b []byte) []byte {
	if s.session == nil || mutant.On("retry-unstamped") {
		return b
	}
	b = binary.AppendUvarint(append(b, tagSession), s.session.id)
	b = binary.AppendUvarint(append(b, tagSeq), s.seq)
	if s.session.acked != 0 {
		b = binary.AppendUvarint(append(b, tagAck), s.session.acked)
	}
	return b
}

func (s *stamp) stampBytes() int {
	var b [maxStampBytes]byte
	return len(s.appendStamp(b[:0]))
}

// identify stamps a command of this node's callers that has no stamp yet; false
// where there is no session.
func (q *proposer) identify(c *pending) bool {
	if c.session == nil {
		if q.session == nil {
			return false
		}
		c.stamp = stamp{q.session, q.session.next()}
	}
	return true
}

// openSession returns a group that opens a session; what needs one waits in the
// queue.
func (q *proposer) openSession() *group {
	data, err := (&trivetpb.Command{Command: &trivetpb.Command_SessionOpen{
		SessionOpen: &trivetpb.SessionOpen{TtlMs: sessionTTLMS, Node: true},
	}}).MarshalVT()
	if err != nil {
		panic(err) // two numbers
	}
	q.opening = true
	q.bytes += held(data)
	p := &proposal{
		// To repeat it is harmless and needs no identity: a session that nobody
		// knows of ends by itself.
		commands: []pending{{data: data, kind: bare, state: underWay}},
		done:     make(chan struct{}),
		results:  make([]*trivetpb.Result, 1),
		open:     1,
		then:     q.opened,
	}
	return &group{segments: []segment{{p, 0, 1}}, count: 1, bytes: len(data) + maxStampBytes}
}

// opened takes what became of that.
func (q *proposer) opened(r *trivetpb.Result) {
	q.opening = false
	problem := r.Problem
	switch {
	case q.ended:
	case problem == nil:
		q.session = &session{id: r.GetSession().GetSession()}
	case problem.Unknown, problem.Code == trivetpb.Code_NO_LEADER, problem.Code == trivetpb.Code_DRAINING:
		// Once more, with the next dispatch.
	default:
		// The state has no room for another. Who waits is told so.
		for _, s := range q.queue {
			for i := s.from; i < s.to; i++ {
				if c := &s.p.commands[i]; c.kind == own && c.session == nil && c.state == queued {
					q.conclude(s.p, i, r)
				}
			}
		}
	}
	q.kick()
}

// sessionEnded says whether the answer to a command is that the node's own
// session, which it was stamped with, has ended. A command may also be about
// another session, a caller's, that has: that is an answer like any other, and
// the state machine tells the two apart. What it says of a command's identity
// has outcome unknown, since without the session nobody knows if the command
// was applied before; what a command finds out about a session that it keeps or
// closes is certain.
func (c *pending) sessionEnded(r *trivetpb.Result) bool {
	p := r.GetProblem()
	return c.kind == own && p.GetCode() == trivetpb.Code_SESSION_EXPIRED && p.Unknown
}

// expired says whether the answer to a command is that the node's own session
// has ended. The command goes out again with another stamp, where it was never
// out before with this one: then it was certainly not applied.
func (q *proposer) expired(c *pending, r *trivetpb.Result) (again bool) {
	if !c.sessionEnded(r) {
		return false
	}
	if q.session == c.session {
		q.session = nil
	}
	if c.maybe && !mutant.On("restamp") {
		return false
	}
	c.stamp = stamp{}
	return true
}

// told is what the caller of a command is told, of what was found out about it.
func (c *pending) told(r *trivetpb.Result) *trivetpb.Result {
	switch p := r.Problem; {
	case c.sessionEnded(r):
		// Not the caller's session.
		return unknownResult("the write was under way when the node's session in the state ended")
	case c.kind == own && r.Replayed:
		// The repeat was the node's, not the caller's.
		return &trivetpb.Result{Revision: r.Revision, Problem: r.Problem, Result: r.Result}
	case c.maybe && p != nil && !p.Unknown && fleeting(p.Code):
		return unknownResult("the leader was lost while the write was under way, and then: " + p.Error())
	}
	return r
}

// fleeting says that the state machine does not remember such an answer, or did
// not give it: it speaks of one attempt alone.
func fleeting(c trivetpb.Code) bool {
	switch c {
	case trivetpb.Code_OVERLOADED, trivetpb.Code_QUOTA_EXCEEDED,
		trivetpb.Code_NO_LEADER, trivetpb.Code_DRAINING, trivetpb.Code_TIMEOUT:
		return true
	}
	return false
}
