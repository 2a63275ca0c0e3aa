package store

import (
	"bytes"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"trivet/trivetpb"
)

// machine runs the same entries through a model and two stores, the second of
// which is now and then replaced by one restored from a snapshot.
type machine struct {
	m      *model
	stores [2]*Store
	views  []heldView
	files  [][]byte
}

type heldView struct {
	v     *View
	state map[string]Item
	raw   []byte
}

// TestStoreIsTheModel is the test of everything together. It catches, among
// others, a hash that is not taken off the sum on a delete, a txn that is not
// undone, and a cut that ignores open Views; each was tried.
func TestStoreIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mc := &machine{m: newModel(), stores: [2]*Store{New(), New()}}
		defer func() {
			for _, h := range mc.views {
				h.v.Close()
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"":        mc.check,
			"apply":   mc.apply,
			"apply2":  mc.apply,
			"apply3":  mc.apply,
			"open":    mc.open,
			"close":   mc.close,
			"restore": mc.restore,
			"read":    mc.read,
			"backup":  mc.backup,
			"upload":  mc.upload,
			"advance": func(t *rapid.T) {
				mc.m.index += uint64(rapid.IntRange(1, 3).Draw(t, "skip"))
				for _, s := range mc.stores {
					s.Advance(mc.m.index)
				}
			},
		})
	})
}

func (mc *machine) apply(t *rapid.T) { mc.applyEntry(t, genEntry(t, mc.m)) }

func (mc *machine) applyEntry(t *rapid.T, e *trivetpb.Entry) {
	data, err := e.MarshalVT()
	require.NoError(t, err)
	index := mc.m.index + uint64(rapid.IntRange(1, 2).Draw(t, "gap"))
	want := mc.m.apply(index, e)
	for _, s := range mc.stores {
		own := &trivetpb.Entry{} // stores keep what they are given
		require.NoError(t, own.UnmarshalVT(data))
		got, err := s.Apply(index, own)
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for i := range want {
			requireResult(t, want[i], got[i], e.Commands[i])
		}
		requireSound(t, s, true)
	}
}

// backup writes a snapshot for a later upload.
func (mc *machine) backup(t *rapid.T) {
	if len(mc.m.backups) >= 4 {
		t.Skip("enough backups")
	}
	v, err := mc.stores[rapid.IntRange(0, 1).Draw(t, "from")].View(0)
	require.NoError(t, err)
	defer v.Close()
	var file bytes.Buffer
	require.NoError(t, v.WriteSnapshot(&file))
	mc.m.backups[file.String()] = mc.m.backup()
	mc.files = append(mc.files, file.Bytes())
}

// upload restores a backup through the log, in one entry or in several with
// others in between.
func (mc *machine) upload(t *rapid.T) {
	if len(mc.files) == 0 {
		t.Skip("no backup")
	}
	file := mc.files[rapid.IntRange(0, len(mc.files)-1).Draw(t, "backup")]
	cut := rapid.IntRange(1, len(file)-1).Draw(t, "cut")
	const id = 77
	commands := []*trivetpb.Command{
		restoreAbort(1), restoreAbort(2),
		restoreChunk(id, 0, file[:cut]), restoreChunk(id, 0, file[:cut]), restoreChunk(id, uint64(cut), file[cut:]),
		restoreCommit(id, uint64(len(file))),
	}
	if rapid.IntRange(0, 3).Draw(t, "keyed") == 0 {
		under(commands[len(commands)-1], "k1", "A")
	}
	for len(commands) > 0 {
		n := rapid.IntRange(1, len(commands)).Draw(t, "in one entry")
		mc.applyEntry(t, &trivetpb.Entry{ClockMs: mc.m.clock, Commands: append(commands[:n:n], genCommand(t, mc.m))})
		commands = commands[n:]
	}
}

func (mc *machine) open(t *rapid.T) {
	if len(mc.views) >= 6 {
		t.Skip("enough views")
	}
	revision := uint64(rapid.IntRange(0, int(mc.m.revision)+2).Draw(t, "revision"))
	s := mc.stores[rapid.IntRange(0, 1).Draw(t, "store")]
	v, err := s.View(revision)
	if revision == 0 {
		revision = mc.m.revision
	}
	switch {
	case revision > mc.m.revision:
		require.Equal(t, trivetpb.Code_FUTURE_REVISION, err.(*trivetpb.Problem).Code)
		require.Equal(t, mc.m.revision, err.(*trivetpb.Problem).Revision)
	case revision < mc.m.compact:
		require.Equal(t, trivetpb.Code_COMPACTED, err.(*trivetpb.Problem).Code)
		require.Equal(t, mc.m.compact, err.(*trivetpb.Problem).CompactRevision)
		require.Equal(t, mc.m.revision, err.(*trivetpb.Problem).Revision)
	default:
		require.NoError(t, err)
		require.Equal(t, revision, v.Revision())
		mc.views = append(mc.views, heldView{v, mc.m.states[revision], rawRecords(t, v)})
	}
}

