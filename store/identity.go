package store

import (
	"trivet/trivetpb"
)

// Bounds of idempotency keys. Apply keeps them: they must never change.
const (
	MaxIdempotencyKeyBytes = 128
	FingerprintBytes       = 16
	// IdempotencyMS is how long an idempotency key is remembered, by the
	// replicated clock, from its first command on.
	IdempotencyMS = 10 * 60 * 1000
	// MaxKeyedBytes bounds the idempotency keys and their answers together.
	MaxKeyedBytes = 256 << 20
)

// keyedOverheadBytes is about what an idempotency key takes in memory beside its
// answer. Part of the state machine: it must never change.
const keyedOverheadBytes = 256

// keyed is the remembered answer to an idempotency key. It is never changed.
type keyed struct {
	key         string
	fingerprint [FingerprintBytes]byte
	deadlineMS  uint64
	bytes       uint64
	result      *trivetpb.Result
}

func (k *keyed) hash() uint64 {
	return mix(hashKeyed, textHash(k.key), textHash(string(k.fingerprint[:])), k.deadlineMS, k.bytes)
}

// recall finds out whether a command was applied before under the same identity,
// and then returns its first answer; and refuses a command of which nobody can
// say so any more. Neither is executed.
//
// A command whose answer was forgotten must never be applied as if it were new:
// its outcome is unknown, as the first time it may have been applied.
func (a *applier) recall(c *trivetpb.Command) (first *trivetpb.Result, problem *trivetpb.Problem) {
	if p := checkIdentity(c); p != nil {
		return nil, p
	}
	if len(c.IdempotencyKey) > 0 {
		return a.recallKeyed(c)
	}
	if c.Session == 0 {
		return nil, nil
	}
	s, p := a.openSession(c.Session)
	if p != nil {
		// Members also tell by it that it is the identity's session that has
		// ended, not one that the command keeps or closes.
		p.Unknown = true
		return nil, p
	}
	if c.Seq <= s.ack {
		p := problemf(trivetpb.Code_BAD_REQUEST, "seq %d of session %d has been answered, and its answer is forgotten: %d was acknowledged", c.Seq, s.id, s.ack)
		p.Unknown = true
		return nil, p
	}
	// The ack is less than the seq, so it takes nothing that is asked for here;
	// and it may make the room that the answer needs.
	if c.Ack > s.ack {
		a.forget(s, c.Ack)
	}
	if r := s.find(c.Seq); r != nil {
		return r, nil
	}
	if c.Seq-s.ack > MaxOpenSeqs {
		return nil, problemf(trivetpb.Code_BAD_REQUEST, "seq %d is %d beyond what was acknowledged, and may be %d", c.Seq, c.Seq-s.ack, MaxOpenSeqs)
	}
	return nil, nil
}

func (a *applier) recallKeyed(c *trivetpb.Command) (first *trivetpb.Result, problem *trivetpb.Problem) {
	k, ok := a.keys.Get(keyString(c.IdempotencyKey))
	switch {
	case !ok:
		return nil, nil
	case string(k.fingerprint[:]) != keyString(c.Fingerprint):
		return nil, problemf(trivetpb.Code_IDEMPOTENCY_KEY_REUSED, "the idempotency key came with another request before")
	}
	return k.result, nil
}

// replay answers what was answered the first time.
func replay(result, first *trivetpb.Result) {
	result.Revision, result.Problem, result.Result = first.Revision, first.Problem, first.Result
	result.Replayed = true
}

// largestPlainAnswer is more than the answer, or the problem, of any command
// but an operation on keys counts: a lock's owner, and its name as a Go string.
const largestPlainAnswer = answerOverheadBytes + 8<<10

// roomForPlain refuses a command whose answer could not be remembered, before it
// is applied: what changes leases, locks and sessions is not undone. (An
// operation on keys is, and its answer may be large, so that is measured: see
// remember.)
func (a *applier) roomForPlain(c *trivetpb.Command) *trivetpb.Problem {
	switch {
	case len(c.IdempotencyKey) > 0:
		return a.roomForKeyed(c, largestPlainAnswer)
	case c.Session != 0:
		return a.roomForAnswer(a.session, largestPlainAnswer)
	}
	return nil
}

func (a *applier) roomForAnswer(s *session, bytes uint64) *trivetpb.Problem {
	most := uint64(MaxSessionAnswerBytes)
	if s.node {
		most = MaxNodeAnswerBytes
	}
	switch {
	case s.bytes+bytes > most:
		return problemf(trivetpb.Code_OVERLOADED, "the answers of session %d that were not acknowledged count %d bytes, and may count %d", s.id, s.bytes, most)
	case !s.node && a.clientBytes+bytes > MaxAnswerBytes:
		return problemf(trivetpb.Code_OVERLOADED, "the answers of all sessions that were not acknowledged count %d bytes, and may count %d", a.clientBytes, MaxAnswerBytes)
	}
	return nil
}

