package store

import (
	"sort"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// readChanges and readBytes bound what a watcher that has fallen behind reads of
// the history under one read lock, and so how long the writer waits for it: some
// 50 µs. They bound as well what it holds beside its position.
const (
	readChanges = 1024
	readBytes   = 1 << 20
)

// read brings a watcher that is not at a link forward: to a link of its group's
// chain, or by a part of the history, whose frames go into w.backlog. The error
// is the watcher's last word.
func (w *Watcher) read() error {
	w.store.mu.RLock()
	defer w.store.mu.RUnlock()
	st := w.store.state
	if w.seen < st.compactRevision {
		if !mutant.On("watch-drops-at-compaction") {
			return compactedWatch(w.seen+1, st)
		}
		w.seen, w.sub, w.part = st.compactRevision, 0, nil
	}
	if w.seen > st.revision {
		// Only a state that is behind the one before it can do that.
		return futureWatch(w.seen+1, st)
	}
	if g := w.group; w.part == nil && w.sub == 0 && w.seen >= g.gone {
		w.at = g.oldest // from here on, Next passes by what it has seen
		return nil
	}

	// All of this is of revisions after the compact one, so prev is there.
	changes := &st.history.changes
	i := sort.Search(changes.n, func(i int) bool {
		v := changes.at(i).v
		return v.mod > w.seen+1 || (v.mod == w.seen+1 && v.sub >= w.sub)
	})
	end := min(changes.n, i+w.store.watches.readChanges)
	for bytes := int64(0); i < end && bytes < readBytes; i++ {
		c := changes.at(i)
		if c.v.mod != w.seen+1 {
			w.finish()
		}
		w.sub = c.v.sub + 1
		if !w.group.holds(c.chain.key()) {
			continue
		}
		if w.part == nil {
			w.part = newFrame(c.v.mod)
		}
		e := newEvent(c)
		w.part.add(e)
		bytes += e.bytes()
	}
	// A revision is over where there is no further change, or one of the next.
	if w.sub > 0 && (i == changes.n || changes.at(i).v.mod != w.seen+1) {
		w.finish()
	}
	return nil
}

// finish ends the revision that the watcher was reading.
func (w *Watcher) finish() {
	if w.part != nil {
		w.backlog = append(w.backlog, w.part)
	}
	w.seen++
	w.sub, w.part = 0, nil
}

func compactedWatch(from uint64, st *state) *trivetpb.Problem {
	p := problemf(trivetpb.Code_COMPACTED, "the changes of revision %d are no longer held, only those after %d", from, st.compactRevision)
	p.Revision, p.CompactRevision = st.revision, st.compactRevision
	return p
}

func futureWatch(from uint64, st *state) *trivetpb.Problem {
	p := problemf(trivetpb.Code_FUTURE_REVISION, "revision %d is beyond the next one, %d", from, st.revision+1)
	p.Revision = st.revision
	return p
}
