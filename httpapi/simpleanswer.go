package httpapi

import (
	"net"
	"net/http"
	"strconv"
	"time"
)

// simpleAnswer is what goes out of the answer under way.
type simpleAnswer struct {
	// buf is what has not gone out yet; nil between two answers.
	buf *buffer
	// begun: there is a status line. chunked: the body goes in chunks. close: the
	// connection closes behind the answer. timed: the handler has set a deadline.
	begun, chunked, close, timed bool
	// writes counts the writes to the connection that its answers took.
	writes int
	// err is why the connection takes no more.
	err error
	// date is the Date field of the second that is dateOf.
	date   [len(http.TimeFormat)]byte
	dateOf int64
}

func (a *simpleAnswer) begin() {
	a.buf = takeBuffer()
	a.begun, a.chunked, a.close, a.timed = false, false, false, false
}

func (a *simpleAnswer) end() {
	a.buf.release()
	a.buf = nil
}

// writeHead writes the status line and the header fields. Without a Content-Length the
// body goes in chunks. What is left of the request's body is read before, as net/http
// does, unless the connection closes anyway: the next request is behind it.
func (s *simpleConn) writeHead(status int, fields []field, now time.Time) {
	a := &s.out
	if a.begun {
		return
	}
	a.begun = true
	for _, f := range fields {
		a.close = a.close || (f.name == "Connection" && f.value == "close")
	}
	cut := !a.close && !s.body.discard()
	a.close = a.close || cut
	b := append(a.buf.b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(b, ' '), http.StatusText(status)...)
	b = append(append(b, "\r\nDate: "...), a.dateAt(now)...)
	a.chunked = status != http.StatusNotModified
	for _, f := range fields {
		if f.name == "Content-Length" {
			a.chunked = false
		}
		b = append(append(append(b, "\r\n"...), f.name...), ": "...)
		for i := range len(f.value) {
			// As net/http does: no value may end its line.
			if c := f.value[i]; c == '\r' || c == '\n' {
				b = append(b, ' ')
			} else {
				b = append(b, c)
			}
		}
	}
	if a.chunked {
		b = append(b, "\r\nTransfer-Encoding: chunked"...)
	}
	if cut {
		b = append(b, "\r\nConnection: close"...)
	}
	a.buf.b = append(b, "\r\n\r\n"...)
}

// dateAt returns the Date field's value.
func (a *simpleAnswer) dateAt(now time.Time) []byte {
	if second := now.Unix(); second != a.dateOf {
		a.dateOf = second
		now.UTC().AppendFormat(a.date[:0], http.TimeFormat)
	}
	return a.date[:]
}

// Header is for a ResponseWriter to have; a call's header fields are its own.
func (s *simpleConn) Header() http.Header { return http.Header{} }

// WriteHeader is, too.
func (s *simpleConn) WriteHeader(status int) { s.writeHead(status, nil, time.Now()) }

// Write writes a part of the body: what is short is gathered, and goes out with what
// comes before and behind it, what is long goes out from where it is.
func (s *simpleConn) Write(p []byte) (int, error) {
	a := &s.out
	if a.err != nil || len(p) == 0 {
		return 0, a.err
	}
	if a.chunked {
		a.buf.b = append(strconv.AppendInt(a.buf.b, int64(len(p)), 16), "\r\n"...)
	}
	if len(p) < corkBytes {
		a.buf.b = append(a.buf.b, p...)
	} else {
		s.send(p)
	}
	if a.chunked {
		a.buf.b = append(a.buf.b, "\r\n"...)
	}
	if len(a.buf.b) >= corkBytes {
		s.send(nil)
	}
	if a.err != nil {
		return 0, a.err
	}
	return len(p), nil
}

// send writes what was gathered, and p behind it.
func (s *simpleConn) send(p []byte) {
	a := &s.out
	if a.err != nil || len(a.buf.b)+len(p) == 0 {
		return
	}
	if most := s.srv.http.WriteTimeout; !a.timed && s.writeBy.Sub(s.call.start) < most {
		// A quarter more, so that it is not set for each answer.
		s.writeBy = s.call.start.Add(most * 5 / 4)
		_ = s.tcp.SetWriteDeadline(s.writeBy)
	}
	a.writes++
	if len(p) == 0 {
		_, a.err = s.tcp.Write(a.buf.b)
	} else {
		both := net.Buffers{a.buf.b, p}
		_, a.err = both.WriteTo(s.tcp)
	}
	a.buf.b = a.buf.b[:0]
}

// FlushError sends what was gathered.
func (s *simpleConn) FlushError() error {
	s.send(nil)
	return s.out.err
}

// Flush is FlushError for http.Flusher.
func (s *simpleConn) Flush() { _ = s.FlushError() }

// finish sends the rest of the answer. It returns false where it did not go out whole.
func (a *simpleAnswer) finish(s *simpleConn) bool {
	if a.chunked && a.err == nil {
		a.buf.b = append(a.buf.b, "0\r\n\r\n"...)
	}
	s.send(nil)
	return a.err == nil && a.begun
}
