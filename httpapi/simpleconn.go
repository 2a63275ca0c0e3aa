package httpapi

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// A connection over TCP is served here as long as its requests are simple ones: reads
// and writes of keys, batches and txns, with a head as most clients write it
// (simplehead.go). The first one that is anything else makes it net/http's, with
// all that was read and not used, for good. So net/http's server has every request that
// there may be two opinions about, watches and snapshots, HTTP/2 and TLS.
//
// The reason is what a request costs. A small read is done in a few microseconds, and
// what net/http does around it takes several times that: a goroutine that looks whether
// the caller goes away, deadlines for each of its phases, a sorted map of header fields,
// a Request made from nothing. Here a connection keeps what it can for the next
// request, and looks for a caller that goes away only while an answer takes long.
//
// What handlers see and callers get is the same (TestSimpleAsNetHTTP compares the two,
// FuzzSimpleHead how they read a head): the handlers run through the same call, over a
// Request and a ResponseWriter.

const (
	// simpleBuffer is how much is read at a time; a whole head fits.
	simpleBuffer = maxSimpleHead
	// lingers is how long a connection that is closed from here waits for the caller to
	// close it: what is still being sent would reset it, and the last answer with it.
	lingers = 500 * time.Millisecond
)

// simpleConn is a connection with simple requests. It is the ResponseWriter of the one
// under way. All but state and what caller says belongs to the goroutine of serve.
type simpleConn struct {
	*conn
	l   *listener
	tcp *net.TCPConn
	// in holds what was read, simpleBuffer at most and what caller reads behind it; at is
	// where the part begins that is not used yet.
	in []byte
	at int
	// state says who may close the connection: Shutdown only one that waits.
	state atomic.Int32
	// readBy and writeBy are the deadlines that the connection has.
	readBy, writeBy time.Time

	head simpleHead
	r    *http.Request
	call call
	body simpleBody
	out  simpleAnswer
	// ctx is the requests': it ends with the connection, or when the caller goes away.
	ctx    context.Context
	cancel context.CancelFunc
	caller callerWatch
}

// States of a simpleConn. A new one waits for its first request: that is most likely on
// its way, and is still answered where the server stops.
const (
	simpleNew int32 = iota
	simpleBusy
	simpleWaits
	simpleOver
)

