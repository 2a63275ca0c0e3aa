package httpapi

import (
	"net/http"
	"strconv"

	"trivet/store"
	"trivet/trivetpb"
)

// leasePrefix comes before a lease's id in a path.
const leasePrefix = "/v1/leases/"

// grantLease serves POST /v1/leases.
func (s *Server) grantLease(c *call) *trivetpb.Problem {
	v, p := c.readSmall(fields(smallTTL), fields(smallTTL))
	if p != nil {
		return p
	}
	lease, p := c.proposeLease(&trivetpb.Command{Command: &trivetpb.Command_LeaseGrant{LeaseGrant: &trivetpb.LeaseGrant{TtlMs: v.ttlMS}}})
	if p != nil {
		return p
	}
	b := appendNumber(nil, `{"lease":`, lease.Lease)
	b = appendDuration(b, `,"ttl":`, lease.TtlMs)
	c.answer(http.StatusCreated, jsonType, append(b, '}', '\n'))
	return nil
}

// keepLease serves PUT /v1/leases/{id}: the ttl starts again.
func (s *Server) keepLease(c *call) *trivetpb.Problem {
	id, p := c.pathID(leasePrefix, "lease")
	if p != nil {
		return p
	}
	if p := c.noBody(); p != nil {
		return p
	}
	lease, p := c.proposeLease(&trivetpb.Command{Command: &trivetpb.Command_LeaseKeepAlive{LeaseKeepAlive: &trivetpb.LeaseKeepAlive{Lease: id}}})
	if p != nil {
		return p
	}
	b := appendNumber(nil, `{"lease":`, lease.Lease)
	b = appendDuration(b, `,"ttl":`, lease.TtlMs)
	b = appendDuration(b, `,"remaining":`, lease.TtlMs)
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}

// revokeLease serves DELETE /v1/leases/{id}: its keys go with it.
func (s *Server) revokeLease(c *call) *trivetpb.Problem {
	id, p := c.pathID(leasePrefix, "lease")
	if p != nil {
		return p
	}
	if p := c.noBody(); p != nil {
		return p
	}
	lease, p := c.proposeLease(&trivetpb.Command{Command: &trivetpb.Command_LeaseRevoke{LeaseRevoke: &trivetpb.LeaseRevoke{Lease: id}}})
	if p != nil {
		return p
	}
	b := appendNumber(nil, `{"deleted":`, lease.Deleted)
	b = appendNumber(b, `,"revision":`, c.revision)
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}

// proposeLease is proposeOne for the commands whose result is a lease.
func (c *call) proposeLease(command *trivetpb.Command) (*trivetpb.LeaseResult, *trivetpb.Problem) {
	result, p := c.proposeOne(command)
	if p != nil {
		return nil, p
	}
	if result.GetLease() == nil {
		return nil, c.srv.problemOf(errOtherResult, true)
	}
	return result.GetLease(), nil
}

// freshen waits until the store is as fresh as the request's parameters ask, for
// a read of what is no key. Leases and locks make no revisions; the one that the
// answer names is read first, so that what is read then is no older.
func (c *call) freshen() *trivetpb.Problem {
	if p := noPrecondition(c.r.Header); p != nil {
		return p
	}
	freshness, p := parseRead(&c.query)
	if p != nil {
		return p
	}
	if p := c.awaitRead(freshness); p != nil {
		return p
	}
	c.revision = c.srv.node.Store().Revision()
	return nil
}

// listLimit parses ?limit= for a list of what is no key.
func (c *call) listLimit() (int, *trivetpb.Problem) {
	limit, ok, p := c.query.uint("limit", 1, maxLimit)
	if !ok {
		limit = defaultLimit
	}
	return int(limit), p
}

// getLease serves GET /v1/leases/{id}, with its first keys.
func (s *Server) getLease(c *call) *trivetpb.Problem {
	id, p := c.pathID(leasePrefix, "lease")
	if p != nil {
		return p
	}
	limit, p := c.listLimit()
	if p != nil {
		return p
	}
	if p := c.freshen(); p != nil {
		return p
	}
	info, ok := s.node.Store().Lease(id)
	keys, more, still := s.node.Store().LeaseKeys(id, limit)
	if !ok || !still {
		return &trivetpb.Problem{Code: trivetpb.Code_LEASE_NOT_FOUND}
	}
	doc := c.newDocument(jsonType)
	doc.buf.b = appendLeaseFields(append(doc.buf.b, '{'), &info)
	doc.buf.b = append(doc.buf.b, `,"more":`...)
	doc.buf.b = strconv.AppendBool(doc.buf.b, more)
	doc.buf.b = append(doc.buf.b, ',')
	appendList(doc, "keys", keys)
	doc.buf.b = append(doc.buf.b, '}', '\n')
	doc.end()
	return nil
}

// listLeases serves GET /v1/leases: a page of leases by id. There are no old
// states of leases, so pages are each of their own time; a lease that lives
// through all of them is in one.
func (s *Server) listLeases(c *call) *trivetpb.Problem {
	limit, p := c.listLimit()
	if p != nil {
		return p
	}
	after, _, p := c.query.uint("cursor", 1, maxNumber)
	if p != nil {
		return badRequest("parameter cursor is not one that a page gave as next")
	}
	if p := c.freshen(); p != nil {
		return p
	}
	leases, more := s.node.Store().Leases(after, limit)
	doc := c.newDocument(jsonType)
	doc.buf.b = appendNumber(doc.buf.b, `{"revision":`, c.revision)
	doc.buf.b = append(doc.buf.b, `,"leases":[`...)
	for i := range leases {
		if i > 0 {
			doc.buf.b = append(doc.buf.b, ',')
		}
		doc.buf.b = append(doc.buf.b, '{')
		doc.buf.b = appendLeaseFields(doc.buf.b, &leases[i])
		doc.buf.b = append(doc.buf.b, '}')
		if !doc.spill() {
			break
		}
	}
	doc.buf.b = append(doc.buf.b, ']')
	if more && len(leases) > 0 {
		doc.buf.b = appendNumber(doc.buf.b, `,"next":"`, leases[len(leases)-1].ID)
		doc.buf.b = append(doc.buf.b, '"')
	}
	doc.buf.b = append(doc.buf.b, '}', '\n')
	doc.end()
	return nil
}

// appendLeaseFields writes the number of keys as key_count: keys are their names.
func appendLeaseFields(b []byte, l *store.LeaseInfo) []byte {
	b = appendNumber(b, `"lease":`, l.ID)
	b = appendDuration(b, `,"ttl":`, l.TTLMS)
	b = appendDuration(b, `,"remaining":`, l.RemainingMS)
	b = appendNumber(b, `,"key_count":`, l.Keys)
	if l.Lock != "" {
		b = appendBytes(append(b, ','), "lock", l.Lock)
	}
	return b
}
