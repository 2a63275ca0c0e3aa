package store

import (
	"unicode/utf8"

	"github.com/tidwall/btree"
	"google.golang.org/protobuf/reflect/protoreflect"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// section is the place of a kind of record in the file.
type section int

const (
	sectionHeader section = iota
	sectionLeases
	sectionVersions
	sectionClocks
	sectionLocks
	sectionSessions
	sectionKeyed
	sectionUpload
)

// restReader verifies the records beside keys and their history, and builds what
// they say: in a state that has no keys, so that it takes the same when a file
// is verified only. Then it keeps no answers and no upload, which can be large.
type restReader struct {
	rest    *state
	keep    bool
	section section

	lastLease, lastSession uint64
	lastLock               string
	lastQueue              int // of the last record of a lock
	lastToken              uint64
	session                *session // whose answers may follow
	lastSeq                uint64
	lastKeyed              string
	tokens                 btree.Map[uint64, struct{}]
}

// addRest takes a record of any section but the versions and clocks.
func (in *snapshotReader) addRest(m *trivetpb.SnapshotRecord) error {
	if in.format < 2 {
		return corruptf("record %d is of no kind that format %d has", in.records-1, in.format)
	}
	at := sectionLeases
	var bad string
	switch r := m.Record.(type) {
	case *trivetpb.SnapshotRecord_Lease:
		bad = in.addLease(r.Lease)
	case *trivetpb.SnapshotRecord_Lock:
		at, bad = sectionLocks, in.addLock(r.Lock)
	case *trivetpb.SnapshotRecord_Session:
		at, bad = sectionSessions, in.addSession(r.Session)
	case *trivetpb.SnapshotRecord_Answer:
		at, bad = sectionSessions, ""
		if r.Answer.GetSession() == 0 {
			at = sectionKeyed
		}
		bad = in.addAnswer(r.Answer)
	case *trivetpb.SnapshotRecord_Upload:
		at, bad = sectionUpload, in.addUpload(r.Upload)
	default:
		bad = "it is of no kind that belongs here"
	}
	if err := in.enter(at); err != nil {
		return err
	}
	if bad != "" {
		return corruptf("record %d: %s", in.records-1, bad)
	}
	return nil
}

// enter verifies that the section is not behind the present one.
func (in *snapshotReader) enter(at section) error {
	if at < in.section {
		return corruptf("record %d is out of place", in.records-1)
	}
	in.section = at
	return nil
}

func ttlFine(ttlMS uint64) bool { return checkTTL(ttlMS) == nil }

// deadlineFine says that the deadline is one that was set at some clock, for
// most ms.
func (in *restReader) deadlineFine(deadlineMS, mostMS uint64) bool {
	return deadlineMS <= after(in.rest.clockMS, mostMS)
}

func (in *restReader) addLease(m *trivetpb.SnapshotLease) string {
	switch {
	case m == nil || hasUnknown(m):
		return "a lease has a field that is not known"
	case m.Id <= in.lastLease || m.Id >= 1<<idBits:
		return "a lease's id is not after the one before"
	case !ttlFine(m.TtlMs) || !in.deadlineFine(m.DeadlineMs, m.TtlMs):
		return "a lease's ttl or deadline"
	case len(m.Lock) > MaxLockNameBytes || (m.Own && len(m.Lock) > 0):
		return "a lease's lock"
	case in.rest.leases.len() >= MaxLeases:
		return "there are too many leases"
	}
	in.lastLease = m.Id
	in.rest.addLease(m.Id, lease{ttlMS: m.TtlMs, deadlineMS: m.DeadlineMs, lock: keyString(m.Lock), own: m.Own})
	if mutant.On("snapshot-no-leases") {
		l, _ := in.rest.leases.get(m.Id)
		in.rest.dues.remove(&l.run.due)
		l.run.due.deadlineMS = never
		in.rest.dues.push(&l.run.due)
	}
	return ""
}

func (in *restReader) addLock(m *trivetpb.SnapshotLock) string {
	if m == nil || hasUnknown(m) || (m.Holder != nil && hasUnknown(m.Holder)) {
		return "a lock has a field that is not known"
	}
	name := keyString(m.Name)
	h := m.Holder
	if h == nil {
		if len(m.Queue) == 0 || name != in.lastLock || in.lastQueue != queueRecord {
			return "a lock has no holder"
		}
	} else {
		l, ok := in.rest.leases.get(h.Lease)
		switch {
		case checkLockName(m.Name) != nil || name <= in.lastLock:
			return "a lock's name is not after the one before"
		case !ok || l.lock != name || l.ttlMS != h.TtlMs:
			return "a lock's lease is not the lock's"
		case !in.person(h):
			return "a lock's holder"
		}
		in.lastToken = h.Token
		in.rest.setLock(name, lock{token: h.Token, lease: h.Lease, owner: h.Owner})
	}
	in.lastLock, in.lastQueue = name, len(m.Queue)
	for _, w := range m.Queue {
		switch {
		case w == nil || w.Waiter == nil || hasUnknown(w) || hasUnknown(w.Waiter):
			return "one who waits has a field that is not known"
		case w.Waiter.Token <= in.lastToken:
			return "one who waits came before the one before him"
		case w.Waiter.Lease != 0 || !ttlFine(w.Waiter.TtlMs) || !in.deadlineFine(w.DeadlineMs, MaxWaitMS) || !in.person(w.Waiter):
			return "one who waits"
		case in.rest.waiters.len() >= MaxWaiters:
			return "there are too many who wait"
		}
		in.lastToken = w.Waiter.Token
		l, _ := in.rest.locks.get(name)
		in.rest.addWaiter(name, l, w.Waiter.Token, waiter{
			lock: name, owner: w.Waiter.Owner, ttlMS: w.Waiter.TtlMs, deadlineMS: w.DeadlineMs,
		})
	}
	return ""
}

// person verifies a token, which nobody else may have, and an owner.
func (in *restReader) person(h *trivetpb.LockHolder) bool {
	if h.Token == 0 || h.Token > in.rest.nextToken || len(h.Owner) > MaxOwnerBytes || !utf8.ValidString(h.Owner) {
		return false
	}
	_, taken := in.tokens.Set(h.Token, struct{}{})
	return !taken
}

func (in *restReader) addSession(m *trivetpb.SnapshotSession) string {
	switch {
	case m == nil || hasUnknown(m):
		return "a session has a field that is not known"
	case m.Id <= in.lastSession || m.Id >= 1<<idBits:
		return "a session's id is not after the one before"
	case !ttlFine(m.TtlMs) || !in.deadlineFine(m.DeadlineMs, m.TtlMs):
		return "a session's ttl or deadline"
	case m.Node && in.rest.nodeSessions >= MaxNodeSessions,
		!m.Node && in.rest.sessions.len()-in.rest.nodeSessions >= MaxSessions:
		return "there are too many sessions"
	}
	if _, taken := in.rest.leases.get(m.Id); taken {
		return "a session has the id of a lease"
	}
	in.lastSession, in.lastSeq = m.Id, m.Ack
	in.session = &session{id: m.Id, ttlMS: m.TtlMs, deadlineMS: m.DeadlineMs, ack: m.Ack, node: m.Node}
	in.rest.addSession(in.session)
	return ""
}

func (in *restReader) addAnswer(m *trivetpb.SnapshotAnswer) string {
	switch {
	case m == nil || m.Result == nil || anyUnknown(m.ProtoReflect()):
		return "an answer has a field that is not known"
	case m.Result.Replayed:
		return "an answer is of a repeat"
	case m.Session == 0:
		return in.addKeyed(m)
	case in.session == nil || m.Session != in.session.id:
		return "an answer is of another session"
	case m.Seq <= in.lastSeq || m.Seq-in.session.ack > MaxOpenSeqs:
		return "an answer's seq"
	case len(m.IdempotencyKey)+len(m.Fingerprint) > 0 || m.DeadlineMs != 0:
		return "an answer has two identities"
	}
	in.lastSeq = m.Seq
	s, bytes := in.session, answerBytes(m.Result)
	if s.node && s.bytes+bytes > MaxNodeAnswerBytes ||
		!s.node && (s.bytes+bytes > MaxSessionAnswerBytes || in.rest.clientBytes+bytes > MaxAnswerBytes) {
		return "the answers are too large"
	}
	if mutant.On("dedup-not-in-snapshot") {
		in.rest.countAnswers(s, 1, bytes, answerHash(s.id, m.Seq, bytes))
		return ""
	}
	in.rest.addAnswer(s, m.Seq, in.kept(m.Result), bytes)
	return ""
}

func (in *restReader) addKeyed(m *trivetpb.SnapshotAnswer) string {
	key := keyString(m.IdempotencyKey)
	order := keyedOrder(m.DeadlineMs, key)
	_, taken := in.rest.keys.Get(key)
	bytes := keyedBytes(key, answerBytes(m.Result))
	switch {
	case len(key) == 0 || len(key) > MaxIdempotencyKeyBytes || len(m.Fingerprint) != FingerprintBytes || m.Seq != 0:
		return "an answer's idempotency key or fingerprint"
	case !in.deadlineFine(m.DeadlineMs, IdempotencyMS):
		return "an idempotency key's deadline"
	case order <= in.lastKeyed || taken:
		return "an idempotency key is not after the one before"
	case in.rest.keyedBytes+bytes > MaxKeyedBytes:
		return "the idempotency keys are too large"
	}
	in.lastKeyed = order
	k := &keyed{key: key, deadlineMS: m.DeadlineMs, bytes: bytes, result: in.kept(m.Result)}
	copy(k.fingerprint[:], m.Fingerprint)
	in.rest.addKeyed(k)
	return ""
}

// nothing stands for an answer of which only the size is wanted.
var nothing = &trivetpb.Result{}

func (in *restReader) kept(r *trivetpb.Result) *trivetpb.Result {
	if in.keep {
		return r
	}
	return nothing
}

func (in *restReader) addUpload(m *trivetpb.SnapshotUpload) string {
	u := in.rest.upload
	if u == nil {
		u = &upload{id: m.GetUpload(), deadlineMS: m.GetDeadlineMs()}
		in.rest.upload = u
	}
	switch {
	case m == nil || hasUnknown(m):
		return "an upload has a field that is not known"
	case checkChunk(&trivetpb.RestoreChunk{Data: m.Data}) != nil || u.size+uint64(len(m.Data)) > MaxUploadBytes:
		return "the size of an upload's chunk"
	case m.Upload != u.id || m.DeadlineMs != u.deadlineMS || m.Offset != u.size:
		return "an upload's chunk is not that after the one before"
	case !in.deadlineFine(m.DeadlineMs, UploadMS):
		return "an upload's deadline"
	}
	u.add(m.Data)
	if !in.keep {
		u.chunks = nil
	}
	return ""
}

// finishRest verifies what only the whole can show.
func (in *restReader) finishRest() error {
	var locks int
	var empty uint64
	in.rest.leases.m.Scan(func(id uint64, l lease) bool {
		if l.lock != "" {
			locks++
		}
		if l.own && l.run.keys.Len() == 0 {
			empty = id
		}
		return true
	})
	switch {
	case locks != in.rest.locks.len():
		return corruptf("%d leases are of locks, and there are %d locks", locks, in.rest.locks.len())
	case empty != 0:
		return corruptf("lease %d is of a single put, and has no key", empty)
	}
	return nil
}

// anyUnknown says that m, or a message in it, has a field that the schema does
// not have.
func anyUnknown(m protoreflect.Message) bool {
	found := len(m.GetUnknown()) != 0
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				found = found || anyUnknown(v.List().Get(i).Message())
			}
		default:
			found = found || anyUnknown(v.Message())
		}
		return !found
	})
	return found
}
