package store

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

func lastChange(s *Store) *version {
	changes := &s.state.history.changes
	return changes.at(changes.n - 1).v
}

func TestALeaseEndsByACommandAlone(t *testing.T) {
	s := New()
	lease := fine(t, s, 1000, grant(5000)).GetLease()
	require.EqualValues(t, 5000, lease.TtlMs)
	fine(t, s, 1000, opCommand(leasePut("b", "1", lease.Lease)), opCommand(leasePut("a", "1", lease.Lease)), opCommand(putOp("free", "")))
	next, ok := s.NextDeadline()
	require.True(t, ok)
	require.EqualValues(t, 6000, next)
	info, ok := s.Lease(lease.Lease)
	require.True(t, ok)
	require.Equal(t, LeaseInfo{ID: lease.Lease, TTLMS: 5000, RemainingMS: 5000, Keys: 2}, info)

	revision := s.Revision()
	fine(t, s, 5999, expire())
	require.Equal(t, revision, s.Revision(), "it is not due yet")
	at(t, s, 90_000)
	info, ok = s.Lease(lease.Lease)
	require.True(t, ok, "time alone ends nothing")
	require.Zero(t, info.RemainingMS)
	next, _ = s.NextDeadline()
	require.EqualValues(t, 6000, next)
	fine(t, s, 90_000, keepAlive(lease.Lease))
	fine(t, s, 94_999, expire())
	require.Equal(t, revision, s.Revision(), "it was kept alive")

	r := fine(t, s, 95_000, expire())
	require.Equal(t, revision+1, r.Revision)
	require.Equal(t, map[string]string{"free": ""}, contents(view(t, s, 0)))
	require.Equal(t, map[string]string{"a": "1", "b": "1", "free": ""}, contents(view(t, s, revision)))
	require.True(t, lastChange(s).expired())
	refused(t, s, 95_000, trivetpb.Code_LEASE_NOT_FOUND, keepAlive(lease.Lease))
	refused(t, s, 95_000, trivetpb.Code_LEASE_NOT_FOUND, revoke(lease.Lease))
	refused(t, s, 95_000, trivetpb.Code_LEASE_NOT_FOUND, opCommand(leasePut("a", "", lease.Lease)))
	again := restored(t, s)
	require.True(t, lastChange(again).expired(), "a snapshot says so too")
}

func TestRevokingALease(t *testing.T) {
	s := New()
	lease := fine(t, s, 0, grant(5000)).GetLease().Lease
	fine(t, s, 0, opCommand(leasePut("b", "1", lease)), opCommand(leasePut("a", "1", lease)))
	revision := s.Revision()
	r := fine(t, s, 0, revoke(lease))
	require.EqualValues(t, 2, r.GetLease().Deleted)
	require.Equal(t, revision+1, r.Revision, "all its keys at one revision")
	n := s.state.history.changes.n
	require.Equal(t, []string{"a", "b"}, []string{s.state.history.changes.at(n - 2).chain.key(), s.state.history.changes.at(n - 1).chain.key()})
	require.False(t, lastChange(s).expired(), "somebody deleted them")
	empty := fine(t, s, 0, grant(5000)).GetLease().Lease
	r = fine(t, s, 0, revoke(empty))
	require.Zero(t, r.GetLease().Deleted)
	require.Equal(t, revision+1, r.Revision, "without a key it makes no revision")
}

