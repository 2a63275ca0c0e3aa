package client

import (
	"net/http"
	"strconv"
	"time"

	"trivet/trivetpb"
)

// Each call takes the options that mean something to it, and the compiler
// refuses the others. Where two options of a call set the same thing, the later
// one counts.
type (
	// GetOption is a Freshness or AtRevision.
	GetOption interface{ toGet(*params) }
	// ListOption is a Freshness, AtRevision, Limit, KeysOnly or Reverse.
	ListOption interface{ toList(*params) }
	// CountOption is a Freshness or AtRevision.
	CountOption interface{ toCount(*params) }
	// TxnOption is WithGuard or WithIdempotencyKey or, for a Txn that only reads,
	// a Freshness.
	TxnOption interface{ toTxn(*params) }
	// PutOption is IfRevision, IfAbsent, IfExists, WithLease, WithTTL, WithPrev,
	// WithGuard or WithIdempotencyKey.
	PutOption interface{ toPut(*params) }
	// DeleteOption is IfRevision, IfExists, WithPrev, WithGuard or
	// WithIdempotencyKey.
	DeleteOption interface{ toDelete(*params) }
	// WriteOption is WithGuard or WithIdempotencyKey.
	WriteOption interface{ toWrite(*params) }
	// WatchOption is FromRevision, Initial, WithProgress, WithResync or WithPrev.
	WatchOption interface{ toWatch(*params) }
	// LockOption is WithTTL, WithWait, WithOwner or LeaveWithConnection.
	LockOption interface{ toLock(*params) }
	// OpPutOption is WithLease, WithTTL or WithPrev.
	OpPutOption interface{ toOpPut(*params) }
	// OpWriteOption is WithPrev.
	OpWriteOption interface{ toOpWrite(*params) }
	// OpRangeOption is Limit or KeysOnly.
	OpRangeOption interface{ toOpRange(*params) }
)

// What the options are made of: one type for each set of calls.
type (
	// Freshness is how fresh a read must be.
	Freshness struct{ set func(*params) }
	// ReadOption goes with Get, List and Count.
	ReadOption struct{ set func(*params) }
	// RangeOption goes with List and OpRange.
	RangeOption struct{ set func(*params) }
	// OrderOption goes with List.
	OrderOption struct{ set func(*params) }
	// ConditionOption goes with Put and Delete.
	ConditionOption struct{ set func(*params) }
	// CreateOption goes with Put.
	CreateOption struct{ set func(*params) }
	// PrevOption goes with Put, Delete, OpPut, OpDelete, OpDeleteRange and Watch.
	PrevOption struct{ set func(*params) }
	// LeaseOption goes with Put and OpPut.
	LeaseOption struct{ set func(*params) }
	// TTLOption goes with Put, OpPut and Lock.
	TTLOption struct{ set func(*params) }
	// FollowOption goes with Watch.
	FollowOption struct{ set func(*params) }
	// QueueOption goes with Lock.
	QueueOption struct{ set func(*params) }
	// GuardOption goes with Put, Delete, DeleteRange, Add and Txn.
	GuardOption struct{ set func(*params) }
	// IdempotencyOption goes with every write.
	IdempotencyOption struct{ set func(*params) }
)

func (o Freshness) toGet(p *params)          { o.set(p) }
func (o Freshness) toList(p *params)         { o.set(p) }
func (o Freshness) toCount(p *params)        { o.set(p) }
func (o Freshness) toTxn(p *params)          { o.set(p) }
func (o ReadOption) toGet(p *params)         { o.set(p) }
func (o ReadOption) toList(p *params)        { o.set(p) }
func (o ReadOption) toCount(p *params)       { o.set(p) }
func (o RangeOption) toList(p *params)       { o.set(p) }
func (o RangeOption) toOpRange(p *params)    { o.set(p) }
func (o OrderOption) toList(p *params)       { o.set(p) }
func (o ConditionOption) toPut(p *params)    { o.set(p) }
func (o ConditionOption) toDelete(p *params) { o.set(p) }
func (o CreateOption) toPut(p *params)       { o.set(p) }
func (o PrevOption) toPut(p *params)         { o.set(p) }
func (o PrevOption) toDelete(p *params)      { o.set(p) }
func (o PrevOption) toOpPut(p *params)       { o.set(p) }
func (o PrevOption) toOpWrite(p *params)     { o.set(p) }
func (o PrevOption) toWatch(p *params)       { o.set(p) }
func (o FollowOption) toWatch(p *params)     { o.set(p) }
func (o LeaseOption) toPut(p *params)        { o.set(p) }
func (o LeaseOption) toOpPut(p *params)      { o.set(p) }
func (o TTLOption) toPut(p *params)          { o.set(p) }
func (o TTLOption) toOpPut(p *params)        { o.set(p) }
func (o TTLOption) toLock(p *params)         { o.set(p) }
func (o QueueOption) toLock(p *params)       { o.set(p) }
func (o GuardOption) toPut(p *params)        { o.set(p) }
func (o GuardOption) toDelete(p *params)     { o.set(p) }
func (o GuardOption) toWrite(p *params)      { o.set(p) }
func (o GuardOption) toTxn(p *params)        { o.set(p) }

