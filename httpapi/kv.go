package httpapi

import (
	"math"
	"net/http"
	"strconv"

	"trivet/store"
	"trivet/trivetpb"
)

// getKey serves GET and HEAD /v1/kv/{key}: the raw value, or the item as JSON
// where Accept asks for it.
func (s *Server) getKey(c *call) *trivetpb.Problem {
	key, p := pathKey(c.r)
	if p != nil {
		return p
	}
	ifMatch, ifNoneMatch, p := parseMatches(c.r.Header)
	if p != nil {
		return p
	}
	freshness, p := parseRead(&c.query)
	if p != nil {
		return p
	}
	revision, p := parseRevision(&c.query)
	if p != nil {
		return p
	}
	var it store.Item
	var ok bool
	if revision == 0 {
		if p := c.awaitRead(freshness); p != nil {
			return p
		}
		it, ok, c.revision = s.node.Store().Get([]byte(key))
	} else {
		v, p := c.view(freshness, revision)
		if p != nil {
			return p
		}
		it, ok = v.Get([]byte(key))
		v.Close()
	}
	switch {
	case !ok:
		return keyNotFound()
	case ifMatch.given && !ifMatch.any && ifMatch.revision != it.ModRevision:
		return &trivetpb.Problem{Code: trivetpb.Code_PRECONDITION_FAILED, ModRevision: it.ModRevision}
	}
	c.set("Etag", entityTag(it.ModRevision))
	c.set("Vary", "Accept")
	if ifNoneMatch.given && (ifNoneMatch.any || ifNoneMatch.revision == it.ModRevision) {
		c.header()
		c.writeHead(http.StatusNotModified)
		return nil
	}
	c.setNumber("Trivet-Create-Revision", it.CreateRevision)
	c.setNumber("Trivet-Version", it.Version)
	c.setNumber("Trivet-Lease", it.Lease)
	if negotiate(c.r.Header, octetStream, jsonType) == jsonType {
		buf := takeBuffer()
		defer buf.release()
		buf.b = append(appendItem(buf.b, it, false), '\n')
		c.answer(http.StatusOK, jsonType, buf.b)
		return nil
	}
	c.answer(http.StatusOK, octetStream, it.Value)
	return nil
}

// putKey serves PUT /v1/kv/{key}: the body is the value.
func (s *Server) putKey(c *call) *trivetpb.Problem {
	key, p := pathKey(c.r)
	if p != nil {
		return p
	}
	put := &trivetpb.PutOp{}
	if put.Precondition, p = writePrecondition(c.r.Header); p != nil {
		return p
	}
	if put.Lease, _, p = c.query.uint("lease", 0, maxNumber); p != nil {
		return p
	}
	if put.TtlMs, p = c.query.ttl("ttl"); p != nil {
		return p
	}
	if put.TtlMs != 0 && c.query.has("lease") {
		return badRequest("lease and ttl exclude each other")
	}
	if put.Prev, p = c.query.bool("prev"); p != nil {
		return p
	}
	if put.Value, p = c.readBody(s.cfg.MaxValueBytes, "the value"); p != nil {
		return p
	}
	put.Key = []byte(key)
	result, p := c.proposeOp(&trivetpb.Op{Op: &trivetpb.Op_Put{Put: put}})
	if p != nil {
		return p
	}
	status := http.StatusOK
	if result.GetPut().GetCreated() {
		status = http.StatusCreated
	}
	buf := takeBuffer()
	defer buf.release()
	buf.b = appendNumber(buf.b, `{"revision":`, result.Revision)
	buf.b = append(buf.b, ',')
	buf.b = append(appendPut(buf.b, result.GetPut()), '}', '\n')
	c.answer(status, jsonType, buf.b)
	return nil
}

// deleteKey serves DELETE /v1/kv/{key}. A key that is not there is deleted 0
// times, which is no error: the caller has what it wanted.
func (s *Server) deleteKey(c *call) *trivetpb.Problem {
	key, p := pathKey(c.r)
	if p != nil {
		return p
	}
	del := &trivetpb.DeleteOp{Key: []byte(key)}
	if del.Precondition, p = writePrecondition(c.r.Header); p != nil {
		return p
	}
	if del.Precondition.GetKind() == trivetpb.Precondition_ABSENT {
		return badRequest("If-None-Match does not go with DELETE")
	}
	if del.Prev, p = c.query.bool("prev"); p != nil {
		return p
	}
	return c.writeOp(&trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: del}})
}

// addKey serves POST /v1/kv/{key}?add=<int64>.
func (s *Server) addKey(c *call) *trivetpb.Problem {
	key, p := pathKey(c.r)
	if p != nil {
		return p
	}
	if p := noPrecondition(c.r.Header); p != nil {
		return p
	}
	text, ok := c.query.get("add")
	if !ok {
		return badRequest("parameter add is missing (a value is written with PUT)")
	}
	delta, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return badRequest("parameter add must be a whole number from %d to %d", math.MinInt64, math.MaxInt64)
	}
	if c.r.ContentLength != 0 {
		return badRequest("this call takes no body (a value is written with PUT)")
	}
	return c.writeOp(&trivetpb.Op{Op: &trivetpb.Op_Add{Add: &trivetpb.AddOp{Key: []byte(key), Delta: delta}}})
}

// writeOp proposes an operation whose answer is its result and the revision.
func (c *call) writeOp(op *trivetpb.Op) *trivetpb.Problem {
	result, p := c.proposeOp(op)
	if p != nil {
		return p
	}
	doc := c.newDocument(jsonType)
	doc.buf.b = append(doc.buf.b, '{')
	doc.appendResultFields(op, result)
	doc.buf.b = appendNumber(doc.buf.b, `,"revision":`, result.Revision)
	doc.buf.b = append(doc.buf.b, '}', '\n')
	doc.end()
	return nil
}
