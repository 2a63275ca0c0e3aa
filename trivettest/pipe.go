package trivettest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memory is a network in memory: who listens, by address. Everything that waits in it
// waits for a channel or a condition, so a cluster over it lives in a bubble of
// testing/synctest.
type memory struct {
	mu        sync.Mutex
	listeners map[string]*memoryListener
}

// backlog is how many connections wait to be accepted; past it a dial waits.
const backlog = 128

func (m *memory) listen(address string) (net.Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listeners[address] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Addr: memoryAddr(address), Err: syscall.EADDRINUSE}
	}
	l := &memoryListener{of: m, address: memoryAddr(address), come: make(chan net.Conn, backlog), closed: make(chan struct{})}
	m.listeners[address] = l
	return l, nil
}

func (m *memory) dial(ctx context.Context, address string) (net.Conn, error) {
	m.mu.Lock()
	l := m.listeners[address]
	m.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "memory", Addr: memoryAddr(address), Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	here, there := newPipe(memoryAddr("client"), l.address)
	select {
	case l.come <- there:
	case <-l.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: memoryAddr(address), Err: ctx.Err()}
	}
	select {
	case <-l.closed: // nobody may be left to accept it
		l.drop()
	default:
	}
	return here, nil
}

type memoryAddr string

func (memoryAddr) Network() string  { return "memory" }
func (a memoryAddr) String() string { return string(a) }

type memoryListener struct {
	of      *memory
	address memoryAddr
	come    chan net.Conn
	closed  chan struct{}
	closing sync.Once
}

func (l *memoryListener) Addr() net.Addr { return l.address }

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case nc := <-l.come:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.closing.Do(func() {
		l.of.mu.Lock()
		delete(l.of.listeners, string(l.address))
		l.of.mu.Unlock()
		close(l.closed)
		l.drop()
	})
	return nil
}

// drop ends what has come and is not accepted.
func (l *memoryListener) drop() {
	for {
		select {
		case nc := <-l.come:
			_ = nc.Close()
		default:
			return
		}
	}
}

// halfBytes bounds what is under way in one direction, as a socket's buffers do: a
// writer whose reader takes nothing waits.
const halfBytes = 256 << 10

// half is one direction of a pipe.
type half struct {
	mu sync.Mutex
	// changed is told of every change below, and of deadlines that pass.
	changed sync.Cond
	data    []byte
	// ended: nothing more is written, and the reader finds the end behind data. gone:
	// nobody reads any more.
	ended, gone         bool
	reading, writing    time.Time // deadlines
	readWake, writeWake *time.Timer
}

func newHalf() *half {
	h := &half{}
	h.changed.L = &h.mu
	return h
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case passed(h.reading):
			return 0, os.ErrDeadlineExceeded
		case len(h.data) > 0 || len(p) == 0:
			n := copy(p, h.data)
			if h.data = h.data[n:]; len(h.data) == 0 {
				h.data = nil
			}
			h.changed.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.ended:
			return n, net.ErrClosed
		case h.gone:
			return n, &net.OpError{Op: "write", Net: "memory", Err: syscall.EPIPE}
		case passed(h.writing):
			return n, os.ErrDeadlineExceeded
		case len(p) == 0:
			return n, nil
		case len(h.data) < halfBytes:
			some := min(len(p), halfBytes-len(h.data))
			h.data = append(h.data, p[:some]...)
			p, n = p[some:], n+some
			h.changed.Broadcast()
			continue
		}
		h.changed.Wait()
	}
}

// set changes what the half is, and has those who wait look again.
func (h *half) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.changed.Broadcast()
}

// due sets a deadline of the half's and has it noticed when it passes.
func (h *half) due(deadline *time.Time, wake **time.Timer, t time.Time) {
	h.set(func() {
		*deadline = t
		if *wake != nil {
			(*wake).Stop()
			*wake = nil
		}
		if left := time.Until(t); !t.IsZero() && left > 0 {
			*wake = time.AfterFunc(left, func() { h.set(func() {}) })
		}
	})
}

// pipe is one end of a connection in memory.
type pipe struct {
	in, out       *half
	local, remote memoryAddr
}

func newPipe(a, b memoryAddr) (_, _ *pipe) {
	to, fro := newHalf(), newHalf()
	return &pipe{in: fro, out: to, local: a, remote: b}, &pipe{in: to, out: fro, local: b, remote: a}
}

func (p *pipe) Read(b []byte) (int, error)  { return p.in.read(b) }
func (p *pipe) Write(b []byte) (int, error) { return p.out.write(b) }
func (p *pipe) LocalAddr() net.Addr         { return p.local }
func (p *pipe) RemoteAddr() net.Addr        { return p.remote }

// Close lets the other end read what was written, and then the end.
func (p *pipe) Close() error {
	_ = p.SetDeadline(time.Time{}) // and no timer is left
	p.in.set(func() { p.in.gone, p.in.data = true, nil })
	return p.CloseWrite()
}

// CloseWrite ends the sending half.
func (p *pipe) CloseWrite() error {
	p.out.set(func() { p.out.ended = true })
	return nil
}

func (p *pipe) SetDeadline(t time.Time) error {
	_ = p.SetReadDeadline(t)
	return p.SetWriteDeadline(t)
}

func (p *pipe) SetReadDeadline(t time.Time) error {
	p.in.due(&p.in.reading, &p.in.readWake, t)
	return nil
}

func (p *pipe) SetWriteDeadline(t time.Time) error {
	p.out.due(&p.out.writing, &p.out.writeWake, t)
	return nil
}
