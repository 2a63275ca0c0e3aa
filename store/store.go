package store

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"trivet/trivetpb"
)

// Errors of Apply. After either, nothing of the entry was applied, and the node
// must stop: it can no longer stay equal to the others.
var (
	// ErrUnknownCommand: the entry holds a command, a field or an enum value
	// that this version does not know.
	ErrUnknownCommand = errors.New("store: the entry holds what this version does not know")
	// ErrIndex: the entry's index is not after the last one applied.
	ErrIndex = errors.New("store: the entry's index is not after the last one applied")
)

// Defaults of the settings, until a Marker brings others. A Marker's zero
// history_ms or history_revisions means these as well.
const (
	DefaultHistoryMS        = 5 * 60 * 1000
	DefaultHistoryRevisions = 100_000
)

// Settings are the limits that the state machine itself keeps; they are part of
// the state and the same on every node.
type Settings struct {
	// HistoryMS and HistoryRevisions bound the retained history: a revision
	// older than either is compacted. Never 0.
	HistoryMS, HistoryRevisions uint64
	// QuotaBytes bounds Stats.Bytes; 0 for no bound.
	QuotaBytes uint64
	// Level is what the state machine may do (level.go). It never goes back.
	Level uint64
}

// Stats is one consistent picture of the store. Two stores that applied the
// same entries have equal Stats (==).
type Stats struct {
	// Index is that of the last log entry applied; 0 for none.
	Index uint64
	// Revision is the present revision, 1 for the empty store. Revisions from
	// CompactRevision on can be read.
	Revision, CompactRevision uint64
	// ClockMS is the replicated clock.
	ClockMS uint64
	// Hash is the state hash (hash.go).
	Hash uint64
	// Keys is the number of live items; Bytes is the sum of their keys, values
	// and ItemOverheadBytes each.
	Keys, Bytes uint64
	// HistoryRevisions is the number of revisions after CompactRevision, whose
	// changes are all retained; HistoryBytes counts those changes as Bytes
	// counts items. An open View may hold more in memory.
	HistoryRevisions, HistoryBytes uint64
	// Leases counts the leases, those of locks and of single puts included;
	// Locks the locks that are held, Waiters those who wait for one, Sessions
	// the open sessions.
	Leases, Locks, Waiters, Sessions uint64
	// Answers counts the remembered answers, of sessions and of idempotency
	// keys; AnswerBytes is what they count towards their bounds.
	Answers, AnswerBytes uint64
	Settings             Settings
}

// Store is the state machine. One goroutine at a time calls Apply, Advance and
// Restore; any number call the rest.
type Store struct {
	// level is the newest level that this Store knows.
	level uint64

	// revision, index, clock and next (the next deadline, or never) follow the
	// state's; they are set before the lock is given back, so whoever sees one
	// here finds at least that under the lock.
	revision, index, clock, next atomic.Uint64

	awaiting awaiting

	// mu guards state and all that it holds, but for what a View shares (see
	// chain.go). Apply holds it for the time of an entry. With a million keys a
	// small put takes 0.3 to 0.7 µs of that, and one that creates its key 1 to
	// 2 µs, so 256 puts hold it for about a tenth of a millisecond, and 1,024
	// for half a millisecond to two; a delete of MaxDeleteKeys keys, or the end
	// of a lease with MaxLeaseKeys, does for some 50 ms. No reader holds it for
	// longer than a point read, but for those that list leases, keys of a lease or
	// a queue, as many as they were asked for.
	mu    sync.RWMutex
	state *state

	// memory has the results of the last entry, or was taken back. Both are of who
	// calls Apply.
	memory    resultMemory
	takenBack bool

	watches watches
}

// keySet is an ordered set of keys.
type keySet struct {
	btree.Map[string, struct{}]
}

func (s *keySet) copy() *keySet { return &keySet{*s.Map.Copy()} }

// KeyAt is the key at a place, from 0.
func (s *keySet) KeyAt(i int) string {
	key, _, _ := s.GetAt(i)
	return key
}

