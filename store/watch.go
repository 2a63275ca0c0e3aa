package store

import (
	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// Watcher is a position among the changes of a range of keys. It is given each
// revision that touches the range once, in order, none left out, or a problem
// that ends it.
//
// It holds a position and at most a part of the history (some readBytes, or one
// revision where that is larger), whatever happens while nobody asks it. Neither the writer nor the retained history
// waits for it: one that falls behind what is retained ends with COMPACTED.
//
// One goroutine at a time uses a Watcher. It must be closed.
type Watcher struct {
	store *Store
	group *watchGroup

	// at is the link behind the last frame given; nil while the watcher reads
	// the history.
	at *link
	// seen is the last revision that was looked at as a whole while at is nil.
	// Of the one after it the changes before sub were; part is what they gave.
	seen uint64
	sub  uint32
	part *Frame
	// backlog is frames that were read from the history and not given yet.
	backlog []*Frame
	// through is what Through returns.
	through uint64

	opened uint64
	err    error // the last word
	closed bool
}

// Watch opens a watcher of the changes of the range from the revision on; 0
// means after the present one. A nil range is the whole key space; the range is
// not kept. The error is a *trivetpb.Problem: COMPACTED where the changes of the
// revision are no longer all held, FUTURE_REVISION where it is greater than the
// next one.
func (s *Store) Watch(keys *trivetpb.KeyRange, from uint64) (*Watcher, error) {
	// With the lock held there is no entry under way, so that what is applied
	// later finds the watcher there.
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := s.state
	switch {
	case from == 0:
		from = st.revision + 1
	case from == 1 && st.compactRevision == 1:
		from = 2 // the first revision is that of the empty store: nothing made it
	case from > st.revision+1:
		return nil, futureWatch(from, st)
	case from <= st.compactRevision:
		return nil, compactedWatch(from, st)
	}
	if mutant.On("watch-repeats") && from > st.compactRevision+1 {
		from--
	}
	w := &Watcher{store: s, group: s.watches.join(keys, st.revision), seen: from - 1, through: from - 1, opened: st.revision}
	if from > st.revision {
		w.at = w.group.tail
	}
	return w, nil
}

// Opened is the revision that the store had when the watcher was opened.
func (w *Watcher) Opened() uint64 { return w.opened }

// Sharing is how many watchers there are of the very same range, this one
// included.
func (w *Watcher) Sharing() int { return int(w.group.members.Load()) }

// Through is the last revision of which it is known that all up to it has been
// given.
func (w *Watcher) Through() uint64 { return w.through }

// Next returns the next frame. It does not wait: where it returns nil, all
// changes up to Through have been given, and Ready says when there are more. It
// takes no lock but where the watcher has fallen behind, and then the store's
// read lock for short times. An error is the watcher's last word: a
// *trivetpb.Problem, COMPACTED but where the store was set back.
func (w *Watcher) Next() (*Frame, error) {
	for {
		if len(w.backlog) > 0 {
			f := w.backlog[0]
			w.backlog[0] = nil
			w.backlog = w.backlog[1:]
			w.through = f.Revision
			return f, nil
		}
		w.backlog = nil
		if w.at == nil {
			w.through = max(w.through, w.seen)
			if w.err == nil {
				w.err = w.read()
			}
			if w.err != nil {
				return nil, w.err
			}
			continue
		}
		// The order of these two is what Through rests on: see watches.
		revision := w.store.revision.Load()
		f := w.at.frame.Load()
		switch {
		case f == nil:
			w.through = max(w.through, revision)
			return nil, nil
		case f == lostFrame:
			w.seen = max(w.through, w.at.lost-1)
			w.at = nil
		case f.Revision <= w.through:
			w.at = f.after
		default:
			w.at = f.after
			if mutant.On("watch-drops") && (f.Revision+w.opened)%1000 == 0 {
				continue
			}
			w.through = f.Revision
			return f, nil
		}
	}
}

// Idle says whether all there is has been given, so that Next would return nil.
// Through is then the store's revision of now. It takes no lock.
func (w *Watcher) Idle() bool {
	if w.at == nil || len(w.backlog) > 0 {
		return false
	}
	revision := w.store.revision.Load() // before the frame, as in Next
	if w.at.frame.Load() != nil {
		return false
	}
	w.through = max(w.through, revision)
	return true
}

// Ready returns a channel that is closed once Next has something to say. It is
// to be taken after a Next that returned nil.
func (w *Watcher) Ready() <-chan struct{} {
	if w.at == nil {
		return alwaysReady
	}
	g := w.group
	g.mu.Lock()
	defer g.mu.Unlock()
	// A frame is linked before the writer takes g.mu to see who waits: either
	// it is seen here, or the writer sees this channel.
	if w.at.frame.Load() != nil {
		return alwaysReady
	}
	if g.ready == nil {
		g.ready = make(chan struct{})
	}
	return g.ready
}

var alwaysReady = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Close ends the watcher; it must not be used after that. It may be called more
// than once.
func (w *Watcher) Close() {
	if !w.closed {
		w.closed = true
		w.store.watches.leave(w.group)
	}
}
