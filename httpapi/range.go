package httpapi

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"trivet/raftnode"
	"trivet/store"
	"trivet/trivetpb"
)

// rangeQuery is what GET /v1/kv asks for.
type rangeQuery struct {
	freshness raftnode.ReadOptions
	// keys is the whole range; from is what is left of it behind the cursor.
	keys, from *trivetpb.KeyRange
	// prefix is what every key of the range starts with as far as the caller
	// said so; delimiter is looked for behind it.
	prefix    []byte
	delimiter []byte
	// limit bounds the items and common prefixes together; 0 is no bound.
	limit               int
	reverse             bool
	keysOnly, countOnly bool
	// revision is 0 for the present one.
	revision uint64
	// cursor is nil for the first page.
	cursor *cursor
}

// parseRange parses the query of GET /v1/kv. stream is set where the answer
// will not be in pages.
func parseRange(q *query, stream bool) (rq rangeQuery, p *trivetpb.Problem) {
	if rq.freshness, p = parseRead(q); p != nil {
		return
	}
	if rq.keys, rq.prefix, p = parseKeyRange(q); p != nil {
		return
	}
	if rq.revision, p = parseRevision(q); p != nil {
		return
	}
	for _, flag := range []struct {
		name string
		into *bool
	}{{"keys_only", &rq.keysOnly}, {"count_only", &rq.countOnly}, {"reverse", &rq.reverse}} {
		if *flag.into, p = q.bool(flag.name); p != nil {
			return
		}
	}
	most, limit := uint64(maxLimit), uint64(defaultLimit)
	if stream {
		most, limit = maxNumber, 0
	}
	given, ok, p := q.uint("limit", 1, most)
	if p != nil {
		return rq, p
	}
	if ok {
		limit = given
	}
	rq.limit = int(limit)
	if delimiter, ok := q.get("delimiter"); ok {
		if delimiter == "" || len(delimiter) > maxKeyBytes {
			return rq, badRequest("parameter delimiter must have 1 to %d bytes", maxKeyBytes)
		}
		rq.delimiter = []byte(delimiter)
	}
	if rq.countOnly {
		for _, name := range []string{"delimiter", "cursor", "limit"} {
			if q.has(name) {
				return rq, badRequest("%s does not go with count_only", name)
			}
		}
	}
	if stream && q.has("cursor") {
		return rq, badRequest("cursor does not go with a stream, which has no pages")
	}
	if stream && rq.countOnly {
		return rq, badRequest("count_only does not go with a stream")
	}
	return rq, rq.parseCursor(q)
}

// parseCursor narrows the range to what lies behind the cursor.
func (rq *rangeQuery) parseCursor(q *query) *trivetpb.Problem {
	rq.from = rq.keys
	text, ok := q.get("cursor")
	if !ok {
		return nil
	}
	cur, p := parseCursor(text)
	if p != nil {
		return p
	}
	inside := bytes.Compare(cur.position, rq.keys.Start) >= 0 &&
		(len(rq.keys.End) == 0 || bytes.Compare(cur.position, rq.keys.End) <= 0)
	if cur.identity != rq.identity() || !inside {
		return badRequest("the cursor belongs to another range, ask with the parameters of the first page")
	}
	if rq.revision != 0 && rq.revision != cur.revision {
		return badRequest("the cursor continues at revision %d, not at %d", cur.revision, rq.revision)
	}
	rq.cursor, rq.revision = &cur, cur.revision
	if rq.reverse {
		rq.from = &trivetpb.KeyRange{Start: rq.keys.Start, End: cur.position}
	} else {
		rq.from = &trivetpb.KeyRange{Start: cur.position, End: rq.keys.End}
	}
	// What the cursor's revision holds does not change any more: any node that
	// has reached it gives the same page, and no leader need be asked. Only who
	// asks for a proof by name gets one.
	if c := rq.freshness.Consistency; c == raftnode.Stale || (c == raftnode.Linearizable && !q.has("consistency")) {
		rq.freshness.Consistency = raftnode.Session
	}
	rq.freshness.MinRevision = max(rq.freshness.MinRevision, cur.revision)
	return nil
}

// identity is a checksum of all that pages of one range have in common.
func (rq *rangeQuery) identity() uint32 {
	var b []byte
	for _, part := range [][]byte{rq.keys.Start, rq.keys.End, rq.prefix, rq.delimiter} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	if rq.reverse {
		b = append(b, 1)
	}
	return crc32.Checksum(b, castagnoli)
}

// parseKeyRange parses prefix, or start and end. Without any of them it is the
// whole key space.
func parseKeyRange(q *query) (keys *trivetpb.KeyRange, prefix []byte, p *trivetpb.Problem) {
	prefix, hasPrefix, p := q.bytes("prefix")
	if p != nil {
		return nil, nil, p
	}
	start, hasStart, p := q.bytes("start")
	if p != nil {
		return nil, nil, p
	}
	end, hasEnd, p := q.bytes("end")
	if p != nil {
		return nil, nil, p
	}
	for _, bound := range [][]byte{prefix, start, end} {
		if len(bound) > maxKeyBytes+1 {
			return nil, nil, &trivetpb.Problem{Code: trivetpb.Code_BAD_KEY, Detail: "a bound of the range is longer than any key"}
		}
	}
	switch {
	case hasPrefix && (hasStart || hasEnd):
		return nil, nil, badRequest("prefix and start or end exclude each other")
	case hasPrefix:
		return store.PrefixRange(prefix), prefix, nil
	}
	return &trivetpb.KeyRange{Start: start, End: end}, nil, nil
}