func (o IdempotencyOption) toPut(p *params)    { o.set(p) }
func (o IdempotencyOption) toDelete(p *params) { o.set(p) }
func (o IdempotencyOption) toWrite(p *params)  { o.set(p) }
func (o IdempotencyOption) toTxn(p *params)    { o.set(p) }

// Linearizable sees every write acknowledged anywhere before the read began. It
// is the default.
func Linearizable() Freshness {
	return Freshness{func(p *params) { p.linearizable = true }}
}

// MaxStaleness sees every write acknowledged more than d before the read began,
// and costs nothing where the node can prove that by itself and has all that this
// Client has seen. It may be combined with MinRevision. d must be above zero.
//
// It and the weaker ones below are never behind what this Client has seen or written
// before, whatever node answers. That costs a wait, of the time that a change takes
// from node to node, where a read comes right after a write; and a node that is cut
// off cannot answer one who has seen more elsewhere (ErrNotFresh, after other nodes
// were asked too).
func MaxStaleness(d time.Duration) Freshness {
	return Freshness{func(p *params) { p.bounded, p.maxStaleness = true, d }}
}

// MinRevision sees the given revision and all before it; the node waits for it
// to arrive. It is for a revision that was handed on from elsewhere: those that this
// Client has seen (Client.Revision) are waited for in any case. The error is
// ErrNotFresh where the revision did not arrive in the call's time.
func MinRevision(revision uint64) Freshness {
	return Freshness{func(p *params) { p.session, p.minRevision = true, revision }}
}

// Stale sees some past state, not behind what this Client has seen. It needs no
// leader, only a node that has that much.
func Stale() Freshness {
	return Freshness{func(p *params) { p.stale = true }}
}

// AnyState sees the state of the node that answers, whatever that is, and is served
// by every node that runs. It may be behind what this Client has seen or written
// itself, and two of them may be answered by two nodes, the second by the one that
// lags more.
func AnyState() Freshness {
	return Freshness{func(p *params) { p.anyState = true }}
}

// AtRevision reads the state as of an old revision. The error is ErrCompacted
// below the retained history, ErrFutureRevision above the present revision.
func AtRevision(revision uint64) ReadOption {
	return ReadOption{func(p *params) { p.revision, p.hasRevision = revision, true }}
}

// Limit ends a range after n items; n is at least 1.
func Limit(n int) RangeOption {
	return RangeOption{func(p *params) { p.limit, p.hasLimit = n, true }}
}

// KeysOnly leaves the values out: Item.Value is nil.
func KeysOnly() RangeOption {
	return RangeOption{func(p *params) { p.keysOnly = true }}
}

// Reverse lists from the last key to the first.
func Reverse() OrderOption {
	return OrderOption{func(p *params) { p.reverse = true }}
}

// IfRevision lets the write through only if the key's ModRevision is still the
// given one; else it fails with ErrConflict. With Put, 0 is the revision of a
// key that is not there: Item.ModRevision of the zero Item creates. With Delete
// 0 is refused.
func IfRevision(modRevision uint64) ConditionOption {
	return ConditionOption{func(p *params) {
		p.condition = condition{kind: ifRevision, revision: modRevision}
	}}
}

// IfExists lets the write through only if the key is there.
func IfExists() ConditionOption {
	return ConditionOption{func(p *params) { p.condition = condition{kind: ifExists} }}
}

// IfAbsent lets the Put through only if the key is not there.
func IfAbsent() CreateOption {
	return CreateOption{func(p *params) { p.condition = condition{kind: ifAbsent} }}
}

// WithPrev has the item as it was before in the result, or in the events of a
// Watch.
func WithPrev() PrevOption {
	return PrevOption{func(p *params) { p.prev = true }}
}

// FromRevision has a Watch begin with the changes of a revision, past or next.
// The error is ErrCompacted where it is no longer retained, ErrFutureRevision
// where it is greater than the next one.
func FromRevision(revision uint64) FollowOption {
	return FollowOption{func(p *params) { p.from, p.hasFrom = revision, true }}
}

// Initial has a Watch tell the items that are there first (FrameItems), then
// FrameSynced, then every change since.
func Initial() FollowOption {
	return FollowOption{func(p *params) { p.initial = true }}
}

// WithProgress has a Watch tell how far it has come while nothing changes
// (FrameProgress).
func WithProgress() FollowOption {
	return FollowOption{func(p *params) { p.progress = true }}
}

// WithResync has a Watch go on where the history that it needs is gone, in place of
// ending with ErrCompacted: it tells FrameReset, then the items that are there now
// (FrameItems) and FrameSynced, as Initial does, and then every change since. What
// became of the keys in between is to be concluded from the items: those that are not
// among them are gone.
func WithResync() FollowOption {
	return FollowOption{func(p *params) { p.resync = true }}
}

