package store

import "sync/atomic"

// ringFrames and ringBytes bound the frames that are kept for the watchers that
// keep up, all groups together. One bound for all, because the number of groups
// has none that is small: a ring of a megabyte each would be gigabytes for ten
// thousand. The newest frames stay, whosever they are: what they are good for
// is the second or two that a connection, the scheduler or a burst may take,
// and at 10,000 changes a second 16,384 frames are more than that. Who comes
// later reads the history, which costs more but gives the same.
//
// Bytes are those of the events (values that the history would have freed) and
// of their encodings. Frames leave when others come, so for a moment there may
// be as much again in encodings as the bound leaves room for.
const (
	ringFrames = 16 << 10
	ringBytes  = 64 << 20
)

// frameRing is the newest frames, oldest first. The frames themselves hang in
// the chains of their groups; the ring only knows whose turn it is to lose one.
type frameRing struct {
	// owners is a queue: the group of each frame.
	owners []*watchGroup
	first  int // of owners; before it nothing is left
	// bytes counts the frames' events and what they keep encoded.
	bytes atomic.Int64
	// mostFrames and mostBytes are the bounds: the constants, but for tests.
	mostFrames int
	mostBytes  int64
}

func (r *frameRing) len() int { return len(r.owners) - r.first }

// push appends the group's newest frame, and drops the oldest frames past the
// bounds; never the one that was pushed.
func (r *frameRing) push(g *watchGroup, f *Frame) {
	if r.first > 1024 && 2*r.first > len(r.owners) {
		n := copy(r.owners, r.owners[r.first:])
		clear(r.owners[n:])
		r.owners, r.first = r.owners[:n], 0
	}
	r.owners = append(r.owners, g)
	r.bytes.Add(f.bytes)
	for r.len() > r.mostFrames || (r.bytes.Load() > r.mostBytes && r.len() > 1) {
		r.pop()
	}
}

// pop drops the oldest frame. Watchers that have it may go on using it.
func (r *frameRing) pop() {
	g := r.owners[r.first]
	r.owners[r.first] = nil
	r.first++
	at := g.oldest
	f := at.frame.Load()
	g.oldest, g.gone = f.after, f.Revision
	at.lose(f.Revision)
	r.bytes.Add(-f.bytes - f.kept.Swap(notKept))
}

// clear drops all frames.
func (r *frameRing) clear() {
	for r.len() > 0 {
		r.pop()
	}
	r.owners, r.first = nil, 0
}
