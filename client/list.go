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

// A list comes in parts. The first is a small one, which goes with the lists of other
// callers in one request (lane.go): most lists are no longer, or are not read further.
// What is behind it comes in pages as large as the API has them, at the revision of
// the first part. A server ends a page at 4 MiB in any case.
const (
	firstPartItems = 1_000
	// partBytes is where the first part ends.
	partBytes = "262144"
	pageItems = 10_000
)

// listAccept asks for pages in protobuf, and takes what a server gives that has none.
const listAccept = protobufType + ", " + jsonType + ";q=0.9"

// List returns the items of a range in the order of their keys. They are fetched
// in parts while the caller goes on, all at the revision of the first: what is
// written in between is not seen. The sequence may be gone through again,
// which lists anew.
//
// Items are the caller's to keep and change. Those that came together may share
// memory: one that is kept for long keeps up to 32 KiB.
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
	p := paramsOf(opts, ListOption.toList)
	return func(yield func(Item, error) bool) {
		if err := c.list(ctx, keys, p, func(it Item) bool { return yield(it, nil) }); err != nil {
			yield(Item{}, err)
		}
	}
}

// list calls visit with each item until that returns false.
func (c *Client) list(ctx context.Context, keys KeyRange, p *params, visit func(Item) bool) error {
	if e := keys.check("list", false); e != nil {
		e.op = "list " + keys.String()
		return e
	}
	if e := p.checkLimit("list"); e != nil {
		e.op = "list " + keys.String()
		return e
	}
	l := &listing{c: c, keys: keys, params: p, left: p.limit}
	var page *listPage
	var err error
	if !p.reverse && !p.hasRevision {
		page, err = l.firstPart(ctx)
	}
	for err == nil {
		if page == nil {
			if page, err = l.page(ctx); err != nil {
				break
			}
		}
		if !page.each(visit) {
			return nil
		}
		l.left -= page.n
		if !page.more || (p.hasLimit && l.left == 0) {
			return nil
		}
		l.goOn(page)
		page = nil
	}
	return err
}

// listing is a list under way.
type listing struct {
	c    *Client
	keys KeyRange
	*params
	left int // of the limit
	// cursor is how to go on where a page said it; else, behind the first part,
	// after is its last key and revision its revision.
	cursor   string
	after    string
	revision uint64
}

// goOn has the next page begin behind this one.
func (l *listing) goOn(p *listPage) {
	if l.cursor = p.next; l.cursor == "" {
		l.after, l.revision = p.last, p.revision
	}
}

// want is how many items to ask for.
func (l *listing) want(most int) int {
	if l.hasLimit {
		return min(most, l.left)
	}
	return most
}

// firstPart asks for the first part, together with the lists of others. It returns nil
// where the list is to go by itself: the answer would have been too large, say, of a
// server that does not know of parts.
func (l *listing) firstPart(ctx context.Context) (*listPage, error) {
	a := l.c.newCall(listCall, false)
	a.keys, a.keysOnly = l.keys, l.keysOnly
	fresh, e := l.freshness(a.name, l.c.Revision())
	if e != nil {
		return nil, e
	}
	fresh.lists = true
	want := l.want(firstPartItems)
	a.encodeOp(&trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{
		Range: l.keys.proto(), Limit: uint32(want), KeysOnly: l.keysOnly,
	}}}, nil)
	if e := l.c.carried(ctx, l.c.readLane(fresh), a); e != nil {
		if errors.Is(e, ErrTooLarge) || errors.Is(e, errAnswerTooLarge) {
			return nil, nil
		}
		return nil, e
	}
	page := a.page
	if page.n > want || (page.more && page.n == 0) {
		page = nil // whatever that is, it does not pass for a part
	}
	a.free()
	return page, nil
}

// page asks for the next page, or the first one.
func (l *listing) page(ctx context.Context) (*listPage, error) {
	op := "list " + l.keys.String()
	r := &request{op: op, method: http.MethodGet, path: kvPath, header: http.Header{"Accept": {listAccept}}, transient: true}
	want := l.want(pageItems)
	switch {
	case l.cursor != "":
		// The cursor holds the revision: any node that has reached it will do.
		l.keys.addTo(&r.query)
		r.query.add("cursor", l.cursor)
	case l.revision != 0:
		_, end := l.keys.bounds()
		r.query.addBytes("start", l.after+"\x00")
		if end != "" {
			r.query.addBytes("end", end)
		}
		revision := strconv.FormatUint(l.revision, 10)
		r.query.add("revision", revision)
		r.query.add("consistency", "session")
		r.query.add("min_revision", revision)
		l.keys = KeyRange{kind: rangeFrom, start: l.after + "\x00"} // whose cursor comes
		if end != "" {
			l.keys = Between(l.after+"\x00", end)
		}
		l.revision = 0
	default:
		want = l.want(firstPartItems)
		l.keys.addTo(&r.query)
		if e := l.addRead(op, l.c.Revision(), &r.query); e != nil {
			return nil, e
		}
	}
	if l.keysOnly {
		r.query.add("keys_only", "true")
	}
	if l.reverse {
		r.query.add("reverse", "true")
	}
	r.query.add("limit", strconv.Itoa(want))
	var page *listPage
	r.decode = func(a *answer) (err error) {
		page, err = pageOf(a, l.keysOnly)
		if err == nil && page.n > want {
			err = fmt.Errorf("the page has %d items, %d were asked for", page.n, want)
		}
		if err == nil && page.more && page.n == 0 {
			err = errors.New("the page is empty and not the last")
		}
		return err
	}
	if err := l.c.do(ctx, r); err != nil {
		return nil, err
	}
	return page, nil
}

// pageOf takes a page apart.
func pageOf(a *answer, keysOnly bool) (*listPage, error) {
	if a.mediaType == protobufType {
		return protoPage(a.body, keysOnly)
	}
	var doc struct {
		Revision uint64      `json:"revision"`
		Items    *[]itemJSON `json:"items"`
		Next     string      `json:"next"`
	}
	if err := decodeJSON(a, &doc); err != nil {
		return nil, err
	}
	if doc.Revision == 0 || doc.Items == nil {
		return nil, missing("revision or items")
	}
	items, err := itemsOf(*doc.Items, keysOnly)
	return &listPage{items: items, n: len(items), revision: doc.Revision, next: doc.Next, more: doc.Next != ""}, err
}

// Count returns how many keys a range has.
func (c *Client) Count(ctx context.Context, keys KeyRange, opts ...CountOption) (uint64, error) {
	op := "count " + keys.String()
	p := paramsOf(opts, CountOption.toCount)
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
