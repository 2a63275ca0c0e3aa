package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"trivet/trivetpb"
)

// Item is a key as it stands at some revision. The words are etcd's.
type Item struct {
	// Key may hold any bytes.
	Key string
	// Value is the caller's to keep and change. Nil where it was not asked for
	// (KeysOnly), else not nil.
	Value []byte
	// CreateRevision is the revision of the write that created the key, after
	// its last deletion.
	CreateRevision uint64
	// ModRevision is the revision of the last write to the key.
	ModRevision uint64
	// Version counts the writes since creation; 1 at creation.
	Version uint64
	// Lease is the id of the lease that the key is attached to; 0 for none.
	Lease uint64
}

// PutResult is what a put did.
type PutResult struct {
	// Revision is the one that the write made: the key's ModRevision now.
	Revision uint64
	// Version is the key's now.
	Version uint64
	// Created says that the key was not there before.
	Created bool
	// Prev is the item before, with WithPrev; nil where there was none.
	Prev *Item
	// Replayed says that the write had been applied before under the same
	// idempotency key, and this is the answer of then.
	Replayed bool
}

// DeleteResult is what a deletion did.
type DeleteResult struct {
	// Revision is the one that the write made or, where there was nothing to
	// delete, the present one.
	Revision uint64
	// Deleted is how many keys were.
	Deleted uint64
	// Prev is what they held, with WithPrev.
	Prev []Item
	// Replayed is as in PutResult.
	Replayed bool
}

// Get returns the item at a key. The error is ErrNotFound where there is none;
// with AtRevision also ErrCompacted or ErrFutureRevision.
func (c *Client) Get(ctx context.Context, key string, opts ...GetOption) (Item, error) {
	p := paramsOf(opts, GetOption.toGet)
	if p.hasRevision {
		return c.getAt(ctx, key, p)
	}
	a := c.newCall(getCall, false)
	a.key = key
	fresh, e := p.freshness(a.name, c.Revision())
	if e == nil {
		e = a.checkKey()
	}
	if e == nil {
		a.encodeGet(key)
		e = c.carried(ctx, c.readLane(fresh), a)
	}
	if e != nil {
		return Item{}, e
	}
	it := a.result.GetGet().Item
	if it == nil {
		e = (&request{op: a.name()}).errorOfProblem(&trivetpb.Problem{Code: trivetpb.Code_KEY_NOT_FOUND}, a.node)
		a.free()
		return Item{}, e
	}
	item := Item{
		Key: key, Value: it.Value, CreateRevision: it.CreateRevision, ModRevision: it.ModRevision,
		Version: it.Version, Lease: it.Lease,
	}
	if item.Value == nil {
		item.Value = []byte{}
	}
	a.free()
	return item, nil
}

// carried has the call carried in its lane. Where it returns nil the call has its
// result, and is to be freed once that has been looked at.
func (c *Client) carried(ctx context.Context, l *lane, a *call) *Error {
	if e := l.submit(ctx, a); e != nil {
		return e
	}
	e := a.wait(ctx)
	if e != nil && a.state.Load() == withdrawn {
		l.forget(a)
	}
	return e
}

// checkKey refuses a call whose key no server takes.
func (a *call) checkKey() *Error {
	if len(a.key) > 0 && len(a.key) <= maxKeyBytes {
		return nil // without making a name for errors
	}
	return checkKey(a.name(), a.key)
}

// getAt is Get at an old revision, which goes in a request of its own.
func (c *Client) getAt(ctx context.Context, key string, p *params) (Item, error) {
	op := "get " + shown(key)
	r := &request{op: op, method: http.MethodGet, path: keyPath(key), header: http.Header{"Accept": {octetStream}}}
	if e := firstOf(checkKey(op, key), p.addRead(op, c.Revision(), &r.query)); e != nil {
		return Item{}, e
	}
	var item Item
	r.decode = func(a *answer) (err error) {
		item, err = itemOfHeaders(key, a)
		return err
	}
	if err := c.do(ctx, r); err != nil {
		return Item{}, err
	}
	return item, nil
}

