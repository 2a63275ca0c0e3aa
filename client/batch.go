package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"trivet/trivetpb"
)

const (
	batchPath    = "/v1/batch"
	protobufType = "application/x-protobuf"

	// batchPatience is how long a node may take over a batch before another is
	// asked; it doubles with each round over the nodes. What is in a batch may be
	// asked again wherever the answer is lost, so there is no need to wait longer
	// than an election takes.
	batchPatience = time.Second

	// afterglow is how long an answer is still listened for when the last caller's time
	// is up: it is most likely on its way, and what it says need not be found out later.
	afterglow = 250 * time.Millisecond

	// maxOpOverhead is the most that an operation takes in a batch beside its own
	// bytes: tag and length, and its seq.
	maxOpOverhead = 32
)

// batch is calls that go in one request. It belongs to its carrier; calls is
// changed under the lane's lock only, for the janitor to look at.
type batch struct {
	l        *lane
	calls    []*call
	taken    int  // calls, when it was made
	late     bool // see lane.late; under the lane's lock
	size     int  // about that of the body
	deadline time.Time
	// session is that of the writes in it; nil where they have none.
	session *session
	// most is how many calls go at a time; 0 for all.
	most int
	// body is what is being sent; decoded and final are what decode gathers.
	body    []byte
	decoded []*trivetpb.Result
	final   []*call
}

// errWithdrawn ends an attempt of which a call was withdrawn while it waited for a
// connection.
var errWithdrawn = errors.New("a call was withdrawn before it was sent")

// carry carries the batch until all its calls have ended.
func (b *batch) carry() {
	c := b.l.c
	ctx, cancel := context.WithDeadline(c.ctx, b.deadline.Add(afterglow))
	defer cancel()
	r := &request{
		op: "batch", method: http.MethodPost, path: batchPath, contentType: protobufType,
		write: b.l.write, patience: batchPatience,
	}
	if !b.l.write {
		r.query = b.l.fresh.query(c.Revision())
	}
	if b.l.fresh.lists {
		r.header = http.Header{"Trivet-Part-Bytes": {partBytes}}
	}
	r.transient = true
	if b.l.write {
		var e *Error
		if b.session, e = c.sessions.number(ctx, b); e != nil {
			b.fail(e)
			return
		}
		r.identified, r.sessioned = b.session != nil, b.session != nil
	}
	r.stream = func(ctx context.Context, n *node, patience time.Duration) *Error {
		return b.attempt(ctx, n, r, patience)
	}
	if err := c.run(ctx, r); err != nil {
		b.fail(err.(*Error))
	}
}

// attempt sends what is left of the batch to one node, in parts where it does not do
// as a whole. It returns nil where nothing is left then, else the error that tells
// most of what is.
func (b *batch) attempt(ctx context.Context, n *node, r *request, patience time.Duration) *Error {
	c := b.l.c
	for {
		b.dropGone()
		part := b.calls
		if len(part) == 0 {
			return nil
		}
		most := b.most
		if most > 0 && len(part) > most {
			part = part[:most]
		}
		limit := time.Until(b.deadline)
		r.grace = afterglow
		if p := c.members.patience(n, b.l.write, patience); r.repeatable() && p < limit {
			limit, r.grace = p, 0
		}
		b.write(part)
		var worst *Error
		r.body = b.body
		r.onConn = func() bool { return markSent(part) }
		counted := true
		r.decode = func(a *answer) (err error) {
			// Before the callers are woken, who may call again at once.
			n.underWay.Add(-1)
			counted = false
			worst, err = b.decode(r, n, a, len(part))
			return err
		}
		began := time.Now()
		n.underWay.Add(1)
		var late *time.Timer
		if !b.l.write {
			late = time.AfterFunc(max(lateAfter, lateFactor*n.estimate()), func() { b.l.late(b) })
		}
		e := c.exchange(ctx, n, r, limit)
		if late != nil {
			late.Stop()
		}
		if counted {
			n.underWay.Add(-1)
		}
		r.body = nil
		b.freeBody()
		if e == nil {
			if b.session != nil {
				b.session.heard(began)
			} else if !b.l.write {
				n.took(time.Since(began))
			}
			if worst != nil {
				b.l.reconsider() // the others have landed
				return worst
			}
			if b.most == most {
				b.most *= 2
			}
			continue
		}
		if errors.Is(e, errWithdrawn) && ctx.Err() == nil {
			continue
		}
		for _, a := range part {
			a.failed(e)
		}
		if len(b.calls) == 1 || !b.ofTheWhole(r, e) {
			return e
		}
		if len(part) > 1 {
			b.most = len(part) / 2
		} else {
			b.failFirst(e, 1)
		}
	}
}

