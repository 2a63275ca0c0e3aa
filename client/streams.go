package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Calls go over HTTP/1.1, where a connection belongs to one request at a time: so it
// can be told whether a byte of a write was sent (wire.go). Watches change nothing and
// last: they share a connection to each node, over HTTP/2, in the clear by prior
// knowledge (RFC 9113, section 3.3) and under TLS by ALPN. But one that is alone has a
// connection in any case, and is better off over HTTP/1.1: net/http reads it in the
// goroutine that wants it, and the node writes a frame by one system call, where
// HTTP/2 takes a hand-over between goroutines, or three, on either side.
//
// What stands in front of a node may not speak it. That shows in an answer which is no
// HTTP/2, in a connection that is closed or in silence. Then the node is asked over
// HTTP/1.1, and where that does it stays at that for a while.

const (
	// streamWindow is how much of a stream a node may send before it is read: what a
	// watch whose caller is busy takes of this process, and of the connection nothing,
	// as that has room for all of its streams.
	streamWindow = 128 << 10
	// plainFor is how long a node that does not speak HTTP/2 is not asked to.
	plainFor = 5 * time.Minute
)

// streams are the connections of watches.
type streams struct {
	transport *http.Transport
	// lasting is how many answers there are that last.
	lasting atomic.Int32

	mu     sync.Mutex
	closed bool
	// open are the connections, with their addresses.
	open map[net.Conn]string
	// turns is who may make the first connection to an address: each has room for one.
	// Any number of watches may begin, or lose their node, at one moment.
	turns map[string]chan struct{}
}

// newStreams returns them. ctx ends the dialling that is under way.
func newStreams(ctx context.Context, cfg Config) *streams {
	s := &streams{transport: newTransport(ctx, cfg), open: map[net.Conn]string{}, turns: map[string]chan struct{}{}}
	dial := s.transport.DialContext
	s.transport.DialContext = func(dialCtx context.Context, network, address string) (net.Conn, error) {
		nc, err := dial(dialCtx, network, address)
		if err != nil {
			return nil, err
		}
		return s.track(nc, address)
	}
	s.transport.Protocols = new(http.Protocols)
	s.transport.Protocols.SetHTTP2(true)
	s.transport.Protocols.SetUnencryptedHTTP2(true)
	s.transport.HTTP2 = &http.HTTP2Config{
		MaxReceiveBufferPerStream: streamWindow,
		// A connection whose other end is gone is found out, and not used again: all
		// its watches would else come back to it.
		SendPingTimeout: 10 * time.Second,
		PingTimeout:     5 * time.Second,
	}
	return s
}

// trackedConn is a connection that close finds.
type trackedConn struct {
	net.Conn
	s *streams
}

func (s *streams) track(nc net.Conn, address string) (net.Conn, error) {
	t := &trackedConn{nc, s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		nc.Close()
		return nil, ErrClosed
	}
	s.open[t] = address
	return t, nil
}

func (t *trackedConn) Close() error {
	t.s.mu.Lock()
	delete(t.s.open, t)
	t.s.mu.Unlock()
	return t.Conn.Close()
}

// close closes all connections. Nobody uses them any more; but one whose last stream
// has just ended may not know yet that it is idle.
func (s *streams) close() {
	s.mu.Lock()
	s.closed = true
	var open []net.Conn
	for nc := range s.open {
		open = append(open, nc)
	}
	s.mu.Unlock()
	for _, nc := range open {
		nc.Close()
	}
	s.transport.CloseIdleConnections()
}

// turn waits for the turn to make the first connection to a node, where there is none
// yet. done gives it up. The error is the context's.
func (s *streams) turn(ctx context.Context, n *node) (done func(), err error) {
	address := n.base.Host
	if n.base.Port() == "" {
		port := "80"
		if n.base.Scheme == "https" {
			port = "443"
		}
		address = net.JoinHostPort(n.base.Hostname(), port)
	}
	s.mu.Lock()
	turn := s.turns[address]
	if turn == nil {
		turn = make(chan struct{}, 1)
		s.turns[address] = turn
	}
	for _, a := range s.open {
		if a == address && n.shared.Load() == sharedProven {
			s.mu.Unlock()
			return func() {}, nil
		}
	}
	s.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// sendShared is send for a read whose answer lasts: where there are several, over a
// connection that such reads share.
func (c *Client) sendShared(ctx context.Context, n *node, r *request, left time.Duration) (*http.Response, *Error) {
	if c.streams == nil {
		return c.send(ctx, n, r, left)
	}
	alone := c.streams.lasting.Add(1) == 1
	over := sync.OnceFunc(func() { c.streams.lasting.Add(-1) })
	var resp *http.Response
	var e *Error
	if alone || !n.shares(c.members.start) {
		resp, e = c.send(ctx, n, r, left)
	} else {
		resp, e = c.sendOverHTTP2(ctx, n, r, left)
	}
	if e != nil {
		over()
		return nil, e
	}
	resp.Body = &closingBody{resp.Body, over}
	return resp, nil
}

// sendOverHTTP2 is send over HTTP/2, or HTTP/1.1 where the node does not speak it.
func (c *Client) sendOverHTTP2(ctx context.Context, n *node, r *request, left time.Duration) (*http.Response, *Error) {
	done, err := c.streams.turn(ctx, n)
	if err != nil {
		return nil, r.unanswered(n, true, err)
	}
	defer done()
	if !n.shares(c.members.start) { // somebody has found out meanwhile
		return c.send(ctx, n, r, left)
	}
	proven := n.shared.Load() == sharedProven
	began := time.Now()
	trial, cancel := context.WithCancelCause(ctx)
	answered := func() bool { return true }
	if !proven {
		// One that takes what it does not understand, and says nothing, must not use up
		// the time that there is to ask it otherwise.
		answered = time.AfterFunc(left/2, func() { cancel(errSlow) }).Stop
	}
	resp, err := c.streams.transport.RoundTrip(c.httpRequest(trial, n, r, newBody(nil), left))
	if err == nil && answered() {
		n.shared.Store(sharedProven)
		resp.Body = &closingBody{resp.Body, func() { cancel(nil) }}
		return resp, nil
	}
	if err == nil {
		resp.Body.Close()
		err = errSlow
	}
	cancel(nil)
	if proven {
		n.shared.Store(0) // to be found out anew
	}
	left -= time.Since(began)
	if proven || ctx.Err() != nil || isDialError(err) || isMisconfigured(err) || left <= 0 {
		if context.Cause(ctx) == errSlow {
			err = errSlow
		}
		return nil, r.unanswered(n, true, err)
	}
	resp, e := c.send(ctx, n, r, left)
	if e == nil {
		c.cfg.Logger.Debug("trivet: a node does not speak HTTP/2", "node", n.url, "error", err)
		n.shared.Store(int64(time.Since(c.members.start)+plainFor) + sharedProven)
	}
	return resp, e
}

// closingBody calls a function when it is closed.
type closingBody struct {
	io.ReadCloser
	closed func()
}

func (b *closingBody) Close() error {
	err := b.ReadCloser.Close()
	b.closed()
	return err
}

// sharedProven is of a node that has answered over HTTP/2. A greater number is of one
// that has not, and until when it is not asked to: nanoseconds behind this one since
// members.start. 0: not known.
const sharedProven = 1

// shares says whether to ask the node over HTTP/2.
func (n *node) shares(start time.Time) bool {
	until := n.shared.Load()
	return until <= sharedProven || until < int64(time.Since(start))
}
