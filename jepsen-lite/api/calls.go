package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"trivet/jepsen-lite/history"
)

// The calls that workloads make. Each returns what the body said, where the
// answer is OK; a body that cannot be read makes it an Info.

// Item is a key as it was read.
type Item struct {
	Key            string `json:"key"`
	Value          string `json:"value"`
	CreateRevision uint64 `json:"create_revision"`
	ModRevision    uint64 `json:"mod_revision"`
	Lease          uint64 `json:"lease"`
}

func keyPath(key string) string {
	return "/v1/kv/" + strings.ReplaceAll(url.PathEscape(key), "%2F", "/")
}

// decode reads the body of an answer that is OK.
func (a *Answer) decode(into any) {
	if a.Type != history.OK {
		return
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		a.Type, a.Code, a.Why = history.Info, "bad_answer", fmt.Sprintf("an answer that is none: %v", err)
	}
}

// Get reads a key; query may say how fresh. A key that is not there is OK and
// not found.
func (c *Caller) Get(ctx context.Context, n Node, key string, query url.Values) (item Item, found bool, a Answer) {
	a = c.Do(ctx, n, Request{Method: "GET", Path: keyPath(key), Query: query, Read: true,
		Header: map[string]string{"Accept": "application/json"}})
	if a.Status == 404 && a.Code == "key_not_found" {
		a.Type, a.Why = history.OK, ""
		return Item{Key: key}, false, a
	}
	a.decode(&item)
	return item, a.Type == history.OK, a
}

// Put writes a key. Header may hold conditions, a guard, an identity.
func (c *Caller) Put(ctx context.Context, n Node, key, value string, query url.Values, header map[string]string) (revision uint64, a Answer) {
	a = c.Do(ctx, n, Request{Method: "PUT", Path: keyPath(key), Query: query, Header: header, Body: []byte(value)})
	var out struct{ Revision uint64 }
	a.decode(&out)
	return out.Revision, a
}

// Delete deletes a key.
func (c *Caller) Delete(ctx context.Context, n Node, key string) (revision uint64, a Answer) {
	a = c.Do(ctx, n, Request{Method: "DELETE", Path: keyPath(key)})
	var out struct{ Revision uint64 }
	a.decode(&out)
	return out.Revision, a
}

// Add adds to a number.
func (c *Caller) Add(ctx context.Context, n Node, key string, delta int64, header map[string]string) (sum int64, a Answer) {
	a = c.Do(ctx, n, Request{Method: "POST", Path: keyPath(key), Query: url.Values{"add": {strconv.FormatInt(delta, 10)}}, Header: header})
	var out struct{ Value int64 }
	a.decode(&out)
	return out.Value, a
}

// Range reads all keys of a prefix, in one state. It holds at most 10,000.
func (c *Caller) Range(ctx context.Context, n Node, prefix string, query url.Values) (items []Item, a Answer) {
	q := url.Values{"prefix": {prefix}, "limit": {"10000"}}
	for name, values := range query {
		q[name] = values
	}
	a = c.Do(ctx, n, Request{Method: "GET", Path: "/v1/kv", Query: q, Read: true})
	var out struct {
		Items []Item
		Next  string
	}
	a.decode(&out)
	if a.Type == history.OK && out.Next != "" {
		// Half a state would look like a lost write.
		a.Type, a.Code, a.Why = history.Fail, "too_large", "the range has more than a page"
	}
	return out.Items, a
}

// Op is an operation of a txn, Compare a condition, as the API has them.
type Op map[string]any
type Compare map[string]any

// Result is what an operation of a txn returned.
type Result struct {
	Status int
	Item
	Items []Item
	// Deleted is of a delete.
	Deleted int
	// Sum is of an add, which shares its name in JSON with a value.
	Sum int64
}

// UnmarshalJSON tells an add's number from a get's text.
func (r *Result) UnmarshalJSON(b []byte) error {
	var out struct {
		Status      int
		Key         string
		Value       json.RawMessage
		ModRevision uint64 `json:"mod_revision"`
		Items       []Item
		Deleted     int
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return err
	}
	r.Status, r.Key, r.ModRevision, r.Items, r.Deleted = out.Status, out.Key, out.ModRevision, out.Items, out.Deleted
	if len(out.Value) > 0 && out.Value[0] == '"' {
		return json.Unmarshal(out.Value, &r.Value)
	}
	if len(out.Value) > 0 {
		return json.Unmarshal(out.Value, &r.Sum)
	}
	return nil
}

// Txn is a transaction.
type Txn struct {
	If   []Compare `json:"if,omitempty"`
	Then []Op      `json:"then"`
	Else []Op      `json:"else,omitempty"`
}

// TxnResult is what a transaction did.
type TxnResult struct {
	Succeeded bool
	Revision  uint64
	Results   []Result
}

// Txn runs a transaction; read says that it only reads.
func (c *Caller) Txn(ctx context.Context, n Node, t Txn, read bool, header map[string]string) (TxnResult, Answer) {
	var out TxnResult
	body, err := json.Marshal(t)
	if err != nil {
		return out, Answer{Type: history.Fail, Why: err.Error()}
	}
	a := c.Do(ctx, n, Request{Method: "POST", Path: "/v1/txn", Header: header, Body: body, Read: read})
	a.decode(&out)
	return out, a
}

// JSON sends JSON and decodes what comes back.
func (c *Caller) JSON(ctx context.Context, n Node, method, path string, in, out any, header map[string]string) Answer {
	r := Request{Method: method, Path: path, Header: header, Read: method == "GET"}
	if in != nil {
		var err error
		if r.Body, err = json.Marshal(in); err != nil {
			return Answer{Type: history.Fail, Why: err.Error()}
		}
	}
	a := c.Do(ctx, n, r)
	if out != nil {
		a.decode(out)
	}
	return a
}

// Status is what GET /v1/status says of a node.
type Status struct {
	Node         string
	Role         string
	Leader       string
	Term         uint64
	AppliedIndex uint64 `json:"applied_index"`
	CommitIndex  uint64 `json:"commit_index"`
	Revision     uint64
	StateHash    string `json:"state_hash"`
	Keys         uint64
}

// Status asks the node about itself alone.
func (c *Caller) Status(ctx context.Context, n Node) (Status, Answer) {
	var s Status
	a := c.JSON(ctx, n, "GET", "/v1/status", nil, &s, nil)
	return s, a
}
