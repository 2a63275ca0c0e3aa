package client

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"trivet/trivetpb"
)

// Outcome is what became of a write that failed.
type Outcome int

const (
	// Unknown: the write may have been applied, or may yet be. It is the zero
	// value, because what is not proven is unknown.
	Unknown Outcome = iota
	// NotApplied: it certainly was not, and will not be.
	NotApplied
)

func (o Outcome) String() string {
	if o == NotApplied {
		return "not_applied"
	}
	return "unknown"
}

// What callers branch on, by errors.Is. An error may match several.
var (
	// ErrUnknown: the write may have been applied, or may yet be; Client.Resolve
	// finds out. Every other error of a write proves that it was not. No read's
	// error matches it.
	ErrUnknown = errors.New("trivet: the outcome is unknown")

	// ErrNotFound: there is no such key (at the revision that was read).
	ErrNotFound = errors.New("trivet: not found")
	// ErrConflict: the condition of a write (IfRevision, IfAbsent, IfExists)
	// does not hold. Error.ModRevision is the key's present one, 0 for none.
	ErrConflict = errors.New("trivet: the condition does not hold")
	// ErrGuardFailed: a lock is not held with the token of the write's guard (any
	// more), or not with the token that it is to be released by.
	ErrGuardFailed = errors.New("trivet: the guarding lock is not held")
	// ErrLocked: somebody else holds the lock. Error.Holder says who.
	ErrLocked = errors.New("trivet: the lock is held")
	// ErrLeaseNotFound: there is no such lease (any more).
	ErrLeaseNotFound = errors.New("trivet: lease not found")
	// ErrLeaseLost: a lease that was kept alive has ended or, for all that the
	// client knows, may have. ErrLockLost: the same of a lock.
	ErrLeaseLost = errors.New("trivet: the lease is lost")
	ErrLockLost  = errors.New("trivet: the lock is lost")
	// ErrIdempotencyKeyReused: the idempotency key was used for another write.
	ErrIdempotencyKeyReused = errors.New("trivet: the idempotency key belongs to another write")
	// ErrSessionExpired: the cluster no longer knows the session that the write had,
	// because it had not heard of this process for a minute, or its state was
	// replaced by a snapshot. The error matches
	// ErrUnknown too, for good; the next writes have a new session.
	ErrSessionExpired = errors.New("trivet: the session has expired")
	// ErrNotANumber: Add met a value that is no decimal number.
	ErrNotANumber = errors.New("trivet: not a number")
	// ErrOverflow: Add would leave the range of int64.
	ErrOverflow = errors.New("trivet: overflow")
	// ErrCompacted: the revision is no longer retained. Error.CompactRevision is
	// the oldest that is, Error.Revision the present one.
	ErrCompacted = errors.New("trivet: the revision is compacted")
	// ErrFutureRevision: the revision does not exist yet. Error.Revision is the
	// present one.
	ErrFutureRevision = errors.New("trivet: the revision is in the future")
	// ErrTooLarge: the request or its answer is larger than is taken.
	// Error.Limit is the most.
	ErrTooLarge = errors.New("trivet: too large")
	// ErrBadRequest: the request itself is wrong and will be wrong again.
	ErrBadRequest = errors.New("trivet: bad request")
	// ErrDenied: the token is missing, not valid, or does not allow this.
	ErrDenied = errors.New("trivet: denied")
	// ErrMemberConflict: the membership does not allow the change.
	ErrMemberConflict = errors.New("trivet: the membership does not allow it")
	// ErrQuota: the store is full. Reads and deletes still work.
	ErrQuota = errors.New("trivet: the quota is exceeded")

	// ErrUnavailable: the cluster, or the way to it, could not serve the call in
	// its time. The same call may succeed later (whether it is safe to repeat a
	// write is another matter: see ErrUnknown). ErrOverloaded, ErrNoLeader and
	// ErrNotFresh are kinds of it.
	ErrUnavailable = errors.New("trivet: unavailable")
	// ErrOverloaded: a node's queue was full for as long as the call had, or the
	// client's own is.
	ErrOverloaded = errors.New("trivet: overloaded")
	// ErrNoLeader: the cluster had no leader for as long as the call had.
	ErrNoLeader = errors.New("trivet: no leader")
	// ErrNotFresh: MinRevision did not arrive for as long as the call had.
	ErrNotFresh = errors.New("trivet: not fresh")

	// ErrDocument: a value is no JSON document of the type that a View has, or the value
	// to be written has no JSON.
	ErrDocument = errors.New("trivet: not a document of the type")

	// ErrClosed: the Client was closed before or during the call.
	ErrClosed = errors.New("trivet: the client is closed")
)

// Codes that the client itself gives, beside those of the HTTP API.
const (
	// codeUnavailable: no answer from a node.
	codeUnavailable = "unavailable"
	// codeBadResponse: an answer that no node gives, or that did not come whole.
	codeBadResponse = "bad_response"
	// codeStranger: the node that answered is of another cluster.
	codeStranger = "wrong_cluster"
	// codeCanceled: the caller's context was cancelled.
	codeCanceled = "canceled"
	// codeLeaseLost, codeLockLost: what was to be kept alive may have ended.
	codeLeaseLost = "lease_lost"
	codeLockLost  = "lock_lost"
	// codeDocument: a value and a type that do not go together.
	codeDocument = "not_a_document"
	// codeLocal: the caller's own reader or writer failed.
	codeLocal = "local_failure"
	// codeClosed: the client was closed.
	codeClosed = "closed"
	// codeTimeout is the API's own, also for the caller's deadline.
	codeTimeout = "timeout"
)

