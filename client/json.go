package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
	"unicode/utf8"
)

// Documents as the API has them. Answers are read leniently where a newer
// server may say more, and strictly where something is missing: a proxy's
// `{}` must not pass for a result.

var errNotJSON = errors.New("it is no JSON document")

// decodeJSON reads an answer's document into v.
func decodeJSON(a *answer, v any) error {
	if a.mediaType != jsonType {
		return errNotJSON
	}
	err := json.Unmarshal(a.body, v)
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) { // in words that do not name our types
		return fmt.Errorf("the document has a JSON %s at byte %d that does not belong there", mismatch.Value, mismatch.Offset)
	}
	if err != nil {
		return fmt.Errorf("the document is malformed: %w", err)
	}
	return nil
}

func missing(field string) error { return fmt.Errorf("the document has no %s", field) }

// bytesJSON gives bytes the form that the API has for them: text where they are
// UTF-8, base64 under the other name where they are not.
func bytesJSON[T ~string | ~[]byte](b T) (text *string, coded []byte) {
	s := string(b)
	if utf8.ValidString(s) {
		return &s, nil
	}
	return nil, []byte(s)
}

// durationJSON is a Go duration in a string.
type durationJSON time.Duration

func (d *durationJSON) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = durationJSON(parsed)
	return err
}

// mergeKeys merges the keys of a list that are text and those that are not, each
// in byte order, into one.
func mergeKeys(text []string, coded [][]byte) []string {
	for _, key := range coded {
		text = append(text, string(key))
	}
	if len(coded) > 0 {
		slices.Sort(text)
	}
	return text
}

// itemJSON is an item in an answer.
type itemJSON struct {
	Key            *string `json:"key"`
	Key64          []byte  `json:"key64"`
	Value          *string `json:"value"`
	Value64        []byte  `json:"value64"`
	CreateRevision uint64  `json:"create_revision"`
	ModRevision    uint64  `json:"mod_revision"`
	Version        uint64  `json:"version"`
	Lease          uint64  `json:"lease"`
}

// item makes an Item of it. keysOnly says that a value is not expected.
func (j *itemJSON) item(keysOnly bool) (Item, error) {
	key, err := j.key()
	if err != nil {
		return Item{}, err
	}
	it := Item{
		Key: key, CreateRevision: j.CreateRevision, ModRevision: j.ModRevision, Version: j.Version, Lease: j.Lease,
	}
	switch {
	case keysOnly:
	case j.Value != nil:
		it.Value = []byte(*j.Value)
	case len(j.Value64) > 0:
		it.Value = j.Value64
	default:
		return Item{}, missing("value")
	}
	if it.ModRevision == 0 || it.CreateRevision == 0 || it.Version == 0 {
		return Item{}, missing("mod_revision, create_revision or version")
	}
	return it, nil
}

func (j *itemJSON) key() (string, error) {
	switch {
	case j.Key != nil:
		return *j.Key, nil
	case len(j.Key64) > 0:
		return string(j.Key64), nil
	}
	return "", missing("key")
}

func itemsOf(list []itemJSON, keysOnly bool) ([]Item, error) {
	items := make([]Item, len(list))
	for i := range list {
		var err error
		if items[i], err = list[i].item(keysOnly); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// prevOf is an item before a write, which may be missing.
func prevOf(j *itemJSON) (*Item, error) {
	if j == nil {
		return nil, nil
	}
	it, err := j.item(false)
	if err != nil {
		return nil, err
	}
	return &it, nil
}

// putJSON, deleteJSON, addJSON and rangeJSON are results, by themselves or
// within a txn.
type putJSON struct {
	Version uint64    `json:"version"`
	Created bool      `json:"created"`
	Prev    *itemJSON `json:"prev"`
}

func (j *putJSON) result(revision uint64) (PutResult, error) {
	if j.Version == 0 {
		return PutResult{}, missing("version")
	}
	prev, err := prevOf(j.Prev)
	return PutResult{Revision: revision, Version: j.Version, Created: j.Created, Prev: prev}, err
}

type deleteJSON struct {
	Deleted *uint64 `json:"deleted"`
	// Prev is one item where a key was deleted, a list where a range was.
	Prev json.RawMessage `json:"prev"`
}

func (j *deleteJSON) result(revision uint64, ofRange bool) (DeleteResult, error) {
	if j.Deleted == nil {
		return DeleteResult{}, missing("deleted")
	}
	res := DeleteResult{Revision: revision, Deleted: *j.Deleted}
	if len(j.Prev) == 0 {
		return res, nil
	}
	list := make([]itemJSON, 1)
	into := any(&list[0])
	if ofRange {
		into = &list
	}
	if err := json.Unmarshal(j.Prev, into); err != nil {
		return res, fmt.Errorf("prev is malformed: %w", err)
	}
	var err error
	res.Prev, err = itemsOf(list, false)
	return res, err
}

type addJSON struct {
	Value *int64 `json:"value"`
}

type rangeJSON struct {
	Items []itemJSON `json:"items"`
	Count *uint64    `json:"count"`
	More  bool       `json:"more"`
}

// problemJSON is a problem document (RFC 9457).
type problemJSON struct {
	Code            string `json:"code"`
	Detail          string `json:"detail"`
	Title           string `json:"title"`
	Outcome         string `json:"outcome"`
	Retryable       bool   `json:"retryable"`
	ModRevision     uint64 `json:"mod_revision"`
	CompactRevision uint64 `json:"compact_revision"`
	Revision        uint64 `json:"revision"`
	Limit           uint64 `json:"limit"`

	Holder *holderJSON `json:"holder"`
}

// problem makes an Error of an answer that is a problem document of a node's,
// and returns nil for one that is not.
func (r *request) problem(n *node, a *answer) *Error {
	var p problemJSON
	if a.mediaType != problemType || json.Unmarshal(a.body, &p) != nil || p.Code == "" {
		return nil
	}
	e := r.errorOf(&p, n, a.header)
	e.Status, e.retryAfter = a.status, retryAfter(a.header)
	return e
}

// errorOf makes an Error of a problem, which came with the headers.
func (r *request) errorOf(p *problemJSON, n *node, h http.Header) *Error {
	// Only the very word proves it.
	e := r.failed(p.Outcome == NotApplied.String())
	e.Code, e.Detail, e.Retryable = p.Code, p.Detail, p.Retryable
	e.ModRevision, e.CompactRevision, e.Revision, e.Limit = p.ModRevision, p.CompactRevision, p.Revision, p.Limit
	if p.Holder != nil {
		holder := p.Holder.holder()
		e.Holder = &holder
	}
	if e.Node = h.Get("Trivet-Node"); e.Node == "" {
		e.Node = n.url
	}
	return e
}