func (mc *machine) close(t *rapid.T) {
	if len(mc.views) == 0 {
		t.Skip("none open")
	}
	i := rapid.IntRange(0, len(mc.views)-1).Draw(t, "view")
	mc.views[i].v.Close()
	mc.views[i].v.Close()
	mc.views = slices.Delete(mc.views, i, i+1)
}

func (mc *machine) restore(t *rapid.T) {
	v, err := mc.stores[rapid.IntRange(0, 1).Draw(t, "from")].View(0)
	require.NoError(t, err)
	defer v.Close()
	var file bytes.Buffer
	require.NoError(t, v.WriteSnapshot(&file))
	into := mc.stores[1]
	if rapid.Bool().Draw(t, "fresh") {
		into = New()
		mc.stores[1] = into
	}
	require.NoError(t, into.Restore(&file))
}

// read runs a read-only op at a View of any retained revision.
func (mc *machine) read(t *rapid.T) {
	revision := uint64(rapid.IntRange(int(mc.m.compact), int(mc.m.revision)).Draw(t, "revision"))
	op := genRangeOp(t)
	if rapid.Bool().Draw(t, "txn") {
		op = genOp(t, mc.m, false)
	}
	if !ReadOnly(op) {
		return
	}
	work := &modelWork{state: maps.Clone(mc.m.states[revision]), revision: revision}
	want := work.do(op)
	for _, s := range mc.stores {
		v, err := s.View(revision)
		require.NoError(t, err)
		requireResult(t, want, v.Do(op), op)
		v.Close()
	}
}

func (mc *machine) check(t *rapid.T) {
	m := mc.m
	var raws [2][]byte
	for i, s := range mc.stores {
		requireSound(t, s, false)
		st := s.Stats()
		require.Equal(t, []uint64{m.index, m.revision, m.compact, m.clock}, []uint64{st.Index, st.Revision, st.CompactRevision, st.ClockMS})
		require.Equal(t, []uint64{m.index, m.revision}, []uint64{s.Index(), s.Revision()})
		require.Equal(t, m.settings, st.Settings)
		require.Equal(t, []uint64{uint64(len(m.present())), bytesOf(m.present())}, []uint64{st.Keys, st.Bytes})
		require.Equal(t, m.revision-m.compact, st.HistoryRevisions)
		mc.checkRest(t, s)
		for _, k := range []string{"a", "a\x00", "ab", "b", "c", "c\xff", "\xff", "\xff\xff", "none"} {
			item, ok, revision := s.Get([]byte(k))
			want, wantOK := m.present()[k]
			require.Equal(t, m.revision, revision)
			require.Equal(t, wantOK, ok)
			require.Equal(t, want, item)
		}
		v, err := s.View(0)
		require.NoError(t, err)
		requireView(t, v, m.present())
		require.Equal(t, st.Hash, recomputedHash(v, st))
		raws[i] = rawRecords(t, v)
		v.Close()
		old, err := s.View(m.compact)
		require.NoError(t, err)
		requireView(t, old, m.states[m.compact])
		old.Close()
	}
	require.Equal(t, mc.stores[0].Stats(), mc.stores[1].Stats())
	require.Equal(t, raws[0], raws[1], "the stores' retained histories differ")
	for _, h := range mc.views {
		requireView(t, h.v, h.state)
		require.Equal(t, h.raw, rawRecords(t, h.v), "a View's snapshot changed")
	}
}

// checkRest compares leases, locks and sessions, and when the next thing is due.
func (mc *machine) checkRest(t *rapid.T, s *Store) {
	m, st := mc.m, s.Stats()
	var answers uint64
	for _, one := range m.rest.sessions {
		answers += uint64(len(one.answers))
	}
	require.Equal(t,
		[]int{len(m.rest.leases), len(m.rest.locks), len(m.rest.waiters), len(m.rest.sessions), int(answers) + len(m.rest.keys)},
		[]int{int(st.Leases), int(st.Locks), int(st.Waiters), int(st.Sessions), int(st.Answers)})
	remaining := func(deadline uint64) uint64 { return max(deadline, m.clock) - m.clock }
	infos, more := s.Leases(0, 1000)
	require.False(t, more)
	require.Len(t, infos, len(m.rest.leases))
	for i, id := range sorted(m.rest.leases) {
		l, keys := m.rest.leases[id], leased(m.present(), id)
		want := LeaseInfo{ID: id, TTLMS: l.ttl, RemainingMS: remaining(l.deadline), Keys: uint64(len(keys)), Lock: l.lock}
		require.Equal(t, want, infos[i])
		one, ok := s.Lease(id)
		require.True(t, ok)
		require.Equal(t, want, one)
		got, more, ok := s.LeaseKeys(id, len(keys))
		require.True(t, ok)
		require.False(t, more)
		require.Equal(t, keys, got)
	}
	for _, name := range []string{"lock", "lock2"} {
		h, held := m.rest.locks[name]
		got, ok := s.Lock(name, 1000)
		require.Equal(t, held, ok)
		if !held {
			continue
		}
		l := m.rest.leases[h.lease]
		want := LockInfo{Name: name, Holder: &LockHolder{h.token, h.lease, h.owner, l.ttl, remaining(l.deadline)}}
		for _, w := range m.rest.waiters {
			if w.lock == name {
				want.Queue = append(want.Queue, LockHolder{w.token, 0, w.owner, w.ttl, remaining(w.deadline)})
			}
		}
		want.Waiting = len(want.Queue)
		require.Equal(t, want, got)
	}
	for id, want := range m.rest.sessions {
		got, ok := s.state.sessions.get(id)
		require.True(t, ok && s.HasSession(id))
		require.Equal(t, []uint64{want.ttl, want.deadline, want.ack}, []uint64{got.ttlMS, got.deadlineMS, got.ack})
		for seq, r := range want.answers {
			require.NotNil(t, got.find(seq), "seq %d", seq)
			requireResult(t, r, got.find(seq), seq)
		}
	}
	require.False(t, s.HasSession(9))
	for i := range s.state.history.changes.n {
		if v := s.state.history.changes.at(i).v; v.mod > m.compact && !v.live() {
			require.Equal(t, m.expired[v.mod], v.expired(), "revision %d", v.mod)
		}
	}
	next, ok := s.NextDeadline()
	require.Equal(t, m.nextDeadline(), next)
	require.Equal(t, next != math.MaxUint64, ok)
	require.Equal(t, m.clock, s.ClockMS())
}