// sentinels is which sentinels a code matches.
var sentinels = map[string][]error{
	"key_not_found":   {ErrNotFound},
	"lease_not_found": {ErrLeaseNotFound},

	"precondition_failed":    {ErrConflict},
	"guard_failed":           {ErrGuardFailed},
	"locked":                 {ErrLocked},
	"idempotency_key_reused": {ErrIdempotencyKeyReused},
	"session_expired":        {ErrSessionExpired},
	"not_a_number":           {ErrNotANumber},
	"overflow":               {ErrOverflow},
	"compacted":              {ErrCompacted},
	"future_revision":        {ErrFutureRevision},
	"too_large":              {ErrTooLarge},
	"quota_exceeded":         {ErrQuota},
	"member_conflict":        {ErrMemberConflict},

	"bad_request":   {ErrBadRequest},
	"bad_key":       {ErrBadRequest},
	"duplicate_key": {ErrBadRequest},
	// A path that is not there is no key that is not there.
	"not_found":              {ErrBadRequest},
	"method_not_allowed":     {ErrBadRequest},
	"unsupported_media_type": {ErrBadRequest},

	"unauthenticated":   {ErrDenied},
	"permission_denied": {ErrDenied},

	"overloaded":    {ErrUnavailable, ErrOverloaded},
	"no_leader":     {ErrUnavailable, ErrNoLeader},
	"not_fresh":     {ErrUnavailable, ErrNotFresh},
	"draining":      {ErrUnavailable},
	"internal":      {ErrUnavailable},
	codeTimeout:     {ErrUnavailable},
	codeUnavailable: {ErrUnavailable},
	codeBadResponse: {ErrUnavailable},
	codeStranger:    {ErrUnavailable},
	codeLeaseLost:   {ErrLeaseLost},
	codeLockLost:    {ErrLockLost},
	codeClosed:      {ErrClosed},
	codeDocument:    {ErrDocument},
}

// Error is why a call failed: every method but Open and Close returns its errors
// as *Error. Match kinds with errors.Is and the sentinels above; the causes
// (context.DeadlineExceeded, a *net.OpError) match too.
type Error struct {
	// Code is the code of the problem as the HTTP API names it, or one of the
	// client's own: unavailable (no answer), bad_response (an answer that no
	// node gives), wrong_cluster (an answer of a node of another one), lease_lost, lock_lost,
	// not_a_document (of a View), local_failure (of the caller's own
	// reader or writer), canceled, closed, timeout.
	Code string
	// Status is the HTTP status of the answer; 0 where there was none.
	Status int
	// Detail is a sentence for a person. May be empty.
	Detail string
	// Outcome is what became of a write. A read's is NotApplied.
	Outcome Outcome
	// Retryable says that the very same call may succeed later. Whether it is
	// safe to repeat is what Outcome says.
	Retryable bool
	// ModRevision goes with ErrConflict, CompactRevision with ErrCompacted,
	// Revision with ErrCompacted and ErrFutureRevision, Limit with ErrTooLarge.
	ModRevision, CompactRevision, Revision, Limit uint64
	// Holder goes with ErrLocked; nil where the node did not say.
	Holder *LockHolder
	// Node is the id of the node that answered, else the URL of the one that
	// did not. Empty where none was asked.
	Node string

	// ticket is what Resolve finds out by; nil where there is no way to.
	ticket *ticket
	// op is the call and what it was about: `put "carts/7"`.
	op string
	// causes are what errors.Is and As look at next.
	causes []error
	// begun says that what was told or written of an answer so far cannot be taken
	// back: there is no second attempt.
	begun bool
	// retryAfter is how long the node asked to wait; 0 for nothing said.
	retryAfter time.Duration
}

// Error returns, for example,
//
//	trivet: put "carts/7": precondition_failed: the key is at revision 7 (node n2)
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("trivet: ")
	if e.op != "" {
		b.WriteString(e.op + ": ")
	}
	b.WriteString(e.Code)
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	} else if e.Code == "precondition_failed" {
		fmt.Fprintf(&b, ": the key is at revision %d", e.ModRevision)
	}
	switch {
	case e.Node != "" && e.Outcome == Unknown:
		b.WriteString(" (node " + e.Node + ", outcome unknown)")
	case e.Node != "":
		b.WriteString(" (node " + e.Node + ")")
	case e.Outcome == Unknown:
		b.WriteString(" (outcome unknown)")
	}
	return b.String()
}

// Is reports whether target is a sentinel that the error matches.
func (e *Error) Is(target error) bool {
	if target == ErrUnknown {
		return e.Outcome == Unknown
	}
	for _, s := range sentinels[e.Code] {
		if s == target {
			return true
		}
	}
	return false
}

// Unwrap returns the causes.
func (e *Error) Unwrap() []error { return e.causes }

// attemptError is the failure of one attempt, as a cause of the call's. It is of the
// same kinds, but for ErrUnknown: what is known of the call, its own Outcome says.
// Another attempt may have settled it, or this one was of something that comes before
// the call, like the opening of a session.
type attemptError struct{ e *Error }

func (a attemptError) Error() string        { return a.e.Error() }
func (a attemptError) Is(target error) bool { return target != ErrUnknown && a.e.Is(target) }
func (a attemptError) Unwrap() []error      { return a.e.causes }

// refusal is a call that the client itself refuses, before anything was sent.
func refusal(op string, code trivetpb.Code, format string, args ...any) *Error {
	return &Error{
		op: op, Code: code.Info().Name, Detail: fmt.Sprintf(format, args...), Outcome: NotApplied,
	}
}
