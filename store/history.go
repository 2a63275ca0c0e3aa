package store

// MaxHistoryBytes bounds the retained history beside its age and its number of
// revisions: the oldest revisions are compacted while the changes after them
// come to more. Without it, overwriting one value of a megabyte a hundred times
// a second would hold thirty gigabytes by the default five minutes. It is part
// of the state machine: it must never change.
const MaxHistoryBytes = 512 << 20

// cutBase and cutPerChange bound how many changes one entry cuts: more than it
// adds, so that a backlog (a long View that was closed, a quiet hour that ends)
// drains without one entry paying for all of it. What costs most to cut is
// tombstones, a microsecond or two each.
const (
	cutBase      = 256
	cutPerChange = 2
)

// history is what is retained of the past.
//
// What it means, to the letter: with compact revision C and present revision R,
// the state as of every revision from C to R can be read, and all changes of
// revisions C+1 to R are held, each with the version before it. A watch can
// therefore resume from C+1. C never goes back, and is, after each entry, the
// greatest of
//
//   - what it was,
//   - R - history_revisions,
//   - the last revision made at or before (clock - history_ms): the state as it
//     was that long ago can still be read,
//   - the least revision after which the changes fit into MaxHistoryBytes.
//
// All of that is a function of the log. What is physically dropped lags behind:
// see cut.
type history struct {
	// changes is in the order they were made: by revision, then sub. It starts
	// at or before the first change of revision C+1. What Views hold of it stays
	// good: changes are only pushed after that, or popped where no View may look
	// (cut).
	changes changeList
	// done is the number of changes at the front that are of revision C or
	// older, and wait to be cut.
	done int
	// runs says when the revisions from C+1 to R were made: those from
	// runs[i].revision up to the next run's have runs[i].clockMS. Clocks rise
	// strictly. The first run may begin before C+1. Elements are never changed.
	runs []clockRun
	// bytes is the sum of the bytes of changes[done:].
	bytes uint64
}

// change is one version with its chain.
type change struct {
	chain *chain
	v     *version
	// prev is v.prev, which the collector does not see there. Whoever makes a version
	// the head of a chain has the one before it here, or in hand until it is here.
	prev *version
	// bytes is what it counts: as an item, a tombstone as one without a value.
	bytes uint32
}

type clockRun struct{ revision, clockMS uint64 }

// fill makes the history of the chains of a tree, with all that it is to retain.
// order is that of their versions after the compact revision.
func (h *history) fill(chains tree, order changeOrder) {
	h.changes = newChangeList(order.len())
	if h.changes.n == 0 {
		return
	}
	chains.scan(func(c *chain) bool {
		for v := c.newest(); v != nil && v.mod > order.compact; v = v.prev {
			bytes := itemBytes(c.key(), v)
			*h.changes.at(order.place(v.mod, v.sub)) = change{c, v, v.prev, uint32(bytes)}
			h.bytes += bytes
		}
		return true
	})
}

// commit makes the changes from mark on the next revision.
func (st *state) commit(mark int) {
	st.revision++
	h := &st.history
	for i := mark; i < h.changes.n; i++ {
		h.bytes += uint64(h.changes.at(i).bytes)
	}
	if n := len(h.runs); n == 0 || h.runs[n-1].clockMS != st.clockMS {
		h.runs = append(h.runs, clockRun{st.revision, st.clockMS})
	}
}

// compact moves the compact revision to where the settings put it, and cuts
// some of what is no longer needed. It costs O(1) for each change ever made.
func (st *state) compact(added int) {
	h := &st.history
	to := st.compactRevision
	if st.revision > st.settings.HistoryRevisions {
		to = max(to, st.revision-st.settings.HistoryRevisions)
	}
	if st.clockMS >= st.settings.HistoryMS {
		to = max(to, h.madeBy(st.clockMS-st.settings.HistoryMS, st.revision))
	}
	for h.done < h.changes.n {
		c := h.changes.at(h.done)
		if c.v.mod > to {
			if h.bytes <= MaxHistoryBytes {
				break
			}
			to = c.v.mod
		}
		h.bytes -= uint64(c.bytes)
		h.done++
	}
	st.compactRevision = to
	// A run is over where the next begins at or before the first revision that
	// is retained.
	for len(h.runs) > 1 && h.runs[1].revision <= to+1 {
		h.runs = h.runs[1:]
	}
	if to == st.revision {
		h.runs = nil
	}
	st.cut(cutBase + cutPerChange*added)
}

// madeBy is the last revision that was made at or before the clock; 0 where
// none that is retained was.
func (h *history) madeBy(clockMS, present uint64) uint64 {
	var last uint64
	for i, run := range h.runs {
		if run.clockMS > clockMS {
			break
		}
		last = present
		if i+1 < len(h.runs) {
			last = h.runs[i+1].revision - 1
		}
	}
	return last
}

// cut drops up to most changes that no reader can need. Of a change of
// revision m ≤ C the version before is unreachable for reads at C or later, and
// a tombstone that is still its key's head is as good as nothing.
//
// Views lag: one that found the compact revision C0 when it was opened reads at
// a revision r ≥ C0, or writes a snapshot from C0 on. It looks at the prev of
// a version only where that version's revision is greater than C0. Nothing
// greater than the least C0 is cut, so the writer's store to prev and the
// readers' loads never meet at one version, and prev needs no atomic: were the
// proof wrong, the race detector would say so (TestReadersWhileApplying).
// Views opened from now on read at C or later. A chain that is dropped may stay
// in the trees of Views, to which it says that its key is missing: see chain.
func (st *state) cut(most int) {
	h := &st.history
	limit := st.pins.oldest(st.compactRevision)
	for ; most > 0 && h.done > 0 && h.changes.at(0).v.mod <= limit; most-- {
		c := *h.changes.at(0)
		c.v.prev = nil
		h.changes.pop()
		h.done--
		if c.v.live() {
			continue
		}
		if c.chain.newest() == c.v {
			st.unbury(c.chain)
			st.leave(c.chain)
		}
	}
}