// WithLease attaches the key to a lease (LeaseGrant): it is deleted when the
// lease ends. A later write of the key without the option detaches it. The error
// is ErrLeaseNotFound where there is no such lease.
func WithLease(id uint64) LeaseOption {
	return LeaseOption{func(p *params) { p.lease, p.hasLease, p.ttl, p.hasTTL = id, true, 0, false }}
}

// WithTTL attaches the key to a lease of its own, which nobody keeps alive: the
// key is deleted after ttl, 1 s to 24 h in whole milliseconds, by the cluster's
// clock, unless it is written again before.
//
// With Lock it is how long the lock is held without being renewed: after it, it
// is free if its holder is gone. The default there is 10 s.
func WithTTL(ttl time.Duration) TTLOption {
	return TTLOption{func(p *params) { p.ttl, p.hasTTL, p.lease, p.hasLease = ttl, true, 0, false }}
}

// WithWait ends the waiting for a lock after d: 0 takes it only if it is free.
func WithWait(d time.Duration) QueueOption {
	return QueueOption{func(p *params) { p.wait, p.hasWait = d, true }}
}

// WithOwner says who holds the lock, or waits for it, to others: see LockHolder.
// It is UTF-8 of at most 1,024 bytes.
func WithOwner(owner string) QueueOption {
	return QueueOption{func(p *params) { p.owner = owner }}
}

// LeaveWithConnection has the cluster take a request for a lock out of the queue
// at once when the connection that waits is cut, be it by the end of the context,
// of the Client or of the process: for programs that a signal ends while they
// wait. The price is that a request whose node fails begins anew at the end of the
// queue, and that what it leaves behind there may hold the lock for a ttl.
//
// Without it the request keeps its place whatever becomes of its node, and one
// that was given up is released by the Client when its turn comes.
func LeaveWithConnection() QueueOption {
	return QueueOption{func(p *params) { p.leaves = true }}
}

// WithGuard has the write applied only while the lock is held with that very
// token (Lock.Token), which is checked in the same step as the write; else it
// fails with ErrGuardFailed. So nothing is written by one who was stopped for a
// while, and has lost the lock without knowing it. A write may have up to 16
// guards, of different locks.
func WithGuard(lock string, token uint64) GuardOption {
	return GuardOption{func(p *params) { p.guards = append(p.guards, guard{lock, token}) }}
}

// WithIdempotencyKey names the write, by 1 to 128 visible ASCII characters. The
// cluster applies it once: for 10 minutes at least a repeat, from wherever it
// comes, gets the first one's answer (Replayed), and another write under the
// same key is refused with ErrIdempotencyKeyReused. So the client sends it again
// after any failure, as it does with reads, also where the outcome of an attempt
// is unknown; and the caller may, after ErrUnknown, by the same call.
//
// The cluster keeps the answer of every key for that time. To give each write of
// a busy service one costs it memory.
func WithIdempotencyKey(key string) IdempotencyOption {
	return IdempotencyOption{func(p *params) { p.idempotencyKey, p.hasIdempotencyKey = key, true }}
}

// params is what the options of one call come to.
type params struct {
	linearizable, bounded, session, stale, anyState bool
	maxStaleness                                    time.Duration
	minRevision                                     uint64

	hasRevision, hasLimit bool
	revision              uint64
	limit                 int
	keysOnly, reverse     bool

	condition condition
	prev      bool

	hasLease, hasTTL bool
	lease            uint64
	ttl              time.Duration

	maxAge time.Duration

	hasFrom, initial, progress bool
	resync                     bool
	from                       uint64

	hasWait, leaves bool
	wait            time.Duration
	owner           string

	guards            []guard
	hasIdempotencyKey bool
	idempotencyKey    string
}

// noParams is what no options come to. Nobody changes it.
var noParams params

// paramsOf is what the options come to, which set says one by one; it is not to be
// changed. A call without any, as most are, has no memory made for it: an option may be
// anybody's, so what it sets is on the heap.
func paramsOf[Option any](opts []Option, set func(Option, *params)) *params {
	if len(opts) == 0 {
		return &noParams
	}
	p := new(params)
	for _, o := range opts {
		set(o, p)
	}
	return p
}

// guard is a lock that must be held for a write to be applied.
type guard struct {
	lock  string
	token uint64
}

type condition struct {
	kind     conditionKind
	revision uint64
}

type conditionKind int

const (
	noCondition conditionKind = iota
	ifRevision
	ifExists
	ifAbsent
)

// checkLimit refuses a limit that cannot be meant.
func (p *params) checkLimit(op string) *Error {
	if p.hasLimit && p.limit < 1 {
		return refusal(op, trivetpb.Code_BAD_REQUEST, "Limit must be at least 1")
	}
	return nil
}

// addTo adds the header that holds the write to its condition.
func (c condition) addTo(h http.Header) {
	switch {
	case c.kind == ifExists:
		h["If-Match"] = []string{"*"}
	case c.kind == ifAbsent, c.kind == ifRevision && c.revision == 0:
		h["If-None-Match"] = []string{"*"}
	case c.kind == ifRevision:
		h["If-Match"] = []string{`"` + strconv.FormatUint(c.revision, 10) + `"`}
	}
}