// ofTheWhole says that the failure is of the batch as one request, whose parts may do
// better: it or its answer is too large, or something is wrong with one call in it,
// which is then the one to be told.
func (b *batch) ofTheWhole(r *request, e *Error) bool {
	if e.Outcome == NotApplied && e.Status == http.StatusRequestEntityTooLarge {
		b.l.mu.Lock()
		defer b.l.mu.Unlock()
		b.l.maxBytes = max(min(b.l.maxBytes, len(b.body)/2), minBatchBytes)
		return true
	}
	return (e.Outcome == NotApplied && e.Status == http.StatusBadRequest) || (r.repeatable() && errors.Is(e, errAnswerTooLarge))
}

// unsent notes an attempt to do what comes before the sending.
func (b *batch) unsent(e *Error) {
	for _, a := range b.calls {
		failed := *e
		failed.Outcome = NotApplied
		a.failed(&failed)
	}
}

// dropGone takes the calls from the batch that nobody waits for. What may have been
// applied is not sent again for nobody: its seq is held back for Resolve.
func (b *batch) dropGone() {
	if !slices.ContainsFunc(b.calls, (*call).gone) {
		return
	}
	var gone []*call
	b.keep(func(a *call) bool {
		if a.gone() {
			gone = append(gone, a)
			return false
		}
		return true
	})
	b.finish(gone)
}

// keep keeps the calls that f returns true for.
func (b *batch) keep(f func(*call) bool) {
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	// A slice of its own each time: the array is being iterated over by nobody else,
	// but what has ended must not stay reachable from it.
	b.calls = slices.DeleteFunc(b.calls, func(a *call) bool { return !f(a) })
}

var bodies = sync.Pool{New: func() any { return new([]byte) }}

// write writes the body: a BatchRequest of some of the calls.
func (b *batch) write(part []*call) {
	body := *bodies.Get().(*[]byte)
	body = slices.Grow(body[:0], b.size+2*maxOpOverhead)
	var number [2 * binary.MaxVarintLen64]byte
	for _, a := range part {
		seq := number[:0]
		if a.seq != 0 {
			seq = binary.AppendUvarint(append(seq, 2<<3), a.seq) // BatchOp.seq
		}
		body = append(body, 1<<3|2) // BatchRequest.ops
		body = binary.AppendUvarint(body, uint64(len(a.wire)+len(seq)))
		body = append(append(body, a.wire...), seq...)
	}
	if b.session != nil {
		body = binary.AppendUvarint(append(body, 2<<3), b.session.id)    // BatchRequest.session
		body = binary.AppendUvarint(append(body, 3<<3), b.session.ack()) // BatchRequest.ack
	}
	b.body = body
}

// freeBody gives the buffer of the body back, which nobody reads any more.
func (b *batch) freeBody() {
	if cap(b.body) <= 2*batchBytes {
		body := b.body
		bodies.Put(&body)
	}
	b.body = nil
}

