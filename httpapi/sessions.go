package httpapi

import (
	"net/http"
	"time"

	"trivet/trivetpb"
)

// sessionPrefix comes before a session's id in a path.
const sessionPrefix = "/v1/sessions/"

// openSession serves POST /v1/sessions.
func (s *Server) openSession(c *call) *trivetpb.Problem {
	if p := c.unguarded(); p != nil {
		return p
	}
	v, p := c.readSmall(fields(smallTTL), 0)
	if p != nil {
		return p
	}
	if v.ttlMS == 0 {
		v.ttlMS = uint64(defaultSessionTTL / time.Millisecond)
	}
	session, p := c.proposeSession(&trivetpb.Command{Command: &trivetpb.Command_SessionOpen{SessionOpen: &trivetpb.SessionOpen{TtlMs: v.ttlMS}}})
	if p != nil {
		return p
	}
	c.answerSession(http.StatusCreated, session)
	return nil
}

// keepSession serves PUT /v1/sessions/{id}: for a caller that has nothing to
// write for longer than the ttl. Every write of the session does the same.
func (s *Server) keepSession(c *call) *trivetpb.Problem {
	id, p := c.pathOfSession()
	if p != nil {
		return p
	}
	session, p := c.proposeSession(&trivetpb.Command{Command: &trivetpb.Command_SessionKeepAlive{SessionKeepAlive: &trivetpb.SessionKeepAlive{Session: id}}})
	if p != nil {
		return p
	}
	c.answerSession(http.StatusOK, session)
	return nil
}

// closeSession serves DELETE /v1/sessions/{id}: what it remembered is forgotten.
func (s *Server) closeSession(c *call) *trivetpb.Problem {
	id, p := c.pathOfSession()
	if p != nil {
		return p
	}
	if c.id.session == id {
		// The answer would be forgotten with the session, and a repeat of the
		// request be told that the session has expired.
		return badRequest("a session is not closed by a write of its own")
	}
	if _, p := c.proposeSession(&trivetpb.Command{Command: &trivetpb.Command_SessionClose{SessionClose: &trivetpb.SessionClose{Session: id}}}); p != nil {
		return p
	}
	b := appendNumber(nil, `{"closed":true,"session":`, id)
	c.answer(http.StatusOK, jsonType, append(b, '}', '\n'))
	return nil
}

func (c *call) pathOfSession() (uint64, *trivetpb.Problem) {
	id, p := c.pathID(sessionPrefix, "session")
	if p != nil {
		return 0, p
	}
	if p := c.unguarded(); p != nil {
		return 0, p
	}
	return id, c.noBody()
}

func (c *call) proposeSession(command *trivetpb.Command) (*trivetpb.SessionResult, *trivetpb.Problem) {
	result, p := c.proposeOne(command)
	if p != nil {
		return nil, p
	}
	if result.GetSession() == nil {
		return nil, c.srv.problemOf(errOtherResult, true)
	}
	return result.GetSession(), nil
}

func (c *call) answerSession(status int, session *trivetpb.SessionResult) {
	b := appendNumber(nil, `{"session":`, session.Session)
	b = appendDuration(b, `,"ttl":`, session.TtlMs)
	c.answer(status, jsonType, append(b, '}', '\n'))
}
