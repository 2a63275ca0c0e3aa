package trivettest

import (
	"net"
	"os"
	"sync"
	"time"
)

// conn is a connection that can be stalled. While it is, nothing is written to it,
// and what has come, its end included, is not given out. Deadlines and Close work as
// ever. One goroutine at a time reads it, as everybody here does.
type conn struct {
	net.Conn
	// stalled returns nil while it flows, else what is closed when that may have
	// changed.
	stalled func() <-chan struct{}

	reading, writing deadline
	closed           chan struct{}
	closing          sync.Once

	// held is what was read while the connection was stalled, and the error behind
	// it. They are the reader's.
	held    []byte
	heldErr error
}

func newConn(nc net.Conn, stalled func() <-chan struct{}) *conn {
	c := &conn{Conn: nc, stalled: stalled, closed: make(chan struct{})}
	c.reading.init()
	c.writing.init()
	return c
}

// flows waits until the connection is not stalled. The error is that of a deadline,
// or of Close.
func (c *conn) flows(d *deadline) error {
	for {
		over := c.stalled()
		if over == nil {
			return nil
		}
		select {
		case <-over:
		case <-d.passed():
			return os.ErrDeadlineExceeded
		case <-c.closed:
			return net.ErrClosed
		}
	}
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.held) == 0 && c.heldErr == nil {
		n, err := c.Conn.Read(p)
		if ne, ok := err.(net.Error); n == 0 && ok && ne.Timeout() {
			return 0, err
		}
		if c.stalled() == nil {
			return n, err
		}
		c.held, c.heldErr = append(c.held[:0], p[:n]...), err
	}
	if err := c.flows(&c.reading); err != nil {
		return 0, err
	}
	if len(c.held) > 0 {
		n := copy(p, c.held)
		c.held = c.held[n:]
		return n, nil
	}
	err := c.heldErr
	return 0, err
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.flows(&c.writing); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *conn) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		c.reading.set(time.Time{})
		c.writing.set(time.Time{})
	})
	return c.Conn.Close()
}

// CloseWrite ends the sending half.
func (c *conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return c.Close()
}

func (c *conn) SetDeadline(t time.Time) error {
	c.reading.set(t)
	c.writing.set(t)
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.reading.set(t)
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writing.set(t)
	return c.Conn.SetWriteDeadline(t)
}
