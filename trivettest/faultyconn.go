package trivettest

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
)

// faultyConn is a client's connection to a member, over which requests fail as was
// asked for. It knows a request by its first line, which net/http writes with what
// follows in one piece; a connection carries one request at a time (HTTP/1).
type faultyConn struct {
	net.Conn
	faults *faults
	member int

	closed  chan struct{}
	closing sync.Once

	mu sync.Mutex
	// now is the fault of the request under way.
	now Fault
	// answer is what is read in place of the member's, and then the end.
	answer []byte
	// broken: nothing goes or comes any more, but answer.
	broken bool
	// cut is what has come of an answer that is to be cut.
	cut []byte
}

// requestLine returns the method and the path of a request that p begins with.
func requestLine(p []byte) (method, path string, ok bool) {
	line, _, ok := bytes.Cut(p, []byte(" HTTP/1.1\r\n"))
	if !ok || bytes.ContainsAny(line, "\r\n") {
		return "", "", false
	}
	method, target, ok := strings.Cut(string(line), " ")
	path, _, _ = strings.Cut(target, "?")
	return method, path, ok && strings.HasPrefix(path, "/")
}

func (c *faultyConn) Write(p []byte) (int, error) {
	if method, path, ok := requestLine(p); ok {
		how := c.faults.take(c.member, method, path)
		c.mu.Lock()
		c.now = how
		switch how.kind {
		case loseRequest:
			c.broken = true
		case respond:
			c.answer, c.broken = how.answer(), true
		}
		broken := c.broken
		c.mu.Unlock()
		if how.kind == delay && !c.wait(how.delay) {
			return 0, net.ErrClosed
		}
		if broken {
			_ = c.Conn.Close() // and Read finds out
			return len(p), nil
		}
	}
	c.mu.Lock()
	broken := c.broken
	c.mu.Unlock()
	if broken {
		return len(p), nil // as what a socket takes and loses
	}
	return c.Conn.Write(p)
}

// wait returns false where the connection was closed meanwhile.
func (c *faultyConn) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.closed:
		return false
	}
}

func (c *faultyConn) Read(p []byte) (int, error) {
	for {
		if n, ok := c.left(p); ok {
			return n, nil
		}
		n, err := c.Conn.Read(p)
		c.mu.Lock()
		switch {
		case c.broken:
			if len(c.answer) == 0 {
				n, err = 0, c.reset()
			} else {
				n, err = 0, nil
			}
		case err != nil:
		case c.now.kind == loseAnswer:
			c.broken = true
			n, err = 0, c.reset()
		case c.now.kind == cutAnswer:
			// Not before there is something of the body.
			if c.cut = append(c.cut, p[:n]...); !c.keepHalf() {
				n = 0
				break
			}
			c.broken, n = true, 0
		}
		over := c.broken
		c.mu.Unlock()
		if over {
			_ = c.Conn.Close()
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// left returns what there is of answer.
func (c *faultyConn) left(p []byte) (n int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = copy(p, c.answer)
	c.answer = c.answer[n:]
	return n, n > 0
}

// keepHalf has the headers and half of what follows be the answer, once that is there.
func (c *faultyConn) keepHalf() bool {
	end := bytes.Index(c.cut, []byte("\r\n\r\n"))
	if end < 0 || end+4 == len(c.cut) {
		return false
	}
	end += 4
	c.answer = c.cut[:end+(len(c.cut)-end)/2]
	return true
}

func (c *faultyConn) reset() error {
	return &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
}

// breaks cuts the connection under whoever uses it.
func (c *faultyConn) breaks() {
	c.mu.Lock()
	c.broken = true
	c.mu.Unlock()
	_ = c.Conn.Close()
}

func (c *faultyConn) Close() error {
	c.closing.Do(func() {
		close(c.closed)
		c.faults.mu.Lock()
		delete(c.faults.conns, c)
		c.faults.mu.Unlock()
	})
	return c.Conn.Close()
}
