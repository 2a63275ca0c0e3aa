package systems

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// httpConn sends prepared HTTP/1.1 requests over one connection, kept from one to
// the next, and reads the answers. It does as little as a client can: net/http's
// would take more of a small machine than some of the servers do, and hide what
// they differ in. It belongs to one goroutine. After an error it dials anew.
type httpConn struct {
	address  string
	conn     net.Conn
	r        *bufio.Reader
	deadline time.Time
	body     []byte
}

const (
	// maxBody bounds an answer, maxHeaderLines its header.
	maxBody        = 16 << 20
	maxHeaderLines = 100
)

func newHTTPConn(port int) *httpConn {
	return &httpConn{address: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
}

func (c *httpConn) Close() error {
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	return err
}

// do sends a request, a whole one with its header, and returns status and body of
// the answer. The body is the connection's: it holds until the next call. Of ctx
// the deadline counts.
func (c *httpConn) do(ctx context.Context, request []byte) (status int, body []byte, err error) {
	h, err := c.send(ctx, request)
	if err != nil {
		return 0, nil, err
	}
	if c.body, err = h.read(c.r, c.body[:0]); err != nil {
		c.Close()
		return 0, nil, err
	}
	if h.close {
		c.Close()
	}
	return h.status, c.body, nil
}

// send sends a request and reads the header of the answer.
func (c *httpConn) send(ctx context.Context, request []byte) (h httpHeader, err error) {
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	deadline, _ := ctx.Deadline()
	if c.conn == nil {
		d := net.Dialer{Deadline: deadline}
		if c.conn, err = d.DialContext(ctx, "tcp", c.address); err != nil {
			return h, err
		}
		c.r = bufio.NewReaderSize(c.conn, 16<<10)
		c.deadline = time.Time{}
	}
	// To set it costs as much as some requests; callers keep one for many.
	if !deadline.Equal(c.deadline) {
		c.deadline = deadline
		if err = c.conn.SetDeadline(deadline); err != nil {
			return h, err
		}
	}
	if _, err = c.conn.Write(request); err != nil {
		return h, err
	}
	return readHeader(c.r)
}

// httpHeader is what matters of an answer's header.
type httpHeader struct {
	status  int
	length  int // -1: none was given
	chunked bool
	close   bool
}

var errMalformed = errors.New("malformed HTTP answer")

func readHeader(r *bufio.Reader) (httpHeader, error) {
	h := httpHeader{length: -1}
	line, err := r.ReadSlice('\n')
	if err != nil {
		return h, err
	}
	if len(line) < 13 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return h, errMalformed
	}
	if h.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return h, errMalformed
	}
	for range maxHeaderLines {
		if line, err = r.ReadSlice('\n'); err != nil {
			return h, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return h, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case equalFold(name, "content-length"):
			if h.length, err = strconv.Atoi(string(value)); err != nil || h.length < 0 || h.length > maxBody {
				return h, errMalformed
			}
		case equalFold(name, "transfer-encoding"):
			h.chunked = equalFold(value, "chunked")
		case equalFold(name, "connection"):
			h.close = equalFold(value, "close")
		}
	}
	return h, errMalformed
}

// equalFold compares with a text in lower case, which most names differ from in
// their length.
func equalFold(b []byte, lower string) bool {
	return len(b) == len(lower) && bytes.EqualFold(b, []byte(lower))
}

// read appends the body.
func (h httpHeader) read(r *bufio.Reader, body []byte) ([]byte, error) {
	switch {
	case h.chunked:
		chunks := chunkedReader{r: r}
		for {
			n, err := chunks.next()
			if err != nil || n == 0 {
				return body, err
			}
			if len(body)+n > maxBody {
				return body, errMalformed
			}
			if body, err = appendN(body, r, n); err != nil {
				return body, err
			}
		}
	case h.length >= 0:
		return appendN(body, r, h.length)
	}
	return body, errMalformed // to the end of the connection: no server here does that
}

// appendN appends n bytes of r.
func appendN(body []byte, r io.Reader, n int) ([]byte, error) {
	at := len(body)
	if cap(body)-at < n {
		body = append(body, make([]byte, n)...)
	}
	body = body[:at+n]
	_, err := io.ReadFull(r, body[at:])
	return body, err
}

// chunkedReader reads the chunked transfer coding (RFC 9112 §7.1).
type chunkedReader struct {
	r       *bufio.Reader
	started bool
	left    int
}

// next returns the length of the next chunk, whose bytes are next in r; 0 after the
// last one.
func (c *chunkedReader) next() (int, error) {
	if c.started {
		if _, err := c.r.Discard(2); err != nil { // behind the last chunk
			return 0, err
		}
	}
	c.started = true
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	digits, _, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(";"))
	n, err := strconv.ParseUint(string(digits), 16, 31)
	if err != nil {
		return 0, errMalformed
	}
	if n == 0 {
		_, err = c.r.Discard(2) // no server here sends trailers
	}
	return int(n), err
}

// Read makes it a reader of what the chunks hold.
func (c *chunkedReader) Read(p []byte) (int, error) {
	if c.left == 0 {
		n, err := c.next()
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, io.EOF
		}
		c.left = n
	}
	n, err := c.r.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// stream sends a request and calls line with each line of the answer, which is 200
// and chunked, until ctx ends. The line is the reader's.
func (c *httpConn) stream(ctx context.Context, request []byte, line func(line []byte)) error {
	h, err := c.send(ctx, request)
	if err != nil {
		return err
	}
	if h.status != 200 || !h.chunked {
		return fmt.Errorf("status %d, chunked %v", h.status, h.chunked)
	}
	end := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Now()) })
	defer end()
	lines := bufio.NewReaderSize(&chunkedReader{r: c.r}, 64<<10)
	for {
		text, err := lines.ReadSlice('\n')
		// One that is longer comes in pieces, which callers that count do not mind.
		if len(text) > 0 {
			line(text)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// prepare returns a whole request.
func prepare(method, target, contentType string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: bench\r\n", method, target)
	if contentType != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", contentType)
	}
	if method != "GET" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// unexpected is the error of an answer that is not the one wanted.
func unexpected(status int, body []byte) error {
	return fmt.Errorf("status %d: %s", status, body[:min(len(body), 300)])
}
