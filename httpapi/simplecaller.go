package httpapi

import (
	"os"
	"sync"
	"time"
)

// goneAfter is how long an answer takes before somebody looks whether its caller still
// waits.
const goneAfter = 50 * time.Millisecond

// callerBytes is how much is read by looking, at most.
const callerBytes = 256

// callerWatch looks whether the caller goes away while its answer takes long, as
// net/http does for each request: by reading. What comes, if anything does, is the
// beginning of the next request, and kept for it.
//
// It reads the same connection as serve does, so it may read only while a handler runs
// whose request has come whole: between begin and forget, behind the body.
type callerWatch struct {
	s     *simpleConn
	timer *time.Timer
	// begun: a handler runs.
	begun bool
	// expected: the timer runs, or has run out, for the request under way.
	expected bool
	// looked has one element where the timer ran out and look has ended.
	looked chan struct{}

	mu sync.Mutex
	// over: the request is. reading: look reads.
	over, reading bool
	got           [callerBytes]byte
	n             int
}

// begin is called before the handler.
func (w *callerWatch) begin() {
	w.begun = true
	w.expect()
}

// expect has the caller looked for, where the request has come whole and nothing behind
// it: what has is of somebody who was there a moment ago, and who may have ended that half
// of the connection behind the last request.
func (w *callerWatch) expect() {
	if !w.begun || w.expected || len(w.s.in)-w.s.at != w.s.body.left {
		return
	}
	w.expected = true
	if w.timer == nil {
		w.looked = make(chan struct{}, 1)
		w.timer = time.AfterFunc(goneAfter, w.look)
	} else {
		w.timer.Reset(goneAfter)
	}
}

// look is called in a goroutine of its own.
func (w *callerWatch) look() {
	defer func() { w.looked <- struct{}{} }()
	w.mu.Lock()
	w.reading = !w.over
	if w.reading {
		// Until forget, however long the answer takes; the deadline there is is for those
		// who wait for a request.
		_ = w.s.tcp.SetReadDeadline(time.Time{})
	}
	w.mu.Unlock()
	if !w.reading {
		return
	}
	var err error
	w.n, err = w.s.tcp.Read(w.got[:])
	if err != nil && !os.IsTimeout(err) {
		w.s.cancel()
	}
}

// forget ends the looking: the handler has returned.
func (w *callerWatch) forget() {
	w.begun = false
	if !w.expected {
		return
	}
	w.expected = false
	if w.timer.Stop() {
		return
	}
	w.mu.Lock()
	w.over = true
	reading := w.reading
	w.mu.Unlock()
	if reading {
		// net.Conn has no other way to end a Read.
		w.s.readUntil(time.Unix(1, 0))
	}
	<-w.looked
	s := w.s
	s.in, s.at = append(s.in[:copy(s.in, s.in[s.at:])], w.got[:w.n]...), 0
	w.n, w.over, w.reading = 0, false, false
}