func requireView(t require.TestingT, v *View, want map[string]Item) {
	keys := slices.Sorted(maps.Keys(want))
	var forward, backward []Item
	for item := range v.Range(nil, RangeOptions{}) {
		forward = append(forward, item)
	}
	for item := range v.Range(nil, RangeOptions{Reverse: true}) {
		backward = append(backward, item)
	}
	slices.Reverse(backward)
	require.Len(t, forward, len(keys))
	for i, k := range keys {
		require.Equal(t, want[k], forward[i])
		got, ok := v.Get([]byte(k))
		require.True(t, ok)
		require.Equal(t, want[k], got)
	}
	require.Equal(t, forward, backward)
	require.Equal(t, uint64(len(keys)), v.Count(nil))
	for _, r := range []*trivetpb.KeyRange{nil, PrefixRange([]byte("a")), {Start: []byte("ab"), End: []byte("c\xff")}, {Start: []byte("b"), End: []byte("a")}} {
		require.Equal(t, v.Count(r), v.countByRank(r), "%v", r)
	}
}

// requireSound checks what must hold inside a store between entries; applied
// says that an entry was the last thing that happened, so that what could be
// cut is.
func requireSound(t require.TestingT, s *Store, applied bool) {
	st := s.state
	var limit uint64
	if applied {
		limit = st.pins.oldest(st.compactRevision)
	}
	heads := map[string]*version{}
	st.tree.scan(func(c *chain) bool {
		key, head := c.key(), c.newest()
		heads[key] = head
		require.Same(t, c, st.table.find(key), "the tree's and the table's %q", key)
		_, marked := st.tombstones.Get(key)
		require.Equal(t, !head.live(), marked, "%q", key)
		require.True(t, head.live() || head.mod > limit, "an uncut tombstone of %q", key)
		for v := head; v.prev != nil; v = v.prev {
			require.Greater(t, v.mod, v.prev.mod)
			require.Greater(t, v.mod, limit, "an uncut version of %q", key)
		}
		return true
	})
	require.Equal(t, st.tree.Len(), len(heads))
	require.Equal(t, st.tree.Len(), st.table.len())
	if st.frozenTombstones != nil {
		require.Equal(t, st.tree.chains.Items(), st.frozenTree.chains.Items())
		require.Equal(t, st.tombstones.Keys(), st.frozenTombstones.Keys())
	}
	done := 0
	for i := range st.history.changes.n {
		c := st.history.changes.at(i)
		_, there := heads[c.chain.key()] // require.Contains would go through all of them
		require.True(t, there, "%q", c.chain.key())
		require.Same(t, c.chain, st.table.find(c.chain.key()))
		require.EqualValues(t, itemBytes(c.chain.key(), c.v), c.bytes)
		if c.v.mod <= st.compactRevision {
			done++
		}
		require.Greater(t, c.v.mod, limit)
	}
	require.Equal(t, st.history.done, done)
	requireRestSound(t, st)
}

// recomputedHash is the state hash from nothing but what readers see.
func recomputedHash(v *View, st Stats) uint64 {
	var sum uint64
	for i := range v.Range(nil, RangeOptions{}) {
		ver := newVersion(i.ModRevision, 0, numbers{i.CreateRevision, i.Version, i.Lease}, i.Value)
		sum += itemHash(i.Key, ver)
	}
	return stateHash(sum, recomputedRest(v), st)
}

func rawRecords(t require.TestingT, v *View) []byte {
	var b bytes.Buffer
	require.NoError(t, v.writeRecords(&b))
	return b.Bytes()
}
