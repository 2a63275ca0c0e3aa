package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// batchConns carry the batches where the client makes its connections: HTTP/1.1 as
// everything else speaks it, on connections that belong to nobody but the goroutine
// that carries the batch. It writes the request in one piece and reads the answer
// itself. net/http's Transport has two goroutines a connection for that, and of what a
// lone call costs a client, half was to wake them and to be woken.
//
// What they are there for otherwise is done here, or not needed:
//
//   - An answer before the request has been sent whole (to one that is too large) is
//     read when it has been sent, or sending failed.
//   - A connection that the other end has closed is found out when it is used again
//     (stale). Where that cannot be told the request fails; it is one that may be sent
//     again, as others go through the Transport.
//   - The context ends what is under way by a deadline in the past.
type batchConns struct {
	// dial makes connections as the Transport's are made.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	tls  *tls.Config
	// most is how many there may be to one address; what needs one more goes through
	// others.
	most   int
	others http.RoundTripper

	mu     sync.Mutex
	closed bool
	idle   map[string][]*batchConn // by address, the one used last at the end
	count  map[string]int          // idle and in use
	reaper *time.Timer             // set while any is idle: see reap

	longs atomic.Int64 // connections that are long
}

const (
	// batchConnsOf is the part of Config.MaxConnsPerNode, a half, that batches may have
	// for themselves.
	batchConnsOf = 2
	// idleBatchConn is the Transport's IdleConnTimeout.
	idleBatchConn = 90 * time.Second
	// staleAfter is how long a connection is idle before it is looked at: that is a system
	// call. One that ends sooner is taken for a node that ends.
	staleAfter = time.Second
	// keptRequest is the largest buffer for requests that a connection keeps: larger ones
	// are of the pool that long answers are read into. requestHead is room for what stands
	// before a body, and for bytes.Buffer to find the body's end.
	keptRequest = 32 << 10
	requestHead = 2 << 10
	// keptAnswer is the buffer for answers that a connection keeps where one was longer
	// than longAnswer: for some dozens of lists, as most are that go together. So many
	// connections keep one, to all nodes together: more than lists that go together take,
	// and hundreds of batches at once do not leave a MiB each for as long as they are idle.
	keptAnswer  = 1 << 20
	longAnswer  = 32 << 10
	keptAnswers = 32
	// maxAnswerHeader bounds the header of an answer.
	maxAnswerHeader = 64 << 10
	// maxInterim is how many interim answers (status 1xx) there may be.
	maxInterim = 5
)

func newBatchConns(cfg Config, t *http.Transport) *batchConns {
	b := &batchConns{
		dial: t.DialContext, most: cfg.MaxConnsPerNode / batchConnsOf, others: t,
		idle: map[string][]*batchConn{}, count: map[string]int{},
	}
	// The Transport has the rest.
	t.MaxConnsPerHost -= b.most
	if b.tls = cfg.TLS.Clone(); b.tls == nil {
		b.tls = &tls.Config{}
	}
	b.tls.NextProtos = []string{"http/1.1"}
	return b
}

// batchConn is one connection.
type batchConn struct {
	b       *batchConns
	address string
	// conn is what is read and written, raw what it goes over: the same without TLS.
	conn, raw net.Conn
	r         *bufio.Reader
	limit     limitedReader
	out       bytes.Buffer
	in        *bytes.Buffer // see batchAnswer.buffer; nil until it is needed
	long      bool          // it is one of the keptAnswers, until it is closed
	used      time.Time
}

// limitedReader reads what may still be read.
type limitedReader struct {
	conn net.Conn
	left int64
}

var errHeaderTooLarge = fmt.Errorf("the header of the answer is larger than %d bytes", maxAnswerHeader)

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errHeaderTooLarge
	}
	n, err := l.conn.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// RoundTrip sends a request, whose body is a sendBody or none, and returns the answer
