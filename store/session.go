package store

import "trivet/trivetpb"

// Bounds of sessions. Apply keeps them: they must never change.
const (
	// MaxSessions is the most sessions of clients, MaxNodeSessions of members:
	// neither takes room from the other.
	MaxSessions     = 100_000
	MaxNodeSessions = 1000
	// MaxOpenSeqs is how far a seq may be ahead of the last one acknowledged.
	MaxOpenSeqs = 65_536
	// MaxSessionAnswerBytes bounds the remembered answers of one client's
	// session, MaxNodeAnswerBytes those of a member's, and MaxAnswerBytes those
	// of all clients' sessions together. Where an answer has no room, its
	// command is refused: nothing is forgotten early.
	MaxSessionAnswerBytes = 16 << 20
	MaxNodeAnswerBytes    = 64 << 20
	MaxAnswerBytes        = 128 << 20
)

// session remembers the answers to the commands that named it, until each is
// acknowledged.
//
// Every plain write is in a session, its node's, so that one is changed all the
// time, and in place: a Set in the tree for each command would be most of its
// cost. What a View has must stay as it is, though. So a session, and each page
// of its answers, knows the generation of Views in which it was made. What is
// of an earlier generation than the present belongs to Views as well, and is
// copied before it is changed (own); the copy belongs to the writer alone until
// the next View.
type session struct {
	id, ttlMS, deadlineMS uint64
	// ack is the highest that was received: every seq up to it has been
	// answered, and its answer is forgotten.
	ack  uint64
	node bool
	answers

	generation uint64
	// hash is what the session, without its answers, counts in the sum of the
	// state. It is put right at the end of each entry that names the session.
	hash   uint64
	closed bool
	due    *due // belongs to the writer
}

func (s *session) hashNow() uint64 {
	return mix(hashSession, s.id, s.ttlMS<<1|bit(s.node), s.deadlineMS, s.ack)
}

func (a *applier) sessionOpen(c *trivetpb.SessionOpen, result *trivetpb.Result) *trivetpb.Problem {
	if c.Node {
		if a.nodeSessions >= MaxNodeSessions {
			return problemf(trivetpb.Code_OVERLOADED, "%d sessions of nodes are open, and no more may", a.nodeSessions)
		}
	} else if n := a.sessions.len() - a.nodeSessions; n >= MaxSessions {
		return problemf(trivetpb.Code_OVERLOADED, "%d sessions are open, and no more may", n)
	}
	id := a.drawID()
	a.addSession(&session{id: id, ttlMS: c.TtlMs, deadlineMS: after(a.clockMS, c.TtlMs), node: c.Node})
	answerSession(result, id, c.TtlMs)
	return nil
}

func (a *applier) sessionKeepAlive(c *trivetpb.SessionKeepAlive, result *trivetpb.Result) *trivetpb.Problem {
	s, p := a.openSession(c.Session)
	if p == nil {
		answerSession(result, s.id, s.ttlMS)
	}
	return p
}

// sessionClose ends a session, and forgets its answers.
func (a *applier) sessionClose(c *trivetpb.SessionClose, result *trivetpb.Result) *trivetpb.Problem {
	s, p := a.openSession(c.Session)
	if p == nil {
		a.closeSession(s)
		answerSession(result, s.id, s.ttlMS)
	}
	return p
}

func answerSession(result *trivetpb.Result, id, ttlMS uint64) {
	result.Result = &trivetpb.Result_Session{Session: &trivetpb.SessionResult{Session: id, TtlMs: ttlMS}}
}

// addSession adds a session and the answers that it has.
func (st *state) addSession(s *session) {
	s.generation = st.generation
	s.due = &due{deadlineMS: s.deadlineMS, kind: dueSession, id: s.id}
	st.dues.push(s.due)
	st.sessions.set(s.id, s)
	s.hash = s.hashNow()
	st.totals.rest += s.hash
	st.countAnswers(s, int(s.count), s.bytes, s.sum)
	if s.node {
		st.nodeSessions++
	}
}

// closeSession removes a session. A later command of the same entry that names
// it finds none.
func (a *applier) closeSession(s *session) {
	s = a.own(s)
	s.closed = true
	if a.session == s {
		a.session = nil
	}
	a.dues.remove(s.due)
	a.sessions.remove(s.id)
	a.totals.rest -= s.hash
	a.countAnswers(s, -int(s.count), -s.bytes, -s.sum)
	if s.node {
		a.nodeSessions--
	}
}

// openSession is the session, the writer's own, and with all of its ttl from
// now on.
func (a *applier) openSession(id uint64) (*session, *trivetpb.Problem) {
	if s := a.session; s != nil && s.id == id {
		return s, nil // as for the command before
	}
	s, ok := a.sessions.get(id)
	if !ok {
		return nil, problemf(trivetpb.Code_SESSION_EXPIRED, "there is no session %d, or it has expired", id)
	}
	s = a.own(s)
	if deadlineMS := after(a.clockMS, s.ttlMS); deadlineMS != s.deadlineMS {
		s.deadlineMS, s.due.deadlineMS = deadlineMS, deadlineMS
	}
	a.session = s
	a.named = append(a.named, s)
	return s, nil
}

// own returns the session as one that no View has.
func (st *state) own(s *session) *session {
	if s.generation == st.generation {
		return s
	}
	c := *s
	c.generation = st.generation
	c.pages = append(make([]*answerPage, 0, len(s.pages)+8), s.pages...)
	st.sessions.set(c.id, &c)
	return &c
}

// rehash puts right what the sessions that were named count in the state's sum:
// once an entry, as each of its commands changes them.
func (a *applier) rehash() {
	for _, s := range a.named {
		if s.closed {
			continue
		}
		a.totals.rest -= s.hash
		s.hash = s.hashNow()
		a.totals.rest += s.hash
	}
	clear(a.named)
	a.namedBefore = a.named[:0]
}

// countAnswers adds to the totals of remembered answers; what is taken off is
// given as a negative number, or as one's complement to 2^64.
func (st *state) countAnswers(s *session, count int, bytes, sum uint64) {
	st.answerCount += uint64(count)
	st.answerBytes += bytes
	if !s.node {
		st.clientBytes += bytes
	}
	st.totals.rest += sum
}
