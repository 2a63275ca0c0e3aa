package client

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// Was a byte of the request sent? For a write that failed without an answer this
// decides between "certainly not applied" and "unknown". net/http does not say,
// so every connection counts what is written to it, and each attempt compares
// the count with what it was when it got the connection.

// countedConn counts the writes that were begun on it.
type countedConn struct {
	net.Conn
	begun  atomic.Int64
	sealed atomic.Bool
}

// Write passes p on unless the connection is sealed. The count goes up before
// the seal is looked at, and seal does it the other way round: a write that seal
// did not count finds the seal, and takes itself off the count again: it sends
// nothing. Whoever reads the count before that takes a write for begun that was not, which is
// the safe side.
func (c *countedConn) Write(p []byte) (int, error) {
	c.begun.Add(1)
	if c.sealed.Load() {
		c.begun.Add(-1)
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// seal ends writing and returns how many writes were begun before.
func (c *countedConn) seal() int64 {
	c.sealed.Store(true)
	return c.begun.Load()
}

// sending watches one attempt.
type sending struct {
	mu    sync.Mutex
	conns []*countedConn
	// before is the count of each connection when it was got.
	before []int64
	// blind is set where a connection was got that does not count, refusedBy where
	// onConn refused one.
	blind, refusedBy bool
	// onConn, where set, is asked about each connection.
	onConn func() bool
}

// watch returns a context that tells s of the connections that a request is
// given: one, or more where net/http finds a kept one closed before it could
// write to it.
func (s *sending) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		conn := info.Conn
		if t, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
			conn = t.NetConn()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		cc, ok := conn.(*countedConn)
		if !ok {
			s.blind = true
			return
		}
		s.conns = append(s.conns, cc)
		s.before = append(s.before, cc.begun.Load())
		if s.onConn != nil && !s.onConn() {
			s.refusedBy = true
			cc.seal()
		}
	}})
}

// refused says that onConn did, so that nothing was sent over that connection.
func (s *sending) refused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusedBy
}

// nothingSent says, of an attempt that has failed, that not one byte of it went
// out, and sees to it that none will: net/http may still be about to write. The
// connections of a failed attempt are not used again, over HTTP/1 each belongs
// to one request at a time.
func (s *sending) nothingSent() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	nothing := !s.blind
	for i, cc := range s.conns {
		if cc.seal() != s.before[i] {
			nothing = false
		}
	}
	return nothing
}

// tlsPatience is how long a handshake may take.
const tlsPatience = 5 * time.Second

// newTransport returns the connections of a client. ctx ends the dialling that
// is under way when the client is closed.
func newTransport(ctx context.Context, cfg Config) *http.Transport {
	// A node that is there answers within a round trip; one whose machine is
	// gone must not hold up a call that could go elsewhere.
	const patience = 2 * time.Second
	dial := cfg.DialContext
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	t := &http.Transport{
		// No Proxy: the members are addressed one by one.
		DialContext: func(dialCtx context.Context, network, address string) (net.Conn, error) {
			dialCtx, cancel := context.WithTimeout(dialCtx, patience)
			defer cancel()
			defer context.AfterFunc(ctx, cancel)()
			nc, err := dial(dialCtx, network, address)
			if err != nil {
				return nil, err
			}
			return &countedConn{Conn: nc}, nil
		},
		TLSHandshakeTimeout: tlsPatience,
		MaxIdleConnsPerHost: cfg.MaxConnsPerNode,
		MaxConnsPerHost:     cfg.MaxConnsPerNode,
		// Less than the servers' two minutes: a request must not meet a
		// connection that is just being closed as idle.
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
		// HTTP/1 alone: what was sent can be told of a connection that carries
		// one request at a time.
		Protocols: new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if cfg.TLS != nil {
		t.TLSClientConfig = cfg.TLS.Clone()
	}
	return t
}

// sendBody is the body of one attempt. net/http may go on reading a body after
// it has answered, and the bytes are the caller's: detach ends that.
type sendBody struct {
	mu     sync.Mutex
	r      bytes.Reader
	upload *upload // where set, in place of r
}

// newBody returns a body for data. It is none of the types that net/http can
// rewind, so no request that has one is repeated behind our back.
func newBody(data []byte) *sendBody {
	b := &sendBody{}
	b.r.Reset(data)
	return b
}

func (b *sendBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.upload != nil {
		return b.upload.Read(p)
	}
	return b.r.Read(p)
}

func (b *sendBody) Close() error { return nil }

// detach lets go of the bytes: a later Read finds none.
func (b *sendBody) detach() {
	b.mu.Lock()
	b.r.Reset(nil)
	b.upload = nil
	b.mu.Unlock()
}

// answerBodies are bodies of answers that nothing is kept of.
var answerBodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// mostBodyKept is the largest of them that is used again.
const mostBodyKept = 4 << 20

func takeBody() *bytes.Buffer { return answerBodies.Get().(*bytes.Buffer) }

func giveBody(b *bytes.Buffer) {
	if b.Cap() <= mostBodyKept {
		b.Reset()
		answerBodies.Put(b)
	}
}

// readAtMost reads r to its end, into buf, and fails past limit bytes. size is how many
// are announced, negative for unknown.
func readAtMost(buf *bytes.Buffer, r io.Reader, size, limit int64) ([]byte, error) {
	if size > limit {
		return nil, errAnswerTooLarge
	}
	if size >= 0 {
		// One byte of room more, so that the end is found without growing. An
		// announced size is no reason to believe in it: a little at first.
		buf.Grow(int(min(size+bytes.MinRead, 1<<20)))
	}
	if _, err := buf.ReadFrom(io.LimitReader(r, limit+1)); err != nil {
		return nil, err
	}
	if int64(buf.Len()) > limit {
		return nil, errAnswerTooLarge
	}
	return buf.Bytes(), nil
}