// state is what Restore replaces as a whole. A snapshot holds all of it, or
// what it is derived from: TestSnapshotHoldsEveryField.
type state struct {
	index           uint64
	revision        uint64
	compactRevision uint64
	clockMS         uint64
	settings        Settings

	// tree and table hold the same chains. Both change only when a key comes
	// or goes; other writes replace the head of a chain.
	tree  tree
	table table
	// tombstones is the keys whose head is a tombstone, for counting.
	tombstones keySet
	totals     totals
	history    history

	// seed and nextID are what ids are drawn from; nextToken is the last token
	// that was drawn.
	seed, nextID, nextToken uint64

	leases   cow[uint64, lease]
	locks    cow[string, lock]
	waiters  cow[uint64, waiter] // by token
	sessions cow[uint64, *session]
	// keys is the idempotency keys, keyed the same by deadline and key.
	keys  btree.Map[string, *keyed]
	keyed cow[string, *keyed]
	// upload is the snapshot file that is being restored; nil for none.
	upload *upload
	dues   dueHeap

	nodeSessions int
	// answerCount and answerBytes count all remembered answers; clientBytes
	// those of clients' sessions, keyedBytes those of idempotency keys.
	answerCount, answerBytes, clientBytes, keyedBytes uint64
	// generation counts the times that sessions were frozen: see session.
	generation uint64
	// freePages and namedBefore are memory to use again.
	freePages   *answerPage
	freeCount   int
	namedBefore []*session

	// frozenTree and frozenTombstones are copies of the two trees, shared by all
	// Views opened until either changes (thaw); zero until one is opened.
	frozenTree       tree
	frozenTombstones *keySet
	// pins is the revisions that open Views of this state hold on to.
	pins *pins
	// watches is the store's: apply tells it what changed.
	watches *watches
}

// enter adds the chain of a key that has none.
func (st *state) enter(c *chain) {
	st.tree.add(c)
	st.table.add(c)
	st.thaw()
}

// leave removes a chain, to which nothing may be written any more.
func (st *state) leave(c *chain) {
	st.tree.remove(c)
	st.table.remove(c)
	st.thaw()
}

// bury notes that the head of c is a tombstone, unbury that it is none.
func (st *state) bury(c *chain) {
	st.tombstones.Set(c.key(), struct{}{})
	st.thaw()
}

func (st *state) unbury(c *chain) {
	st.tombstones.Delete(c.key())
	st.thaw()
}

// thaw makes the next View take new copies.
func (st *state) thaw() { st.frozenTree, st.frozenTombstones = tree{}, nil }

// totals is what is kept up to date as items change.
type totals struct {
	keys, bytes uint64
	// sum is that of the live items' hashes, rest that of the hashes of leases,
	// locks, those who wait, sessions and remembered answers.
	sum, rest uint64
}

// New returns the empty store, at revision 1.
func New() *Store { return NewOfLevel(Level) }

// NewOfLevel is New for a version that knows the levels up to level, where that
// is not this one: in tests of upgrades.
func NewOfLevel(level uint64) *Store {
	s := &Store{watches: newWatches(), level: level}
	s.replace(newState())
	return s
}

func newState() *state {
	return &state{
		revision:        1,
		compactRevision: 1,
		tree:            newTree(),
		settings:        Settings{HistoryMS: DefaultHistoryMS, HistoryRevisions: DefaultHistoryRevisions},
		pins:            new(pins),
	}
}

// replace makes st the state; s.mu is held, or nobody else has s yet.
func (s *Store) replace(st *state) {
	s.state = st
	s.watches.jump(st)
	s.show()
}

// show makes what is read without the lock that of the state.
func (s *Store) show() {
	st := s.state
	s.revision.Store(st.revision)
	if s.clock.Load() != st.clockMS {
		s.clock.Store(st.clockMS)
	}
	// A load costs next to nothing, a store some ten nanoseconds.
	if next := st.nextDeadline(); s.next.Load() != next {
		s.next.Store(next)
	}
	s.index.Store(st.index)
}

