package httpapi

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// newWaits is how long a new connection has for its first request once the server stops.
const newWaits = 500 * time.Millisecond

// simpleConns is the connections of a server that are simple ones.
type simpleConns struct {
	key, keys, batch, txn *resource

	closed atomic.Bool
	mu     sync.Mutex // for all, none and the setting of closed
	all    map[*simpleConn]struct{}
	none   chan struct{} // closed when closed and all is empty
}

// serves finds the resources of simple requests.
func (a *simpleConns) serves(resources []*resource) {
	for path, rs := range map[string]**resource{"/v1/kv/{key}": &a.key, "/v1/kv": &a.keys, "/v1/batch": &a.batch, "/v1/txn": &a.txn} {
		*rs = resources[slices.IndexFunc(resources, func(r *resource) bool { return r.path == path })]
	}
}

// start serves the connection, or closes it where nothing is served any more.
func (a *simpleConns) start(s *simpleConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed.Load() {
		s.cancel()
		s.Close()
		return
	}
	if a.all == nil {
		a.all = map[*simpleConn]struct{}{}
	}
	a.all[s] = struct{}{}
	s.readUntil(time.Now().Add(s.srv.cfg.HeaderTimeout))
	go s.serve()
}

func (a *simpleConns) end(s *simpleConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.all, s)
	if a.closed.Load() && len(a.all) == 0 {
		close(a.none)
	}
}

// shut closes the connections that wait for a request, gives new ones newWaits for their
// first, and has the others close behind their answers. It returns a channel that is
// closed once there are none.
func (a *simpleConns) shut() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed.Load() {
		a.none = make(chan struct{})
		a.closed.Store(true)
		if len(a.all) == 0 {
			close(a.none)
		}
	}
	for s := range a.all {
		switch {
		case s.state.CompareAndSwap(simpleWaits, simpleOver):
			s.Close()
		case s.state.Load() == simpleNew:
			// Its request may come in this moment. Then the deadline is that of nothing any
			// more: who looks for its caller sets another, and the connection closes behind
			// the answer.
			_ = s.tcp.SetReadDeadline(time.Now().Add(newWaits))
		}
	}
	return a.none
}

// cutOff closes all connections.
func (a *simpleConns) cutOff() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s := range a.all {
		s.cancel()
		s.Close()
	}
}
