package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// dialTimeout bounds the way to a node. On loopback a connection is there at once
// or refused; through a firewall that drops, it is neither.
const dialTimeout = time.Second

// conn is one connection to one node.
type conn struct {
	net.Conn
	r *bufio.Reader
	// wrote says that a byte of the request under way may have gone out.
	wrote bool
}

func dial(ctx context.Context, address string) (*conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	k := &conn{Conn: c}
	k.r = bufio.NewReader(c)
	return k, nil
}

// Write notes that the request has left the house, before it does.
func (c *conn) Write(b []byte) (int, error) {
	c.wrote = true
	return c.Conn.Write(b)
}

// usable says that an idle connection is still open at the other end, as far as
// this end has been told, and that nothing came that was not asked for. It costs
// a system call, and saves an Info for each request that would go down with a
// node that is already dead.
func (c *conn) usable() bool {
	if c.r.Buffered() > 0 {
		return false
	}
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err == nil && open
}

// maxAnswerBytes bounds what is read of an answer.
const maxAnswerBytes = 64 << 20

func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxAnswerBytes+1))
	if err == nil && len(b) > maxAnswerBytes {
		err = errors.New("an answer of more than 64 MiB")
	}
	return b, err
}