// Apply applies a log entry and returns a result for each of its commands, in
// order; each succeeds or fails on its own. The index must be greater than that
// of the last entry (ErrIndex), and the entry must hold nothing that this
// version does not know (ErrUnknownCommand): of such an entry nothing is
// applied, and the caller must stop.
//
// No message of the entry is kept, and of the keys and values of operations copies
// alone: they may alias what the entry was decoded from (trivetpb.Decoder). What else
// has bytes (a lock's name, an idempotency key, a piece of a snapshot) is kept as it
// is, and the caller must not use it again. Results alias what the store holds and
// must not be changed; they are the caller's, who may give them back (Reuse).
func (s *Store) Apply(index uint64, entry *trivetpb.Entry) ([]*trivetpb.Result, error) {
	if last := s.index.Load(); index <= last {
		return nil, fmt.Errorf("%w: %d after %d", ErrIndex, index, last)
	}
	if err := knownEntry(entry, s.level); err != nil {
		return nil, fmt.Errorf("%w: entry %d: %w", ErrUnknownCommand, index, err)
	}
	ready := s.state.prepare(entry)
	s.state.table.warm(entry.Commands)
	defer s.watches.wake() // once the lock is given back
	s.mu.Lock()
	a := applier{state: s.state, ready: ready, memory: s.resultsOfNext()}
	results := a.apply(index, entry)
	if a.replaced {
		s.replace(a.state)
	} else {
		s.show()
	}
	s.mu.Unlock()
	if a.replaced {
		s.awaiting.wakeAll()
	} else {
		s.awaiting.wake(a.stirred)
	}
	return results, nil
}

// Advance notes that the log entry at index, which holds no commands (a change
// of configuration), is applied. An index that is not after the last one
// changes nothing.
func (s *Store) Advance(index uint64) {
	s.leaveResults()
	s.mu.Lock()
	defer s.mu.Unlock()
	if index > s.state.index {
		s.state.index = index
		s.index.Store(index)
	}
}

// Restore replaces the whole state by the snapshot that r holds up to its end,
// or leaves it untouched and returns an error: ErrSnapshotCorrupt,
// ErrSnapshotVersion, or what r returned. Reads go on meanwhile and see either
// state; open Views keep theirs. For the time of the call both are in memory.
func (s *Store) Restore(r io.Reader) error {
	st, err := readState(r, s.level)
	if err != nil {
		return err
	}
	defer s.watches.wake()
	s.mu.Lock()
	s.replace(st)
	s.mu.Unlock()
	s.awaiting.wakeAll()
	return nil
}

// Stats returns one consistent picture. It costs a short read lock.
func (s *Store) Stats() Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.stats()
}

func (st *state) stats() Stats {
	stats := st.statsWithoutHash()
	stats.Hash = stateHash(st.totals.sum, st.restHash(), stats)
	return stats
}

func (st *state) statsWithoutHash() Stats {
	return Stats{
		Index:            st.index,
		Revision:         st.revision,
		CompactRevision:  st.compactRevision,
		ClockMS:          st.clockMS,
		Keys:             st.totals.keys,
		Bytes:            st.totals.bytes,
		HistoryRevisions: st.revision - st.compactRevision,
		HistoryBytes:     st.history.bytes,
		Leases:           uint64(st.leases.len()),
		Locks:            uint64(st.locks.len()),
		Waiters:          uint64(st.waiters.len()),
		Sessions:         uint64(st.sessions.len()),
		Answers:          st.answerCount,
		AnswerBytes:      st.answerBytes,
		Settings:         st.settings,
	}
}

// Revision is the present revision, without a lock.
func (s *Store) Revision() uint64 { return s.revision.Load() }

// Index is that of the last log entry applied, without a lock: whoever reads
// the store after Index returned n sees the effects of entry n.
func (s *Store) Index() uint64 { return s.index.Load() }

// Get returns the item of key at the present revision, whether there is one,
// and that revision. Its value aliases the store and must not be changed; key is
// not kept.
func (s *Store) Get(key []byte) (Item, bool, uint64) {
	s.mu.RLock()
	v := s.state.table.find(keyString(key)).newest()
	revision := s.state.revision
	s.mu.RUnlock()
	// The version is immutable in all that is read below.
	if !v.live() {
		return Item{}, false, revision
	}
	return v.item(string(key)), true, revision
}