// once its header is there. It tells an httptrace.ClientTrace in the context of the
// connection, as the Transport does.
func (b *batchConns) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	c, err := b.take(ctx, req.URL.Scheme, req.URL.Host)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return b.others.RoundTrip(req)
	}
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Conn: c.conn})
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	resp, err := c.exchange(req)
	if err != nil {
		stop()
		c.close()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	resp.Body = &batchAnswer{ReadCloser: resp.Body, ctx: ctx, c: c, stop: stop, keep: !resp.Close}
	return resp, nil
}

// exchange writes the request and reads the header of the answer.
func (c *batchConn) exchange(req *http.Request) (*http.Response, error) {
	failed, err := c.write(req)
	if err != nil {
		return nil, err
	}
	// Where sending failed there may be an answer all the same.
	for range maxInterim {
		c.limit.left = maxAnswerHeader
		resp, err := http.ReadResponse(c.r, req)
		switch {
		case err != nil && failed != nil:
			return nil, failed
		case err != nil:
			return nil, err
		case resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols:
			c.limit.left = math.MaxInt64
			resp.Close = resp.Close || failed != nil || resp.StatusCode < 200
			return resp, nil
		}
	}
	return nil, fmt.Errorf("more than %d interim answers", maxInterim)
}

// write writes the request in one piece. failed says that sending it did, and that there
// may be an answer all the same; err that there is none.
func (c *batchConn) write(req *http.Request) (failed, err error) {
	out := &c.out
	if size := requestHead + int(min(max(req.ContentLength, 0), 2*batchBytes)); size > keptRequest {
		out = takeBody()
		defer giveBody(out)
		out.Grow(size) // not by doubling
	}
	defer out.Reset()
	if err := req.Write(out); err != nil {
		return nil, err
	}
	if _, failed = c.conn.Write(out.Bytes()); errors.Is(failed, net.ErrClosed) {
		return nil, failed
	}
	return failed, nil
}

// batchAnswer is the body of an answer. Once it was read to its end the connection is
// another request's.
type batchAnswer struct {
	io.ReadCloser
	ctx  context.Context
	c    *batchConn
	stop func() bool
	keep bool // where it was read
	read bool
}

func (a *batchAnswer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		a.read = true
	case err != nil && a.ctx.Err() != nil:
		err = context.Cause(a.ctx)
	}
	return n, err
}

// buffer returns the buffer that an answer of so many bytes, negative for unknown, may be
// read into until it is closed. It is the connection's: a pool is emptied by two
// collections, and lists, whose items are new memory each time, make dozens of them a
// second where the heap is small. What the pool lost and was made again by doubling was a
// fifth of all bytes that they allocated.
//
// An answer that is long gets as much as is kept, at once. What of it is not used is not
// touched. That it counts as heap is welcome: the collector comes when the heap has
// doubled, and a heap of 2 MiB does so after sixty lists of a hundred items. With four
// more there is half of the collections, which took a third of a client's processor time.
func (a *batchAnswer) buffer(size int64) *bytes.Buffer {
	if a.c.in == nil {
		a.c.in = takeBody()
	}
	if (size < 0 || size > longAnswer) && a.c.mayBeLong() {
		a.c.in.Grow(keptAnswer)
	}
	return a.c.in
}

// mayBeLong says whether the connection may keep a buffer of keptAnswer.
func (c *batchConn) mayBeLong() bool {
	if !c.long {
		if c.long = c.b.longs.Add(1) <= keptAnswers; !c.long {
			c.b.longs.Add(-1)
		}
	}
	return c.long
}

// releaseBuffer leaves a buffer that is too large to be kept to others.
func (c *batchConn) releaseBuffer() {
	if c.in == nil {
		return
	}
	most := 2 * longAnswer
	if c.long {
		most = 2 * keptAnswer // Grow may have rounded up
	}
	if c.in.Reset(); c.in.Cap() > most {
		giveBody(c.in)
		c.in = nil
	}
}

