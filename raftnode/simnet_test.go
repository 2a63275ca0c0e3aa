package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// simNet is a network in memory and in virtual time: streams between named
// members with a latency, that stall like TCP while a link is cut (what was
// sent arrives once it is healed), and that are reset when a member crashes.
type simNet struct {
	mu        sync.Mutex
	listeners map[string]*simListener // by address, which is the member's id
	cut       map[[2]string]bool      // by direction: from, to
	latency   func() time.Duration    // of one way; called under mu
	changed   chan struct{}           // closed at each change of cut
	conns     map[*simConn]bool
	// onWrite, where it is set, is called before each write to a stream and says
	// what becomes of it.
	onWrite func(c *simConn) writeFate
	// delay, where it is set, is what a link adds to the latency; called under mu.
	delay func(from, to string) time.Duration
	// refuse, where it is set, says which members cannot dial which; called
	// under mu.
	refuse func(from, to string) bool
}

type writeFate int

const (
	delivered writeFate = iota
	lost                // it goes nowhere, and the stream breaks
	last                // it arrives, and then the stream breaks
)

func newSimNet() *simNet {
	return &simNet{
		listeners: map[string]*simListener{},
		cut:       map[[2]string]bool{},
		latency:   func() time.Duration { return 100 * time.Microsecond },
		changed:   make(chan struct{}),
		conns:     map[*simConn]bool{},
	}
}

// addr is the address of a member: HOST:PORT in form only.
func simAddr(id string) string { return id + ":1" }

type simListener struct {
	net      *simNet
	id       string
	address  string
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (n *simNet) listen(id string) *simListener { return n.listenAt(id, simAddr(id)) }

func (n *simNet) listenAt(id, address string) *simListener {
	l := &simListener{net: n, id: id, address: address, accepted: make(chan net.Conn, 64), closed: make(chan struct{})}
	n.mu.Lock()
	n.listeners[address] = l
	n.mu.Unlock()
	return l
}

func (l *simListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *simListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		if l.net.listeners[l.address] == l {
			delete(l.net.listeners, l.address)
		}
		l.net.mu.Unlock()
		l.reset()
	})
	return nil
}

// reset ends what was connected and not accepted yet.
func (l *simListener) reset() {
	for {
		select {
		case c := <-l.accepted:
			c.Close()
		default:
			return
		}
	}
}

func (l *simListener) Addr() net.Addr { return simAddress(l.address) }

type simAddress string

func (a simAddress) Network() string { return "sim" }
func (a simAddress) String() string  { return string(a) }

func refusedBy(address string) error {
	return fmt.Errorf("connect to %s: %w", address, syscall.ECONNREFUSED)
}