// TestWhatAKeyIsAttachedTo: rows are what happens to the key "k", which begins
// with the lease 1 of two; own is that of a put's ttl.
func TestWhatAKeyIsAttachedTo(t *testing.T) {
	prev := leasePut("k", "", 0)
	prev.GetPut().Prev = true
	for name, c := range map[string]struct {
		ops    func(one, two uint64) []*trivetpb.Op
		want   string // the lease afterwards: one, two, own, none, gone
		leases uint64
	}{
		"it stays":            {func(one, two uint64) []*trivetpb.Op { return nil }, "one", 2},
		"a put without":       {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{putOp("k", "")} }, "none", 2},
		"a put with another":  {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{leasePut("k", "", two)} }, "two", 2},
		"a put with the same": {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{leasePut("k", "", one)} }, "one", 2},
		"an add keeps it":     {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{addOp("k", 1)} }, "one", 2},
		"a delete":            {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{deleteOp("k")} }, "gone", 2},
		"a delete of a range": {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{deleteRangeOp("", "")} }, "gone", 2},
		"a ttl":               {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{ttlPut("k", "1", 1000)} }, "own", 3},
		"an add keeps a ttl":  {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{ttlPut("k", "1", 1000), addOp("k", 1)} }, "own", 3},
		"a ttl, again": {func(one, two uint64) []*trivetpb.Op {
			return []*trivetpb.Op{ttlPut("k", "", 1000), ttlPut("k", "", 1000)}
		}, "own", 3},
		"a ttl, then none": {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{ttlPut("k", "", 1000), putOp("k", "")} }, "none", 2},
		"a ttl, then a lease": {func(one, two uint64) []*trivetpb.Op {
			return []*trivetpb.Op{ttlPut("k", "", 1000), leasePut("k", "", two)}
		}, "two", 2},
		"a ttl, then a delete": {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{ttlPut("k", "", 1000), deleteOp("k")} }, "gone", 2},
		"a txn that fails":     {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{failing(leasePut("k", "", two))} }, "one", 2},
		"a ttl in a txn that fails": {func(one, two uint64) []*trivetpb.Op {
			return []*trivetpb.Op{failing(ttlPut("k", "", 1000), ttlPut("l", "", 1000))}
		}, "one", 2},
		"a ttl lost in a txn that fails": {func(one, two uint64) []*trivetpb.Op {
			return []*trivetpb.Op{ttlPut("k", "", 1000), failing(putOp("k", "")), failing(deleteOp("k"))}
		}, "own", 3},
		"a delete in a txn that fails": {func(one, two uint64) []*trivetpb.Op { return []*trivetpb.Op{failing(deleteRangeOp("k", "l"))} }, "one", 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			fine(t, s, 0, seedMarker(42), opCommand(putOp("text", "none")))
			one, two := fine(t, s, 0, grant(9000)).GetLease().Lease, fine(t, s, 0, grant(9000)).GetLease().Lease
			fine(t, s, 0, opCommand(leasePut("k", "1", one)))
			for _, op := range c.ops(one, two) {
				at(t, s, 0, opCommand(op))
			}
			item, ok, _ := s.Get([]byte("k"))
			require.Equal(t, c.want != "gone", ok)
			require.Equal(t, c.leases, s.Stats().Leases)
			got := map[uint64]string{0: "none", one: "one", two: "two"}[item.Lease]
			if got == "" {
				got = "own"
			}
			if ok {
				require.Equal(t, c.want, got)
			}
			for id, name := range map[uint64]string{one: "one", two: "two"} {
				keys, more, found := s.LeaseKeys(id, 10)
				require.True(t, found)
				require.False(t, more)
				require.Equal(t, name == c.want, slices.Contains(keys, "k"))
			}
			restored(t, s)
			// What it is attached to decides when it goes.
			fine(t, s, 1000, expire())
			_, still, _ := s.Get([]byte("k"))
			require.Equal(t, ok && c.want != "own", still)
			fine(t, s, 9000, expire())
			_, still, _ = s.Get([]byte("k"))
			require.Equal(t, c.want == "none", still)
			require.Zero(t, s.Stats().Leases)
		})
	}
}

// TestATxnThatFailsTakesItsLeasesBack: and the ids that were drawn for them are
// drawn again.
func TestATxnThatFailsTakesItsLeasesBack(t *testing.T) {
	s, other := New(), New()
	for _, s := range []*Store{s, other} {
		fine(t, s, 0, seedMarker(1), opCommand(putOp("text", "none")), opCommand(ttlPut("a", "", 1000)))
	}
	same := func() {
		t.Helper()
		want, got := other.Stats(), s.Stats()
		want.Index = got.Index
		require.Equal(t, want, got)
	}
	refused(t, s, 0, trivetpb.Code_NOT_A_NUMBER, opCommand(failing(ttlPut("a", "", 2000), ttlPut("b", "", 2000), deleteOp("c"))))
	same()
	quota := settingsEntry(&trivetpb.Settings{QuotaBytes: 1}).Commands[0]
	for _, s := range []*Store{s, other} {
		fine(t, s, 0, quota)
	}
	refused(t, s, 0, trivetpb.Code_QUOTA_EXCEEDED, opCommand(ttlPut("new", "", 1000)))
	same()
	require.Equal(t, fine(t, other, 0, grant(1000)).GetLease().Lease, fine(t, s, 0, grant(1000)).GetLease().Lease)
}

