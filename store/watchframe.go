package store

import (
	"math"
	"sync/atomic"
)

// Event is what one change made of one key. It is a value: three words to the
// store's own bytes, copied under the lock that it was read under.
type Event struct {
	// Key is the key that changed.
	Key string
	v   *version
	// prev is the version before, perhaps a tombstone; nil where there was none.
	// It is a copy of v.prev, which compaction takes away later.
	prev *version
}

// newEvent makes the event of a change. v.prev may be read here because either
// the writer itself calls, before the change is compacted, or a reader that
// holds the store's lock and found the change's revision to be greater than the
// compact one: cut, which takes prev, does so under the write lock and only of
// versions that are not newer than the compact revision. What prev points to is
// immutable but for its own prev, which nobody looks at through an Event.
func newEvent(c *change) Event { return Event{Key: c.chain.key(), v: c.v, prev: c.v.prev} }

// Deleted says that the key was deleted; else it was given a value.
func (e *Event) Deleted() bool { return !e.v.live() }

// Expired says that the end of a lease deleted the key, not a command that
// named it.
func (e *Event) Expired() bool { return e.Deleted() && e.v.expired() }

// Revision is the revision that the change made.
func (e *Event) Revision() uint64 { return e.v.mod }

// Item is the item as the change left it; of a deletion no more than Key and
// ModRevision are set. Its value must not be changed.
func (e *Event) Item() Item {
	if e.Deleted() {
		return Item{Key: e.Key, Value: []byte{}, ModRevision: e.v.mod}
	}
	return e.v.item(e.Key)
}

// Prev is the item before the change, and whether there was one.
func (e *Event) Prev() (Item, bool) {
	if !e.prev.live() {
		return Item{}, false
	}
	return e.prev.item(e.Key), true
}

// eventBytes is what an event counts beside the bytes that it holds on to: it is
// more than its part of a frame, its link and its place in the ring take.
const eventBytes = 192

// bytes is what the event may keep in memory that compaction would free.
func (e *Event) bytes() int64 {
	n := int64(eventBytes+len(e.Key)) + int64(e.v.valueLen())
	if e.prev != nil {
		n += int64(e.prev.valueLen())
	}
	return n
}

// FrameEncodings is how many encodings a Frame has room for.
const FrameEncodings = 6

// Frame is one revision as the watchers of one range see it: all changes of the
// range that the revision made, in their order. It never changes; any number of
// goroutines may use it.
type Frame struct {
	// Revision is the revision.
	Revision uint64
	// Events are the changes, one at least. They must not be changed.
	Events []Event

	one   [1]Event // backs Events where there is one: most frames need no more
	after *link
	bytes int64 // of the events

	// encoded holds what Encoded keeps, and kept how many bytes that is; notKept
	// where nothing is to be kept.
	encoded [FrameEncodings]atomic.Pointer[[]byte]
	kept    atomic.Int64
	ring    *frameRing // counts what is kept; nil where nothing is
}

// notKept is so far below zero that no sum of encodings gets near zero again.
const notKept = math.MinInt64 / 2

func newFrame(revision uint64) *Frame {
	f := &Frame{Revision: revision}
	f.Events = f.one[:0]
	return f
}

func (f *Frame) add(e Event) {
	f.Events = append(f.Events, e)
	f.bytes += e.bytes()
}

// Encoded returns the frame's encoding of the kind, 0 to FrameEncodings-1, which
// encode makes. A frame that several watchers share keeps it: it is made once
// for all of them, or now and then twice, where two ask for it at the same
// moment. The bytes must not be changed.
func (f *Frame) Encoded(kind int, encode func(*Frame) []byte) []byte {
	if b := f.encoded[kind].Load(); b != nil {
		return *b
	}
	b := encode(f)
	if f.ring == nil {
		return b
	}
	// Counted before it is kept: a frame that has left the ring meanwhile is
	// far below zero and says so.
	if f.kept.Add(int64(len(b))) < 0 {
		return b
	}
	f.ring.bytes.Add(int64(len(b)))
	f.encoded[kind].Store(&b)
	return b
}

// link is what stands between two frames of a group. A watcher holds on to the
// one behind the last frame that it was given, and to nothing else of the group.
type link struct {
	// frame is the next frame: nil while there is none, lostFrame where there
	// was one that the ring no longer has.
	frame atomic.Pointer[Frame]
	// lost goes with lostFrame and is written before it: no revision between
	// the frame before the link and this one touched the range.
	lost uint64
}

// lostFrame stands for frames that are no longer linked.
var lostFrame = new(Frame)

// lose unlinks what follows; the watchers there go on through the history, from
// the revision on.
func (l *link) lose(revision uint64) {
	l.lost = revision
	l.frame.Store(lostFrame)
}
