package httpapi

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"trivet/raftnode"
	"trivet/store"
	"trivet/trivetpb"
)

// watchStream writes the frames of one watch. It runs in the goroutine that
// net/http has for the request, and while nothing happens holds no more than its
// watcher: its buffer goes back to the pool, and what has to be said now and then
// is said for it (watchprogress.go).
//
// A caller that does not take bytes within WriteTimeout is cut off, by the
// deadline of the connection. Nobody else waits for it: its watcher does not
// keep what it has not asked for.
type watchStream struct {
	c    *call
	w    *store.Watcher
	form watchForm
	buf  *buffer // nil while there is nothing to write
	// synced says that the synced frame was written. It is once all is through
	// that was committed when the watch was opened, which syncAt or an earlier
	// revision was the last of; syncAt is 0 until it came from confirmed.
	synced    bool
	syncAt    uint64
	once      bool // it ends there
	confirmed <-chan uint64
	flusher   interface{ FlushError() error }
	conn      *conn              // nil where the request came over none
	out       prometheus.Counter // of the bytes written
	// wrote is when something was written last, deadline the write deadline that
	// was set last; zero: not known.
	wrote, deadline time.Time
	err             error // the first failure to write

	// mu guards what follows. While asleep is set, it guards w, deadline and the
	// sending half of the connection too, on which all was sent that was written:
	// progressDue may use them. They are the handler's own else.
	mu     sync.Mutex
	asleep bool
	// due says that progress is to be written, rest is what the connection did
	// not take of a frame that was. nudge, which has room for one, wakes the
	// handler to see to them.
	due   bool
	rest  []byte
	nudge chan struct{}
	// direct is the connection, for what is written to it past net/http; nil
	// where there is no such way. unbounded says that it has no write deadline.
	direct    syscall.RawConn
	unbounded bool
}

func newWatchStream(c *call, w *store.Watcher, form watchForm) *watchStream {
	ws := &watchStream{
		c: c, w: w, form: form, nudge: make(chan struct{}, 1), conn: c.ownConn(), syncAt: w.Opened(),
		out: c.srv.metrics.http.routes[c.resource].out,
	}
	ws.flusher, _ = c.w.(interface{ FlushError() error })
	if ws.conn != nil {
		ws.direct = ws.conn.direct()
	}
	return ws
}

