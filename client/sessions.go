package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"trivet/trivetpb"
)

// sessions is the sessions of a client.
type sessions struct {
	c  *Client
	mu sync.Mutex
	// current is the one for new writes; nil before the first.
	current *session
	// opening is closed when the opening that is under way has ended; nil for none.
	opening chan struct{}
	// retired are full ones that have something outstanding, oldest first.
	retired []*session
	// without: until then writes have no identity.
	without time.Time
	// tended says that the goroutine runs that keeps the sessions alive.
	tended bool
}

// number gives each write of a batch a seq, of the session that it returns. It opens
// one if need be; and returns none where the cluster does not give one.
func (s *sessions) number(ctx context.Context, b *batch) (*session, *Error) {
	for {
		current, e := s.get(ctx, b.unsent)
		if current == nil || e != nil {
			return nil, e
		}
		if current.number(b.calls) {
			return current, nil
		}
		s.retire(current)
	}
}

// get returns the session for new writes; nil for those that go without.
// failed is told of each attempt to open one that failed.
func (s *sessions) get(ctx context.Context, failed func(*Error)) (*session, *Error) {
	if s.c.cfg.DisableSessions {
		return nil, nil
	}
	for {
		s.mu.Lock()
		if cur := s.current; cur != nil {
			// One that has something outstanding is kept alive (tend). Where that failed
			// for most of the ttl, or one without was not used for half of it, it may have
			// expired by the time that a write arrives, as for one who slept. Whoever used
			// it then would have an error for nothing.
			quiet := cur.quiet()
			if quiet < cur.ttl/2 || quiet < cur.ttl*3/4 && cur.outstanding(time.Now()) {
				s.mu.Unlock()
				return cur, nil
			}
			s.setAside()
		}
		if time.Now().Before(s.without) {
			s.mu.Unlock()
			return nil, nil
		}
		if wait := s.opening; wait != nil {
			s.mu.Unlock()
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, (&request{op: "open a session", write: true}).ended(context.Cause(ctx), &course{}).(*Error)
			}
		}
		opened := make(chan struct{})
		s.opening = opened
		s.mu.Unlock()

		fresh, e := s.c.openSession(ctx, failed)
		s.mu.Lock()
		s.opening = nil
		switch {
		case fresh != nil:
			s.current = fresh
			if !s.tended {
				s.tended = s.c.background(s.tend) == nil
			}
		case e.givesNoSession():
			// What a write loses without one is that it is repeated where its node is
			// lost with the answer; to refuse it for that would make an outage of a full
			// table.
			s.c.cfg.Logger.Warn("trivet: no session, writes go without an identity for a while", "error", e)
			s.without = time.Now().Add(withoutFor)
			e = nil
		}
		s.mu.Unlock()
		close(opened)
		if fresh != nil || e == nil {
			return fresh, nil
		}
		return nil, e
	}
}

// givesNoSession says that the cluster can do it and will not: its table or a queue is
// full, or the token does not allow it. That it could not, for want of a leader or of
// time, says nothing about the next attempt; least of all in a failover, where an
// identity is worth most.
func (e *Error) givesNoSession() bool {
	code, ok := trivetpb.CodeByName(e.Code)
	if !ok {
		return false
	}
	status := code.Info().Status
	return (status >= 400 && status < 500) || code == trivetpb.Code_QUOTA_EXCEEDED
}

// openSession opens a session. One that is opened twice is forgotten once.
func (c *Client) openSession(ctx context.Context, failed func(*Error)) (*session, *Error) {
	s := &session{of: c, next: 1}
	began := time.Now()
	r := &request{
		op: "open a session", method: http.MethodPost, path: sessionsPath, contentType: jsonType,
		body: fmt.Appendf(nil, "{\"ttl\":%q}\n", sessionTTL), write: true, harmless: true, once: true, onFailure: failed,
		decode: func(a *answer) error {
			var doc struct {
				Session uint64       `json:"session"`
				TTL     durationJSON `json:"ttl"`
			}
			if err := decodeJSON(a, &doc); err != nil {
				return err
			}
			if doc.Session == 0 || doc.TTL <= 0 {
				return missing("session or ttl")
			}
			s.id, s.ttl, s.cluster = doc.Session, time.Duration(doc.TTL), a.header.Get("Trivet-Cluster")
			return nil
		},
	}
	if err := c.run(ctx, r); err != nil {
		return nil, err.(*Error)
	}
	s.contact = began
	return s, nil
}

