package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"trivet/trivetpb"
)

const (
	ndjsonType = "application/x-ndjson"
	// watchIdle is how long a node may be silent: it has something to say every
	// ten seconds.
	watchIdle = 25 * time.Second
	// watchSettled is how long a stream must have lasted to count as one that
	// worked, so that a node which breaks off at once is not asked all the time.
	watchSettled = time.Second
)

// watch is a Watch under way. Between two connections it is nothing but how far
// it has come.
type watch struct {
	c    *Client
	op   string
	keys KeyRange
	params

	// next is the revision to go on with; 0 before it is known.
	next uint64
	// told says that FrameSynced was given. Until then, where initial is set, there
	// is nothing to go on with: a connection that ends has the items begin anew.
	told bool
	// begun says that some of the initial items were given.
	begun bool
}

// run follows the changes on one node after the other. visit returns false to
// break off; then the error is nil.
func (w *watch) run(ctx context.Context, visit func(WatchFrame) bool) error {
	if e := firstOf(w.keys.check(w.op, false), w.checkWatch(w.op)); e != nil {
		return e
	}
	w.next = w.from
	var past course
	for round := 0; ; round++ {
		w.c.refresh()
		var asked time.Duration
		otherNodes := false
	nodes:
		for _, n := range w.c.members.order(false) {
			if ctx.Err() != nil {
				return w.request().ended(context.Cause(ctx), &past)
			}
			r := w.request()
			began := time.Now()
			e, stopped := w.follow(ctx, n, r, r.patienceIn(round), visit)
			if stopped {
				return nil
			}
			if errors.Is(e, ErrClosed) {
				return r.ended(ErrClosed, &past)
			}
			if ctx.Err() == nil {
				w.c.note(n, e)
			}
			past.add(r, e)
			if w.resync && errors.Is(e, ErrCompacted) && ctx.Err() == nil {
				// From here on it is as one that began with Initial, in the middle of its
				// items.
				w.initial, w.told, w.begun, w.next = true, false, false, 0
				if !visit(WatchFrame{Kind: FrameReset}) {
					return nil
				}
				// A snapshot that is restored again and again, or items that are compacted
				// before they are through, is no reason to ask without a pause.
				otherNodes = true
				break nodes
			}
			if r.verdict(e) == final {
				return r.failure(ctx, e, &past)
			}
			w.c.cfg.Logger.Debug("trivet: a watch goes on elsewhere", "next", w.next, "error", e)
			otherNodes = otherNodes || r.verdict(e) == anywhere
			asked = max(asked, e.retryAfter)
			if w.begun && !w.told {
				w.begun = false
				if !visit(WatchFrame{Kind: FrameReset}) {
					return nil
				}
			}
			if time.Since(began) > watchSettled {
				past, round, otherNodes, asked = course{}, -1, true, 0
				break nodes
			}
		}
		if !otherNodes {
			return w.request().failure(ctx, past.last, &past)
		}
		if !w.c.pause(ctx, max(round, 0), min(asked, time.Second)) && ctx.Err() == nil {
			// It would not be long until the context ends.
			<-ctx.Done()
		}
	}
}

// request asks for what comes next.
func (w *watch) request() *request {
	r := &request{op: w.op, method: http.MethodGet, path: watchPath, header: http.Header{"Accept": {ndjsonType}}}
	if w.keys.kind == rangeKey {
		r.query.addBytes("key", w.keys.start)
	} else {
		w.keys.addTo(&r.query)
	}
	switch {
	case w.next > 0:
		r.query.add("from_revision", strconv.FormatUint(w.next, 10))
	case w.initial:
		r.query.add("initial", "true")
	}
	if w.prev {
		r.query.add("prev", "true")
	}
	return r
}

// follow reads the frames that one node sends, and gives them to visit. stopped
// says that visit has had enough; else the error says why it ended.
//
// Close waits for connecting and for reading, each of which ends with the client,
// and not for visit, which may be what calls it.
func (w *watch) follow(ctx context.Context, n *node, r *request, patience time.Duration, visit func(WatchFrame) bool) (e *Error, stopped bool) {
	var s *stream
	if err := w.c.counted(func() { s, e = w.c.openStream(ctx, n, r, ndjsonType, patience, watchIdle) }); err != nil {
		return r.unanswered(n, true, err), false
	}
	if e != nil {
		return e, false
	}
	defer s.close()
	if w.next == 0 && !w.initial {
		// From here on nothing is missed, be it the next node that tells it.
		now, err := strconv.ParseUint(s.header.Get("Trivet-Revision"), 10, 64)
		if err != nil {
			return w.malformed(r, n, s, errors.New("the header Trivet-Revision is missing or malformed")), false
		}
		w.next = now + 1
	}
	lines := lineReader{in: bufio.NewReaderSize(s, 32<<10), limit: w.c.cfg.MaxResponseBytes}
	for {
		var line []byte
		var err error
		if cerr := w.c.counted(func() { line, err = lines.next() }); cerr != nil {
			return r.unanswered(n, true, cerr), false
		}
		switch {
		case errors.Is(err, errLineTooLong):
			e := r.failed(true)
			e.Code, e.Detail, e.Node = trivetpb.Code_TOO_LARGE.Info().Name, "a frame is larger than MaxResponseBytes", n.url
			e.Limit = uint64(lines.limit)
			return e, false
		case err != nil:
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return r.brokenOff(n, err), false
		}
		var doc frameJSON
		if err := json.Unmarshal(line, &doc); err != nil {
			return w.malformed(r, n, s, err), false
		}
		if doc.Type == "error" && doc.Problem != nil && doc.Problem.Code != "" {
			return r.errorOf(doc.Problem, n, s.header), false
		}
		frame, err := w.take(&doc)
		if err != nil {
			return w.malformed(r, n, s, err), false
		}
		w.c.saw(frame.Revision)
		if frame.Kind != 0 && !visit(frame) {
			return nil, true
		}
	}
}

