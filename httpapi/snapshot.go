package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"trivet/raftnode"
	"trivet/trivetpb"
)

const (
	// maxSnapshots is how many snapshots a node sends at one time: while it
	// does, it holds on to an old state of the store for each.
	maxSnapshots = 2
	// snapshotChunk is how much of a snapshot goes out at once. The caller has
	// WriteTimeout to take it, and no bound on the whole: what moves may take
	// as long as it takes.
	snapshotChunk = 256 << 10
)

// getSnapshot serves GET /v1/snapshot: the whole state, as of a moment that every
// write acknowledged before the request came before.
//
// Where it cannot go on the connection is cut, so that HTTP itself says that the
// answer is not whole; the checksum at the end of the file says so too.
func (s *Server) getSnapshot(c *call) *trivetpb.Problem {
	if p := noPrecondition(c.r.Header); p != nil {
		return p
	}
	if !s.snapshots.take(1) {
		return c.overloaded(refusedSnapshots, fmt.Sprintf("the node sends %d snapshots already", maxSnapshots))
	}
	defer s.snapshots.give(1)
	v, p := c.view(raftnode.ReadOptions{Consistency: raftnode.Linearizable}, 0)
	if p != nil {
		return p
	}
	defer v.Close()
	c.header()
	c.set("Content-Type", octetStream)
	c.set("Content-Disposition", fmt.Sprintf(`attachment; filename="trivet-%s-%d.snapshot"`, fileName(s.node.ClusterID()), v.Revision()))
	if c.r.Method == http.MethodHead {
		c.writeHead(http.StatusOK)
		return nil
	}
	w := &chunkWriter{c: c, buf: make([]byte, 0, snapshotChunk)}
	err := v.WriteSnapshot(s.node.Pace(w))
	if err == nil {
		err = w.flush()
	}
	switch {
	case err == nil:
		return nil
	case !c.started:
		c.unset("Content-Disposition")
		return s.problemOf(err, false)
	case w.err == nil:
		s.cfg.Logger.Error("httpapi: a snapshot could not be written", "error", err)
	}
	// Deferred calls run on the way; net/http cuts the connection.
	panic(http.ErrAbortHandler)
}

// fileName keeps of a name what is safe in the name of a file everywhere.
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, name)
}

// chunkWriter writes an answer in chunks, each with a write deadline of its own.
type chunkWriter struct {
	c   *call
	buf []byte
	// err is the first failure to write.
	err error
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
		written += n
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func (w *chunkWriter) flush() error {
	if w.err != nil {
		return w.err
	}
	if !w.c.started {
		w.c.writeHead(http.StatusOK)
	}
	w.c.setWriteDeadline(time.Now().Add(w.c.srv.cfg.WriteTimeout))
	w.err = w.c.write(w.buf)
	w.buf = w.buf[:0]
	return w.err
}
