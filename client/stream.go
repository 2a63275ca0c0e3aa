package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
)

// stream is the body of an answer that is read while it comes. It belongs to one
// goroutine. It ends with the Client, with the context that it was opened with,
// and where it stands still for longer than idle.
type stream struct {
	header http.Header
	// mediaType is which of those that were asked for it is.
	mediaType string
	body      io.ReadCloser
	idle      time.Duration
	timer     *time.Timer
	ctx       context.Context
	end       func()
}

// errIdle ends a stream on which nothing came for too long.
var errIdle = errors.New("nothing came for too long")

// openStream sends the request to one node, which is to answer with a body of
// one of the media types, within patience. The stream is to be closed.
func (c *Client) openStream(ctx context.Context, n *node, r *request, patience, idle time.Duration, mediaTypes ...string) (*stream, *Error) {
	left := timeLeft(ctx)
	if ctx.Err() != nil || left <= 0 {
		return nil, r.unanswered(n, true, context.DeadlineExceeded)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(ErrClosed) })
	s := &stream{ctx: ctx, idle: idle, end: func() { stop(); cancel(nil) }}
	slow := time.AfterFunc(patience, func() { cancel(errSlow) })
	defer slow.Stop()
	resp, e := c.sendShared(ctx, n, r, min(left, patience))
	if e != nil {
		s.end()
		return nil, e
	}
	if e := c.refusesStream(n, r, resp, mediaTypes); e != nil {
		resp.Body.Close()
		s.end()
		return nil, e
	}
	s.header, s.body, s.mediaType = resp.Header, resp.Body, mediaTypeOf(resp)
	s.timer = time.AfterFunc(idle, func() { cancel(errIdle) })
	s.timer.Stop()
	return s, nil
}

// refusesStream says why the answer is not the stream that was asked for; nil
// where it is.
func (c *Client) refusesStream(n *node, r *request, resp *http.Response, mediaTypes []string) *Error {
	encoding := resp.Header.Get("Content-Encoding")
	switch {
	case resp.StatusCode != http.StatusOK, !slices.Contains(mediaTypes, mediaTypeOf(resp)), encoding != "" && encoding != "identity":
	case c.own != nil && resp.ProtoMajor < 2 && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0:
		// It ends where the connection does: a part of it would look the same.
	default:
		return nil
	}
	whole := *r
	whole.decode = func(*answer) error {
		return fmt.Errorf("it is no stream of %s that says where it ends", strings.Join(mediaTypes, " or "))
	}
	return c.receive(&whole, n, resp)
}

func mediaTypeOf(resp *http.Response) string {
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return mediaType
}

// brokenOff is a stream that ended before its time.
func (r *request) brokenOff(n *node, err error) *Error {
	e := r.unanswered(n, false, err)
	e.Detail = "the answer broke off: " + err.Error()
	return e
}

// Read reads what has come. The error is errIdle where nothing has.
func (s *stream) Read(p []byte) (int, error) {
	s.timer.Reset(s.idle)
	n, err := s.body.Read(p)
	s.timer.Stop()
	if err != nil && err != io.EOF && context.Cause(s.ctx) == errIdle {
		err = errIdle
	}
	return n, err
}

func (s *stream) close() {
	s.timer.Stop()
	s.end()
	s.body.Close()
}
