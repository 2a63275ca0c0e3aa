package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"trivet/trivetpb"
)

// results decodes the BatchResponse to the first so many calls, each result into what
// its call holds for it, and returns the highest revision of all.
func (b *batch) results(body []byte, asked int) (newest uint64, list []*trivetpb.Result, err error) {
	malformed := errors.New("the batch of results is malformed")
	list = b.decoded[:0]
	for len(body) > 0 {
		tag, n := binary.Uvarint(body)
		if n <= 0 {
			return 0, nil, malformed
		}
		body = body[n:]
		number, n := binary.Uvarint(body)
		if n <= 0 {
			return 0, nil, malformed
		}
		body = body[n:]
		switch tag {
		case 1 << 3: // BatchResponse.revision
			newest = max(newest, number)
		case 2<<3 | 2: // BatchResponse.results
			if number > uint64(len(body)) {
				return 0, nil, malformed
			}
			if len(list) == asked {
				return 0, nil, fmt.Errorf("the batch has %d operations, the answer more results", asked)
			}
			res := b.calls[len(list)].decode(body[:number])
			if res == nil {
				return 0, nil, malformed
			}
			newest = max(newest, res.Revision)
			list = append(list, res)
			body = body[number:]
		default:
			if tag&7 == 2 { // of a newer server
				if number > uint64(len(body)) {
					return 0, nil, malformed
				}
				body = body[number:]
			} else if tag&7 != 0 {
				return 0, nil, malformed
			}
		}
	}
	b.decoded = list
	if len(list) != asked {
		return 0, nil, fmt.Errorf("the batch has %d operations, the answer %d results", asked, len(list))
	}
	return newest, list, nil
}

// decode decodes the result of a call; nil where it is malformed. That of a get, put or
// txn goes into messages that the call has already: its value alone is allocated, which
// becomes its caller's.
func (a *call) decode(data []byte) *trivetpb.Result {
	s := &a.messages
	s.result.Revision, s.result.Problem, s.result.Result, s.result.Replayed = 0, nil, nil, false
	switch {
	case a.kind == listCall && hasField(data, 6): // Result.range
		return a.decodeList(data)
	case a.kind == txnCall && hasField(data, 8) && !hasField(data, 2): // Result.txn, and no problem
		return a.decodeTxn(data)
	case a.kind == getCall && hasField(data, 5): // Result.get
		it := &s.item
		it.Key, it.Value = it.Key[:0], nil
		it.CreateRevision, it.ModRevision, it.Version, it.Lease = 0, 0, 0, 0
		s.get.Item, s.oneofGet.Get, s.result.Result = it, &s.get, &s.oneofGet
	case a.kind == putCall && hasField(data, 3): // Result.put
		s.put.Version, s.put.Created, s.put.Prev = 0, false, nil
		s.oneofPut.Put, s.result.Result = &s.put, &s.oneofPut
	}
	if s.result.UnmarshalVT(data) != nil {
		return nil
	}
	if it := &s.item; s.result.Result == &s.oneofGet && it.ModRevision == 0 && len(it.Key) == 0 {
		s.get.Item = nil
	}
	return &s.result
}

// decodeList decodes the result of a list that succeeded.
func (a *call) decodeList(data []byte) *trivetpb.Result {
	res := &a.messages.result
	var ranged []byte
	for len(data) > 0 {
		field, number, content, rest, ok := protoField(data)
		if !ok {
			return nil
		}
		data = rest
		switch field {
		case 1:
			res.Revision = number
		case 6:
			ranged = content
		}
	}
	var err error
	if a.page, err = protoRange(ranged, res.Revision, a.keysOnly); err != nil {
		return nil
	}
	return res
}

// hasField says that a message has a field, one of those that are messages themselves.
func hasField(data []byte, field uint64) bool {
	for len(data) > 0 {
		tag, n := binary.Uvarint(data)
		if n <= 0 {
			return false
		}
		if tag == field<<3|2 {
			return true
		}
		number, m := binary.Uvarint(data[n:])
		if m <= 0 || tag&7 != 0 && (tag&7 != 2 || number > uint64(len(data)-n-m)) {
			return false
		}
		data = data[n+m:]
		if tag&7 == 2 {
			data = data[number:]
		}
	}
	return false
}

// Results and problems as trivet.proto has them, made into those of this package.
// Bytes in them were copied when the message was decoded, and are the caller's.

