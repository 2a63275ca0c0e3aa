package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Watches of one client that follow the same (the same keys, with or without the items
// before) share what comes: one stream, decoded once. A watch is one of a group from
// its beginning to its end. One that is alone in its group, or has not come to the
// present yet (Initial, FromRevision), follows a stream of its own. As soon as there
// are two, the group has a feed: a stream from now on, in a goroutine of its own, which
// puts what comes into a list, and each watch that has come to where the feed begins
// leaves its own stream, and is from then on a position in the list.
//
// So nothing of what a watch promises rests on the feed. A position is the same as a
// watch between two streams: the next revision that it is to tell. The list holds all
// changes from a revision on (feed.from), so who is at that or a later one misses
// nothing by going on there, and skips what it has told already, as on every stream.
// Whatever the feed cannot do (it has ended, it no longer has the revision, it has
// failed for good), a watch does by itself, by a stream from its position on, and comes
// back when it can.
//
// Nobody waits for a slow watch: what it has not taken when the list is full leaves the
// list. But the feed is not further ahead of the fastest one than feedAhead. So a group
// holds the list, and each of its watches at most the part that it is at.

const (
	// feedHolds is how many bytes a list holds for those that are behind, or the last
	// part alone where that is larger.
	feedHolds = 1 << 20
	// feedAhead is how far ahead of the fastest watch a feed reads.
	feedAhead = 64 << 10
	// feedAgain is how long after the end of a feed, which has failed for good, there
	// may be another.
	feedAgain = 10 * time.Second
)

// watchGroups are the groups of a client.
type watchGroups struct {
	// holds and ahead are feedHolds and feedAhead.
	holds, ahead int
	mu           sync.Mutex
	groups       map[watchKey]*watchGroup
}

// watchKey is what the watches of a group follow.
type watchKey struct {
	start, end string
	prev       bool
}

// watchGroup is the watches that follow the same. It is there as long as one of them
// is.
type watchGroup struct {
	c   *Client
	key watchKey
	// keys is the range as the first of them named it, for errors.
	keys KeyRange
	// members is how many there are. It, feed and feedEnded change under the groups'
	// lock.
	members atomic.Int32
	feed    atomic.Pointer[feed] // nil where there is none
	// feedEnded is when the last feed failed, since the start of the process; 0 for
	// never.
	feedEnded atomic.Int64
}

// enter makes the watch one of its group.
func (s *watchGroups) enter(w *watch) *watchGroup {
	key := watchKey{prev: w.prev}
	key.start, key.end = w.keys.bounds()
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[key]
	if g == nil {
		if s.groups == nil {
			s.groups = map[watchKey]*watchGroup{}
		}
		g = &watchGroup{c: w.c, key: key, keys: w.keys}
		s.groups[key] = g
	}
	g.members.Add(1)
	g.revive()
	return g
}

// leave takes a watch out of its group. The last one ends the feed, and waits for its
// end.
func (s *watchGroups) leave(g *watchGroup) {
	s.mu.Lock()
	var last *feed
	if g.members.Add(-1) == 0 {
		delete(s.groups, g.key)
		last = g.feed.Swap(nil)
	}
	s.mu.Unlock()
	if last != nil {
		last.cancel()
		<-last.done
	}
}

// revive starts a feed where one is of use and there is none. It is called under the
// groups' lock.
func (g *watchGroup) revive() {
	if !g.lacksFeed() {
		return
	}
	f := &feed{c: g.c, group: g, live: make(chan struct{}), done: make(chan struct{}), room: make(chan struct{}, 1)}
	f.head = &feedPart{}
	f.tail = f.head
	ctx, cancel := context.WithCancel(g.c.ctx)
	f.cancel = cancel
	if g.c.background(func() { f.run(ctx) }) == nil {
		g.feed.Store(f)
	} else {
		cancel()
	}
}

func (g *watchGroup) lacksFeed() bool {
	if g.feed.Load() != nil || g.members.Load() < 2 {
		return false
	}
	ended := g.feedEnded.Load()
	return ended == 0 || time.Since(processStart)-time.Duration(ended) > feedAgain
}

// covers says that the watch, which is on a stream of its own, may go on with the
// feed.
func (g *watchGroup) covers(w *watch) bool {
	f := g.feed.Load()
	if f == nil {
		if g.lacksFeed() {
			g.c.shares.mu.Lock()
			g.revive()
			g.c.shares.mu.Unlock()
		}
		return false
	}
	from := f.from.Load()
	if from == 0 || w.next < from {
		return false
	}
	return !w.fell || f.attach(w) != nil
}

// feed is a stream that a group shares.
type feed struct {
	c      *Client
	group  *watchGroup
	cancel context.CancelFunc
	// live is closed once from is known, done at the end.
	live, done chan struct{}
	// from: every change of that revision or a later one is in the list, or will be; 0
	// before it is known. It only grows.
	from atomic.Uint64
	// failed is what a node failed with last.
	failed atomic.Pointer[Error]

	// pending is what was read and is not in the list yet. It is the goroutine's, as
	// what follows: bytes of all parts there were.
	pending      []wireFrame
	pendingBytes int
	made         int64
	// taken is how far the fastest watch is, in the same count; room has something in
	// it when that has changed.
	taken atomic.Int64
	room  chan struct{}

	mu sync.Mutex // guards what follows
	// head is the part before the oldest one that is held, tail the newest one.
	head, tail *feedPart
	held       int
	// ready is closed when there is another part; nil where nobody waits.
	ready chan struct{}
}

// feedPart is frames that came together. Nothing of it changes once it is in the list
// but next.
type feedPart struct {
	frames []wireFrame
	bytes  int
	// last is the revision of the last of them, end the count of bytes up to here.
	last uint64
	end  int64
	// next is the part behind it: nil while there is none, lostPart where there was one
	// that is no longer held. So a watch that stays somewhere keeps that part alone
	// from being freed.
	next atomic.Pointer[feedPart]
}

var lostPart = new(feedPart)

// run follows the stream until ctx ends, or it cannot.
func (f *feed) run(ctx context.Context) {
	defer close(f.done)
	defer f.cancel()
	g := f.group
	w := &watch{c: f.c, op: "watch " + g.keys.String(), keys: g.keys}
	w.prev, w.progress = g.key.prev, true
	w.waits = func(ctx context.Context) {
		if f.from.Load() == 0 {
			f.from.Store(w.next)
			close(f.live)
		}
		f.publish()
		f.awaitRoom(ctx)
	}
	w.failed = func(e *Error) { f.failed.Store(e) }
	_ = w.run(ctx, func(frame WatchFrame) bool {
		in := wireFrame{kind: wireProgress, revision: frame.Revision, events: frame.Events}
		if frame.Kind == FrameChange {
			in.kind = wireChange
		}
		f.pending = append(f.pending, in)
		f.pendingBytes += in.bytes()
		return true
	})
	// What was read is no less true for what came after it.
	f.publish()
	f.c.shares.mu.Lock()
	defer f.c.shares.mu.Unlock()
	if g.feed.CompareAndSwap(f, nil) {
		g.feedEnded.Store(int64(time.Since(processStart)) + 1)
	}
}

// bytes is about what the frame takes.
func (f *wireFrame) bytes() int {
	n := 80
	for i := range f.events {
		e := &f.events[i]
		n += 112 + len(e.Item.Key) + len(e.Item.Value)
		if e.Prev != nil {
			n += 96 + len(e.Prev.Key) + len(e.Prev.Value)
		}
	}
	return n
}

// publish puts what was read into the list.
func (f *feed) publish() {
	if len(f.pending) == 0 {
		return
	}
	f.made += int64(f.pendingBytes)
	part := &feedPart{frames: f.pending, bytes: f.pendingBytes, last: f.pending[len(f.pending)-1].revision, end: f.made}
	f.pending, f.pendingBytes = nil, 0
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tail.next.Store(part)
	f.tail = part
	f.held += part.bytes
	for f.held > f.c.shares.holds {
		oldest := f.head.next.Load()
		if oldest == f.tail {
			break
		}
		f.held -= oldest.bytes
		f.head.next.Store(lostPart)
		f.head = oldest
		f.from.Store(oldest.last + 1)
	}
	if f.ready != nil {
		close(f.ready)
		f.ready = nil
	}
}

// awaitRoom waits while the feed is ahead of all.
func (f *feed) awaitRoom(ctx context.Context) {
	for f.made-f.taken.Load() > int64(f.c.shares.ahead) {
		select {
		case <-f.room:
		case <-ctx.Done():
			return
		}
	}
}

// took notes that a watch is at the part.
func (f *feed) took(p *feedPart) {
	for {
		old := f.taken.Load()
		if p.end <= old {
			return
		}
		if f.taken.CompareAndSwap(old, p.end) {
			break
		}
	}
	select {
	case f.room <- struct{}{}:
	default:
	}
}

// attach returns the part behind which the watch goes on; nil where the list does not
// have what it is to tell next. One that fell behind comes back when half the room is
// left, so that it does not fall at once again.
func (f *feed) attach(w *watch) *feedPart {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := f.from.Load()
	if from == 0 || w.next < from {
		return nil
	}
	at := f.head
	for next := at.next.Load(); next != nil && next.last < w.next; next = at.next.Load() {
		at = next
	}
	if w.fell && f.tail.end-at.end > int64(f.c.shares.holds/2) {
		return nil
	}
	f.took(at) // all up to there it knows, and may be the first to
	return at
}

// wait waits until there is a part behind p, or the feed, the client or ctx has ended.
func (f *feed) wait(ctx context.Context, p *feedPart) {
	f.mu.Lock()
	if p.next.Load() != nil {
		f.mu.Unlock()
		return
	}
	if f.ready == nil {
		f.ready = make(chan struct{})
	}
	ready := f.ready
	f.mu.Unlock()
	select {
	case <-ready:
	case <-f.done:
	case <-ctx.Done():
	case <-f.c.ctx.Done():
	}
}

// share follows the feed of the group for as long as that does; ended says that this
// was until the end of the watch, with err.
func (w *watch) share(ctx context.Context, past *course, visit func(WatchFrame) bool) (ended bool, err error) {
	if w.group == nil || (!w.told && (w.next != 0 || w.initial)) {
		return false, nil
	}
	f := w.group.feed.Load()
	if f == nil {
		return false, nil
	}
	if !w.told {
		if ended, err := w.begin(ctx, f, past, visit); ended || !w.told {
			return ended, err
		}
	}
	at := f.attach(w)
	if at == nil {
		return false, nil
	}
	w.fell = false
	for {
		if over, err := w.over(ctx, f, past); over {
			return true, err
		}
		part := at.next.Load()
		switch part {
		case nil:
			select {
			case <-f.done:
				if at.next.Load() == nil {
					return false, nil
				}
			default:
				f.wait(ctx, at)
			}
			continue
		case lostPart:
			w.fell = true
			w.c.cfg.Logger.Debug("trivet: a watch is slower than others of the same, and goes on by itself", "next", w.next)
			return false, nil
		}
		f.took(part)
		for i := range part.frames {
			frame, err := w.take(&part.frames[i])
			if err == nil && frame.Kind != 0 && !visit(frame) {
				return true, nil
			}
		}
		at = part
	}
}

// begin begins a watch of what comes from now on: behind all that was acknowledged,
// anywhere, before. That the feed does not know, which may be late, nor can a watch of
// its own know it without asking; so the cluster is asked. Where it does not answer
// the watch begins by itself, on a stream of its own.
func (w *watch) begin(ctx context.Context, f *feed, past *course, visit func(WatchFrame) bool) (ended bool, err error) {
	select {
	case <-f.live:
	case <-f.done:
	case <-ctx.Done():
	case <-w.c.ctx.Done():
	}
	if over, err := w.over(ctx, f, past); over {
		return true, err
	}
	if f.from.Load() == 0 {
		return false, nil
	}
	revision, e := w.c.present(ctx, w.keys)
	if over, err := w.over(ctx, f, past); over {
		return true, err
	}
	if e != nil {
		return false, nil
	}
	w.next, w.told = revision+1, true
	return !visit(WatchFrame{Kind: FrameSynced, Revision: revision}), nil
}

// over says whether the context, or the client, has ended.
func (w *watch) over(ctx context.Context, f *feed, past *course) (bool, error) {
	cause := context.Cause(ctx)
	if cause == nil {
		if w.c.ctx.Err() == nil {
			return false, nil
		}
		cause = ErrClosed
	}
	r := w.request()
	if e := f.failed.Load(); e != nil && past.last == nil && f.from.Load() == 0 {
		past.add(r, e)
	}
	return true, r.ended(cause, past)
}

// present is the revision that a linearizable read of the range sees.
func (c *Client) present(ctx context.Context, keys KeyRange) (uint64, *Error) {
	a := c.newCall(getCall, false)
	key := keys.start
	if key == "" {
		key = "\x00" // the first one there may be
	}
	a.encodeGet(key)
	if e := c.carried(ctx, c.readLane(freshness{}), a); e != nil {
		return 0, e
	}
	revision := a.result.Revision
	a.free()
	return revision, nil
}
