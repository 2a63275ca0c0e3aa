package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"

	"trivet/trivetpb"
)

// The pages of a list: a small one first, for callers that stop early, then as
// large as the API has them. A server ends a page at 4 MiB in any case.
const (
	firstPageItems = 1_000
	pageItems      = 10_000
)

// List returns the items of a range in the order of their keys. They are fetched
// in pages while the caller goes on, all at the revision of the first page: what
// is written in between is not seen. The sequence may be gone through again,
// which lists anew.
//
// A failure comes as a last pair with the zero Item and the error. It may come
// after some items: ErrCompacted where the caller took longer over them than
// old revisions are retained.
//
//	for item, err := range c.List(ctx, client.Prefix("carts/")) {
//		if err != nil {
//			return err
//		}
//		…
//	}
func (c *Client) List(ctx context.Context, keys KeyRange, opts ...ListOption) iter.Seq2[Item, error] {
	var p params
	for _, o := range opts {
		o.toList(&p)
	}
	return func(yield func(Item, error) bool) {
		if err := c.list(ctx, keys, &p, func(it Item) bool { return yield(it, nil) }); err != nil {
			yield(Item{}, err)
		}
	}
}

// list calls visit with each item until that returns false.
func (c *Client) list(ctx context.Context, keys KeyRange, p *params, visit func(Item) bool) error {
	op := "list " + keys.String()
	if e := firstOf(keys.check(op, false), p.checkLimit(op)); e != nil {
		return e
	}
	want := firstPageItems
	left := p.limit
	for cursor := ""; ; {
		r := &request{op: op, method: http.MethodGet, path: kvPath, header: http.Header{"Accept": {jsonType}}}
		keys.addTo(&r.query)
		if p.keysOnly {
			r.query.add("keys_only", "true")
		}
		if p.reverse {
			r.query.add("reverse", "true")
		}
		if p.hasLimit {
			want = min(want, left)
		}
		r.query.add("limit", strconv.Itoa(want))
		if cursor != "" {
			// The cursor holds the revision: any node that has reached it will do.
			r.query.add("cursor", cursor)
		} else if e := p.addRead(op, c.Revision(), &r.query); e != nil {
			return e
		}
		var items []Item
		var next string
		r.decode = func(a *answer) (err error) {
			items, next, err = pageOf(a, p.keysOnly)
			if err == nil && len(items) > want {
				err = fmt.Errorf("the page has %d items, %d were asked for", len(items), want)
			}
			if err == nil && next != "" && len(items) == 0 {
				err = errors.New("the page is empty and not the last")
			}
			return err
		}
		if err := c.do(ctx, r); err != nil {
			return err
		}
		for _, it := range items {
			if !visit(it) {
				return nil
			}
		}
		left -= len(items)
		if next == "" || (p.hasLimit && left == 0) {
			return nil
		}
		cursor, want = next, pageItems
	}
}

// pageOf takes a page apart.
func pageOf(a *answer, keysOnly bool) (items []Item, next string, err error) {
	var doc struct {
		Revision uint64      `json:"revision"`
		Items    *[]itemJSON `json:"items"`
		Next     string      `json:"next"`
	}
	if err := decodeJSON(a, &doc); err != nil {
		return nil, "", err
	}
	if doc.Revision == 0 || doc.Items == nil {
		return nil, "", missing("revision or items")
	}
	items, err = itemsOf(*doc.Items, keysOnly)
	return items, doc.Next, err
}

// Count returns how many keys a range has.
func (c *Client) Count(ctx context.Context, keys KeyRange, opts ...CountOption) (uint64, error) {
	op := "count " + keys.String()
	var p params
	for _, o := range opts {
		o.toCount(&p)
	}
	if !p.hasRevision {
		a := c.newCall(countCall, false)
		a.keys = keys
		fresh, e := p.freshness(a.name, c.Revision())
		if e = firstOf(keys.check(op, false), e); e != nil {
			return 0, e
		}
		a.encodeOp(&trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{Range: keys.proto(), CountOnly: true}}}, nil)
		if e := c.carried(ctx, c.readLane(fresh), a); e != nil {
			return 0, e
		}
		count := a.result.GetRange().Count
		a.free()
		return count, nil
	}
	r := &request{op: op, method: http.MethodGet, path: kvPath, header: http.Header{"Accept": {jsonType}}}
	if e := firstOf(keys.check(op, false), p.addRead(op, c.Revision(), &r.query)); e != nil {
		return 0, e
	}
	keys.addTo(&r.query)
	r.query.add("count_only", "true")
	var count uint64
	r.decode = func(a *answer) error {
		var doc rangeJSON
		if err := decodeJSON(a, &doc); err != nil {
			return err
		}
		if doc.Count == nil {
			return missing("count")
		}
		count = *doc.Count
		return nil
	}
	if err := c.do(ctx, r); err != nil {
		return 0, err
	}
	return count, nil
}