// itemOfHeaders makes an item of a raw value and the headers that go with it.
func itemOfHeaders(key string, a *answer) (Item, error) {
	if a.status != http.StatusOK || a.mediaType != octetStream {
		return Item{}, errors.New("it is no value")
	}
	it := Item{Key: key, Value: a.body}
	if it.Value == nil {
		it.Value = []byte{}
	}
	tag := strings.TrimSuffix(strings.TrimPrefix(a.header.Get("ETag"), `"`), `"`)
	for _, f := range []struct {
		name, text string
		into       *uint64
	}{
		{"ETag", tag, &it.ModRevision},
		{"Trivet-Create-Revision", a.header.Get("Trivet-Create-Revision"), &it.CreateRevision},
		{"Trivet-Version", a.header.Get("Trivet-Version"), &it.Version},
		{"Trivet-Lease", a.header.Get("Trivet-Lease"), &it.Lease},
	} {
		var err error
		if *f.into, err = strconv.ParseUint(f.text, 10, 64); err != nil {
			return Item{}, fmt.Errorf("the header %s is missing or malformed", f.name)
		}
	}
	return it, nil
}

// Put writes a value. The value is not changed, and not used once Put has
// returned. The error is ErrConflict where the condition of an option does not
// hold, ErrGuardFailed where a guard does not, ErrLeaseNotFound where there is no
// such lease, ErrTooLarge where the value is longer than the cluster takes,
// ErrQuota where the store is full.
func (c *Client) Put(ctx context.Context, key string, value []byte, opts ...PutOption) (PutResult, error) {
	p := paramsOf(opts, PutOption.toPut)
	if p.hasIdempotencyKey || len(value) > batchBytes {
		return c.putAlone(ctx, key, value, p)
	}
	a := c.newCall(putCall, true)
	a.key = key
	if e := a.checkKey(); e != nil {
		return PutResult{}, e
	}
	if p.hasLease || p.hasTTL || len(p.guards) > 0 {
		if e := firstOf(p.checkLease(a.name()), p.checkGuards(a.name())); e != nil {
			return PutResult{}, e
		}
	}
	a.encodePut(key, value, p)
	if e := c.carried(ctx, c.lanes.writes, a); e != nil {
		return PutResult{}, e
	}
	put := putResultOf(a.result)
	a.free()
	return put, nil
}

// putAlone is Put in a request of its own: one that has an idempotency key, which is
// of a request, or a value that is as long as a batch may be.
func (c *Client) putAlone(ctx context.Context, key string, value []byte, p *params) (PutResult, error) {
	op := "put " + shown(key)
	r := &request{
		op: op, method: http.MethodPut, path: keyPath(key), header: http.Header{},
		contentType: octetStream, body: value, write: true, inSession: true, kind: putCall, key: key,
	}
	if e := firstOf(checkKey(op, key), p.addLease(op, &r.query), r.addPromises(p)); e != nil {
		return PutResult{}, e
	}
	p.condition.addTo(r.header)
	if p.prev {
		r.query.add("prev", "true")
	}
	var result PutResult
	r.decode = func(a *answer) (err error) {
		var doc struct {
			Revision uint64 `json:"revision"`
			putJSON
		}
		if err := decodeJSON(a, &doc); err != nil {
			return err
		}
		if doc.Revision == 0 {
			return missing("revision")
		}
		result, err = doc.result(doc.Revision)
		result.Replayed = a.replayed()
		return err
	}
	if err := c.do(ctx, r); err != nil {
		return PutResult{}, err
	}
	return result, nil
}

// Delete deletes a key. One that is not there is deleted 0 times, which is no
// error unless a condition says so (ErrConflict).
func (c *Client) Delete(ctx context.Context, key string, opts ...DeleteOption) (DeleteResult, error) {
	p := paramsOf(opts, DeleteOption.toDelete)
	op := "delete " + shown(key)
	if p.condition == (condition{kind: ifRevision}) {
		return DeleteResult{}, refusal(op, trivetpb.Code_BAD_REQUEST, "IfRevision(0) asks to delete a key that is not there")
	}
	if !p.hasIdempotencyKey {
		a := c.newCall(deleteCall, true)
		a.key = key
		if e := firstOf(a.checkKey(), p.checkGuards(op)); e != nil {
			return DeleteResult{}, e
		}
		return c.delete(ctx, a, &trivetpb.DeleteOp{Key: []byte(key), Prev: p.prev, Precondition: p.condition.proto()}, p)
	}
	r := &request{op: op, method: http.MethodDelete, path: keyPath(key), header: http.Header{}, write: true}
	if e := firstOf(checkKey(op, key), r.addPromises(p)); e != nil {
		return DeleteResult{}, e
	}
	p.condition.addTo(r.header)
	if p.prev {
		r.query.add("prev", "true")
	}
	return c.deletion(ctx, r, false)
}

