package httpapi

import (
	"net/http"

	"trivet/store"
	"trivet/trivetpb"
)

// lockPrefix comes before a lock's name in a path.
const lockPrefix = "/v1/locks/"

// shownWaiters is the most of a lock's queue that GET shows.
const shownWaiters = 100

// pathName returns the name in the path, like a key: all behind the prefix,
// decoded once.
func (c *call) pathName() ([]byte, *trivetpb.Problem) {
	name := []byte(c.r.URL.Path[len(lockPrefix):])
	return name, checkLockName(name)
}

// keepLock serves PUT /v1/locks/{name}: the ttl starts again, for who holds it.
func (s *Server) keepLock(c *call) *trivetpb.Problem {
	name, p := c.pathName()
	if p != nil {
		return p
	}
	v, p := c.readSmall(fields(smallToken), fields(smallToken))
	if p != nil {
		return p
	}
	lock, p := c.proposeLock(&trivetpb.Command{Command: &trivetpb.Command_LockKeepAlive{LockKeepAlive: &trivetpb.LockKeepAlive{Name: name, Token: v.token}}})
	if p != nil {
		return p
	}
	h := lock.GetHolder()
	if h == nil {
		return s.problemOf(errOtherResult, true)
	}
	b := appendBytes([]byte{'{'}, "name", name)
	b = appendNumber(b, `,"token":`, h.Token)
	b = appendNumber(b, `,"lease":`, h.Lease)
	b = appendDuration(b, `,"ttl":`, h.TtlMs)
	b = appendDuration(b, `,"remaining":`, h.TtlMs)
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}

// releaseLock serves DELETE /v1/locks/{name}: the next in the queue holds it.
func (s *Server) releaseLock(c *call) *trivetpb.Problem {
	name, p := c.pathName()
	if p != nil {
		return p
	}
	if p := c.noBody(); p != nil {
		return p
	}
	token, ok, p := c.query.uint("token", 1, maxNumber)
	if p != nil {
		return p
	}
	if !ok {
		return badRequest("parameter token is missing: it is what POST returned to the holder")
	}
	if _, p := c.proposeLock(&trivetpb.Command{Command: &trivetpb.Command_LockRelease{LockRelease: &trivetpb.LockRelease{Name: name, Token: token}}}); p != nil {
		return p
	}
	b := appendNumber(nil, `{"released":true,"revision":`, c.revision)
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}

// proposeLock is proposeOne for the commands whose result is a lock.
func (c *call) proposeLock(command *trivetpb.Command) (*trivetpb.LockResult, *trivetpb.Problem) {
	result, p := c.proposeOne(command)
	if p != nil {
		return nil, p
	}
	if result.GetLock() == nil {
		return nil, c.srv.problemOf(errOtherResult, true)
	}
	return result.GetLock(), nil
}

// getLock serves GET /v1/locks/{name}. There is no such thing as a lock that does
// not exist: nobody holds it.
func (s *Server) getLock(c *call) *trivetpb.Problem {
	name, p := c.pathName()
	if p != nil {
		return p
	}
	if p := c.freshen(); p != nil {
		return p
	}
	info, _ := s.node.Store().Lock(string(name), shownWaiters)
	b := appendBytes([]byte{'{'}, "name", name)
	b = append(b, `,"holder":`...)
	if info.Holder == nil {
		b = append(b, "null"...)
	} else {
		b = appendHolderFields(append(b, '{'), holderMessage(*info.Holder))
		b = appendDuration(b, `,"remaining":`, info.Holder.RemainingMS)
		b = append(b, '}')
	}
	b = append(b, `,"queue":[`...)
	for i, waiter := range info.Queue {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendNumber(b, `{"token":`, waiter.Token)
		b = appendText(append(b, ','), "owner", waiter.Owner)
		b = appendDuration(b, `,"remaining":`, waiter.RemainingMS)
		b = append(b, '}')
	}
	b = appendNumber(b, `],"waiting":`, uint64(info.Waiting))
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}

// holderMessage is what the store says of a holder in the form of results.
func holderMessage(h store.LockHolder) *trivetpb.LockHolder {
	return &trivetpb.LockHolder{Token: h.Token, Lease: h.Lease, Owner: h.Owner, TtlMs: h.TTLMS}
}
