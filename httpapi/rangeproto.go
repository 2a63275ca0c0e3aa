package httpapi

import (
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"

	"trivet/store"
	"trivet/trivetpb"
)

// pageRangeProto writes one page as a RangePage: what pageRange writes, in protobuf.
func (c *call) pageRangeProto(v *store.View, rq *rangeQuery) {
	doc := c.newDocument(protobuf)
	doc.buf.b = appendUint(doc.buf.b, pageRevision, v.Revision())
	items, prefixes, size := 0, 0, 0
	var next []byte
	if !rq.countOnly {
		next = rq.walk(v, func(it store.Item, prefix []byte) bool {
			if items+prefixes >= rq.limit || size >= pageBytes {
				return false
			}
			if prefix != nil {
				prefixes++
				size += len(prefix)
				doc.buf.b = appendContent(doc.buf.b, pagePrefixes, prefix)
				return doc.spill()
			}
			items++
			doc.buf.b = appendItemField(doc.buf.b, pageItems, &it, rq.keysOnly)
			if size += len(it.Key); !rq.keysOnly {
				size += len(it.Value)
			}
			return doc.spill()
		})
	}
	count := rq.count(v, items, next)
	doc.buf.b = appendUint(doc.buf.b, pageCount, count)
	if next != nil {
		cur := cursor{revision: v.Revision(), count: count, identity: rq.identity(), position: next}
		doc.buf.b = appendContent(doc.buf.b, pageNext, cur.String())
	}
	doc.end()
}

// partHeader says where a range in a batch may end, in bytes of keys and values, for
// a caller that goes on by itself: the result then has More. A header, because a
// server that does not know it may pass over it, and the range is whole. It counts
// where the answer is protobuf.
const partHeader = "Trivet-Part-Bytes"

// partBytes is what that header says, no more than a page has; 0 where there is none.
func partBytes(h http.Header) int {
	n, ok := parseDigits(h.Get(partHeader))
	if !ok {
		return 0
	}
	return int(min(n, pageBytes))
}

// resultsField is that of the results in a BatchResponse.
const resultsField = 2

// appendRanged does a range of a batch, up to so many bytes, and appends its result.
func (b *batchRun) appendRanged(to []byte, op *trivetpb.RangeOp, most int) []byte {
	limit := int(op.Limit)
	if limit == 0 {
		limit = store.DefaultRangeItems
	}
	// The result, then the range in it; their lengths are known at the end.
	at := len(to) + 1
	to = appendRoom(append(to, resultsField<<3|byte(protowire.BytesType)))
	to = appendUint(to, resultRevision, b.view.Revision())
	inner := len(to) + 1
	to = appendRoom(append(to, resultRange<<3|byte(protowire.BytesType)))
	items, size, more := 0, 0, false
	for it := range b.view.Range(op.Range, store.RangeOptions{}) {
		if items == limit || size >= most {
			more = true
			break
		}
		items++
		to = appendItemField(to, rangedItems, &it, op.KeysOnly)
		if size += len(it.Key); !op.KeysOnly {
			size += len(it.Value)
		}
	}
	count := uint64(items)
	if more {
		count = b.view.Count(op.Range)
		to = appendUint(to, rangedMore, 1)
	}
	to = appendUint(to, rangedCount, count)
	setLength(to, inner)
	setLength(to, at)
	b.sent += len(to) - at
	return to
}