func (a *applier) roomForKeyed(c *trivetpb.Command, bytes uint64) *trivetpb.Problem {
	if a.keyedBytes+keyedBytes(keyString(c.IdempotencyKey), bytes) > MaxKeyedBytes {
		return problemf(trivetpb.Code_OVERLOADED, "the idempotency keys of the last minutes count %d bytes, and may count %d", a.keyedBytes, MaxKeyedBytes)
	}
	return nil
}

// keyedBytes is what an idempotency key counts with an answer of so many bytes.
func keyedBytes(key string, bytes uint64) uint64 {
	return uint64(len(key)) + keyedOverheadBytes + bytes
}

// remember keeps the result for those who repeat the command, or says that there
// is no room, and does not. A problem is kept as well, but for those that say:
// certainly not applied, try again.
func (a *applier) remember(c *trivetpb.Command, result *trivetpb.Result) *trivetpb.Problem {
	if c.Session == 0 && len(c.IdempotencyKey) == 0 {
		return nil
	}
	if p := result.Problem; p != nil && (p.Code == trivetpb.Code_OVERLOADED || p.Code == trivetpb.Code_QUOTA_EXCEEDED) {
		return nil
	}
	bytes := answerBytes(result)
	if len(c.IdempotencyKey) > 0 {
		if p := a.roomForKeyed(c, bytes); p != nil {
			return p
		}
		k := &keyed{
			key:        keyString(c.IdempotencyKey),
			deadlineMS: after(a.clockMS, IdempotencyMS),
			bytes:      keyedBytes(keyString(c.IdempotencyKey), bytes),
			result:     keepAnswer(result),
		}
		copy(k.fingerprint[:], c.Fingerprint)
		a.addKeyed(k)
		return nil
	}
	s, closed := a.openSession(c.Session)
	if closed != nil {
		return nil // by this very command
	}
	if p := a.roomForAnswer(s, bytes); p != nil {
		return p
	}
	if textSize(result) == 0 {
		result = keepAnswer(result)
	}
	a.addAnswer(s, c.Seq, result, bytes)
	return nil
}

func (st *state) addKeyed(k *keyed) {
	if old, ok := st.keys.Get(k.key); ok {
		st.forgetKeyed(old) // it came with a state that was restored by this very command
	}
	st.keys.Set(k.key, k)
	st.keyed.set(keyedOrder(k.deadlineMS, k.key), k)
	st.answerCount++
	st.answerBytes += k.bytes
	st.keyedBytes += k.bytes
	st.totals.rest += k.hash()
}

func (st *state) forgetKeyed(k *keyed) {
	st.keys.Delete(k.key)
	st.keyed.remove(keyedOrder(k.deadlineMS, k.key))
	st.answerCount--
	st.answerBytes -= k.bytes
	st.keyedBytes -= k.bytes
	st.totals.rest -= k.hash()
}

// checkIdentity refuses an identity that is none.
func checkIdentity(c *trivetpb.Command) *trivetpb.Problem {
	if c.Session != 0 {
		switch {
		case len(c.IdempotencyKey) != 0 || len(c.Fingerprint) != 0:
			return problemf(trivetpb.Code_BAD_REQUEST, "either a session or an idempotency key, not both")
		case c.Seq == 0:
			return problemf(trivetpb.Code_BAD_REQUEST, "a session needs a seq, from 1 on")
		case c.Ack >= c.Seq:
			return problemf(trivetpb.Code_BAD_REQUEST, "the ack, %d, is not less than the seq, %d", c.Ack, c.Seq)
		}
		return nil
	}
	switch n := len(c.IdempotencyKey); {
	case c.Seq != 0 || c.Ack != 0:
		return problemf(trivetpb.Code_BAD_REQUEST, "a seq and an ack need a session")
	case n == 0 && len(c.Fingerprint) == 0:
		return nil
	case n == 0 || n > MaxIdempotencyKeyBytes:
		return problemf(trivetpb.Code_BAD_REQUEST, "the idempotency key has %d bytes, and may have 1 to %d", n, MaxIdempotencyKeyBytes)
	case len(c.Fingerprint) != FingerprintBytes:
		return problemf(trivetpb.Code_BAD_REQUEST, "the fingerprint has %d bytes, and has to have %d", len(c.Fingerprint), FingerprintBytes)
	}
	return nil
}