func itemOf(p *trivetpb.Item, keysOnly bool) Item {
	it := Item{
		Key: string(p.Key), Value: p.Value, CreateRevision: p.CreateRevision, ModRevision: p.ModRevision,
		Version: p.Version, Lease: p.Lease,
	}
	switch {
	case keysOnly:
		it.Value = nil
	case it.Value == nil:
		it.Value = []byte{}
	}
	return it
}

func itemsOfProto(list []*trivetpb.Item, keysOnly bool) []Item {
	items := make([]Item, len(list))
	for i, p := range list {
		items[i] = itemOf(p, keysOnly)
	}
	return items
}

func putResultOf(res *trivetpb.Result) PutResult {
	p := res.GetPut()
	put := PutResult{Revision: res.Revision, Version: p.Version, Created: p.Created, Replayed: res.Replayed}
	if p.Prev != nil {
		prev := itemOf(p.Prev, false)
		put.Prev = &prev
	}
	return put
}

func deleteResultOf(res *trivetpb.Result) DeleteResult {
	d := DeleteResult{Revision: res.Revision, Deleted: res.GetDelete().Deleted, Replayed: res.Replayed}
	if prev := res.GetDelete().Prev; len(prev) > 0 {
		d.Prev = itemsOfProto(prev, false)
	}
	return d
}

func rangeResultOf(p *trivetpb.RangeResult, keysOnly bool) RangeResult {
	return RangeResult{Items: itemsOfProto(p.Items, keysOnly), Count: p.Count, More: p.More}
}

// txnResultOf makes a TxnResult. keysOnly says of the place of an operation that it
// reads no values; nil for what is not known.
func txnResultOf(res *trivetpb.Result, keysOnly func(i int) bool) TxnResult {
	p := res.GetTxn()
	txn := TxnResult{Succeeded: p.Succeeded, Revision: res.Revision, Replayed: res.Replayed, Results: make([]OpResult, len(p.Results))}
	puts := 0
	for _, r := range p.Results {
		if _, ok := r.Result.(*trivetpb.Result_Put); ok {
			puts++
		}
	}
	each := make([]PutResult, puts)
	for i, r := range p.Results {
		var out OpResult
		switch o := r.Result.(type) {
		case *trivetpb.Result_Put:
			out.Put, each = &each[0], each[1:]
			*out.Put = putResultOf(r)
			out.Put.Revision = res.Revision
		case *trivetpb.Result_Delete:
			deleted := deleteResultOf(r)
			deleted.Revision = res.Revision
			out.Delete = &deleted
		case *trivetpb.Result_Add:
			out.Add = &AddResult{Value: o.Add.Value}
		case *trivetpb.Result_Get:
			out.Get = &GetResult{Found: o.Get.Item != nil}
			if o.Get.Item != nil {
				out.Get.Item = itemOf(o.Get.Item, false)
			}
		case *trivetpb.Result_Range:
			ranged := rangeResultOf(o.Range, keysOnly != nil && keysOnly(i))
			out.Range = &ranged
		}
		txn.Results[i] = out
	}
	return txn
}

// resolutionOf is the resolution of a write that was applied.
func resolutionOf(kind callKind, res *trivetpb.Result) *Resolution {
	r := &Resolution{Applied: true}
	switch kind {
	case putCall:
		put := putResultOf(res)
		r.Put = &put
	case deleteCall, deleteRangeCall:
		deleted := deleteResultOf(res)
		r.Delete = &deleted
	case addCall:
		r.Add = &AddResult{Value: res.GetAdd().GetValue()}
	case txnCall:
		txn := txnResultOf(res, nil)
		r.Txn = &txn
	case otherCall:
		if l := res.GetLease(); l != nil {
			r.Lease = &Lease{ID: l.Lease, TTL: time.Duration(l.TtlMs) * time.Millisecond}
		}
	}
	return r
}

// errorOfProblem makes an Error of a problem that came in a batch.
func (r *request) errorOfProblem(p *trivetpb.Problem, node string) *Error {
	info := p.Code.Info()
	e := r.failed(!p.Unknown)
	e.Code, e.Status, e.Detail, e.Retryable, e.Node = info.Name, info.Status, p.Detail, info.Retryable, node
	if e.Detail == "" && p.Code != trivetpb.Code_PRECONDITION_FAILED {
		e.Detail = info.Title
	}
	e.ModRevision, e.CompactRevision, e.Revision, e.Limit = p.ModRevision, p.CompactRevision, p.Revision, p.Limit
	if h := p.Holder; h != nil {
		e.Holder = &LockHolder{Token: h.Token, Lease: h.Lease, Owner: h.Owner, TTL: time.Duration(h.TtlMs) * time.Millisecond}
	}
	return e
}