// retire makes room for a new session in the place of one that is full, or over.
func (s *sessions) retire(full *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != full {
		return
	}
	s.setAside()
}

// setAside has new writes get a new session. The current one is retired where it has
// something outstanding. It is called under the lock.
func (s *sessions) setAside() {
	cur := s.current
	s.current = nil
	if cur == nil || !cur.outstanding(time.Now()) {
		return
	}
	s.retired = append(s.retired, cur)
	if len(s.retired) > maxRetired {
		// What is held back there is given up; what is under way goes on.
		s.retired[0].expire()
		s.retired = s.retired[1:]
	}
}

// leave has new writes get a new session. What is under way or unknown keeps the one
// that it has.
func (s *sessions) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setAside()
}

// tend keeps the sessions alive that have something outstanding, and ends those that
// have nothing and are not used any more, until there are none.
func (s *sessions) tend() {
	for {
		timer := time.NewTimer(sessionTTL / 3)
		select {
		case <-timer.C:
		case <-s.c.ctx.Done():
			timer.Stop()
			return
		}
		var idle, keep []*session
		now := time.Now()
		s.mu.Lock()
		if cur := s.current; cur != nil && cur.outstanding(now) {
			keep = append(keep, cur)
		} else if cur != nil && cur.quiet() > cur.ttl/2 && cur.retire() {
			s.current = nil
			idle = append(idle, cur)
		}
		rest := s.retired[:0]
		for _, r := range s.retired {
			if r.outstanding(now) {
				rest, keep = append(rest, r), append(keep, r)
			} else {
				idle = append(idle, r)
			}
		}
		clear(s.retired[len(rest):])
		s.retired = rest
		if s.current == nil && len(s.retired) == 0 {
			s.tended = false
		}
		on := s.tended
		s.mu.Unlock()
		for _, k := range keep {
			if k.quiet() >= k.ttl/4 {
				s.c.keepSession(k)
			}
		}
		for _, i := range idle {
			s.c.closeSession(s.c.ctx, i)
		}
		if !on {
			return
		}
	}
}

// keepSession starts the ttl of a session again.
func (c *Client) keepSession(s *session) {
	ctx, cancel := context.WithTimeout(c.ctx, s.ttl/4)
	defer cancel()
	began := time.Now()
	err := c.run(ctx, sessionRequest(http.MethodPut, s))
	switch e, _ := err.(*Error); {
	case err == nil:
		s.heard(began)
	case e.Code == "session_expired":
		s.expire()
	default:
		c.cfg.Logger.Debug("trivet: keeping a session alive failed", "error", err)
	}
}

// closeSession has the cluster forget a session; where that fails it will by itself.
func (c *Client) closeSession(ctx context.Context, s *session) {
	s.expire()
	ctx, cancel := context.WithTimeout(ctx, closePatience)
	defer cancel()
	r := sessionRequest(http.MethodDelete, s)
	r.parting = true
	if err := c.run(ctx, r); err != nil {
		c.cfg.Logger.Debug("trivet: closing a session failed", "error", err)
	}
}

func sessionRequest(method string, s *session) *request {
	return &request{
		op: "session", method: method, path: sessionsPath + "/" + strconv.FormatUint(s.id, 10), write: true, harmless: true,
		decode: func(a *answer) error {
			if a.mediaType != jsonType || !json.Valid(a.body) {
				return errNotJSON
			}
			return nil
		},
	}
}

// close closes all sessions, of a client whose calls have ended.
func (s *sessions) close() {
	s.mu.Lock()
	all := s.retired
	if s.current != nil {
		all = append(all, s.current)
	}
	s.current, s.retired = nil, nil
	s.mu.Unlock()
	patience := closePatience
	if s.c.members.silent() {
		patience = silentPatience
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, open := range all {
		s.c.closeSession(ctx, open)
	}
}