func (w *watch) malformed(r *request, n *node, s *stream, err error) *Error {
	a := &answer{status: http.StatusOK, header: s.header, mediaType: ndjsonType}
	return r.badResponse(n, a, fmt.Errorf("a frame: %w", err))
}

// take takes in a frame, and returns what the caller is told of it; a frame of
// no kind for nothing.
func (w *watch) take(doc *frameJSON) (f WatchFrame, err error) {
	if doc.Revision == 0 && doc.Type != "error" {
		return f, missing("revision")
	}
	told := WatchFrame{Revision: doc.Revision}
	switch doc.Type {
	case "items":
		if !w.initial || w.told {
			return f, errors.New("items that nobody asked for")
		}
		if told.Items, err = itemsOf(doc.Items, false); err != nil {
			return f, err
		}
		w.begun = true
		told.Kind = FrameItems
		return told, nil
	case "synced":
		first := !w.told
		w.told, w.next = true, max(w.next, doc.Revision+1)
		switch {
		case first:
			told.Kind = FrameSynced
		case w.progress:
			told.Kind = FrameProgress
		}
		return told, nil
	case "progress":
		if w.initial && !w.told {
			return f, nil
		}
		w.next = max(w.next, doc.Revision+1)
		if w.progress {
			told.Kind = FrameProgress
		}
		return told, nil
	case "change":
		switch {
		case w.initial && !w.told:
			return f, errors.New("a change before the initial items are through")
		case doc.Revision < w.next:
			return f, nil // known already
		}
		if told.Events, err = eventsOf(doc.Events, w.prev); err != nil {
			return f, err
		}
		w.next = doc.Revision + 1
		told.Kind = FrameChange
		return told, nil
	case "error":
		return f, missing("problem")
	}
	return f, nil // of a newer server
}

// frameJSON is a line of a watch.
type frameJSON struct {
	Type     string       `json:"type"`
	Revision uint64       `json:"revision"`
	Items    []itemJSON   `json:"items"`
	Events   []eventJSON  `json:"events"`
	Problem  *problemJSON `json:"problem"`
}

type eventJSON struct {
	itemJSON
	Type   string    `json:"type"`
	Prev   *itemJSON `json:"prev"`
	Reason string    `json:"reason"`
}

func eventsOf(list []eventJSON, prev bool) ([]Event, error) {
	if len(list) == 0 {
		return nil, missing("events")
	}
	events := make([]Event, len(list))
	for i := range list {
		j, e := &list[i], &events[i]
		var err error
		switch j.Type {
		case "put":
			e.Type = EventPut
			e.Item, err = j.item(false)
		case "delete":
			e.Type, e.Expired = EventDelete, j.Reason == "expired"
			if e.Item.Key, err = j.key(); err == nil && j.ModRevision == 0 {
				err = missing("mod_revision")
			}
			e.Item.ModRevision = j.ModRevision
		default:
			err = fmt.Errorf("an event of type %q", j.Type)
		}
		if err == nil && prev {
			e.Prev, err = prevOf(j.Prev)
		}
		if err != nil {
			return nil, err
		}
	}
	return events, nil
}

// lineReader reads lines of bounded length.
type lineReader struct {
	in    *bufio.Reader
	limit int64
}

var errLineTooLong = errors.New("the line is too long")

// next returns the next line without its end, until the next call.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.in.ReadSlice('\n')
	if err == nil {
		return bytes.TrimSuffix(line, []byte("\n")), nil
	}
	var long bytes.Buffer
	for ; errors.Is(err, bufio.ErrBufferFull); line, err = l.in.ReadSlice('\n') {
		if int64(long.Len()+len(line)) > l.limit {
			return nil, errLineTooLong
		}
		long.Write(line)
	}
	long.Write(line)
	switch {
	case err == nil:
		return bytes.TrimSuffix(long.Bytes(), []byte("\n")), nil
	case err == io.EOF && long.Len() > 0:
		return nil, io.ErrUnexpectedEOF
	}
	return nil, err
}
