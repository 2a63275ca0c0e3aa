package client

import (
	"context"
	"errors"
	"slices"

	"trivet/trivetpb"
)

// Tx is what the function of an Update reads and writes by. It belongs to the one
// call of the function that it was given to.
type Tx struct {
	ctx context.Context
	c   *Client
	// read has the items that were read by key, a zero one but for the key where
	// there was none; at is the revision of the first. writes are the operations that
	// are to be committed, by key.
	read   map[string]Item
	writes map[string]Op
	order  []string
	over   bool
}

var errTxOver = errors.New("trivet: a Tx is not used after its function has returned")

// maxUpdateKeys is how many keys an Update may read, and write: a txn has as many
// comparisons and operations.
const maxUpdateKeys = 512

// Update reads and writes keys as if nobody else did: it calls f, whose reads note
// what they saw and whose writes are gathered, and then commits all writes in one
// Txn, under the condition that nothing that was read has changed. Where something
// has, f is called again, after a pause that grows, until it goes through, the
// context ends, or f returns an error. So f may be called several times, and should
// do nothing that is not undone by doing it again; and what it keeps outside should
// be set, not added to.
//
// An error of f aborts: nothing is written, and it is returned as it is. Where f
// writes nothing, what it read is still checked to have been there together, at one
// moment. The other errors are those of Get and Txn. ErrUnknown ends it: then the
// writes may have been made (see Resolve), and f is not called again.
//
// The result is that of the Txn that went through.
func (c *Client) Update(ctx context.Context, f func(tx *Tx) error, opts ...WriteOption) (TxnResult, error) {
	p := paramsOf(opts, WriteOption.toWrite)
	if p.hasIdempotencyKey {
		return TxnResult{}, refusal("update", trivetpb.Code_BAD_REQUEST, "an idempotency key does not go with Update, which commits another Txn each time")
	}
	ctx, end, err := c.begin(ctx)
	if err != nil {
		return TxnResult{}, (&request{op: "update", write: true}).ended(err, &course{})
	}
	defer end()
	for round := 0; ; round++ {
		tx := &Tx{ctx: ctx, c: c, read: map[string]Item{}, writes: map[string]Op{}}
		err := f(tx)
		tx.over = true
		if err != nil {
			return TxnResult{}, err
		}
		result, err := tx.commit(p)
		if err != nil || result.Succeeded {
			return result, err
		}
		// Somebody else was first: that is certain, as nothing of ours was done.
		if !c.pause(ctx, round, 0) {
			var past course
			past.add(&request{}, &Error{Code: "precondition_failed", Detail: "what was read has changed each time", Outcome: NotApplied})
			past.attempts = round + 1
			return TxnResult{}, (&request{op: "update", write: true}).ended(context.Cause(ctx), &past)
		}
	}
}

// Get returns the item at a key, as the function has written it where it has. The
// error is ErrNotFound where there is none, which is noted as well: it is to be so
// still when the writes are made.
//
// An item that was written in this Tx has the key and the value alone.
func (tx *Tx) Get(key string) (Item, error) {
	if e := tx.check(key); e != nil {
		return Item{}, e
	}
	if op, ok := tx.writes[key]; ok {
		if op.kind == opDelete {
			return Item{}, tx.notFound(key)
		}
		return Item{Key: key, Value: slices.Clone(op.value)}, nil
	}
	it, ok := tx.read[key]
	if !ok {
		var err error
		it, err = tx.c.Get(tx.ctx, key)
		switch {
		case errors.Is(err, ErrNotFound):
			it = Item{Key: key}
		case err != nil:
			return Item{}, err
		}
		tx.read[key] = it
	}
	if it.ModRevision == 0 {
		return Item{}, tx.notFound(key)
	}
	it.Value = slices.Clone(it.Value)
	return it, nil
}

func (tx *Tx) notFound(key string) error {
	return (&request{op: "get " + shown(key)}).errorOfProblem(&trivetpb.Problem{Code: trivetpb.Code_KEY_NOT_FOUND}, "")
}

// Put has the value written when the function has returned. It is copied. A key that
// was read is written only if it is as it was, one that was not whatever it is.
func (tx *Tx) Put(key string, value []byte, opts ...OpPutOption) error {
	op := OpPut(key, append([]byte{}, value...), opts...)
	return tx.write(&op)
}

// Delete has the key deleted when the function has returned.
func (tx *Tx) Delete(key string) error {
	op := OpDelete(key)
	return tx.write(&op)
}

func (tx *Tx) write(op *Op) error {
	if e := firstOf(tx.check(op.key), op.check("update")); e != nil {
		return e
	}
	if _, again := tx.writes[op.key]; !again {
		tx.order = append(tx.order, op.key)
	}
	tx.writes[op.key] = *op
	return nil
}

func (tx *Tx) check(key string) *Error {
	switch {
	case tx.over:
		return &Error{op: "update", Code: codeLocal, Detail: errTxOver.Error(), Outcome: NotApplied, causes: []error{errTxOver}}
	case len(tx.read) >= maxUpdateKeys && !has(tx.read, key), len(tx.writes) >= maxUpdateKeys && !has(tx.writes, key):
		return refusal("update", trivetpb.Code_TOO_LARGE, "an Update reads and writes %d keys at most", maxUpdateKeys)
	}
	return checkKey("update of "+shown(key), key)
}

func has[V any](m map[string]V, key string) bool {
	_, ok := m[key]
	return ok
}

// commit makes the writes, if nothing that was read has changed. It does so also where
// there are none: of one read that says nothing, but of several that they belong
// together.
func (tx *Tx) commit(p *params) (TxnResult, error) {
	txn := tx.c.Txn()
	for _, it := range tx.read {
		txn.If(Unchanged(it))
	}
	for _, key := range tx.order {
		txn.Then(tx.writes[key])
	}
	if len(tx.order) == 0 && len(tx.read) < 2 && len(p.guards) == 0 {
		return TxnResult{Succeeded: true, Revision: tx.c.Revision()}, nil
	}
	var opts []TxnOption
	for _, g := range p.guards {
		opts = append(opts, WithGuard(g.lock, g.token))
	}
	return txn.Commit(tx.ctx, opts...)
}
