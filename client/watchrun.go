package client

import (
	"context"
	"errors"
	"fmt"
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
	// watchSenseless is how many streams in a row may end in a frame that makes no
	// sense, with nothing told in between, until that counts as all that there is to
	// hear: one may have been damaged on its way, so many say that whoever sends them
	// is no node.
	watchSenseless = 5
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
	// senseless counts the streams that ended in a frame that makes no sense, since
	// next last grew.
	senseless int

	// group is the watches of the client that follow the same; nil for a feed's own.
	// fell says that it fell behind the feed of them.
	group *watchGroup
	fell  bool
	// waits, where set, is called before a read that may have to wait, failed with
	// what a node failed with: both are a feed's.
	waits  func(ctx context.Context)
	failed func(*Error)
}

// ending is how following one node ended.
type ending int

const (
	// brokeOff: for the reason that the error says.
	brokeOff ending = iota
	// hadEnough: the visitor has.
	hadEnough
	// mayShare: it goes on with the feed.
	mayShare
)

// run follows the changes on one node after the other. visit returns false to
// break off; then the error is nil.
func (w *watch) run(ctx context.Context, visit func(WatchFrame) bool) error {
	if e := firstOf(w.keys.check(w.op, false), w.checkWatch(w.op)); e != nil {
		return e
	}
	w.next = w.from
	if w.waits == nil {
		w.group = w.c.shares.enter(w)
		defer w.c.shares.leave(w.group)
	}
	var past course
rounds:
	for round := 0; ; round++ {
		if ended, err := w.share(ctx, &past, visit); ended {
			return err
		}
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
			e, how := w.follow(ctx, n, r, r.patienceIn(round), visit)
			switch how {
			case hadEnough:
				return nil
			case mayShare:
				past, round = course{}, -1
				continue rounds
			}
			if errors.Is(e, ErrClosed) {
				return r.ended(ErrClosed, &past)
			}
			if ctx.Err() == nil {
				w.c.note(n, e)
			}
			past.add(r, e)
			if w.failed != nil {
				w.failed(e)
			}
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
	r := &request{op: w.op, method: http.MethodGet, path: watchPath, header: http.Header{"Accept": {watchAccept}}}
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

// follow reads the frames that one node sends, and gives them to visit. The error
// goes with brokeOff.
//
// Close waits for connecting and for reading, each of which ends with the client,
// and not for visit, which may be what calls it.
func (w *watch) follow(ctx context.Context, n *node, r *request, patience time.Duration, visit func(WatchFrame) bool) (e *Error, how ending) {
	var s *stream
	if err := w.c.counted(func() { s, e = w.c.openStream(ctx, n, r, patience, watchIdle, protobufType, ndjsonType) }); err != nil {
		return r.unanswered(n, true, err), brokeOff
	}
	if e != nil {
		return e, brokeOff
	}
	defer s.close()
	if w.next == 0 && !w.initial {
		// From here on nothing is missed, be it the next node that tells it.
		now, err := strconv.ParseUint(s.header.Get("Trivet-Revision"), 10, 64)
		if err != nil {
			return w.malformed(r, n, s, errors.New("the header Trivet-Revision is missing or malformed")), brokeOff
		}
		w.next = now + 1
	}
	in := newFrameReader(s, s.mediaType, w.c.cfg.MaxResponseBytes)
	defer in.free()
	for {
		var f wireFrame
		var err error
		if in.buffered() {
			f, err = in.next()
		} else {
			if w.waits != nil {
				w.waits(ctx)
			}
			if cerr := w.c.counted(func() { f, err = in.next() }); cerr != nil {
				return r.unanswered(n, true, cerr), brokeOff
			}
		}
		var senseless *frameError
		switch {
		case errors.Is(err, errFrameTooLong):
			e := r.failed(true)
			e.Code, e.Detail, e.Node = trivetpb.Code_TOO_LARGE.Info().Name, "a frame is larger than MaxResponseBytes", n.url
			e.Limit = uint64(in.limit)
			return e, brokeOff
		case errors.As(err, &senseless):
			return w.malformed(r, n, s, senseless.err), brokeOff
		case err != nil:
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return r.brokenOff(n, err), brokeOff
		case f.kind == wireError && f.proto != nil:
			return r.errorOfProblem(f.proto, nodeName(n, s.header)), brokeOff
		case f.kind == wireError:
			return r.errorOf(f.json, n, s.header), brokeOff
		}
		before := w.next
		frame, err := w.take(&f)
		if err != nil {
			return w.malformed(r, n, s, err), brokeOff
		}
		if w.next > before {
			w.senseless = 0
		}
		w.c.saw(frame.Revision)
		if frame.Kind != 0 && !visit(frame) {
			return nil, hadEnough
		}
		if w.told && w.group != nil && w.group.covers(w) {
			return nil, mayShare
		}
	}
}

// nodeName is the node that sent the headers.
func nodeName(n *node, h http.Header) string {
	if name := h.Get("Trivet-Node"); name != "" {
		return name
	}
	return n.url
}

// malformed is the end of a stream in a frame that makes no sense. Whoever sent it may
// be asked again, some times.
func (w *watch) malformed(r *request, n *node, s *stream, err error) *Error {
	a := &answer{status: http.StatusOK, header: s.header, mediaType: s.mediaType}
	e := r.badResponse(n, a, fmt.Errorf("a frame: %w", err))
	w.senseless++
	e.Retryable = w.senseless < watchSenseless
	return e
}

// take takes in a frame, and returns what the caller is told of it; a frame of
// no kind for nothing.
func (w *watch) take(in *wireFrame) (f WatchFrame, err error) {
	told := WatchFrame{Revision: in.revision}
	switch in.kind {
	case wireItems:
		if !w.initial || w.told {
			return f, errors.New("items that nobody asked for")
		}
		w.begun = true
		told.Kind, told.Items = FrameItems, in.items
		return told, nil
	case wireSynced:
		first := !w.told
		w.told, told.Revision = true, w.through(in.revision)
		switch {
		case first:
			told.Kind = FrameSynced
		case w.progress:
			told.Kind = FrameProgress
		}
		return told, nil
	case wireProgress:
		if w.initial && !w.told {
			return f, nil
		}
		told.Revision = w.through(in.revision)
		if w.progress {
			told.Kind = FrameProgress
		}
		return told, nil
	case wireChange:
		switch {
		case w.initial && !w.told:
			return f, errors.New("a change before the initial items are through")
		case in.revision < w.next:
			return f, nil // known already
		}
		w.next = in.revision + 1
		told.Kind, told.Events = FrameChange, in.events
		return told, nil
	}
	return f, nil // of a newer server
}

// through notes that there is no other change up to a revision, and returns up to which
// one everything has been told: a feed may be behind a watch that began elsewhere.
func (w *watch) through(revision uint64) uint64 {
	w.next = max(w.next, revision+1)
	return w.next - 1
}