// markSent marks calls as sent, right before their first byte may go out. It returns
// false where one has been withdrawn since the body was written: its caller was told
// that it is not sent.
func markSent(part []*call) bool {
	for _, a := range part {
		if a.state.Load() == idle {
			a.state.CompareAndSwap(idle, sent)
		}
		if a.state.Load() == withdrawn {
			return false
		}
	}
	return true
}

// decode takes the results of the first so many calls apart. Those that have one that
// is final end; the others stay in the batch, and the error tells most of why.
func (b *batch) decode(r *request, n *node, a *answer, asked int) (*Error, error) {
	if a.mediaType != protobufType {
		return nil, errors.New("it is no batch of results")
	}
	newest, results, err := b.results(a.body, asked)
	if err != nil {
		return nil, err
	}
	for i, res := range results {
		// All of them before the first is believed. One whose caller has left may have
		// been probed by Resolve, whose answer this is then.
		if res.Problem == nil && !b.calls[i].fits(res) && !b.calls[i].gone() {
			return nil, fmt.Errorf("result %d is none of its operation", i)
		}
	}
	name := a.header.Get("Trivet-Node")
	if name == "" {
		name = n.url
	}
	var worst *Error
	final := b.final[:0]
	i := -1
	b.keep(func(a *call) bool {
		if i++; i >= asked {
			return true // not of this part
		}
		res := results[i]
		newest = max(newest, res.Revision)
		a.node = name
		if res.Problem == nil {
			if a.fits(res) {
				a.result = res
			} else {
				a.unknown = true // for all that is known here
			}
			final = append(final, a)
			return false
		}
		e := r.errorOfProblem(res.Problem, name)
		if e.Code == "too_large" && !a.write && asked > 1 {
			// The answers of one batch have a bound together.
			b.most = asked / 2
			return true
		}
		if !r.retries(e) {
			a.err = e
			final = append(final, a)
			return false
		}
		a.failed(e)
		if worst == nil || e.Outcome == Unknown {
			worst = e
		}
		return true
	})
	b.l.c.saw(newest)
	b.finish(final)
	clear(final)
	b.final = final
	return worst, nil
}

// fail ends what is left of the batch with e.
func (b *batch) fail(e *Error) { b.failFirst(e, len(b.calls)) }

// failFirst ends the first n calls with e.
func (b *batch) failFirst(e *Error, n int) {
	var rest []*call
	b.keep(func(a *call) bool {
		if len(rest) == n {
			return true
		}
		if a.state.Load() != withdrawn {
			failed := *e
			a.err = &failed
			// What other calls of the batch came to is not this one's.
			a.err.Outcome = NotApplied
		}
		rest = append(rest, a)
		return false
	})
	b.finish(rest)
}

// finish ends calls that have been taken from the batch, each with its result or
// error, or without either where its caller has left.
func (b *batch) finish(list []*call) {
	for _, a := range list {
		if a.err != nil {
			a.err.op = a.name()
			if a.unknown && !settled[a.err.Code] {
				a.err.Outcome = Unknown
			}
		}
	}
	if b.session != nil {
		b.session.conclude(list)
	}
	for _, a := range list {
		b.l.c.caches.ended(a)
		if !a.end() {
			if t := a.ticket.Load(); t != nil {
				t.tell(a)
			}
		}
	}
}

// fits says that the result is of the kind that the call has.
func (a *call) fits(res *trivetpb.Result) bool {
	switch a.kind {
	case getCall:
		it := res.GetGet().GetItem()
		return res.GetGet() != nil && (it == nil || (string(it.Key) == a.key && it.ModRevision != 0))
	case putCall:
		return res.GetPut() != nil && res.GetPut().Version != 0 && res.Revision != 0
	case deleteCall, deleteRangeCall:
		return res.GetDelete() != nil && res.Revision != 0
	case addCall:
		return res.GetAdd() != nil
	case countCall:
		return res.GetRange() != nil
	case listCall:
		return a.page != nil && res.Revision != 0
	}
	return res.GetTxn() != nil && res.Revision != 0
}