func TestALeaseHoldsSoManyKeys(t *testing.T) {
	s := New()
	lease, other := fine(t, s, 0, grant(5000)).GetLease().Lease, fine(t, s, 0, grant(5000)).GetLease().Lease
	e := &trivetpb.Entry{}
	for i := range MaxLeaseKeys {
		e.Commands = append(e.Commands, opCommand(leasePut(fmt.Sprintf("k%06d", i), "", lease)))
	}
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 1}))
	apply(t, s, e)
	before := s.Stats().Hash
	full := func(op *trivetpb.Op) *trivetpb.Problem {
		t.Helper()
		p := do(t, s, op).Problem
		require.Equal(t, trivetpb.Code_TOO_LARGE, p.GetCode())
		require.EqualValues(t, MaxLeaseKeys, p.Limit)
		require.Contains(t, p.Detail, "100000 keys")
		require.Equal(t, before, s.Stats().Hash)
		return p
	}
	full(leasePut("one more", "", lease))
	p := full(txnOp(leasePut("k000001", "", other), leasePut("1", "", lease), leasePut("2", "", lease)))
	require.Contains(t, p.Detail, "then[2]: ")
	require.Nil(t, do(t, s, leasePut("k000001", "again", lease)).Problem, "it has that one already")
	require.Nil(t, do(t, s, leasePut("k000001", "", other), leasePut("one more", "", lease)).Problem)
	keys, more, ok := s.LeaseKeys(lease, 2)
	require.True(t, ok && more)
	require.Equal(t, []string{"k000000", "k000002"}, keys)
	// One lease is ended whole, however many keys it has.
	revision := s.Revision()
	due := func() { apply(t, s, &trivetpb.Entry{ClockMs: 5000, Commands: []*trivetpb.Command{expire()}}) }
	due()
	if s.Stats().Keys > 1 { // the other one's id is the lesser
		due()
		revision++
	}
	require.Equal(t, revision+1, s.Revision())
	require.LessOrEqual(t, s.Stats().Keys, uint64(1), "the other waits for the next command")
	due()
	require.Zero(t, s.Stats().Keys)
	requireSound(t, s, false) // there is much to cut
}

func TestThereAreSoManyLeases(t *testing.T) {
	s := New()
	fine(t, s, 0, acquire("held", "", 1000, 0), acquire("held", "next", 1000, 1000))
	var last uint64
	for i := range MaxLeases - 1 {
		last = s.state.grant(MinTTLMS+uint64(i%7), false, "")
	}
	for _, c := range []*trivetpb.Command{grant(1000), acquire("free", "", 1000, 0), opCommand(ttlPut("k", "", 1000)), opCommand(txnOp(ttlPut("k", "", 1000)))} {
		r := apply(t, s, &trivetpb.Entry{Commands: []*trivetpb.Command{c}})[0]
		require.Equal(t, trivetpb.Code_OVERLOADED, r.Problem.GetCode(), "%v", c)
		require.Contains(t, r.Problem.Detail, "1000000 leases")
	}
	// Who waits gets the lease of whom he follows.
	r := apply(t, s, &trivetpb.Entry{Commands: []*trivetpb.Command{release("held", 1), revoke(last), grant(1000), grant(1000)}})
	require.Nil(t, r[0].Problem)
	require.Nil(t, r[2].Problem)
	require.Equal(t, trivetpb.Code_OVERLOADED, r[3].Problem.GetCode())
	info, ok := s.Lock("held", 1)
	require.True(t, ok)
	require.Equal(t, "next", info.Holder.Owner)
}

func TestLeasesInPages(t *testing.T) {
	s := New()
	var ids []uint64
	for range 25 {
		ids = append(ids, fine(t, s, 0, grant(5000)).GetLease().Lease)
	}
	slices.Sort(ids)
	var got []uint64
	for after, more := uint64(0), true; more; {
		var page []LeaseInfo
		page, more = s.Leases(after, 10)
		for _, l := range page {
			got = append(got, l.ID)
		}
		after = got[len(got)-1]
	}
	require.Equal(t, ids, got)
	_, more := s.Leases(1<<64-1, 1)
	require.False(t, more)
	_, ok := s.Lease(ids[0] + 1)
	require.False(t, ok)
	_, _, ok = s.LeaseKeys(ids[0]+1, 1)
	require.False(t, ok)
}

// TestIdsAreDrawnFromTheSeed: two clusters have other ids, and the first seed
// stays.
func TestIdsAreDrawnFromTheSeed(t *testing.T) {
	draw := func(seeds ...uint64) (ids []uint64) {
		s := New()
		for _, seed := range seeds {
			fine(t, s, 0, seedMarker(seed))
		}
		for range 3 {
			ids = append(ids, fine(t, s, 0, grant(1000)).GetLease().Lease, fine(t, s, 0, openSession(1000, false)).GetSession().Session)
		}
		for _, id := range ids {
			require.True(t, id > 0 && id < 1<<52)
		}
		return ids
	}
	require.Equal(t, draw(5), draw(0, 5, 9))
	require.NotEqual(t, draw(5), draw(9))
	require.Len(t, draw(), 6)
	// One that is taken is passed by.
	s := New()
	first := fine(t, s, 0, grant(1000)).GetLease().Lease
	s.state.nextID = 0
	require.NotEqual(t, first, fine(t, s, 0, openSession(1000, false)).GetSession().Session)
}
