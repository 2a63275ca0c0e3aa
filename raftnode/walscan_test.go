package raftnode

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"
	walsegment "github.com/hashicorp/raft-wal/segment"
	"github.com/stretchr/testify/require"
)

// requireScans scans the log and finds what reading one entry after the other does.
func requireScans(t *testing.T, l *walLog) {
	t.Helper()
	first, err := l.FirstIndex()
	require.NoError(t, err)
	last, err := l.LastIndex()
	require.NoError(t, err)
	next := first
	require.NoError(t, l.scan(first, last, func(e *raft.Log) error {
		var want raft.Log
		require.NoError(t, l.GetLog(next, &want))
		want.AppendedAt, e.AppendedAt = want.AppendedAt.UTC(), e.AppendedAt.UTC()
		require.Equal(t, want, *e)
		next++
		return nil
	}))
	require.Equal(t, last+1, next)
}

// Scanning gives what raft-wal gives, over several segments, with entries deleted
// at both ends, and with entries that fit no buffer.
func TestWALScanIsWhatRaftWALReads(t *testing.T) {
	dir := t.TempDir()
	reopen := func(l *walLog) *walLog {
		if l != nil {
			require.NoError(t, l.Close())
		}
		return openSmallWAL(t, dir, &metadb.BoltMetaDB{})
	}
	l := reopen(nil)
	next := uint64(1)
	store := func(sizes ...int) {
		var batch []*raft.Log
		for _, size := range sizes {
			batch = append(batch, &raft.Log{
				Index: next, Term: next / 7, Type: raft.LogType(next % 3), Data: bytes.Repeat([]byte{byte(next)}, size),
				Extensions: []byte("extensions")[:next%10], AppendedAt: time.Unix(int64(next), 0),
			})
			next++
		}
		require.NoError(t, l.StoreLogs(batch))
	}
	for range 10 {
		store(0, 1, 2, 8<<10, 7)
		store(20 << 10)
	}
	require.Greater(t, len(l.segments.now()), 3, "the scenario")
	requireScans(t, l)
	l = reopen(l)
	requireScans(t, l)

	require.NoError(t, l.DeleteRange(1, 9)) // into the second segment
	l = reopen(l)
	requireScans(t, l)

	require.NoError(t, l.DeleteRange(next-8, next-1))
	next -= 8
	l = reopen(l)
	requireScans(t, l)
	store(5, 2*scanBuffer, scanBuffer, 3)
	store(4)
	l = reopen(l)
	requireScans(t, l)
	require.NoError(t, l.Close())
}

// What raft-wal would go by when it reads an entry later is found wrong by a scan.
func TestWALScanFindsWhatIsDamaged(t *testing.T) {
	for name, damage := range map[string]func(b []byte, index int){
		"the index":          func(b []byte, index int) { b[index+4] ^= 8 },
		"a frame's type":     func(b []byte, _ int) { b[frameOf(b, 2)] = frameCommit },
		"a frame's length":   func(b []byte, _ int) { b[frameOf(b, 2)+4] ^= 16 },
		"an entry's lengths": func(b []byte, _ int) { b[frameOf(b, 2)+frameHeader+4] |= 0xc0 },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openSmallWAL(t, dir, &metadb.BoltMetaDB{})
			for i := range uint64(20) {
				require.NoError(t, l.StoreLog(walEntry(i+1)))
			}
			sealed := l.segments.now()[0]
			require.False(t, sealed.SealTime.IsZero(), "the scenario")
			path := filepath.Join(dir, walsegment.FileName(sealed))
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			damage(b, int(sealed.IndexStart))
			require.NoError(t, os.WriteFile(path, b, 0o600))
			require.ErrorContains(t, l.scan(1, 20, func(*raft.Log) error { return nil }), "log entry 2 in "+dir)
			require.NoError(t, l.Close())
		})
	}
}

// frameOf is where the frame of entry number n begins, of a segment that begins
// with entry 1, each in a batch of its own.
func frameOf(b []byte, n int) int {
	at := segmentHeader
	for ; n > 1; n-- {
		at += frameHeader + int(binary.LittleEndian.Uint32(b[at+4:])+7)&^7 + frameHeader
	}
	return at
}
