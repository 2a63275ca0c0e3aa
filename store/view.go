package store

import (
	"iter"
	"runtime"
	"sync/atomic"

	"github.com/tidwall/btree"

	"trivet/trivetpb"
)

// View is the store as of one revision. It shares the store's chains of versions
// and has a copy-on-write copy of the tree, so it costs O(1), holds up nobody and
// is held up by nobody, and stays as it is whatever is applied, compacted or
// restored later. What is read of a key costs a step for each of its versions
// since the revision.
//
// Any number of goroutines may use a View at a time. It holds on to the history
// that was retained when it was opened, so it must be closed; after that it must
// not be used (its methods panic).
type View struct {
	reading
	state  *state // for pins only; all else of it belongs to its lock
	stats  Stats  // of the present when the View was opened, without Hash
	sum    uint64
	runs   []clockRun
	rest   frozenRest
	closed atomic.Bool
}

// frozenRest is what a snapshot holds beside keys and their history, as it was
// when the View was opened.
type frozenRest struct {
	hash                    uint64
	seed, nextID, nextToken uint64
	leases                  *btree.Map[uint64, lease]
	locks                   *btree.Map[string, lock]
	waiters                 *btree.Map[uint64, waiter]
	sessions                *btree.Map[uint64, *session]
	keyed                   *btree.Map[string, *keyed]
	upload                  *upload // a copy; nil for none
}

// View opens a View at the revision, 0 for the present one. The error is a
// *trivetpb.Problem: COMPACTED below the retained history, FUTURE_REVISION
// above the present.
func (s *Store) View(revision uint64) (*View, error) {
	s.mu.RLock()
	if !s.state.frozen() {
		// Copy changes the tree that is copied (its copy-on-write epoch), so it
		// takes the write lock, once for all Views between two entries.
		s.mu.RUnlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.state.freeze()
	} else {
		defer s.mu.RUnlock()
	}
	return s.state.view(revision)
}

// frozen says that the copies are there which Views share.
func (st *state) frozen() bool {
	return st.frozenTombstones != nil && st.sessions.frozen != nil && st.leases.frozen != nil &&
		st.locks.frozen != nil && st.waiters.frozen != nil && st.keyed.frozen != nil
}

// freeze makes those that are not.
func (st *state) freeze() {
	if st.frozenTombstones == nil {
		st.frozenTree = st.tree.copy()
		st.frozenTombstones = st.tombstones.copy()
	}
	if st.sessions.frozen == nil {
		st.sessions.freeze()
		st.generation++ // no session is the writer's own any more
	}
	st.leases.freeze()
	st.locks.freeze()
	st.waiters.freeze()
	st.keyed.freeze()
}

// view opens a View of the frozen trees; the store's lock is held, for reading
// at least.
func (st *state) view(revision uint64) (*View, error) {
	switch {
	case revision == 0:
		revision = st.revision
	case revision > st.revision:
		p := problemf(trivetpb.Code_FUTURE_REVISION, "revision %d is after the present one, %d", revision, st.revision)
		p.Revision = st.revision
		return nil, p
	case revision < st.compactRevision:
		p := problemf(trivetpb.Code_COMPACTED, "revision %d is before the oldest retained one, %d", revision, st.compactRevision)
		p.Revision, p.CompactRevision = st.revision, st.compactRevision
		return nil, p
	}
	v := &View{
		reading: reading{tree: st.frozenTree, tombstones: st.frozenTombstones, revision: revision},
		state:   st,
		stats:   st.statsWithoutHash(),
		sum:     st.totals.sum,
		runs:    st.history.runs,
		rest: frozenRest{
			hash:      st.restHash(),
			seed:      st.seed,
			nextID:    st.nextID,
			nextToken: st.nextToken,
			leases:    st.leases.frozen,
			locks:     st.locks.frozen,
			waiters:   st.waiters.frozen,
			sessions:  st.sessions.frozen,
			keyed:     st.keyed.frozen,
		},
	}
	if st.upload != nil {
		u := *st.upload
		v.rest.upload = &u
	}
	if revision < st.revision {
		v.newer = st.history.changes.after(revision)
	}
	st.pins.add(st.compactRevision)
	return v, nil
}

