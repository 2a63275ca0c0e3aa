package raftnode

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"
)

// fullMeta is wal-meta.db on a disk that gets full.
type fullMeta struct {
	metadb.BoltMetaDB
	full atomic.Bool
}

func (m *fullMeta) CommitState(s types.PersistentState) error {
	if m.full.Load() {
		return syscall.ENOSPC
	}
	return m.BoltMetaDB.CommitState(s)
}

const smallSegment = 64 << 10

func openSmallWAL(t *testing.T, dir string, meta types.MetaStore) *walLog {
	t.Helper()
	l, err := openWALOver(dir, newRaftLog(testLog(t), new(atomic.Bool)), meta, segmentFiles{VFS: fs.New(), syncData: fdatasync}, smallSegment)
	require.NoError(t, err)
	return l
}

func walEntry(index uint64) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Data: []byte(strings.Repeat(fmt.Sprint(index%10), 8<<10))}
}

// fillSegment writes entries from next on until one is refused, and returns the
// last that was taken.
func fillSegment(t *testing.T, l *walLog, next uint64) (last uint64, err error) {
	t.Helper()
	for ; next < 100; next++ {
		if err := l.StoreLog(walEntry(next)); err != nil {
			return next - 1, err
		}
	}
	t.Fatal("no write was refused")
	return 0, nil
}

// requireGoesOn opens the log again: it holds the entries up to last and takes
// more, into several segments.
func requireGoesOn(t *testing.T, dir string, last uint64) {
	t.Helper()
	for range 2 {
		l := openSmallWAL(t, dir, &metadb.BoltMetaDB{})
		got, err := l.LastIndex()
		require.NoError(t, err)
		require.Equal(t, last, got)
		require.NoError(t, checkWALTail(dir, l))
		for range 20 {
			last++
			require.NoError(t, l.StoreLog(walEntry(last)))
		}
		for i := uint64(1); i <= last; i++ {
			var e raft.Log
			require.NoError(t, l.GetLog(i, &e))
			require.Equal(t, walEntry(i).Data, e.Data)
		}
		require.NoError(t, l.Close())
	}
}

// A disk that is full when a segment is: the error says so, and which file. With
// space again the log goes on, though raft-wal takes the sealed segment for the
// one to write to.
func TestWALSegmentFullAndNoSpace(t *testing.T) {
	dir := t.TempDir()
	meta := &fullMeta{}
	l := openSmallWAL(t, dir, meta)
	meta.full.Store(true)
	last, err := fillSegment(t, l, 1)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, filepath.Join(dir, "wal-meta.db"))
	require.NotContains(t, err.Error(), "sealed")
	require.ErrorIs(t, l.StoreLog(walEntry(last+1)), syscall.ENOSPC, "again")
	require.NoError(t, l.Close())
	requireGoesOn(t, dir, last)
}

// The next segment's file cannot be made.
func TestWALNextSegmentCannotBeMade(t *testing.T) {
	dir := t.TempDir()
	l := openSmallWAL(t, dir, &metadb.BoltMetaDB{})
	first := tailSegmentIn(t, dir)
	require.NoError(t, os.Chmod(dir, 0o700))
	// What would be its name is taken.
	var taken []string
	for base := uint64(2); base < 20; base++ {
		path := filepath.Join(dir, fmt.Sprintf("%020d-%016x.wal", base, 1))
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		taken = append(taken, path)
	}
	last, err := fillSegment(t, l, 1)
	require.ErrorContains(t, err, fmt.Sprintf("%020d-%016x.wal: open ", last+1, 1))
	require.ErrorIs(t, err, os.ErrExist)
	require.NoError(t, l.Close())
	for _, path := range taken {
		require.NoError(t, os.Remove(path))
	}
	require.FileExists(t, first)
	requireGoesOn(t, dir, last)
}

// A crash tears the batch that seals a segment: it is gone, and the segment is
// written on.
func TestWALTornSeal(t *testing.T) {
	for _, name := range []string{"its entry", "its index", "its end"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			meta := &fullMeta{}
			l := openSmallWAL(t, dir, meta)
			meta.full.Store(true)
			last, err := fillSegment(t, l, 1)
			require.ErrorIs(t, err, syscall.ENOSPC)
			require.NoError(t, l.Close())
			path := tailSegmentIn(t, dir)
			switch at := segmentEnd(t, path, 1, last); name {
			case "its entry":
				flip(t, path, at-4000, 1)
			case "its index":
				flip(t, path, at-8-8, 0xff)
			case "its end":
				require.NoError(t, os.Truncate(path, at-8))
			}
			requireGoesOn(t, dir, last-1)
		})
	}
}

func tailSegmentIn(t *testing.T, dir string) string {
	t.Helper()
	path, _, err := newestSegment(dir)
	require.NoError(t, err)
	return path
}
