package raftnode

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func guarded(d *simDisk) (*guardedLog, *error) {
	var failed error
	return newGuardedLog(d, "the log", time.Second, func(err error) { failed = err }, nil), &failed
}

func entryOf(index, term, proposedIn uint64, data string) *raft.Log {
	return &raft.Log{
		Index: index, Term: term, Type: raft.LogCommand, Data: []byte(data),
		Extensions: entryMeta{term: proposedIn, proposer: 1, seq: index}.encode([]byte(data)),
	}
}

func TestLogRefusesAnEntryOfATermItsProposerDidNotLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSimDisk()
		g, failed := guarded(d)
		require.NoError(t, g.StoreLog(entryOf(1, 3, 3, "a")))
		require.ErrorIs(t, g.StoreLog(entryOf(2, 4, 3, "b")), errFenced)
		require.NoError(t, *failed, "a fenced entry is no fault of the disk")
		last, err := g.LastIndex()
		require.NoError(t, err)
		require.EqualValues(t, 1, last)
		require.NoError(t, g.StoreLog(entryOf(2, 4, 4, "b")))
	})
}

func TestLogStampsRaftsOwnEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSimDisk()
		g, _ := guarded(d)
		require.NoError(t, g.StoreLog(&raft.Log{Index: 1, Term: 2, Type: raft.LogNoop}))
		m, err := decodeEntryMeta(d.entries[1])
		require.NoError(t, err)
		require.Equal(t, entryMeta{term: 2}, m)
	})
}

func TestLogNamesAnEntryThatReadsBackOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, damage := range []func(*raft.Log){
			func(l *raft.Log) { l.Data[0] ^= 1 },
			func(l *raft.Log) { l.Data = l.Data[:1] },
			func(l *raft.Log) { l.Extensions = nil },
			func(l *raft.Log) { l.Extensions[20] ^= 1 },
			func(l *raft.Log) { l.Index = 9 },
		} {
			d := newSimDisk()
			g, failed := guarded(d)
			require.NoError(t, g.StoreLogs([]*raft.Log{entryOf(1, 1, 1, "first"), entryOf(2, 1, 1, "second")}))
			l := *d.entries[2]
			l.Extensions = append([]byte(nil), l.Extensions...)
			damage(&l)
			d.entries[2] = &l

			fresh, freshFailed := guarded(d)
			_, _, err := fresh.verify()
			require.ErrorContains(t, err, "log entry 2 in the log")
			require.NoError(t, *freshFailed, "nothing runs yet")

			g.cache.clear()
			var out raft.Log
			require.NoError(t, g.GetLog(1, &out))
			require.ErrorContains(t, g.GetLog(2, &out), "log entry 2 in the log")
			require.Error(t, *failed)
			require.Error(t, g.GetLog(1, &out), "a poisoned store answers nothing")
		}
	})
}

func TestLogRefusesAnEntryThatWasAlteredOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSimDisk()
		g, _ := guarded(d)
		l := entryOf(1, 1, 1, "data")
		l.Data[2] ^= 8
		require.ErrorIs(t, g.StoreLog(l), errChecksum)
		require.Zero(t, d.last)
	})
}

func TestLogNeverTriesAFailedSyncAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSimDisk()
		g, failed := guarded(d)
		d.failing = errors.New("input/output error")
		require.ErrorContains(t, g.StoreLog(entryOf(1, 1, 1, "a")), "the log: input/output error")
		require.ErrorContains(t, *failed, "input/output error")
		d.failing = nil
		require.Error(t, g.StoreLog(entryOf(1, 1, 1, "a")))
		require.Equal(t, 1, d.writes)
	})
}

func TestLogGivesUpOnADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSimDisk()
		g, failed := guarded(d)
		d.delay = func() time.Duration { return time.Hour }
		start := time.Now()
		done := make(chan error)
		go func() { done <- g.StoreLog(entryOf(1, 1, 1, "a")) }()
		time.Sleep(2 * time.Second) // virtual
		synctest.Wait()
		require.ErrorContains(t, *failed, "takes longer than 1s")
		require.Less(t, time.Since(start), 3*time.Second)
		require.Error(t, <-done, "what was written too late is not acknowledged")
	})
}

// A process that was stopped, or a machine that was frozen, has no slow disk: the
// watch counts its own ticks.
func TestLogWatchCountsTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, failed := guarded(newSimDisk())
		stop := g.watch(1)
		time.Sleep(900 * time.Millisecond) // virtual
		synctest.Wait()
		stop()
		time.Sleep(time.Second) // virtual
		require.NoError(t, *failed)
		g.watch(1)
		time.Sleep(1100 * time.Millisecond) // virtual
		synctest.Wait()
		require.Error(t, *failed)
	})
}

func TestLogKeepsWhatWasApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, failed := guarded(newSimDisk())
		require.NoError(t, g.StoreLogs([]*raft.Log{entryOf(1, 1, 1, "a"), entryOf(2, 1, 1, "b"), entryOf(3, 1, 1, "c"), entryOf(4, 1, 1, "d")}))
		g.applied = func() uint64 { return 2 }
		require.NoError(t, g.DeleteRange(3, 4), "behind what was applied")
		require.NoError(t, g.DeleteRange(1, 1), "compaction")
		require.NoError(t, g.StoreLog(entryOf(3, 2, 2, "e")))
		g.applied = func() uint64 { return 3 }
		require.ErrorContains(t, g.DeleteRange(3, 3), "lost acknowledged writes")
		require.Error(t, *failed)
	})
}
