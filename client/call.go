package client

import (
	"context"
	"sync/atomic"
	"time"

	"trivet/trivetpb"
)

// call is one operation on its way through a lane. Between submit and its end it
// is with two parties: its caller, who waits and may leave, and its carrier, who
// has it in a batch. Which of them may still do what is decided by state alone.
type call struct {
	of   *Client
	kind callKind
	// write says that it may change something, sessioned that it has a number of
	// a session for as long as it is repeated.
	write bool
	// key or keys is what it is about.
	key  string
	keys KeyRange
	// wire is the BatchOp as it goes into a request, but for its seq.
	wire []byte
	// deadline is the context's, or Config.Timeout after the call; own says so of
	// the latter, which nobody but the janitor keeps.
	deadline time.Time
	own      bool

	state atomic.Uint32
	// ready holds a value once result, err or expired is there.
	ready chan struct{}

	// session and seq are the identity, set before the state first becomes sent.
	session *session
	seq     uint64
	// unknown is the carrier's: an attempt may have been applied, or may yet be.
	unknown bool
	// past is how it has gone so far, for the error of a caller who leaves.
	past atomic.Pointer[course]
	// ticket is what the error of a caller who left, or is about to, resolves by.
	ticket atomic.Pointer[ticket]

	// result and err are the carrier's until the state is ended, expired is the
	// janitor's, who has left it for its caller.
	result *trivetpb.Result
	page   *listPage // of a listCall
	// keysOnly goes with listCall.
	keysOnly bool
	node     string
	err      *Error
	expired  *Error

	// What most results are decoded into, and what wire is made of: here so that they
	// need not be allocated.
	messages struct {
		result   trivetpb.Result
		oneofGet trivetpb.Result_Get
		oneofPut trivetpb.Result_Put
		get      trivetpb.GetResult
		put      trivetpb.PutResult
		item     trivetpb.Item
	}
	scratch struct {
		batchOp trivetpb.BatchOp
		op      trivetpb.Op
		opPut   trivetpb.Op_Put
		opGet   trivetpb.Op_Get
		put     trivetpb.PutOp
		get     trivetpb.GetOp
		key     []byte
	}
	txn *txnMessages // nil until it has been a txnCall
}

type callKind uint8

const (
	getCall callKind = iota
	putCall
	deleteCall
	deleteRangeCall
	addCall
	countCall
	listCall
	txnCall
	// otherCall is a write that is no operation on keys; key is its name.
	otherCall
)

// The states of a call.
const (
	// idle: not a byte of it is out that may be applied. Its caller can withdraw
	// it, its carrier can send it.
	idle uint32 = iota
	// sent: it may be applied, or have been.
	sent
	// withdrawn: its caller has left, and it will not be sent (again). It
	// certainly was not applied.
	withdrawn
	// left: its caller has left while it was sent.
	left
	// ended: result or err is there.
	ended
)

// newCall returns a call that is the caller's until it is submitted. They are kept by
// client, as channels must not leave the bubble of a synctest.
func (c *Client) newCall(kind callKind, write bool) *call {
	a, _ := c.calls.Get().(*call)
	if a == nil {
		a = &call{of: c, ready: make(chan struct{}, 1)}
	}
	a.kind, a.write = kind, write
	return a
}

// maxPooledWire is the largest buffer that an idle call keeps.
const maxPooledWire = 16 << 10

// free gives back a call that has ended, and to which nobody else has a pointer.
func (a *call) free() {
	if a.state.Load() != ended {
		return // its carrier may still look at it
	}
	wire := a.wire[:0]
	if cap(wire) > maxPooledWire {
		wire = nil
	}
	a.key, a.keys, a.wire = "", KeyRange{}, wire
	a.deadline, a.own = time.Time{}, false
	a.session, a.seq, a.unknown = nil, 0, false
	if a.past.Load() != nil {
		a.past.Store(nil)
	}
	if a.ticket.Load() != nil {
		a.ticket.Store(nil)
	}
	a.result, a.node, a.err = nil, "", nil
	a.page, a.keysOnly = nil, false
	a.messages.item.Value, a.messages.result.Problem = nil, nil // the value is the caller's
	if a.messages.put.Prev != nil {
		a.messages.put.Prev = nil
	}
	if a.kind == txnCall && a.txn != nil {
		a.messages.result.Result = nil
		a.txn.forget()
	}
	a.state.Store(idle)
	a.of.calls.Put(a)
}

// name is the call and what it is about, for errors.
func (a *call) name() string {
	switch a.kind {
	case getCall:
		return "get " + shown(a.key)
	case putCall:
		return "put " + shown(a.key)
	case deleteCall:
		return "delete " + shown(a.key)
	case deleteRangeCall:
		return "delete " + a.keys.String()
	case addCall:
		return "add to " + shown(a.key)
	case countCall:
		return "count " + a.keys.String()
	case listCall:
		return "list " + a.keys.String()
	case otherCall:
		return a.key
	}
	return "txn"
}

// wait waits until the call has ended, or ctx has. It returns nil where there is a
// result.
func (a *call) wait(ctx context.Context) *Error {
	if done := ctx.Done(); done == nil {
		<-a.ready
	} else {
		select {
		case <-a.ready:
		case <-done:
			if e := a.leave(context.Cause(ctx)); e != nil {
				return e
			}
			<-a.ready // somebody else was first
		}
	}
	if a.state.Load() != ended {
		return a.expired
	}
	return a.err
}

// leave ends the call for its caller, and returns the error that is his. It
// returns nil where the call has ended, or somebody else has left it.
func (a *call) leave(cause error) *Error {
	for {
		switch a.state.Load() {
		case idle:
			if a.state.CompareAndSwap(idle, withdrawn) {
				return a.left(cause, NotApplied)
			}
		case sent:
			// The ticket goes first: who finds the caller gone looks for it.
			if a.session != nil {
				a.ensureTicket()
			}
			if a.state.CompareAndSwap(sent, left) {
				if !a.write {
					return a.left(cause, NotApplied)
				}
				return a.left(cause, Unknown)
			}
		default:
			return nil
		}
	}
}

// left is the error of a caller who has left.
func (a *call) left(cause error, outcome Outcome) *Error {
	past := course{}
	if p := a.past.Load(); p != nil {
		past = *p
	}
	past.unknown = outcome == Unknown
	r := &request{op: a.name(), write: a.write}
	e := r.ended(cause, &past).(*Error)
	if outcome == Unknown {
		e.ticket = a.ticket.Load()
	}
	return e
}

// end ends the call with the result or error that it has been given, and wakes its
// caller. It returns false where the caller has left. After it has returned true
// the call is the caller's.
func (a *call) end() bool {
	for {
		s := a.state.Load()
		if s != idle && s != sent {
			return false
		}
		if a.state.CompareAndSwap(s, ended) {
			a.ready <- struct{}{}
			return true
		}
	}
}

// gone says that nobody waits for the call.
func (a *call) gone() bool {
	s := a.state.Load()
	return s == withdrawn || s == left
}

// failed notes an attempt that ended with e. Where that proves that the call was
// not applied it can be withdrawn again.
func (a *call) failed(e *Error) {
	past := course{attempts: 1, last: e}
	if p := a.past.Load(); p != nil {
		past.attempts += p.attempts
	}
	a.past.Store(&past)
	if a.write && e.Outcome == Unknown {
		a.unknown = true
	}
	if !a.unknown {
		a.state.CompareAndSwap(sent, idle)
	}
}
