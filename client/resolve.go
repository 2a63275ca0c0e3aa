package client

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"trivet/trivetpb"
)

// ticket is what a write of unknown outcome can be asked for by. It goes with the
// *Error that the write failed with.
type ticket struct {
	session *session
	seq     uint64
	// kind, key and keys are those of the call; name is it, for errors.
	kind callKind
	key  string
	keys KeyRange

	// heldSince belongs to the session.
	heldSince time.Time

	mu sync.Mutex
	// known: the outcome is. result is the answer where the write was applied, err
	// why it was not; neither where it never arrived.
	known  bool
	result *trivetpb.Result
	err    *Error
	// lost: it is not known and will not be.
	lost bool
}

// ensureTicket returns the one ticket of the call.
func (a *call) ensureTicket() *ticket {
	if t := a.ticket.Load(); t != nil {
		return t
	}
	a.ticket.CompareAndSwap(nil, &ticket{session: a.session, seq: a.seq, kind: a.kind, key: a.key, keys: a.keys})
	return a.ticket.Load()
}

// tell notes what came of the call after its caller had left.
func (t *ticket) tell(a *call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.known:
	case a.result != nil:
		t.known, t.result = true, a.result
	case a.err != nil && a.err.Outcome == NotApplied:
		t.known, t.err = true, a.err
	case a.err == nil && !a.unknown:
		t.known = true
	}
}

func (t *ticket) isKnown() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.known
}

// giveUp notes that the seq is not held back any more.
func (t *ticket) giveUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost = true
}

// Resolution is what became of a write.
type Resolution struct {
	// Applied says that the write was applied; if not, it was not and never will be.
	Applied bool
	// The field of the call that it was is set where it was applied: Put, Delete (of
	// DeleteRange too), Add, Txn, or Lease (of LeaseGrant and LeaseRevoke).
	OpResult
	Txn   *TxnResult
	Lease *Lease
	// Err is why the write failed, where it reached the cluster and did: ErrConflict,
	// say. It is nil where the write was applied or never arrived.
	Err error
}

// Resolve finds out what became of a write whose error matched ErrUnknown: it is
// given that error, or one that wraps it. Where it returns without an error the
// answer is final: an unapplied write will not be applied later either. It asks the
// cluster until the context ends, and may be called again.
//
// The answer is kept for 10 minutes, for 1,024 such writes at a time; but not over
// the end of the session that the write had, which is by the Client's Close, or by a
// minute without any contact with the cluster. The error matches ErrUnknown for good
// then, and ErrSessionExpired. It is ErrBadRequest for an error that is of no write
// of this Client with an identity.
func (c *Client) Resolve(ctx context.Context, err error) (Resolution, error) {
	var failed *Error
	if !errors.As(err, &failed) || failed.ticket == nil || failed.ticket.session.of != c {
		return Resolution{}, refusal("resolve", trivetpb.Code_BAD_REQUEST, "the error is of no write of this client with an identity")
	}
	t := failed.ticket
	op := "resolve " + (&call{kind: t.kind, key: t.key, keys: t.keys}).name()
	if res, e := t.answer(op, failed.Node); e != nil || res != nil {
		return res.or(), e.orNil()
	}
	result, node, e := c.probe(ctx, op, t)
	if e != nil {
		if res, told := t.answer(op, failed.Node); told == nil && res != nil {
			return *res, nil // the answer came by itself meanwhile
		}
		return Resolution{}, e
	}
	t.settle(op, node, result)
	t.session.release(t)
	res, e := t.answer(op, node)
	return res.or(), e.orNil()
}

func (r *Resolution) or() Resolution {
	if r == nil {
		return Resolution{}
	}
	return *r
}

// orNil is e as an error.
func (e *Error) orNil() error {
	if e == nil {
		return nil
	}
	return e
}

// answer returns what is known; nothing where the cluster is to be asked.
func (t *ticket) answer(op, node string) (*Resolution, *Error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.known && t.result != nil:
		return resolutionOf(t.kind, t.result), nil
	case t.known:
		return &Resolution{Err: t.err.orNil()}, nil
	case t.lost:
		return nil, &Error{
			op: op, Code: "session_expired", Node: node,
			Detail: "the identity of the write is given up, so that its outcome can not be found out any more",
		}
	}
	return nil, nil
}

// settle takes over the result of a probe.
func (t *ticket) settle(op, node string, result *trivetpb.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known {
		return
	}
	t.known = true
	switch p := result.Problem; {
	case t.tookIt(result):
	case p != nil:
		t.err = (&request{op: op, write: true}).errorOfProblem(p, node)
	default:
		t.result = result
	}
}