// confirm asks the cluster, beside the stream, what was committed when the watch
// was opened, for as long as it takes: until then this node may lag, and must not
// say that the watch has come to the present. What it returns ends that and waits
// for the end.
func (ws *watchStream) confirm() (stop func()) {
	ctx, cancel := context.WithCancel(ws.c.r.Context())
	confirmed, done := make(chan uint64, 1), make(chan struct{})
	ws.syncAt, ws.confirmed = 0, confirmed
	node := ws.c.srv.node
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			attempt, cancel := context.WithTimeout(ctx, defaultTimeout)
			_, err := node.AwaitRead(attempt, raftnode.ReadOptions{})
			cancel()
			if err == nil {
				confirmed <- node.Store().Revision()
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(confirmAgain):
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// confirmAgain is how long confirm waits before it asks again where nobody leads.
const confirmAgain = 100 * time.Millisecond

// run writes frames until there is a reason to stop. The last frame says it,
// unless it is the caller who went away.
func (ws *watchStream) run(items *store.View, keys *trivetpb.KeyRange) {
	p := ws.writeItems(items, keys)
	if p == nil && ws.err == nil {
		leave := ws.c.srv.progress.join(ws)
		p = ws.writeChanges()
		leave()
	}
	if p != nil {
		ws.begin()
		ws.buf.b = ws.form.appendError(ws.buf.b, p)
	}
	ws.send()
}

// writeItems writes the initial items, in frames of about spillBytes.
func (ws *watchStream) writeItems(items *store.View, keys *trivetpb.KeyRange) *trivetpb.Problem {
	if items == nil {
		return nil
	}
	defer items.Close()
	end := time.Now().Add(ws.c.srv.cfg.StreamTimeout)
	ws.begin()
	open, at := false, 0 // a frame is, from there on
	for it := range items.Range(keys, store.RangeOptions{}) {
		first := !open
		if first {
			open, at = true, len(ws.buf.b)
			ws.buf.b = ws.form.beginItems(ws.buf.b, items.Revision())
		}
		ws.buf.b = ws.form.appendItem(ws.buf.b, it, first)
		if len(ws.buf.b) < spillBytes {
			continue
		}
		ws.buf.b = ws.form.endItems(ws.buf.b, at)
		open = false
		if ws.send(); ws.err != nil {
			return nil
		}
		if p := ws.c.streamEnds(end); p != nil {
			return p
		}
		ws.begin()
	}
	if open {
		ws.buf.b = ws.form.endItems(ws.buf.b, at)
	}
	return nil
}

// writeChanges writes what changes, and between that how far it has come.
func (ws *watchStream) writeChanges() *trivetpb.Problem {
	for {
		drained, p := ws.gather()
		if p != nil {
			return p
		}
		if ws.takeDue() {
			ws.begin()
			ws.buf.b = ws.form.appendRevision(ws.buf.b, "progress", ws.w.Through())
		}
		if ws.send(); ws.err != nil || ws.ends() {
			return nil
		}
		ended, p := ws.wait(drained)
		if ended && p != nil && drained {
			if p := ws.tellHeldBack(); p != nil {
				return p
			}
		}
		if ended || ws.err != nil {
			return p
		}
	}
}

// tellHeldBack gathers, before the end, what a pause held back: what there is up to this
// moment's revision.
func (ws *watchStream) tellHeldBack() *trivetpb.Problem {
	last := ws.c.srv.node.Store().Revision()
	for {
		drained, p := ws.gather()
		if p != nil || drained || ws.err != nil || ws.w.Through() >= last {
			return p
		}
		ws.send()
	}
}

// wait waits for something to do, or for the end and its reason, which is nil
// where the caller went away.
func (ws *watchStream) wait(drained bool) (ended bool, p *trivetpb.Problem) {
	ready := (<-chan struct{})(always)
	if drained {
		ready = ws.w.Ready()
	}
	var rested <-chan time.Time
	ws.sleep()
	defer ws.wake()
	for {
		select {
		case <-ws.c.srv.stopping:
			return true, &trivetpb.Problem{Code: trivetpb.Code_DRAINING}
		case <-ws.c.srv.node.Done():
			// It would stay open at the last revision, and the caller take that for
			// the present.
			return true, ws.c.srv.nodeGone()
		case <-ws.c.r.Context().Done():
			return true, nil
		case ws.syncAt = <-ws.confirmed:
			ws.confirmed = nil
			return false, nil
		case <-ws.nudge:
			return false, nil
		case <-rested:
			return false, nil
		case <-ready:
			// A history to be told is not held back: it would be 64 KiB a pause.
			rest := ws.pause()
			if !drained || rest <= 0 {
				return false, nil
			}
			ready, rested = nil, time.After(rest)
		}
	}
}

// Where many watch the same, waking them all for each entry takes more of the
// processor than all else: some 20 µs for each, the reading end included, of
// which next to nothing is the frame. So they pause between two writes: each for
// as long as keeps what they take together at a twelfth or so of one core, and no
// longer than anybody would notice. What comes meanwhile goes out in one write.
// With 100 watches and 16 writers that is a third less work and a third more
// puts, whose answers come so much sooner that the events do as well. One who
// watches alone, or has had nothing for that long, never waits.
//
// One timer for all, so that all wake at once, was tried: in turns beside this it
// took 1.02 and 1.11 of the processor time that puts and a hundred watches do.
const (
	pauseEach = 250 * time.Microsecond
	pauseMost = 16 * time.Millisecond
)

// pause is for how long it is not to write yet; 0 or less: not at all.
func (ws *watchStream) pause() time.Duration {
	sharing := ws.w.Sharing()
	if sharing == 1 {
		return 0
	}
	return min(time.Duration(sharing)*pauseEach, pauseMost) - time.Since(ws.wrote)
}

// always is ready.
var always = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// gather gathers frames up to spillBytes, or writes one that is larger; drained
// says that there are no more. It never goes on for longer: between two of it is
// looked at whether the watch is to end.
func (ws *watchStream) gather() (drained bool, p *trivetpb.Problem) {
	frames := 0
	defer func() { ws.c.srv.metrics.http.frames.Add(float64(frames)) }()
	for ws.err == nil {
		given := ws.w.Through()
		f, err := ws.w.Next()
		switch {
		case err != nil:
			return false, ws.c.srv.problemOf(err, false)
		case f == nil:
			// Through is syncAt at least: whoever sees a revision finds its frames.
			ws.sync(ws.w.Through())
			return true, nil
		case f.Revision > ws.syncAt:
			ws.sync(max(given, ws.syncAt))
			if ws.ends() {
				return true, nil
			}
		}
		frames++
		ws.begin()
		encoded := ws.form.encode(f)
		if len(encoded) > spillBytes {
			ws.send()
			ws.write(encoded)
			return false, nil
		}
		if ws.buf.b = append(ws.buf.b, encoded...); len(ws.buf.b) >= spillBytes {
			return false, nil
		}
	}
	return false, nil
}

// sync gathers the synced frame, once, and not before it is known when.
func (ws *watchStream) sync(revision uint64) {
	if !ws.synced && ws.syncAt != 0 {
		ws.synced = true
		ws.begin()
		ws.buf.b = ws.form.appendRevision(ws.buf.b, "synced", revision)
	}
}

// ends says that nothing comes any more, of a watch that does not follow.
func (ws *watchStream) ends() bool { return ws.once && ws.synced }

// begin makes sure of a buffer.
func (ws *watchStream) begin() {
	if ws.buf == nil {
		ws.buf = takeBuffer()
	}
}

// send writes what was gathered and gives the buffer back.
func (ws *watchStream) send() {
	if ws.buf == nil {
		return
	}
	ws.write(ws.buf.b)
	ws.buf.release()
	ws.buf = nil
}

// write writes b through to the connection, in pieces that each have
// WriteTimeout.
func (ws *watchStream) write(b []byte) {
	const piece = 4 * spillBytes
	for ws.err == nil && len(b) > 0 {
		n := min(piece, len(b))
		ws.extendDeadline()
		before := ws.c.bytesOut
		ws.err = ws.writePiece(b[:n])
		ws.c.srv.metrics.http.writes.Inc()
		ws.out.Add(float64(ws.c.bytesOut - before))
		b = b[n:]
	}
}

// writePiece writes b through to the connection, in one system call where it is
// what gather gathers: with a hundred watches of the same these calls, and the
// wake-ups of the reading ends, are most of the work. A larger piece is not worth
// the copy.
func (ws *watchStream) writePiece(b []byte) error {
	cork := ws.conn != nil && len(b) <= spillBytes
	if cork {
		ws.conn.cork()
	}
	err := ws.c.write(b)
	if err == nil {
		err = ws.flush()
	}
	if cork {
		err = errors.Join(err, ws.conn.uncork())
	}
	return err
}

func (ws *watchStream) flush() error {
	if ws.flusher != nil {
		return ws.flusher.FlushError()
	}
	if f, ok := ws.c.w.(http.Flusher); ok {
		f.Flush()
	}
	return nil
}

// extendDeadline gives the next piece WriteTimeout, or up to an eighth less:
// setting a deadline costs as much as copying some kilobytes.
func (ws *watchStream) extendDeadline() {
	timeout := ws.c.srv.cfg.WriteTimeout
	ws.wrote = time.Now()
	if ws.deadline.Sub(ws.wrote) < timeout-timeout/8 {
		ws.deadline, ws.unbounded = ws.wrote.Add(timeout), false
		ws.c.setWriteDeadline(ws.deadline)
	}
}
