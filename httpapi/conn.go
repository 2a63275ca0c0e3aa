package httpapi

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"trivet/trivetpb"
)

// listener bounds the connections. Up to the bound they are served. Some more
// are taken only to be told that there are too many, which takes a request and
// an answer: an answer to a request that was not read would be lost to the
// reset that follows. Past those nothing is accepted.
//
// It is net/http's listener for the connections that net/http serves: those of TCP
// begin as simple ones (simpleconn.go).
type listener struct {
	net.Listener
	srv       *Server
	accepted  chan accepted
	closed    chan struct{}
	closeOnce sync.Once
}

type accepted struct {
	conn *conn
	err  error
}

func newListener(l net.Listener, s *Server) *listener {
	return &listener{Listener: l, srv: s, accepted: make(chan accepted), closed: make(chan struct{})}
}

// run accepts connections until the listener is closed, each once there is room for it.
func (l *listener) run() {
	for {
		select {
		case l.srv.connSlots <- struct{}{}:
		case <-l.closed:
			return
		}
		nc, err := l.Listener.Accept()
		if err != nil {
			<-l.srv.connSlots
			// net/http knows which errors pass, and waits before it asks for more.
			if !l.pass(accepted{err: err}) {
				return
			}
			continue
		}
		surplus := l.srv.conns.Add(1) > int64(l.srv.cfg.MaxConns)
		c := &conn{Conn: nc, srv: l.srv, surplus: surplus}
		if tcp, ok := nc.(*net.TCPConn); ok && !l.srv.noSimple {
			l.srv.simple.start(newSimpleConn(l, c, tcp))
			continue
		}
		l.pass(accepted{conn: c})
	}
}

// pass gives net/http what was accepted, or closes it where nothing is served any more.
func (l *listener) pass(a accepted) bool {
	select {
	case l.accepted <- a:
		return true
	case <-l.closed:
		if a.conn != nil {
			a.conn.Close()
		}
		return false
	}
}

// Accept waits for a connection that net/http is to serve.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		if a.err != nil {
			return nil, a.err
		}
		return a.conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close stops accepting, also where run waits for room.
func (l *listener) Close() error {
	l.closeOnce.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// conn is one connection of a listener. Beside keeping count it gives the
// answers that net/http writes by itself, to requests that it cannot parse, the
// form of all others.
type conn struct {
	net.Conn
	srv *Server
	// surplus: one more than are served.
	surplus bool
	// read is what was read of the connection before net/http got it, and not used. It is of
	// the goroutine that reads.
	read []byte
	// answering is set from the start of a handler until its answer is out:
	// what is written then is no answer of net/http's own. Only the goroutine
	// that serves the connection uses it. Over HTTP/2 it stays unset.
	answering bool
	// framed: HTTP/2 is spoken, from the first request on, and all that is written
	// are frames. One write begins anywhere in them, in the middle of somebody's
	// value too, and so may look like anything. Before that request there is nothing
	// of anybody's to write.
	framed atomic.Bool
	// corked holds what is written between cork and uncork, nil otherwise. It is
	// of the same goroutine's.
	corked *buffer

	closeOnce sync.Once
}

// Read reads what was read before, then from the connection.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.read) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.read)
	if c.read = c.read[n:]; len(c.read) == 0 {
		c.read = nil
	}
	return n, nil
}

// Close closes the connection and makes room for another.
func (c *conn) Close() error {
	c.closeOnce.Do(func() {
		c.srv.conns.Add(-1)
		<-c.srv.connSlots
	})
	return c.Conn.Close()
}

// CloseWrite ends the sending half, for net/http: it lets a caller that is
// still sending read the answer before the connection is reset.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return c.Close()
}

