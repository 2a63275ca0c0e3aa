package client_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"trivet/trivetpb"
)

// fake is a cluster as far as batches and sessions go: a map in place of a log. Where
// lenient is set, it takes every session for one of its own and remembers nothing.
type fake struct {
	mu       sync.Mutex
	lenient  bool
	revision uint64
	items    map[string]*trivetpb.Item
	sums     map[string]int64
	sessions map[uint64]*fakeSession
	opened   uint64
	// applied counts the writes that took effect, by key.
	applied map[string]int
	// maxAhead is how far a seq was beyond the ack, at most.
	maxAhead uint64
	closed   int
	// batches is how many operations each batch had.
	batches []int
}

type fakeSession struct {
	ack     uint64
	answers map[uint64]*trivetpb.Result
}

func newFake() *fake {
	return &fake{
		revision: 6, items: map[string]*trivetpb.Item{}, sums: map[string]int64{},
		sessions: map[uint64]*fakeSession{}, applied: map[string]int{},
	}
}

// batchOf returns the batch that a request is; nil for any other request. The body
// can be read again.
func batchOf(r *http.Request) *trivetpb.BatchRequest {
	if r.URL.Path != "/v1/batch" {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	req := &trivetpb.BatchRequest{}
	if err != nil || req.UnmarshalVT(body) != nil {
		return nil
	}
	return req
}

// methodOf is the request's method or, of a batch, the one that its first operation
// would have by itself.
func methodOf(r *http.Request) string {
	if batch := batchOf(r); batch != nil && len(batch.Ops) > 0 {
		switch batch.Ops[0].Op.Op.(type) {
		case *trivetpb.Op_Put:
			return "PUT"
		case *trivetpb.Op_Get, *trivetpb.Op_Range:
			return "GET"
		case *trivetpb.Op_Delete:
			return "DELETE"
		}
	}
	return r.Method
}

// answer answers a request as a node would; nil for one that is no batch and about no
// session.
func (f *fake) answer(r *http.Request) *http.Response {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.URL.Path == "/v1/sessions":
		f.opened++
		f.sessions[f.opened] = &fakeSession{answers: map[uint64]*trivetpb.Result{}}
		return response(r, 201, "application/json", fmt.Sprintf(`{"session":%d,"ttl":"1m0s"}`, f.opened))
	case strings.HasPrefix(r.URL.Path, "/v1/sessions/"):
		if r.Method == http.MethodDelete {
			f.closed++
		}
		return response(r, 200, "application/json", `{"session":1,"ttl":"1m0s"}`)
	}
	req := batchOf(r)
	if req == nil {
		return nil
	}
	f.batches = append(f.batches, len(req.Ops))
	resp := &trivetpb.BatchResponse{}
	for _, op := range req.Ops {
		resp.Results = append(resp.Results, f.do(req, op))
	}
	resp.Revision = f.revision
	body, err := resp.MarshalVT()
	if err != nil {
		panic(err)
	}
	return response(r, 200, "application/x-protobuf", string(body))
}

// do does one operation, under the rules of sessions.
func (f *fake) do(req *trivetpb.BatchRequest, op *trivetpb.BatchOp) *trivetpb.Result {
	if op.Seq == 0 || f.lenient {
		return f.apply(op.Op)
	}
	s := f.sessions[req.Session]
	if s == nil {
		return &trivetpb.Result{Problem: &trivetpb.Problem{Code: trivetpb.Code_SESSION_EXPIRED, Unknown: true}}
	}
	if op.Seq <= s.ack {
		return &trivetpb.Result{Problem: &trivetpb.Problem{Code: trivetpb.Code_BAD_REQUEST, Unknown: true, Detail: "acknowledged"}}
	}
	for ; s.ack < req.Ack; s.ack++ {
		delete(s.answers, s.ack+1)
	}
	f.maxAhead = max(f.maxAhead, op.Seq-s.ack)
	if first := s.answers[op.Seq]; first != nil {
		return &trivetpb.Result{Revision: first.Revision, Problem: first.Problem, Result: first.Result, Replayed: true}
	}
	res := f.apply(op.Op)
	s.answers[op.Seq] = res
	return res
}

func (f *fake) apply(op *trivetpb.Op) *trivetpb.Result {
	res := &trivetpb.Result{}
	wrote := func(key []byte) {
		f.revision++
		f.applied[string(key)]++
	}
	switch o := op.Op.(type) {
	case *trivetpb.Op_Put:
		wrote(o.Put.Key)
		it := &trivetpb.Item{Key: o.Put.Key, Value: o.Put.Value, CreateRevision: f.revision, ModRevision: f.revision, Version: 1}
		if old := f.items[string(o.Put.Key)]; old != nil && !f.lenient {
			it.CreateRevision, it.Version = old.CreateRevision, old.Version+1
		}
		f.items[string(o.Put.Key)] = it
		res.Result = &trivetpb.Result_Put{Put: &trivetpb.PutResult{Version: it.Version, Created: it.Version == 1}}
	case *trivetpb.Op_Get:
		res.Result = &trivetpb.Result_Get{Get: &trivetpb.GetResult{Item: f.items[string(o.Get.Key)]}}
	case *trivetpb.Op_Add:
		wrote(o.Add.Key)
		f.sums[string(o.Add.Key)] += o.Add.Delta
		res.Result = &trivetpb.Result_Add{Add: &trivetpb.AddResult{Value: f.sums[string(o.Add.Key)]}}
	case *trivetpb.Op_Delete:
		if o.Delete.Precondition != nil {
			res.Problem = &trivetpb.Problem{Code: trivetpb.Code_PRECONDITION_FAILED}
			break
		}
		wrote(o.Delete.Key)
		res.Result = &trivetpb.Result_Delete{Delete: &trivetpb.DeleteResult{Deleted: 1}}
	case *trivetpb.Op_Txn:
		// Two comparisons are the probe's, which cannot both hold.
		txn := &trivetpb.TxnResult{Succeeded: len(o.Txn.If) != 2}
		if txn.Succeeded {
			for _, op := range o.Txn.Then {
				txn.Results = append(txn.Results, f.apply(op))
			}
		}
		res.Result = &trivetpb.Result_Txn{Txn: txn}
	case *trivetpb.Op_Range:
		res.Result = &trivetpb.Result_Range{Range: &trivetpb.RangeResult{Count: uint64(len(f.items))}}
	}
	res.Revision = f.revision
	return res
}

// expire ends all sessions.
func (f *fake) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.sessions)
}

// agreeable answers every request as if it were the first that a cluster got; it has
// one key, "k".
func agreeable(r *http.Request) *http.Response {
	f := newFake()
	f.lenient = true
	f.items["k"] = &trivetpb.Item{Key: []byte("k"), Value: []byte("ok"), CreateRevision: 4, ModRevision: 5, Version: 2}
	return f.answer(r)
}