func (a *batchAnswer) Close() error {
	if a.c == nil {
		return nil
	}
	a.c.releaseBuffer()
	// Where stop comes too late the connection has a deadline.
	if stopped := a.stop(); stopped && a.keep && a.read && a.c.r.Buffered() == 0 {
		a.c.put()
	} else {
		a.c.close()
	}
	a.c = nil
	return nil
}

// take returns a connection to the host; nil where there are as many as there may be.
func (b *batchConns) take(ctx context.Context, scheme, host string) (*batchConn, error) {
	address := scheme + "://" + host
	b.mu.Lock()
	for kept := b.idle[address]; len(kept) > 0; kept = b.idle[address] {
		c := kept[len(kept)-1]
		kept[len(kept)-1] = nil
		b.idle[address] = kept[:len(kept)-1]
		b.mu.Unlock()
		if idle := time.Since(c.used); idle < staleAfter || (idle < idleBatchConn && !stale(c.raw)) {
			return c, nil
		}
		c.close()
		b.mu.Lock()
	}
	if b.closed || b.count[address] >= b.most {
		b.mu.Unlock()
		return nil, nil
	}
	b.count[address]++
	b.mu.Unlock()
	c := &batchConn{b: b, address: address}
	if err := c.connect(ctx, scheme, host); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// connect dials.
func (c *batchConn) connect(ctx context.Context, scheme, host string) error {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), "80"
		if scheme == "https" {
			port = "443"
		}
	}
	if c.raw, err = c.b.dial(ctx, "tcp", net.JoinHostPort(name, port)); err != nil {
		return err
	}
	c.conn = c.raw
	if scheme == "https" {
		config := c.b.tls
		if config.ServerName == "" {
			config = config.Clone()
			config.ServerName = name
		}
		t := tls.Client(c.raw, config)
		ctx, cancel := context.WithTimeout(ctx, tlsPatience)
		defer cancel()
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		c.conn = t
	}
	c.limit.conn = c.conn
	c.r = bufio.NewReaderSize(&c.limit, 16<<10)
	return nil
}

// put gives the connection back.
func (c *batchConn) put() {
	c.used = time.Now()
	c.b.mu.Lock()
	closed := c.b.closed
	if !closed {
		c.b.idle[c.address] = append(c.b.idle[c.address], c)
		if c.b.reaper == nil {
			c.b.reaper = time.AfterFunc(idleBatchConn, c.b.reap)
		}
	}
	c.b.mu.Unlock()
	if closed {
		c.close()
	}
}

// close ends a connection that was taken.
func (c *batchConn) close() {
	if c.conn != nil {
		c.conn.Close()
	} else if c.raw != nil {
		c.raw.Close()
	}
	if c.long {
		c.b.longs.Add(-1)
	}
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.b.count[c.address]--; c.b.count[c.address] == 0 {
		delete(c.b.count, c.address)
		delete(c.b.idle, c.address)
	}
}

// reap closes what has been idle for too long, and comes again while there is more.
func (b *batchConns) reap() {
	b.closeOlder(idleBatchConn)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reaper = nil
	for _, kept := range b.idle {
		if len(kept) > 0 && !b.closed {
			b.reaper = time.AfterFunc(idleBatchConn/2, b.reap)
			return
		}
	}
}

// closeIdle closes what is idle.
func (b *batchConns) closeIdle() { b.closeOlder(0) }

// closeOlder closes what has been idle for so long.
func (b *batchConns) closeOlder(age time.Duration) {
	var old []*batchConn
	b.mu.Lock()
	for address, kept := range b.idle {
		n := 0 // the ones used longest ago come first
		for n < len(kept) && time.Since(kept[n].used) >= age {
			n++
		}
		old = append(old, kept[:n]...)
		b.idle[address] = slices.Delete(kept, 0, n)
	}
	b.mu.Unlock()
	for _, c := range old {
		c.close()
	}
}

// close closes what is idle, and has what is in use closed when it is given back.
func (b *batchConns) close() {
	b.mu.Lock()
	b.closed = true
	if b.reaper != nil {
		b.reaper.Stop()
	}
	b.mu.Unlock()
	b.closeIdle()
}
