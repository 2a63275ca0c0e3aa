package api

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"trivet/jepsen-lite/history"
)

// Stream is an answer that comes line by line and has no end.
type Stream struct {
	conn  *conn
	lines *bufio.Scanner
	stop  func() bool
	// Answer is what the first bytes said; the lines come with an OK alone.
	Answer Answer
}

// maxLineBytes bounds a line: a watch's frame of a whole txn.
const maxLineBytes = 32 << 20

// Open sends the request over a connection of its own. The answer's head has
// firstByte; the lines have as long as ctx.
func Open(ctx context.Context, node Node, r Request, firstByte time.Duration) *Stream {
	s := &Stream{}
	fail := func(code string, err error) *Stream {
		s.Close()
		s.Answer = Answer{Type: history.Fail, Code: code, Why: err.Error()}
		return s
	}
	u, err := url.Parse(node.URL)
	if err != nil {
		return fail("refused", err)
	}
	if s.conn, err = dial(ctx, u.Host); err != nil {
		return fail("refused", err)
	}
	s.conn.SetDeadline(time.Now().Add(firstByte + grace))
	s.stop = context.AfterFunc(ctx, func() { s.conn.Close() })
	req := request(u, r, firstByte)
	if err := req.Write(s.conn); err != nil {
		return fail("broken", err)
	}
	resp, err := http.ReadResponse(s.conn.r, req)
	if err != nil {
		return fail("broken", err)
	}
	if resp.StatusCode >= 300 {
		body, err := readAll(resp.Body)
		if err != nil {
			return fail("broken", err)
		}
		s.Answer = answer(resp, body, true)
		s.Close()
		return s
	}
	s.Answer = Answer{Type: history.OK, Status: resp.StatusCode, Header: resp.Header}
	s.lines = bufio.NewScanner(resp.Body)
	s.lines.Buffer(make([]byte, 0, 64<<10), maxLineBytes)
	return s
}

// Next returns the next line, which is the caller's until the next call. It
// waits for as long as silence; a stream that says nothing longer has failed.
func (s *Stream) Next(silence time.Duration) ([]byte, error) {
	s.conn.SetDeadline(time.Now().Add(silence))
	if s.lines.Scan() {
		return s.lines.Bytes(), nil
	}
	if err := s.lines.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("the stream ended")
}

// Close gives the connection up. Calling it again does no harm.
func (s *Stream) Close() {
	if s.stop != nil {
		s.stop()
	}
	if s.conn != nil {
		s.conn.Close()
	}
}