// getRange serves GET /v1/kv: a page, or all of it as a stream.
func (s *Server) getRange(c *call) *trivetpb.Problem {
	mediaType := negotiate(c.r.Header, jsonType, ndjsonType, protobuf)
	stream := mediaType == ndjsonType
	rq, p := parseRange(&c.query, stream)
	if p != nil {
		return p
	}
	v, p := c.view(rq.freshness, rq.revision)
	if p != nil {
		return p
	}
	defer v.Close()
	c.set("Vary", "Accept")
	switch mediaType {
	case ndjsonType:
		c.streamRange(v, &rq)
	case protobuf:
		c.pageRangeProto(v, &rq)
	default:
		c.pageRange(v, &rq)
	}
	return nil
}

// pageRange writes one page.
func (c *call) pageRange(v *store.View, rq *rangeQuery) {
	doc := c.newDocument(jsonType)
	doc.buf.b = appendNumber(doc.buf.b, `{"revision":`, v.Revision())
	doc.buf.b = append(doc.buf.b, `,"items":[`...)
	var prefixes [][]byte
	items, size := 0, 0
	var next []byte
	if !rq.countOnly {
		next = rq.walk(v, func(it store.Item, prefix []byte) bool {
			if items+len(prefixes) >= rq.limit || size >= pageBytes {
				return false
			}
			if prefix != nil {
				prefixes = append(prefixes, prefix)
				size += len(prefix)
				return true
			}
			if items++; items > 1 {
				doc.buf.b = append(doc.buf.b, ',')
			}
			doc.buf.b = appendItem(doc.buf.b, it, rq.keysOnly)
			if size += len(it.Key); !rq.keysOnly {
				size += len(it.Value)
			}
			return doc.spill()
		})
	}
	doc.buf.b = append(doc.buf.b, ']')
	if rq.delimiter != nil {
		doc.buf.b = append(doc.buf.b, ',')
		appendList(doc, "prefixes", prefixes)
	}
	count := rq.count(v, items, next)
	doc.buf.b = appendNumber(doc.buf.b, `,"count":`, count)
	if next != nil {
		cur := cursor{revision: v.Revision(), count: count, identity: rq.identity(), position: next}
		doc.buf.b = append(doc.buf.b, `,"next":"`...)
		doc.buf.b = append(doc.buf.b, cur.String()...)
		doc.buf.b = append(doc.buf.b, '"')
	}
	doc.buf.b = append(doc.buf.b, '}', '\n')
	doc.end()
}

// count is how many keys the whole range has, where a page of so many items ended at next.
func (rq *rangeQuery) count(v *store.View, items int, next []byte) uint64 {
	switch {
	case rq.cursor != nil:
		return rq.cursor.count
	case next == nil && rq.delimiter == nil && !rq.countOnly:
		return uint64(items) // all of it
	}
	return v.Count(rq.keys)
}

// walk goes through what is left of the range in its direction and calls visit
// with each item, or with a common prefix in place of all the items that have
// it. Where visit returns false walk stops and returns the position of what was
// not taken any more; it returns nil at the end of the range.
func (rq *rangeQuery) walk(v *store.View, visit func(it store.Item, prefix []byte) bool) (next []byte) {
	from := rq.from
	for from != nil {
		from, next = rq.walkTo(v, from, visit)
	}
	return next
}

// walkTo walks to the first common prefix and returns the range behind it: the
// keys with the prefix are skipped over, not walked through.
func (rq *rangeQuery) walkTo(v *store.View, from *trivetpb.KeyRange, visit func(it store.Item, prefix []byte) bool) (rest *trivetpb.KeyRange, next []byte) {
	if len(from.End) > 0 && bytes.Compare(from.Start, from.End) >= 0 {
		return nil, nil
	}
	for it := range v.Range(from, store.RangeOptions{Reverse: rq.reverse}) {
		prefix := rq.commonPrefix(it.Key)
		if prefix == nil {
			if !visit(it, nil) {
				return nil, rq.position(it.Key)
			}
			continue
		}
		if !visit(store.Item{}, prefix) {
			return nil, rq.position(it.Key)
		}
		group := store.PrefixRange(prefix)
		switch {
		case rq.reverse:
			return &trivetpb.KeyRange{Start: from.Start, End: group.Start}, nil
		case len(group.End) == 0:
			return nil, nil
		default:
			return &trivetpb.KeyRange{Start: group.End, End: from.End}, nil
		}
	}
	return nil, nil
}

// position is where a page has to go on in order to begin with the key.
func (rq *rangeQuery) position(key string) []byte {
	if rq.reverse {
		return append([]byte(key), 0) // exclusive: the key is the last below
	}
	return []byte(key)
}

// commonPrefix returns the key up to and with the first delimiter behind the
// range's prefix; nil where there is none.
func (rq *rangeQuery) commonPrefix(key string) []byte {
	if rq.delimiter == nil {
		return nil
	}
	i := bytes.Index([]byte(key[len(rq.prefix):]), rq.delimiter)
	if i < 0 {
		return nil
	}
	return []byte(key[:len(rq.prefix)+i+len(rq.delimiter)])
}

// deleteRange serves DELETE /v1/kv.
func (s *Server) deleteRange(c *call) *trivetpb.Problem {
	if p := noPrecondition(c.r.Header); p != nil {
		return p
	}
	keys, _, p := parseKeyRange(&c.query)
	if p != nil {
		return p
	}
	all, p := c.query.bool("all")
	if p != nil {
		return p
	}
	if len(keys.Start) == 0 && len(keys.End) == 0 && !all {
		return badRequest("this would delete every key: say all=true if that is meant")
	}
	return c.writeOp(&trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{Range: keys}}})
}
