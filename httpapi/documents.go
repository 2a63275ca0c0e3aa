package httpapi

import (
	"trivet/store"
	"trivet/trivetpb"
)

// The documents of leases, locks and sessions have a few fields each, and one
// form for all of them: which fields a call takes is a set of it.

// smallDocumentBytes is the longest of them. An owner of full length fits, in
// whatever way its characters are escaped.
const smallDocumentBytes = 16 << 10

// maxOwnerBytes is the longest owner of a lock.
const maxOwnerBytes = store.MaxOwnerBytes

// The fields, by their place.
const (
	smallTTL = iota
	smallWait
	smallOwner
	smallToken
)

var smallFields = []string{smallTTL: "ttl", smallWait: "wait", smallOwner: "owner", smallToken: "token"}

// small is what was read of such a document.
type small struct {
	// ttlMS is 0 where no ttl was given.
	ttlMS, waitMS uint64
	owner         string
	token         uint64
}

// readSmall reads the body of a call that takes the given fields, of which
// needed must be there. No body at all is an empty document.
func (c *call) readSmall(known, needed fieldSet) (v small, p *trivetpb.Problem) {
	if _, p = documentType(c.r.Header, jsonType); p != nil {
		return v, p
	}
	if p = noPrecondition(c.r.Header); p != nil {
		return v, p
	}
	body, p := c.readBody(smallDocumentBytes, "the document")
	if p != nil {
		return v, p
	}
	if len(body) == 0 {
		body = []byte("{}")
	}
	return decodeSmall(body, known, needed)
}

func decodeSmall(data []byte, known, needed fieldSet) (v small, _ *trivetpb.Problem) {
	d := &decoder{data: data}
	seen, err := d.object(smallFields, func(place int) (err *jsonError) {
		if !known.has(place) {
			return d.fail("this call has no such field")
		}
		switch place {
		case smallTTL:
			v.ttlMS, err = d.duration(minTTL, maxTTL)
		case smallWait:
			v.waitMS, err = d.duration(0, maxLockWait)
		case smallOwner:
			if v.owner, err = d.text(); err == nil && len(v.owner) > maxOwnerBytes {
				err = d.fail("has %d bytes, the most is %d", len(v.owner), maxOwnerBytes)
			}
		case smallToken:
			if v.token, err = d.uint(maxNumber); err == nil && v.token == 0 {
				err = d.fail("must be a token, from 1 on")
			}
		}
		return err
	})
	if err == nil {
		err = d.end()
	}
	switch missing := needed &^ seen; {
	case err != nil:
		return small{}, err.problem()
	case missing != 0:
		return small{}, badRequest("field %s is missing", missing.first(smallFields))
	}
	return v, nil
}

// noBody refuses a body, and conditions, on a call that takes neither.
func (c *call) noBody() *trivetpb.Problem {
	if c.r.ContentLength != 0 {
		return badRequest("this call takes no body")
	}
	return noPrecondition(c.r.Header)
}

// pathID returns the number that is all of the path behind the prefix, which has
// no escapes.
func (c *call) pathID(prefix, what string) (uint64, *trivetpb.Problem) {
	id, ok := parseDigits(c.r.URL.Path[len(prefix):])
	if !ok || id == 0 || id > maxNumber {
		return 0, badRequest("the path must end in the id of a %s, a whole number from 1 to %d", what, uint64(maxNumber))
	}
	return id, nil
}