// Close gives back what the View holds on to. It may be called more than once, and not
// while anybody still reads: old versions are freed then, which only an open View keeps
// (version.prev).
func (v *View) Close() {
	if !v.closed.Swap(true) {
		v.state.pins.drop(v.stats.CompactRevision)
	}
}

// mustBeOpen turns a use after Close, which would now and then read cut
// history, into one that always shows.
func (v *View) mustBeOpen() {
	if v.closed.Load() {
		panic("store: use of a closed View")
	}
}

// Revision is the one that the View reads at.
func (v *View) Revision() uint64 { return v.revision }

// Get returns the item of key, and whether there is one. Its value must not be
// changed; key is not kept.
func (v *View) Get(key []byte) (Item, bool) {
	v.mustBeOpen()
	defer runtime.KeepAlive(v) // and with it the history, where nobody else has its state any more
	found := v.get(keyString(key))
	if found == nil {
		return Item{}, false
	}
	return found.item(string(key)), true
}

// RangeOptions says how Range goes through a range.
type RangeOptions struct {
	// Reverse goes from the last key to the first.
	Reverse bool
}

// Range iterates over the items of a range in byte order. A nil range is the
// whole key space. The range is not kept; the items' bytes must not be changed.
func (v *View) Range(r *trivetpb.KeyRange, o RangeOptions) iter.Seq[Item] {
	keys := &trivetpb.KeyRange{
		Start: append([]byte(nil), r.GetStart()...),
		End:   append([]byte(nil), r.GetEnd()...),
	}
	return func(yield func(Item) bool) {
		v.mustBeOpen()
		defer runtime.KeepAlive(v)
		visit := func(c *chain, found *version) bool { return yield(found.item(c.key())) }
		if o.Reverse {
			v.scan(keys, true, visit)
		} else {
			v.scanAhead(keys, visit)
		}
	}
}

// Count is the number of items in the range; a nil range is the whole key
// space. It costs O(log² n), and O(1) for each change since the revision.
func (v *View) Count(r *trivetpb.KeyRange) uint64 {
	v.mustBeOpen()
	defer runtime.KeepAlive(v)
	return v.count(r)
}

// Do answers an op that only reads (ReadOnly): a get, a range, or a txn of
// them. Any other op, and one that Check would refuse at the largest limits, is
// a problem in the result. The op is not kept; the answer's bytes must not be
// changed.
func (v *View) Do(op *trivetpb.Op) *trivetpb.Result {
	v.mustBeOpen()
	defer runtime.KeepAlive(v)
	result := &trivetpb.Result{Revision: v.revision}
	problem := Check(op, hardLimits)
	if problem == nil && !ReadOnly(op) {
		problem = problemf(trivetpb.Code_BAD_REQUEST, "the op does not only read")
	}
	if problem == nil {
		problem = v.op(result, op.Op, &budget{})
	}
	if problem != nil {
		result.Result, result.Problem = nil, problem
	}
	return result
}

// ReadOnly says whether the op cannot change anything: a get, a range, or a txn
// both of whose branches only hold such.
func ReadOnly(op *trivetpb.Op) bool {
	switch op := op.GetOp().(type) {
	case *trivetpb.Op_Get, *trivetpb.Op_Range:
		return true
	case *trivetpb.Op_Txn:
		return allReadOnly(op.Txn.GetThen()) && allReadOnly(op.Txn.GetElse())
	}
	return false
}

// allReadOnly does not look into nested txns, which are refused everywhere.
func allReadOnly(ops []*trivetpb.Op) bool {
	for _, op := range ops {
		switch op.GetOp().(type) {
		case *trivetpb.Op_Get, *trivetpb.Op_Range:
		default:
			return false
		}
	}
	return true
}
