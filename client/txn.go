package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"trivet/trivetpb"
)

// Txn is a transaction while it is put together:
//
//	res, err := c.Txn().
//		If(client.Unchanged(item), client.Absent("orders/7")).
//		Then(client.OpPut("orders/7", order), client.OpDelete(item.Key)).
//		Else(client.OpGet(item.Key)).
//		Commit(ctx)
//
// If all comparisons hold, all of Then is done, else all of Else: at one
// revision, with nothing in between, or not at all. A key is written once at
// most. A Txn belongs to one goroutine. It may be committed more than once.
type Txn struct {
	c             *Client
	compares      []Compare
	then, elseOps []Op
}

// Txn begins to put a transaction together.
func (c *Client) Txn() *Txn { return &Txn{c: c} }

// If adds comparisons. Without any, Then is done.
func (t *Txn) If(compares ...Compare) *Txn {
	t.compares = append(t.compares, compares...)
	return t
}

// Then adds operations for the case that every comparison holds.
func (t *Txn) Then(ops ...Op) *Txn {
	t.then = append(t.then, ops...)
	return t
}

// Else adds operations for the case that one does not.
func (t *Txn) Else(ops ...Op) *Txn {
	t.elseOps = append(t.elseOps, ops...)
	return t
}

// TxnResult is what a Txn did.
type TxnResult struct {
	// Succeeded says which branch was done: Then, or Else.
	Succeeded bool
	// Revision is the one that the Txn made or, where it changed nothing, the
	// one that it saw.
	Revision uint64
	// Results holds one for each operation of the branch, in their order.
	Results []OpResult
	// Replayed is as in PutResult; those of the Results are not set.
	Replayed bool
}

// Commit has the transaction done. That a comparison does not hold is no error:
// see TxnResult.Succeeded. A Txn that only reads may say how fresh it is to be,
// and is retried as a read; any other is a write (see the package's contract of
// retries), and takes guards and an idempotency key. An operation that fails
// (ErrNotANumber, ErrOverflow, ErrLeaseNotFound, ErrQuota) fails the Txn, as a
// guard does (ErrGuardFailed): nothing is applied then.
func (t *Txn) Commit(ctx context.Context, opts ...TxnOption) (TxnResult, error) {
	const op = "txn"
	p := paramsOf(opts, TxnOption.toTxn)
	writes := slices.ContainsFunc(t.then, writesKey) || slices.ContainsFunc(t.elseOps, writesKey)
	if !p.hasIdempotencyKey {
		return t.carried(ctx, writes, p)
	}
	r := &request{op: op, method: http.MethodPost, path: txnPath, contentType: jsonType}
	// Guards are checked where writes are, so a txn that has one goes there.
	r.write = writes || len(p.guards) > 0
	if e := firstOf(t.check(op), p.addFreshness(op, t.c.Revision(), &r.query), r.addPromises(p)); e != nil {
		return TxnResult{}, e
	}
	if r.write && p.asksFreshness() {
		return TxnResult{}, refusal(op, trivetpb.Code_BAD_REQUEST, "a freshness goes with a txn that only reads and has no guard")
	}
	var err error
	if r.body, err = t.encode(); err != nil {
		return TxnResult{}, refusal(op, trivetpb.Code_BAD_REQUEST, "%v", err)
	}
	var result TxnResult
	r.decode = func(a *answer) (err error) {
		result, err = t.decode(a)
		result.Replayed = a.replayed()
		return err
	}
	if err := t.c.do(ctx, r); err != nil {
		return TxnResult{}, err
	}
	return result, nil
}

func writesKey(op Op) bool { return !op.reads() }

// carried is Commit in a batch.
func (t *Txn) carried(ctx context.Context, writes bool, p *params) (TxnResult, error) {
	a := t.c.newCall(txnCall, writes || len(p.guards) > 0)
	fresh, e := p.freshness(a.name, t.c.Revision())
	if e = firstOf(t.check(a.name()), e, p.checkGuards(a.name())); e != nil {
		return TxnResult{}, e
	}
	lane := t.c.lanes.writes
	switch {
	case !a.write:
		lane = t.c.readLane(fresh)
	case p.asksFreshness():
		return TxnResult{}, refusal(a.name(), trivetpb.Code_BAD_REQUEST, "a freshness goes with a txn that only reads and has no guard")
	}
	for _, ops := range [][]Op{t.then, t.elseOps} {
		if i := slices.IndexFunc(ops, writesKey); i >= 0 && a.key == "" {
			a.key = ops[i].key // for Resolve
		}
	}
	a.encodeTxn(t, p.guards)
	if e := t.c.carried(ctx, lane, a); e != nil {
		return TxnResult{}, e
	}
	ops := t.elseOps
	if a.result.GetTxn().Succeeded {
		ops = t.then
	}
	result := txnResultOf(a.result, func(i int) bool { return i < len(ops) && ops[i].keysOnly })
	a.free()
	return result, nil
}

func (t *Txn) check(call string) *Error {
	for _, cmp := range t.compares {
		if cmp.op == "" {
			return refusal(call, trivetpb.Code_BAD_REQUEST, "the zero Compare is no comparison")
		}
		if !cmp.prefix {
			if e := checkKey(call, cmp.key); e != nil {
				return e
			}
		}
	}
	for _, ops := range [][]Op{t.then, t.elseOps} {
		for i := range ops {
			if e := ops[i].check(call); e != nil {
				return e
			}
		}
	}
	return nil
}

func (t *Txn) encode() ([]byte, error) {
	doc := struct {
		If   []compareJSON `json:"if,omitempty"`
		Then []opJSON      `json:"then,omitempty"`
		Else []opJSON      `json:"else,omitempty"`
	}{}
	for _, cmp := range t.compares {
		doc.If = append(doc.If, cmp.json())
	}
	for i := range t.then {
		doc.Then = append(doc.Then, t.then[i].json())
	}
	for i := range t.elseOps {
		doc.Else = append(doc.Else, t.elseOps[i].json())
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(doc)
	return b.Bytes(), err
}

func (t *Txn) decode(a *answer) (TxnResult, error) {
	var doc struct {
		Succeeded *bool             `json:"succeeded"`
		Revision  uint64            `json:"revision"`
		Results   []json.RawMessage `json:"results"`
	}
	if err := decodeJSON(a, &doc); err != nil {
		return TxnResult{}, err
	}
	if doc.Succeeded == nil || doc.Revision == 0 {
		return TxnResult{}, missing("succeeded or revision")
	}
	ops := t.elseOps
	if *doc.Succeeded {
		ops = t.then
	}
	if len(doc.Results) != len(ops) {
		return TxnResult{}, fmt.Errorf("the txn has %d operations, the document %d results", len(ops), len(doc.Results))
	}
	res := TxnResult{Succeeded: *doc.Succeeded, Revision: doc.Revision, Results: make([]OpResult, len(ops))}
	for i := range ops {
		var err error
		if res.Results[i], err = ops[i].result(doc.Results[i], doc.Revision); err != nil {
			return TxnResult{}, fmt.Errorf("result %d: %w", i, err)
		}
	}
	return res, nil
}