func newSimpleConn(l *listener, c *conn, tcp *net.TCPConn) *simpleConn {
	s := &simpleConn{conn: c, l: l, tcp: tcp, in: make([]byte, 0, simpleBuffer+callerBytes)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.r = (&http.Request{Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: tcp.RemoteAddr().String()}).WithContext(s.ctx)
	s.body.s = s
	s.caller.s = s
	return s
}

// serve serves the connection until it is over or net/http's.
func (s *simpleConn) serve() {
	defer s.cancel()
	for {
		if s.at == len(s.in) && !s.await() {
			break
		}
		n := s.head.parse(s.in[s.at:])
		rs := (*resource)(nil)
		if n > 0 {
			rs = s.srv.simpleResource(s.head.target)
		}
		if rs == nil {
			s.handOver()
			return
		}
		s.at += n
		if !s.answer(rs) {
			break
		}
	}
	// Closed first: where this is the last one, Shutdown returns at the end.
	s.Close()
	s.srv.simple.end(s)
}

// await waits for the next request. It returns false where none will come.
func (s *simpleConn) await() bool {
	s.in, s.at = s.in[:0], 0
	if s.state.Load() != simpleNew {
		s.state.Store(simpleWaits)
		// shut closes what waits then, and what begins to wait later is seen here.
		if s.srv.simple.closed.Load() {
			return false
		}
	}
	n, err := s.tcp.Read(s.in[:simpleBuffer])
	if s.state.Swap(simpleBusy) == simpleOver || err != nil {
		return false
	}
	s.in = s.in[:n]
	return true
}

// handOver makes the connection net/http's.
func (s *simpleConn) handOver() {
	s.read = s.in[s.at:]
	s.readUntil(time.Time{})
	if !s.writeBy.IsZero() {
		_ = s.tcp.SetWriteDeadline(time.Time{})
	}
	s.srv.simple.end(s)
	s.l.pass(accepted{conn: s.conn})
}

// answer answers the request in head, and says whether the connection goes on.
func (s *simpleConn) answer(rs *resource) (goesOn bool) {
	h := &s.head
	s.r.Method, s.r.RequestURI, s.r.URL, s.r.Header, s.r.Host = h.method, h.target, &h.url, h.header, h.host
	s.r.ContentLength, s.r.Body = int64(h.length), http.NoBody
	if s.body.left = h.length; h.length > 0 {
		s.r.Body = &s.body
	}
	s.out.begin()
	defer s.out.end()
	s.call = call{srv: s.srv, w: s, r: s.r, conn: s.conn, resource: rs}
	s.caller.begin()
	given := s.handle()
	s.caller.forget()
	if !given {
		return false // cut: what has gone out of the answer must not look whole
	}
	if !s.out.finish(s) {
		return false
	}
	if s.out.close {
		s.linger()
		return false
	}
	now := s.call.ended
	if s.readBy.Sub(now) < s.srv.cfg.IdleTimeout {
		// A quarter more, so that it is not set for each request.
		s.readUntil(now.Add(s.srv.cfg.IdleTimeout * 5 / 4))
	}
	return true
}

// handle calls the handler. It returns false where that gave the answer up.
func (s *simpleConn) handle() (whole bool) {
	defer func() {
		if whole {
			return
		}
		// call.serve has logged all other causes.
		if cause := recover(); cause != nil && cause != http.ErrAbortHandler {
			s.srv.cfg.Logger.Error("httpapi: a handler panicked", "panic", cause)
		}
	}()
	s.call.serve()
	return true
}

// linger lets the caller read the last answer before the connection is closed.
func (s *simpleConn) linger() {
	if s.tcp.CloseWrite() != nil {
		return
	}
	s.readUntil(time.Now().Add(lingers))
	for range 64 {
		if _, err := s.tcp.Read(s.in[:cap(s.in)]); err != nil {
			return
		}
	}
}

// readUntil sets the deadline for reading.
func (s *simpleConn) readUntil(t time.Time) {
	s.readBy = t
	_ = s.tcp.SetReadDeadline(t)
}

// SetReadDeadline is for the body. There is nothing to set where that has been read.
func (s *simpleConn) SetReadDeadline(t time.Time) error {
	if !s.body.buffered() || (t.IsZero() && s.body.slow) {
		s.body.slow = true
		s.readUntil(t)
	}
	return nil
}

// SetWriteDeadline is for a part of the answer.
func (s *simpleConn) SetWriteDeadline(t time.Time) error {
	s.writeBy, s.out.timed = t, true
	return s.tcp.SetWriteDeadline(t)
}

// simpleBody is the body of the request under way.
type simpleBody struct {
	s *simpleConn
	// left is how much was not read.
	left int
	// slow: some of it was not there when the handler began.
	slow bool
}

// buffered says that the rest of the body has been read from the connection.
func (b *simpleBody) buffered() bool { return b.left <= len(b.s.in)-b.s.at }

func (b *simpleBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(len(p), b.left)]
	s := b.s
	if s.at < len(s.in) {
		n := copy(p, s.in[s.at:])
		s.at += n
		b.left -= n
		return n, nil
	}
	n, err := s.tcp.Read(p)
	b.left -= n
	switch {
	case b.left == 0:
		s.caller.expect()
		err = nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (b *simpleBody) Close() error { return nil }

// discard reads what the handler has not: the next request is behind it. It returns
// false where the rest does not come.
func (b *simpleBody) discard() bool {
	b.slow = false
	if b.buffered() {
		b.s.at += b.left
		b.left = 0
		return true
	}
	b.s.readUntil(time.Now().Add(b.s.srv.cfg.BodyTimeout))
	_, err := io.Copy(io.Discard, b)
	return err == nil
}
