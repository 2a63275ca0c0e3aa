package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// buffer is a byte slice that is used again. long says that it is one of longBuffers.
type buffer struct {
	b    []byte
	long bool
}

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 1024)} }}

// mostKept is the largest buffer that goes back to the pool: a few large
// answers must not make all later ones hold on to as much.
const mostKept = 256 << 10

// longBuffers are those of answers up to listsBytes, apart from the others: who has a
// buffer for long, as a watch has, is not to have one of these. mostKeptLong is the
// largest that goes back: append may have doubled it.
var longBuffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, spillBytes), long: true} }}

const mostKeptLong = 2 * listsBytes

func takeBuffer() *buffer { return buffers.Get().(*buffer) }

func takeLongBuffer() *buffer { return longBuffers.Get().(*buffer) }

func (b *buffer) release() {
	pool, most := &buffers, mostKept
	if b.long {
		pool, most = &longBuffers, mostKeptLong
	}
	if cap(b.b) > most {
		return
	}
	b.b = b.b[:0]
	pool.Put(b)
}

func (c *call) writeHead(status int) {
	c.started, c.status = true, status
	if c.srv.leaving.Load() || c.srv.draining.Load() {
		// Whoever keeps the connection for later would meet a closed one.
		c.set("Connection", "close")
	}
	if w, ok := c.w.(*simpleConn); ok {
		w.writeHead(status, c.fields, c.start)
		return
	}
	h := c.w.Header()
	if len(c.fields) > len(c.values) {
		for _, f := range c.fields {
			h[f.name] = []string{f.value}
		}
	} else {
		for i, f := range c.fields {
			c.values[i] = f.value
			h[f.name] = c.values[i : i+1 : i+1]
		}
	}
	c.w.WriteHeader(status)
}

// write writes a part of the body; HEAD has none.
func (c *call) write(p []byte) error {
	if c.r.Method == http.MethodHead || len(p) == 0 {
		return nil
	}
	n, err := c.w.Write(p)
	c.bytesOut += int64(n)
	return err
}

// flush passes on what net/http has of the answer.
func (c *call) flush() error {
	switch w := c.w.(type) {
	case interface{ FlushError() error }:
		return w.FlushError()
	case http.Flusher:
		w.Flush()
	}
	return nil
}

// writeAtOnce is write for what is longer than net/http gathers: it goes out in one
// write to the connection, with the headers before it. Where several requests share the
// connection it is theirs how they go out.
func (c *call) writeAtOnce(p []byte) error {
	const gathered = 3 << 10 // 4 KiB, less than which the headers may leave
	nc := c.ownConn()
	if nc == nil || len(p) < gathered || c.r.Method == http.MethodHead {
		return c.write(p)
	}
	nc.cork()
	err := c.write(p)
	if err == nil {
		err = c.flush()
	}
	return errors.Join(err, nc.uncork())
}

// answer writes a whole body of the given media type.
func (c *call) answer(status int, mediaType string, body []byte) {
	c.header()
	c.set("Content-Type", mediaType)
	c.set("Content-Length", strconv.Itoa(len(body)))
	c.writeHead(status)
	// A caller that no longer listens is its own matter: the answer was given.
	_ = c.writeAtOnce(body)
}

// document is an answer that is gathered piece by piece and may grow large. As
// long as it is short it goes out whole, with its length; past most bytes it is
// sent as it grows, each chunk with a write deadline of its own.
type document struct {
	c         *call
	mediaType string
	buf       *buffer
	most      int
	// err is the first failure to write; the rest is then skipped.
	err error
}

func (c *call) newDocument(mediaType string) *document {
	return &document{c: c, mediaType: mediaType, buf: takeBuffer(), most: spillBytes}
}

// newLists returns a document for parts of ranges.
func (c *call) newLists(mediaType string) *document {
	return &document{c: c, mediaType: mediaType, buf: takeLongBuffer(), most: listsBytes}
}

// spill is called between pieces. It reports whether it is worth going on.
func (d *document) spill() bool {
	if len(d.buf.b) >= d.most {
		d.flush()
	}
	return d.err == nil
}

func (d *document) flush() {
	if d.err != nil {
		return
	}
	if !d.c.started {
		d.c.header()
		d.c.set("Content-Type", d.mediaType)
		d.c.writeHead(http.StatusOK)
	}
	// As much for each spillBytes as for a chunk of no more: a caller that is slow is
	// not to be cut off for the size of the chunks.
	chunks := max(1, len(d.buf.b)/spillBytes)
	d.c.setWriteDeadline(time.Now().Add(time.Duration(chunks) * d.c.srv.cfg.WriteTimeout))
	d.err = d.c.writeAtOnce(d.buf.b)
	d.buf.b = d.buf.b[:0]
}

// end sends what is left and gives the buffer back.
func (d *document) end() {
	if d.c.started {
		d.flush()
	} else {
		d.c.answer(http.StatusOK, d.mediaType, d.buf.b)
	}
	d.buf.release()
	d.buf = nil
}
