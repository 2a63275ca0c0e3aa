package store

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"trivet/trivetpb"
)

// watches is who watches what, and the frames of what happened last.
//
// # The way of a change
//
// An entry is applied under the store's write lock. Before it is compacted (so
// while every change still has its prev), and before its revisions are visible
// to anybody, publish goes through what it changed: for each change it finds the
// groups of watchers whom it concerns (watchindex.go), and for each revision it
// links one frame to each of those. Then the lock is given back, and only then
// are the watchers that wait woken. So
//
//   - what is uncommitted, or undone, is never in a frame: a command that fails
//     has left no change when publish comes;
//   - whoever sees revision R finds all frames up to R linked. A watcher that
//     loads the revision first and then finds no further frame has been given
//     everything up to that revision: this is what Through rests on.
//
// The writer never waits for a watcher. It takes mu, which is held otherwise
// only for the time that opening or closing a watcher takes, and a group's mu,
// which is held for a few instructions.
//
// # The way of a watcher
//
// It is a position: a link of its group's chain of frames where it keeps up, a
// revision where it does not. What it is not given while it sleeps or writes
// leaves the chain behind it, and it goes on through the history (watchread.go)
// until it finds its place in the chain again.
type watches struct {
	// present counts the groups. The writer looks at it without mu, once an
	// entry: watchers come under the store's lock, so it sees all that matter.
	present atomic.Int64
	// watchers counts the watchers.
	watchers atomic.Int64

	mu sync.Mutex
	// groups is by groupID; index is the same groups, by what concerns them.
	groups btree.Map[string, *watchGroup]
	index  watchIndex
	ring   frameRing
	// readChanges is the constant of that name, but for tests.
	readChanges int
	// published is the last revision whose frames were made, where there are
	// groups.
	published uint64
	// touched is the groups with a frame in the making, found a buffer.
	touched []*watchGroup
	found   []*watchGroup

	// woken is what wake is to close; it belongs to the writer.
	woken []chan struct{}
}

func newWatches() watches {
	return watches{readChanges: readChanges, ring: frameRing{mostFrames: ringFrames, mostBytes: ringBytes}}
}

// groupID is the range as one string; no two ranges have the same.
func groupID(keys *trivetpb.KeyRange) string {
	b := binary.AppendUvarint(nil, uint64(len(keys.GetStart())))
	b = append(b, keys.GetStart()...)
	return string(append(b, keys.GetEnd()...))
}

// watchGroup is the watchers of one range.
type watchGroup struct {
	id         string
	start, end string       // end "": none
	members    atomic.Int32 // changed under watches.mu

	// The chain of frames. The writer changes it, under the store's lock and
	// watches.mu; whoever has the store's lock for reading may read it. From
	// oldest on it is linked up to tail, where the next frame will be. No frame
	// newer than gone is missing.
	oldest, tail *link
	gone         uint64
	making       *Frame // of the revision that publish is at

	// mu guards ready, which is closed when a frame is linked; nil while nobody
	// has asked for it.
	mu    sync.Mutex
	ready chan struct{}
}

// holds says whether the key is in the group's range.
func (g *watchGroup) holds(key string) bool {
	return key >= g.start && (g.end == "" || key < g.end)
}

// join returns the group of the range, which is made where it is the first.
// The store's lock is held for reading at least, and revision is its present
// one, all of whose frames were published.
func (h *watches) join(keys *trivetpb.KeyRange, revision uint64) *watchGroup {
	id := groupID(keys)
	h.mu.Lock()
	defer h.mu.Unlock()
	g, ok := h.groups.Get(id)
	if !ok {
		at := new(link)
		g = &watchGroup{
			id:    id,
			start: string(keys.GetStart()), end: string(keys.GetEnd()),
			oldest: at, tail: at, gone: revision,
		}
		h.groups.Set(id, g)
		h.index.add(g)
		if h.present.Add(1) == 1 {
			h.published = revision
		}
	}
	g.members.Add(1)
	h.watchers.Add(1)
	return g
}

// leave takes a watcher from its group.
func (h *watches) leave(g *watchGroup) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers.Add(-1)
	if g.members.Add(-1) > 0 {
		return
	}
	h.found = nil // it may still have the group behind its end
	h.groups.Delete(g.id)
	h.index.remove(g)
	if h.present.Add(-1) == 0 {
		h.ring.clear() // publish, which drops frames, is not called any more
	}
}

// publish makes and links the frames of all changes since the last time.
func (h *watches) publish(st *state) {
	if h.present.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	changes := &st.history.changes
	i := changes.n
	for i > 0 && changes.at(i-1).v.mod > h.published {
		i--
	}
	for ; i < changes.n; i++ {
		c := changes.at(i)
		if c.v.mod != h.published {
			h.link()
			h.published = c.v.mod
		}
		h.found = h.index.find(c.chain.key(), h.found[:0])
		for _, g := range h.found {
			if g.making == nil {
				g.making = newFrame(c.v.mod)
				h.touched = append(h.touched, g)
			}
			g.making.add(newEvent(c))
		}
	}
	h.link()
	h.published = st.revision
}

// link gives the frames in the making, which are complete, to their groups.
func (h *watches) link() {
	for i, g := range h.touched {
		f := g.making
		f.after, f.ring = new(link), &h.ring
		at := g.tail
		g.tail, g.making = f.after, nil
		at.frame.Store(f)
		h.ring.push(g, f)
		h.rouse(g)
		h.touched[i] = nil
	}
	h.touched = h.touched[:0]
}

// rouse notes that the watchers of the group that wait are to be woken.
func (h *watches) rouse(g *watchGroup) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ready != nil {
		h.woken = append(h.woken, g.ready)
		g.ready = nil
	}
}

// wake wakes those who were roused. The writer calls it without the store's
// lock: waking a hundred goroutines takes longer than many an entry.
func (h *watches) wake() {
	for i, ready := range h.woken {
		close(ready)
		h.woken[i] = nil
	}
	h.woken = h.woken[:0]
}

// jump is called when st takes the place of another state, under the write lock.
// No chain goes on from one state to the other: the watchers look for their
// place in the history of the new one, which tells those to whom it does not
// reach back that they are too late. Where that happens in the midst of an entry,
// what its commands before did is in no frame, and is looked for as well.
func (h *watches) jump(st *state) {
	st.watches = h
	if h.present.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring.clear()
	h.groups.Scan(func(_ string, g *watchGroup) bool {
		g.tail.lose(h.published + 1)
		g.tail = new(link)
		g.oldest, g.gone = g.tail, st.revision
		h.rouse(g)
		return true
	})
	h.published = st.revision
}

// Watchers is the number of open watchers.
func (s *Store) Watchers() int { return int(s.watches.watchers.Load()) }