// Write passes on what handlers write. Anything else is an error response that
// net/http made of a request it could not parse, in one write and as plain text;
// a problem goes out in its place.
func (c *conn) Write(p []byte) (int, error) {
	if c.corked != nil {
		return c.writeCorked(p)
	}
	if c.answering || c.framed.Load() {
		return c.Conn.Write(p)
	}
	status, text, ok := parseErrorResponse(p)
	if !ok {
		return c.Conn.Write(p)
	}
	if _, err := c.Conn.Write(c.srv.unparsedResponse(status, text)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// direct returns the connection for writes that do not wait, nil where there is
// something between it and the network.
func (c *conn) direct() syscall.RawConn {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// cork holds back what is written from now on. net/http passes on a body, or a chunk,
// of more than its 4 KiB in two or three writes (the headers or the chunk's size with as
// much as fits, the rest, the end of the chunk), each a system call and a wake-up of the
// reader.
func (c *conn) cork() { c.corked = takeBuffer() }

// corkBytes is the smallest write that goes out together with what was held back,
// from where it is, rather than being copied behind it.
const corkBytes = 16 << 10

// writeCorked holds p back or, where it is long, writes what is held and p: at once
// where the kernel takes both from where they are, else one after the other. TLS makes
// a record of each 16 KiB anyway.
func (c *conn) writeCorked(p []byte) (int, error) {
	if len(p) < corkBytes {
		c.corked.b = append(c.corked.b, p...)
		return len(p), nil
	}
	held := c.corked.b
	c.corked.b = held[:0]
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		both := net.Buffers{held, p}
		n, err := both.WriteTo(tcp)
		return max(int(n)-len(held), 0), err
	}
	if len(held) > 0 {
		if _, err := c.Conn.Write(held); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// uncork writes what is still held back, at once.
func (c *conn) uncork() error {
	held := c.corked
	c.corked = nil
	defer held.release()
	if len(held.b) == 0 {
		return nil
	}
	_, err := c.Write(held.b)
	return err
}

// parseErrorResponse takes apart what net/http writes: a status line, headers
// and a text, which may start with the status again.
func parseErrorResponse(p []byte) (status int, text string, ok bool) {
	rest, ok := bytes.CutPrefix(p, []byte("HTTP/1.1 "))
	if !ok || len(rest) < 3 {
		return 0, "", false
	}
	status, err := strconv.Atoi(string(rest[:3]))
	if err != nil || status < 400 {
		return 0, "", false
	}
	_, body, _ := bytes.Cut(rest, []byte("\r\n\r\n"))
	text = strings.TrimPrefix(string(body), strconv.Itoa(status)+" ")
	text = strings.TrimPrefix(text, http.StatusText(status))
	return status, strings.TrimSpace(strings.TrimPrefix(text, ":")), true
}

// unparsedResponse is the whole response to a request that could not be parsed.
// The connection is closed behind it.
func (s *Server) unparsedResponse(status int, text string) []byte {
	p := &trivetpb.Problem{Code: trivetpb.Code_BAD_REQUEST, Detail: text}
	if status == http.StatusRequestHeaderFieldsTooLarge {
		p = &trivetpb.Problem{
			Code:   trivetpb.Code_HEADERS_TOO_LARGE,
			Detail: "the request line and headers are too long",
			Limit:  uint64(s.cfg.MaxHeaderBytes),
		}
	} else if text == "" {
		p.Detail = "this is no HTTP/1.1 request"
	}
	body := append(appendProblem(nil, p), '\n')
	status = p.Code.Info().Status
	s.metrics.http.unparsed(status)
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 " + strconv.Itoa(status) + " " + http.StatusText(status) + "\r\n")
	for _, h := range [][2]string{
		{"Trivet-Revision", strconv.FormatUint(s.node.Store().Revision(), 10)},
		{"Trivet-Node", s.node.ID()},
		{"Trivet-Cluster", s.node.ClusterID()},
		{"Content-Type", problemType},
		{"Content-Length", strconv.Itoa(len(body))},
		{"Connection", "close"},
	} {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

type connKey struct{}

// withConn lets handlers find the connection that their request came over.
func withConn(ctx context.Context, nc net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, nc)
}

// connOf returns the connection that a request of net/http came over, nil where it
// came over none.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// ownConn returns the connection of the call, nil where net/http has it to itself no
// more than for one request: over HTTP/2 a connection is of many requests, and none of
// them may have it to itself. Nor is there one where the connection is the writer.
func (c *call) ownConn() *conn {
	if _, simple := c.w.(*simpleConn); simple || c.r.ProtoMajor > 1 {
		return nil
	}
	return c.conn
}

// answers tells the connection of a request that a handler answers it.
func (c *conn) answers(r *http.Request) {
	switch {
	case c == nil:
	case r.ProtoMajor > 1:
		c.framed.Store(true)
	default:
		c.answering = true
	}
}

// connState learns from net/http that an answer is out and the connection waits
// for the next request.
func connState(nc net.Conn, state http.ConnState) {
	// Over HTTP/2 it never is, and must not be written: others read it there.
	if c, ok := nc.(*conn); ok && state == http.StateIdle && c.answering {
		c.answering = false
	}
}
