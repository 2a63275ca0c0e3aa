package store

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// FuzzRestore: no bytes make Restore panic, and none but a whole snapshot
// replaces anything. The input is tried as a file and as the records in one.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(snapshotMagic))
	for _, s := range []*Store{sampleStore(f), fullStore(f)} {
		f.Add(snapshotOf(f, s).Bytes())
		v, err := s.View(0)
		require.NoError(f, err)
		f.Add(rawRecords(f, v))
		v.Close()
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, file := range [][]byte{data, fileOf(t, data)} {
			s := New()
			do(t, s, putOp("a", "1"))
			before := s.Stats()
			_, verified := VerifySnapshot(bytes.NewReader(file))
			if err := s.Restore(bytes.NewReader(file)); err != nil {
				require.Error(t, verified)
				require.Equal(t, before, s.Stats())
				continue
			}
			require.NoError(t, verified)
			requireSound(t, s, false)
			// What was taken is a state to go on with.
			again := New()
			require.NoError(t, again.Restore(snapshotOf(t, s)))
			for _, s := range []*Store{s, again} {
				if s.Index() < 1<<63 {
					e := entryOf(0, putOp("a", "1"), deleteRangeOp("", "m"), addOp("z", 1), ttlPut("b", "", 1000))
					e.Commands = append(e.Commands, expire(), acquire("lock/a", "", 1000, 1000), release("lock/a", 1), openSession(1000, true))
					apply(t, s, e)
				}
				requireSound(t, s, true)
			}
			require.Equal(t, s.Stats(), again.Stats())
		}
	})
}

// FuzzApply: no entry makes Apply panic; it is applied alike by two stores, or
// refused and leaves no trace. What Check lets through is never refused.
func FuzzApply(f *testing.F) {
	seeds := []*trivetpb.Entry{
		entryOf(5, putOp("a", "1"), deleteRangeOp("", ""), addOp("n", 1)),
		entryOf(5, txnOp(putOp("a", "1"), rangeOp("", ""), deleteOp("b"))),
		settingsEntry(&trivetpb.Settings{HistoryRevisions: 1, QuotaBytes: 500}),
		entryOf(5, txnOp(txnOp())),
	}
	full := fullStore(f)
	info, _ := full.Lock("lock/a", 3)
	lease, _ := full.Leases(0, 9)
	session, _, _ := full.state.sessions.m.Min()
	seeds = append(seeds,
		&trivetpb.Entry{ClockMs: 7000, Commands: []*trivetpb.Command{expire(), grant(1000), keepAlive(lease[0].ID), revoke(lease[1].ID)}},
		&trivetpb.Entry{ClockMs: 5000, Commands: []*trivetpb.Command{
			keepLock("lock/a", info.Holder.Token), cancel("lock/a", info.Queue[0].Token, true), release("lock/a", info.Holder.Token),
			acquire("lock/a", "me", 1000, 1000), guarded(opCommand(putOp("a", "")), "lock/a", info.Queue[1].Token)}},
		&trivetpb.Entry{ClockMs: 5000, Commands: []*trivetpb.Command{
			in(opCommand(ttlPut("a", "", 1000)), session, 3, 1), in(opCommand(ttlPut("a", "", 1000)), session, 41, 40), keepSession(session),
			under(opCommand(addOp("n", 1)), "an idempotency key", "add"), openSession(1000, true), in(closeSession(session), session, 42, 41)}},
		&trivetpb.Entry{Commands: uploadAll(99, snapshotOf(f, full).Bytes(), 500)},
		&trivetpb.Entry{Commands: append([]*trivetpb.Command{restoreAbort(99)}, uploadAll(1, snapshotOf(f, full).Bytes(), 500)...)},
	)
	for _, e := range seeds {
		data, err := e.MarshalVT()
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var stats [2]Stats
		for i := range stats {
			e := &trivetpb.Entry{}
			if e.UnmarshalVT(data) != nil {
				return
			}
			fine := true
			for _, c := range e.Commands {
				fine = fine && CheckCommand(c, Limits{}) == nil
			}
			s := fullStore(t)
			before := s.Stats()
			results, err := s.Apply(s.Index()+1, e)
			if err != nil {
				require.Equal(t, before, s.Stats())
				require.False(t, fine && !hasUnknown(e), "Check let it through: %v", err)
			} else {
				require.Len(t, results, len(e.Commands))
			}
			requireSound(t, s, true)
			stats[i] = s.Stats()
			v, err := s.View(0)
			require.NoError(t, err)
			require.Equal(t, stats[i].Hash, recomputedHash(v, stats[i]))
			v.Close()
		}
		require.Equal(t, stats[0], stats[1])
	})
}

// FuzzCheckCommand: no command makes CheckCommand panic, and what it lets
// through is known.
func FuzzCheckCommand(f *testing.F) {
	for _, c := range everyCommand() {
		data, err := guarded(in(c, 1, 2, 1), "lock", 1).MarshalVT()
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &trivetpb.Command{}
		if c.UnmarshalVT(data) == nil && CheckCommand(c, Limits{}) == nil {
			require.NoError(t, knownCommand(c))
		}
	})
}

// FuzzCheck: no op makes Check or a View's Do panic, and an op that is fine is
// answered by more than a malformed request.
func FuzzCheck(f *testing.F) {
	for _, op := range []*trivetpb.Op{putOp("a", "1"), deleteRangeOp("a", "b"), txnOp(getOp("a"), rangeOp("", "")), txnOp(putOp("a", ""), deleteOp("a"))} {
		data, err := op.MarshalVT()
		require.NoError(f, err)
		f.Add(data)
	}
	s := sampleStore(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		op := &trivetpb.Op{}
		if op.UnmarshalVT(data) != nil {
			return
		}
		v, err := s.View(0)
		require.NoError(t, err)
		defer v.Close()
		problem, r := Check(op, Limits{}), v.Do(op)
		require.True(t, (r.Result == nil) != (r.Problem == nil))
		if problem == nil && ReadOnly(op) {
			require.Nil(t, r.Problem)
		}
	})
}