// DeleteRange deletes all keys of a range at one revision.
func (c *Client) DeleteRange(ctx context.Context, keys KeyRange, opts ...WriteOption) (DeleteResult, error) {
	op := "delete " + keys.String()
	p := paramsOf(opts, WriteOption.toWrite)
	if !p.hasIdempotencyKey {
		a := c.newCall(deleteRangeCall, true)
		a.keys = keys
		if e := firstOf(keys.check(op, true), p.checkGuards(op)); e != nil {
			return DeleteResult{}, e
		}
		return c.delete(ctx, a, &trivetpb.DeleteOp{Range: keys.proto(), Prev: p.prev}, p)
	}
	r := &request{op: op, method: http.MethodDelete, path: kvPath, write: true}
	if e := firstOf(keys.check(op, true), r.addPromises(p)); e != nil {
		return DeleteResult{}, e
	}
	keys.addTo(&r.query)
	if keys.kind == rangeAll {
		r.query.add("all", "true")
	}
	return c.deletion(ctx, r, true)
}

// delete has a deletion carried.
func (c *Client) delete(ctx context.Context, a *call, op *trivetpb.DeleteOp, p *params) (DeleteResult, error) {
	a.encodeOp(&trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: op}}, p.guards)
	if e := c.carried(ctx, c.lanes.writes, a); e != nil {
		return DeleteResult{}, e
	}
	deleted := deleteResultOf(a.result)
	a.free()
	return deleted, nil
}

func (c *Client) deletion(ctx context.Context, r *request, ofRange bool) (result DeleteResult, err error) {
	r.decode = func(a *answer) (err error) {
		var doc struct {
			Revision uint64 `json:"revision"`
			deleteJSON
		}
		if err := decodeJSON(a, &doc); err != nil {
			return err
		}
		if doc.Revision == 0 {
			return missing("revision")
		}
		result, err = doc.result(doc.Revision, ofRange)
		result.Replayed = a.replayed()
		return err
	}
	if err := c.do(ctx, r); err != nil {
		return DeleteResult{}, err
	}
	return result, nil
}

// Add adds delta to the number at a key and returns the sum. A missing key
// counts from 0; the value is decimal text, which Get returns and Put may set.
// The error is ErrNotANumber or ErrOverflow where there is no sum.
func (c *Client) Add(ctx context.Context, key string, delta int64, opts ...WriteOption) (int64, error) {
	op := "add to " + shown(key)
	p := paramsOf(opts, WriteOption.toWrite)
	if !p.hasIdempotencyKey {
		a := c.newCall(addCall, true)
		a.key = key
		if e := firstOf(a.checkKey(), p.checkGuards(op)); e != nil {
			return 0, e
		}
		a.encodeOp(&trivetpb.Op{Op: &trivetpb.Op_Add{Add: &trivetpb.AddOp{Key: []byte(key), Delta: delta}}}, p.guards)
		if e := c.carried(ctx, c.lanes.writes, a); e != nil {
			return 0, e
		}
		sum := a.result.GetAdd().Value
		a.free()
		return sum, nil
	}
	r := &request{op: op, method: http.MethodPost, path: keyPath(key), write: true}
	if e := firstOf(checkKey(op, key), r.addPromises(p)); e != nil {
		return 0, e
	}
	r.query.add("add", strconv.FormatInt(delta, 10))
	var sum int64
	r.decode = func(a *answer) error {
		var doc addJSON
		if err := decodeJSON(a, &doc); err != nil {
			return err
		}
		if doc.Value == nil {
			return missing("value")
		}
		sum = *doc.Value
		return nil
	}
	if err := c.do(ctx, r); err != nil {
		return 0, err
	}
	return sum, nil
}

// checkKey refuses what no server takes, without asking one.
func checkKey(op, key string) *Error {
	switch {
	case key == "":
		return refusal(op, trivetpb.Code_BAD_KEY, "the key is empty")
	case len(key) > maxKeyBytes:
		return refusal(op, trivetpb.Code_BAD_KEY, "the key has %d bytes, the most is %d", len(key), maxKeyBytes)
	}
	return nil
}

// firstOf returns the first that is not nil.
func firstOf(errs ...*Error) *Error {
	for _, e := range errs {
		if e != nil {
			return e
		}
	}
	return nil
}
