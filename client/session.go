package client

import (
	"strconv"
	"sync"
	"time"
)

// Every write has an identity: a seq of a session that the client has open with the
// cluster. The cluster remembers its answer, and gives that to whoever repeats the
// seq, instead of applying it again. So a write is repeated through failovers and
// lost answers, until its answer arrives or nobody waits for it any more.
//
// What the client owes for that are acks, from which the cluster knows what it may
// forget: each request says up to which seq everything is settled. A seq is settled
// once its answer is here, or it is certain that it never was and never will be
// applied. One whose outcome is unknown is held back, unacknowledged, because
// Resolve asks by it; were it acknowledged, the answer would be gone.
//
// A seq may be only so far ahead of the last ack. A session whose window is used up,
// because a write of long ago is still under way or held back, is retired: it keeps
// what it has, and new writes get a new session. So no write ever waits for
// another's outcome.

const (
	sessionsPath = "/v1/sessions"

	// sessionTTL is how long the cluster remembers a session that it does not hear
	// of.
	sessionTTL = 60 * time.Second
	// windowSeqs is how far the seqs of a session go beyond what is settled. The
	// cluster has 65,536, and 16 MiB for the answers, of which a plain one takes a
	// quarter of a kilobyte.
	windowSeqs = 16384
	// maxHeld is how many seqs of unknown outcome a session holds back, heldFor for
	// how long, and maxRetired how many sessions are retired at a time. Past any of
	// them the oldest is given up: its outcome stays unknown for good.
	maxHeld    = 1024
	heldFor    = 10 * time.Minute
	maxRetired = 8
	// withoutFor is how long writes go without an identity where the cluster gave
	// no session.
	withoutFor = 5 * time.Second
	// closePatience is how long Close waits for the sessions to be closed, silentPatience
	// how long where no node has answered of late: then it is most likely for nothing,
	// and a session that is not closed ends by its ttl.
	closePatience  = 500 * time.Millisecond
	silentPatience = 50 * time.Millisecond
)

// session is one session of the client.
type session struct {
	of      *Client
	id      uint64
	ttl     time.Duration
	cluster string // that it is one of; empty where its node did not say

	mu sync.Mutex
	// Seqs up to acked are settled. next is the first that was not given out; of
	// those in between, the settled ones have a bit, at seq % windowSeqs.
	acked, next uint64
	settled     [windowSeqs / 64]uint64
	// held are those of unknown outcome, in the order in which they came to be.
	held []*ticket
	// contact is when a request was sent that the cluster then answered.
	contact time.Time
	// over: the cluster does not know it any more, or is being told to forget it.
	over bool
}

// number gives the calls seqs, or returns false where there is no room for them.
func (s *session) number(list []*call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.next+uint64(len(list)) > s.acked+windowSeqs {
		return false
	}
	for _, a := range list {
		a.session, a.seq = s, s.next
		s.next++
	}
	return true
}

// ack is what requests say: every seq up to there is settled.
func (s *session) ack() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked
}

// conclude settles the calls whose outcome is known, and holds back the others. The
// calls are its own, and not under way.
func (s *session) conclude(list []*call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range list {
		if a.session == nil {
			continue // it left before
		}
		known := a.result != nil || !a.unknown
		if a.err != nil {
			known = a.err.Outcome == NotApplied
		}
		if known {
			s.settle(a.seq)
			continue
		}
		t := a.ensureTicket()
		if a.err != nil {
			a.err.ticket = t
			s.over = s.over || a.err.Code == "session_expired"
		}
		s.hold(t)
	}
	s.advance()
}

// settle marks a seq; advance has acked follow.
func (s *session) settle(seq uint64) {
	s.settled[seq%windowSeqs/64] |= 1 << (seq % 64)
}

func (s *session) advance() {
	for s.acked+1 < s.next {
		word, bit := &s.settled[(s.acked+1)%windowSeqs/64], uint64(1)<<((s.acked+1)%64)
		if *word&bit == 0 {
			return
		}
		*word &^= bit
		s.acked++
	}
}

// hold keeps the seq of the ticket from being acknowledged.
func (s *session) hold(t *ticket) {
	switch {
	case t.isKnown():
		s.settle(t.seq)
		return
	case s.over:
		t.giveUp()
		return
	}
	t.heldSince = time.Now()
	s.held = append(s.held, t)
	if len(s.held) > maxHeld {
		s.giveUpOldest()
	}
}

func (s *session) giveUpOldest() {
	s.held[0].giveUp()
	s.settle(s.held[0].seq)
	s.held[0] = nil
	s.held = s.held[1:]
}

// release settles the seq of a ticket that was resolved.
func (s *session) release(t *ticket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range s.held {
		if h == t {
			s.held = append(s.held[:i], s.held[i+1:]...)
			s.settle(t.seq)
			s.advance()
			return
		}
	}
}

// heard notes that the cluster answered a request of the session, sent then.
func (s *session) heard(sent time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sent.After(s.contact) {
		s.contact = sent
	}
}

// expire notes that the cluster does not know the session any more.
func (s *session) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, t := range s.held {
		t.giveUp()
	}
	s.held = nil
}

// retire ends a session that has nothing outstanding: it gives out no more seqs.
func (s *session) retire() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = s.over || s.acked+1 == s.next
	return s.over
}

// outstanding says that a seq is not settled, after giving up what was held back
// for too long.
func (s *session) outstanding(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.held) > 0 && now.Sub(s.held[0].heldSince) > heldFor {
		s.giveUpOldest()
	}
	s.advance()
	return !s.over && s.acked+1 < s.next
}

// quiet is how long ago the cluster was heard of last: by the monotonic clock or by
// that of the wall, whichever says more. The former stands still while the machine
// sleeps. It decides what is worth trying, and nothing else.
func (s *session) quiet() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(time.Since(s.contact), time.Now().Round(0).Sub(s.contact.Round(0)))
}

// header is the identity of a write that goes by itself.
func (s *session) header(seq uint64) string {
	return strconv.FormatUint(s.id, 10) + ";seq=" + strconv.FormatUint(seq, 10) + ";ack=" + strconv.FormatUint(s.ack(), 10)
}