// The probe. A session answers a repeat of a seq with its first answer, and does not
// ask whether it is the same command that is repeated. So a command that changes
// nothing, sent under the seq of the write in question, has one of two ends. Either
// the write was applied before: then the answer is the write's. Or it was not: then
// the probe takes the seq, and whatever is left of the write on the way is from then
// on a repeat, which is answered with the probe's answer and never applied. Both are
// final. The seq is not acknowledged until then (session.hold), or the cluster could
// tell neither.
//
// The probe must be told from the write by its answer, also where the probe itself is
// repeated, and gets its own answer as a replay. Of a txn no operation has a condition
// of its own, so a deletion that fails on one is none; and any other write is no txn.
// It must be a write, or it would be answered as a read, without its seq: hence a
// deletion that is never carried out, of the same keys, which who may write them may.

// neverRevision is a revision that no key has: the cluster's numbers end there.
const neverRevision = 1<<53 - 1

func (t *ticket) probe() *trivetpb.Op {
	if t.kind == txnCall {
		key := t.key
		if key == "" {
			key = "\x00"
		}
		return &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{
			Key:          []byte(key),
			Precondition: &trivetpb.Precondition{Kind: trivetpb.Precondition_MOD_REVISION, ModRevision: neverRevision},
		}}}
	}
	key := []byte(t.key)
	if t.kind == otherCall {
		key = []byte{0}
	}
	deletion := &trivetpb.DeleteOp{Key: key}
	if t.kind == deleteRangeCall {
		deletion = &trivetpb.DeleteOp{Range: t.keys.proto()}
		if key = deletion.Range.Start; len(key) == 0 {
			key = []byte{0}
		}
	}
	return &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{
		// Of one key, so that it cannot hold for want of any: it is there and it is not.
		If: []*trivetpb.Compare{
			{Key: key, Target: trivetpb.Compare_VERSION, Relation: trivetpb.Compare_EQUAL},
			{Key: key, Target: trivetpb.Compare_VERSION, Relation: trivetpb.Compare_NOT_EQUAL},
		},
		Then: []*trivetpb.Op{{Op: &trivetpb.Op_Delete{Delete: deletion}}},
	}}}
}

// tookIt says that the result is the probe's own.
func (t *ticket) tookIt(result *trivetpb.Result) bool {
	if t.kind == txnCall {
		return result.GetProblem().GetCode() == trivetpb.Code_PRECONDITION_FAILED
	}
	return result.GetTxn() != nil
}

// probe sends the probe until it has an answer of the session's.
func (c *Client) probe(ctx context.Context, op string, t *ticket) (result *trivetpb.Result, from string, e *Error) {
	req := &trivetpb.BatchRequest{
		Session: t.session.id, Ack: t.session.ack(),
		Ops: []*trivetpb.BatchOp{{Op: t.probe(), Seq: t.seq}},
	}
	if req.Ack >= t.seq { // it was given up this moment
		req.Ack = 0
	}
	body, err := req.MarshalVT()
	if err != nil {
		panic(err) // it has no way to fail for a message that is whole
	}
	r := &request{
		op: op, method: http.MethodPost, path: batchPath, contentType: protobufType, body: body, write: true, identified: true,
	}
	var refused *Error
	r.decode = func(a *answer) error {
		refused = nil
		var resp trivetpb.BatchResponse
		if a.mediaType != protobufType || resp.UnmarshalVT(a.body) != nil || len(resp.Results) != 1 {
			return errors.New("it is no batch of one result")
		}
		from = a.header.Get("Trivet-Node")
		result = resp.Results[0]
		c.saw(max(resp.Revision, result.Revision))
		if p := result.Problem; p != nil && !result.Replayed && !t.tookIt(result) {
			refused = r.errorOfProblem(p, from) // of the probe, not of the write
			// What the write came to is as unknown as before.
			refused.Outcome = Unknown
		}
		return nil
	}
	ask := *r
	ask.stream = func(ctx context.Context, n *node, patience time.Duration) *Error {
		began := time.Now()
		if e := c.exchange(ctx, n, r, min(timeLeft(ctx), patience)); e != nil {
			e.Outcome = Unknown
			return e
		}
		if refused == nil {
			t.session.heard(began)
		} else if refused.Code == "session_expired" {
			t.session.expire()
		}
		return refused
	}
	if err := c.do(ctx, &ask); err != nil {
		e = err.(*Error)
		e.Outcome = Unknown
		return nil, "", e
	}
	return result, from, nil
}