// dial connects a member to an address.
func (n *simNet) dial(ctx context.Context, from, address string) (net.Conn, error) {
	for {
		n.mu.Lock()
		changed := n.changed
		l := n.listeners[address]
		to := address[:len(address)-2]
		if l != nil {
			to = l.id
		}
		blocked := n.cut[[2]string{from, to}] || n.cut[[2]string{to, from}]
		rtt := 2 * n.latency()
		if n.refuse != nil && n.refuse(from, to) {
			l = nil
		}
		n.mu.Unlock()
		if blocked {
			select { // the SYN is sent again and again
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		select {
		case <-time.After(rtt):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if l == nil {
			return nil, refusedBy(address)
		}
		out, in := newSimPipe(n, from, to), newSimPipe(n, to, from)
		a := &simConn{net: n, r: in, w: out, local: from, remote: to, dialled: true}
		b := &simConn{net: n, r: out, w: in, local: to, remote: from}
		a.other, b.other = b, a
		n.mu.Lock()
		n.conns[a], n.conns[b] = true, true
		n.mu.Unlock()
		select {
		case l.accepted <- b:
			select {
			case <-l.closed:
				l.reset() // it may have closed just before
			default:
			}
			return a, nil
		case <-l.closed:
			return nil, refusedBy(address)
		}
	}
}

// set cuts or heals links; f decides for each direction between two members.
func (n *simNet) set(members []string, f func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range members {
		for _, b := range members {
			if a != b {
				n.cut[[2]string{a, b}] = f(a, b)
			}
		}
	}
	close(n.changed)
	n.changed = make(chan struct{})
	for c := range n.conns {
		c.r.kick()
	}
}

// crash resets every stream of a member.
func (n *simNet) crash(id string) {
	n.mu.Lock()
	var conns []*simConn
	for c := range n.conns {
		if c.local == id {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// reset ends the streams that one member has dialled to another, but for raft's.
func (n *simNet) reset(from, to string) {
	n.mu.Lock()
	var conns []*simConn
	for c := range n.conns {
		if c.local == from && c.remote == to && c.dialled && c.kind == streamPeer {
			conns = append(conns, c)
		}
	}
	n.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

func (n *simNet) isCut(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[[2]string{from, to}]
}

// simPipe is one direction of a stream.
type simPipe struct {
	net      *simNet
	from, to string

	mu     sync.Mutex
	chunks []simChunk
	closed bool
	wake   chan struct{} // closed at each change
}

type simChunk struct {
	due  time.Time
	data []byte
}

func newSimPipe(n *simNet, from, to string) *simPipe {
	return &simPipe{net: n, from: from, to: to, wake: make(chan struct{})}
}

func (p *simPipe) kick() {
	p.mu.Lock()
	p.kickLocked()
	p.mu.Unlock()
}

func (p *simPipe) kickLocked() {
	close(p.wake)
	p.wake = make(chan struct{})
}

type simConn struct {
	net           *simNet
	r, w          *simPipe
	other         *simConn
	local, remote string
	dialled       bool
	kind          byte // the first byte that was written, where it was dialled; under net.mu

	mu            sync.Mutex
	deadline      time.Time
	deadlineMoved chan struct{}
	closed        bool
}

func (c *simConn) Read(b []byte) (int, error) {
	for {
		c.mu.Lock()
		deadline, closed := c.deadline, c.closed
		if c.deadlineMoved == nil {
			c.deadlineMoved = make(chan struct{})
		}
		moved := c.deadlineMoved
		c.mu.Unlock()
		if closed {
			return 0, net.ErrClosed
		}
		now := time.Now()
		if !deadline.IsZero() && !now.Before(deadline) {
			return 0, os.ErrDeadlineExceeded
		}
		blocked := c.net.isCut(c.r.from, c.r.to)
		c.r.mu.Lock()
		wake := c.r.wake
		var due <-chan time.Time
		if !blocked {
			if len(c.r.chunks) > 0 {
				first := &c.r.chunks[0]
				if !first.due.After(now) {
					n := copy(b, first.data)
					if first.data = first.data[n:]; len(first.data) == 0 {
						c.r.chunks = c.r.chunks[1:]
					}
					c.r.mu.Unlock()
					return n, nil
				}
				due = time.After(first.due.Sub(now))
			} else if c.r.closed {
				c.r.mu.Unlock()
				return 0, io.EOF
			}
		}
		c.r.mu.Unlock()
		var late <-chan time.Time
		if !deadline.IsZero() {
			late = time.After(deadline.Sub(now))
		}
		select {
		case <-wake:
		case <-due:
		case <-late:
		case <-moved:
		}
	}
}

func (c *simConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	c.net.mu.Lock()
	latency, onWrite := c.net.latency(), c.net.onWrite
	if c.net.delay != nil {
		latency += c.net.delay(c.local, c.remote)
	}
	if c.kind == 0 {
		c.kind = b[0]
	}
	c.net.mu.Unlock()
	if onWrite != nil {
		switch onWrite(c) {
		case lost:
			c.Close()
			return 0, errors.New("broken pipe")
		case last:
			defer c.Close() // the bytes are in the pipe, which is read to its end
		}
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.closed {
		return 0, errors.New("broken pipe")
	}
	due := time.Now().Add(latency)
	if n := len(c.w.chunks); n > 0 && c.w.chunks[n-1].due.After(due) {
		due = c.w.chunks[n-1].due // in order
	}
	c.w.chunks = append(c.w.chunks, simChunk{due, append([]byte(nil), b...)})
	c.w.kickLocked()
	return len(b), nil
}

func (c *simConn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.moveLocked()
	c.mu.Unlock()
	for _, p := range []*simPipe{c.r, c.w} {
		p.mu.Lock()
		p.closed = true
		p.kickLocked()
		p.mu.Unlock()
	}
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return nil
}

func (c *simConn) moveLocked() {
	if c.deadlineMoved != nil {
		close(c.deadlineMoved)
		c.deadlineMoved = nil
	}
}

func (c *simConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.moveLocked()
	c.mu.Unlock()
	return nil
}

func (c *simConn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *simConn) SetWriteDeadline(t time.Time) error { return nil }
func (c *simConn) LocalAddr() net.Addr                { return simAddress(simAddr(c.local)) }
func (c *simConn) RemoteAddr() net.Addr               { return simAddress(simAddr(c.remote)) }
