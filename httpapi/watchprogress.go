package httpapi

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// progress has the watches of a server say how far they have come, each once in
// ProgressInterval.
//
// A watch that has nothing to write sleeps in its handler's goroutine. Ten
// thousand of those are a thousand progress frames a second, and to wake a
// goroutine for each by a timer of its own, to build the frame there and to push
// it through net/http costs about as much again as the system call that sends it.
// So one goroutine does it for all: the interval is cut into slots, a watch is in
// one of them, and the slots take turns. It writes to the connections of those
// that sleep by itself, and never waits for one: what a connection does not take
// at once, it leaves to the handler, which has a deadline for it.
//
// The goroutine is there while any watch is: the first that joins starts it, the
// last that leaves ends it and waits for its end.
type progress struct {
	slots []progressSlot
	tick  time.Duration // between two slots

	mu   sync.Mutex // guards what follows, and the slots
	open int
	stop chan struct{} // ends the goroutine
	done chan struct{} // closed at its end
}

type progressSlot []*watchStream

// progressTick is about how long a slot is: a few dozen frames among ten
// thousand watches, so that nobody has to wait long for the processor.
const progressTick = 50 * time.Millisecond

func newProgress(interval time.Duration) *progress {
	n := min(max(interval/progressTick, 1), 1024)
	return &progress{slots: make([]progressSlot, n), tick: max(interval/n, 1)}
}

// join puts a watch into a slot; what it returns takes it out again, and must not
// be called with the watch's mu held.
func (p *progress) join(ws *watchStream) (leave func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// By chance, so that the frames of watches that were opened at once are
	// spread over the interval.
	slot := &p.slots[rand.N(len(p.slots))]
	*slot = append(*slot, ws)
	if p.open++; p.open == 1 {
		p.stop, p.done = make(chan struct{}), make(chan struct{})
		go p.run(p.stop, p.done)
	}
	return func() { p.leave(slot, ws) }
}

func (p *progress) leave(slot *progressSlot, ws *watchStream) {
	p.mu.Lock()
	i := slices.Index(*slot, ws)
	last := len(*slot) - 1
	(*slot)[i] = (*slot)[last]
	(*slot)[last] = nil
	*slot = (*slot)[:last]
	p.open--
	ended, stop, done := p.open == 0, p.stop, p.done
	p.mu.Unlock()
	if ended {
		close(stop)
		<-done
	}
}

// run goes through the slots, one a tick, until stop is closed. A tick that comes
// late makes up for those that were missed: the interval is a promise.
func (p *progress) run(stop, done chan struct{}) {
	defer close(done)
	ticker := time.NewTicker(p.tick)
	defer ticker.Stop()
	start, gone := time.Now(), 0
	var due []*watchStream
	var out directWriter
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		// More than once around is no better than once.
		ticks := int(time.Since(start) / p.tick)
		for gone = max(gone, ticks-len(p.slots)); gone < ticks; gone++ {
			p.mu.Lock()
			due = append(due[:0], p.slots[gone%len(p.slots)]...)
			p.mu.Unlock()
			for _, ws := range due {
				ws.progressDue(&out)
			}
			clear(due) // keeps nothing of a watch that ends
		}
	}
}

// progressDue has the watch say how far it has come: at once where its handler is
// asleep and everything was sent, else when the handler has come to it.
func (ws *watchStream) progressDue(out *directWriter) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if !ws.asleep {
		ws.due = true
		return
	}
	if ws.direct == nil || !ws.w.Idle() {
		ws.due = true
		ws.rouse()
		return
	}
	if !ws.unbounded {
		// One that has passed would fail the write. None is set for it instead: it
		// does not wait, and a deadline each time costs a tenth of all this.
		_ = ws.conn.SetWriteDeadline(time.Time{})
		ws.deadline, ws.unbounded = time.Time{}, true
	}
	frame := out.progress(ws.form, ws.w.Through(), ws.c.r.ProtoAtLeast(1, 1))
	ws.out.Add(float64(len(out.text)))
	if n := out.write(ws.direct, frame); n < len(frame) {
		ws.rest = bytes.Clone(frame[n:])
		ws.rouse()
	}
}

// rouse has a handler that sleeps, or is about to, look around.
func (ws *watchStream) rouse() {
	select {
	case ws.nudge <- struct{}{}:
	default:
	}
}

// takeDue says whether progress is due, which it is not any more then.
func (ws *watchStream) takeDue() bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	due := ws.due
	ws.due = false
	return due
}

// sleep lets progressDue write to the connection, until wake. All that was
// written has been flushed by then, the response's headers too: a watch begins
// with a frame, or with a flush while that waits to be confirmed.
func (ws *watchStream) sleep() {
	if ws.c.r.ProtoMajor > 1 && !ws.unbounded {
		// Over HTTP/2 a deadline that passes ends the stream, be there something to
		// write or not.
		ws.c.setWriteDeadline(time.Time{})
		ws.deadline, ws.unbounded = time.Time{}, true
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.asleep = true
	if ws.due {
		ws.rouse() // it came while the last was being sent
	}
}

// wake takes the connection back, and sends what was left of a frame before
// anything else is: half a frame would garble all that follows.
func (ws *watchStream) wake() {
	ws.mu.Lock()
	rest := ws.rest
	ws.asleep, ws.rest = false, nil
	ws.mu.Unlock()
	if rest != nil {
		ws.extendDeadline()
		_, ws.err = ws.conn.Write(rest)
	}
}

// directWriter writes frames to connections without waiting. Its buffers are the
// same for all that one goroutine writes.
type directWriter struct {
	text, chunk []byte
	left        []byte                // what try writes
	n           int                   // how much of it that wrote
	try         func(fd uintptr) bool // made once: one for each write would be garbage
}

// progress returns a progress frame as it goes over the connection, in a chunk as
// net/http makes them where the response is in chunks. It is good until the next.
func (d *directWriter) progress(form watchForm, revision uint64, chunked bool) []byte {
	d.text = form.appendRevision(d.text[:0], "progress", revision)
	if !chunked {
		return d.text
	}
	d.chunk = strconv.AppendInt(d.chunk[:0], int64(len(d.text)), 16)
	d.chunk = append(d.chunk, "\r\n"...)
	d.chunk = append(d.chunk, d.text...)
	d.chunk = append(d.chunk, "\r\n"...)
	return d.chunk
}

// write writes of b what the connection takes at once, and returns how many bytes
// that were. If something is wrong with it, writing the rest will tell.
func (d *directWriter) write(to syscall.RawConn, b []byte) int {
	if d.try == nil {
		d.try = func(fd uintptr) bool {
			d.n, _ = syscall.Write(int(fd), d.left)
			return true // also where it would have to wait
		}
	}
	d.left, d.n = b, 0
	if err := to.Write(d.try); err != nil {
		return 0
	}
	return max(d.n, 0)
}
