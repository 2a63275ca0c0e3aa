package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
)

// Transport returns a transport whose requests are answered by this server in the
// process, whatever host they name: client.Config.Transport, for a service that
// has a member inside it. There is no connection, so there are no limits of one:
// who gets an answer must read its body, close it or end its context, as always,
// and until then the request is under way.
//
// Shutdown waits for such requests too.
func (s *Server) Transport() http.RoundTripper { return inProcess{s} }

type inProcess struct{ s *Server }

// RoundTrip answers once the headers are there; the body comes as it is written.
func (t inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	body := req.Body
	if body == nil {
		body = http.NoBody
	}
	if !t.s.local.enter() {
		body.Close()
		return nil, http.ErrServerClosed
	}
	ctx, cancel := context.WithCancel(req.Context())
	r := req.Clone(ctx)
	r.Body, r.RequestURI, r.RemoteAddr = body, r.URL.RequestURI(), "in process"
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	pr, pw := io.Pipe()
	w := &localWriter{pipe: pw, header: http.Header{}, head: make(chan *http.Response, 1), request: req}
	w.body = &localBody{PipeReader: pr, cancel: cancel}
	// Whoever gave up reads no more of the body, and nothing may wait for it.
	stop := context.AfterFunc(req.Context(), func() { pw.CloseWithError(req.Context().Err()) })
	// Nor does the handler wait for a body that comes no more.
	endBody := context.AfterFunc(ctx, func() { body.Close() })
	go func() {
		defer t.s.local.leave()
		defer cancel()
		defer stop()
		defer body.Close()
		defer endBody()
		defer func() {
			// net/http would cut the connection: the reader must not take a part
			// for the whole.
			if cause := recover(); cause != nil {
				w.fail(io.ErrUnexpectedEOF)
				if cause != http.ErrAbortHandler {
					t.s.cfg.Logger.Error("httpapi: a handler panicked", "panic", cause)
				}
				return
			}
			w.WriteHeader(http.StatusOK)
			pw.Close()
		}()
		t.s.ServeHTTP(w, r)
	}()
	select {
	case resp := <-w.head:
		if resp == nil {
			return nil, io.ErrUnexpectedEOF
		}
		return resp, nil
	case <-ctx.Done():
		pr.CloseWithError(ctx.Err()) // the handler ends by itself
		return nil, ctx.Err()
	}
}

// localWriter is the ResponseWriter of a request in the process. It belongs to the
// goroutine of the handler.
type localWriter struct {
	pipe    *io.PipeWriter
	body    *localBody
	header  http.Header
	head    chan *http.Response // gets one; nil where the handler failed before
	request *http.Request
	written bool
}

func (w *localWriter) Header() http.Header { return w.header }

func (w *localWriter) WriteHeader(status int) {
	if w.written {
		return
	}
	w.written = true
	resp := &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header.Clone(), Body: w.body, ContentLength: -1, Request: w.request,
	}
	if n, ok := parseDigits(w.header.Get("Content-Length")); ok {
		resp.ContentLength = int64(n)
	}
	w.head <- resp
}

func (w *localWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(p)
}

// Flush does nothing: what was written has been read.
func (w *localWriter) Flush() {}

func (w *localWriter) fail(err error) {
	if !w.written {
		w.written = true
		w.head <- nil
	}
	w.pipe.CloseWithError(err)
}

// localBody ends its request when it is closed.
type localBody struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (b *localBody) Close() error {
	b.cancel()
	return b.PipeReader.Close()
}

// errLocalBusy is Shutdown's where requests in the process did not end in time.
var errLocalBusy = errors.New("httpapi: requests in the process are still under way")

// localCalls counts the requests in the process.
type localCalls struct {
	mu     sync.Mutex
	count  int
	closed bool
	idle   chan struct{} // closed when closed and count is 0
}

func (l *localCalls) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.count++
	}
	return !l.closed
}

func (l *localCalls) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count--; l.count == 0 && l.closed {
		close(l.idle)
	}
}

// close lets no more in, and returns a channel that is closed once all have left.
func (l *localCalls) close() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed, l.idle = true, make(chan struct{})
		if l.count == 0 {
			close(l.idle)
		}
	}
	return l.idle
}
