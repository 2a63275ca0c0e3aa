package httpapi

import (
	"net/http"
	"time"

	"trivet/store"
	"trivet/trivetpb"
)

// streamRange writes the range as NDJSON: an item a line, a common prefix as
// {"prefix":…}. All lines are of the one revision that Trivet-Revision names.
//
// A stream that is complete ends as HTTP has it, with the last chunk. One that
// cannot go on, because the node stops or StreamTimeout is over, ends with
//
//	{"type":"error","problem":{…}}
//
// and one whose caller does not take a chunk within WriteTimeout is cut.
func (c *call) streamRange(v *store.View, rq *rangeQuery) {
	c.header()
	c.set("Content-Type", ndjsonType)
	c.writeHead(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return
	}
	end := time.Now().Add(c.srv.cfg.StreamTimeout)
	flusher, _ := c.w.(http.Flusher)
	doc := c.newDocument(ndjsonType)
	defer doc.end()
	lines := 0
	rq.walk(v, func(it store.Item, prefix []byte) bool {
		if rq.limit > 0 && lines == rq.limit {
			return false
		}
		lines++
		if prefix == nil {
			doc.buf.b = appendItem(doc.buf.b, it, rq.keysOnly)
		} else {
			doc.buf.b = append(doc.buf.b, '{')
			doc.buf.b = appendBytes(doc.buf.b, "prefix", prefix)
			doc.buf.b = append(doc.buf.b, '}')
		}
		doc.buf.b = append(doc.buf.b, '\n')
		if len(doc.buf.b) < spillBytes {
			return true
		}
		doc.flush()
		if flusher != nil && doc.err == nil {
			flusher.Flush()
		}
		if p := c.streamEnds(end); p != nil {
			doc.buf.b = append(doc.buf.b, `{"type":"error","problem":`...)
			doc.buf.b = append(appendProblem(doc.buf.b, p), '}', '\n')
			return false
		}
		return doc.err == nil
	})
}

// streamEnds says why a stream cannot go on, nil where it can.
func (c *call) streamEnds(end time.Time) *trivetpb.Problem {
	select {
	case <-c.srv.stopping:
		return &trivetpb.Problem{Code: trivetpb.Code_DRAINING}
	default:
	}
	if time.Now().After(end) {
		return &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Detail: "the stream took longer than " + c.srv.cfg.StreamTimeout.String()}
	}
	return nil
}
