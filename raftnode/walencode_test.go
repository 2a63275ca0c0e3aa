package raftnode

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	walsegment "github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"
)

// batchOf returns entries of all kinds and sizes, the same for the same index.
func batchOf(first uint64, n int) []*raft.Log {
	random := rand.New(rand.NewPCG(first, 1))
	var logs []*raft.Log
	for i := range uint64(n) {
		l := &raft.Log{Index: first + i, Term: 1 + first/40, Type: raft.LogCommand}
		switch random.IntN(4) {
		case 0:
			l.Type = raft.LogNoop
		case 1:
			l.Data = randomBytes(random, random.IntN(20))
		default:
			l.Data = randomBytes(random, random.IntN(6000))
		}
		if random.IntN(5) > 0 {
			l.AppendedAt = time.Unix(1_700_000_000+int64(random.IntN(1e6)), int64(random.IntN(1e9)))
		}
		l.Extensions = entryMeta{term: l.Term, proposer: 7, seq: l.Index}.encode(l.Data)
		logs = append(logs, l)
	}
	return logs
}

func randomBytes(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// scribble overwrites all that the encoder uses again.
func (e *batchEncoder) scribble() {
	b := e.buf.AvailableBuffer()
	b = b[:cap(b)]
	for i := range b {
		b[i] = 0xa5
	}
	bare := e.bare[:cap(e.bare)]
	for i := range bare {
		bare[i] = raft.Log{Index: 1 << 60, Term: 1 << 60, Data: []byte("of nobody")}
	}
}

// TestWALFilesAreRaftWALs writes one log as the node does and by raft-wal alone,
// over full segments, cuts at both ends, gaps in an empty log and new starts: the
// files are the same, byte for byte, whatever becomes of the memory in between.
func TestWALFilesAreRaftWALs(t *testing.T) {
	ours, theirs := t.TempDir(), t.TempDir()
	var l *walLog
	var w *wal.WAL
	open := func() {
		l = openSmallWAL(t, ours, &metadb.BoltMetaDB{})
		var err error
		w, err = wal.Open(theirs, wal.WithSegmentSize(smallSegment))
		require.NoError(t, err)
	}
	shut := func() {
		require.NoError(t, l.Close())
		require.NoError(t, w.Close())
	}
	next := uint64(1)
	store := func(batches, most int) {
		random := rand.New(rand.NewPCG(next, 2))
		for range batches {
			logs := batchOf(next, 1+random.IntN(most))
			require.NoError(t, w.StoreLogs(logs))
			require.NoError(t, l.StoreLogs(logs))
			require.Equal(t, batchOf(next, len(logs)), logs, "the entries are raft's: they were changed")
			next += uint64(len(logs))
			l.encoder.scribble()
		}
	}
	drop := func(from, to uint64) {
		require.NoError(t, w.DeleteRange(from, to))
		require.NoError(t, l.DeleteRange(from, to))
	}
	same := func() {
		t.Helper()
		first, err := w.FirstIndex()
		require.NoError(t, err)
		for i := first; i > 0 && i < next; i++ {
			var want, got raft.Log
			require.NoError(t, w.GetLog(i, &want))
			require.NoError(t, l.GetLog(i, &got))
			require.Equal(t, want, got)
		}
		requireSameSegments(t, ours, theirs)
	}

	open()
	store(40, 8)
	same()
	shut()
	open() // RecoverTail
	store(30, 64)
	drop(next-70, next-1)
	next -= 70
	store(10, 8)
	drop(1, 30)
	same()
	drop(1, next-1)
	next += 100 // the empty segment is made anew for this one
	store(3, 4)
	same()
	shut()
	open()
	store(20, 8)
	same()
	shut()
}

// requireSameSegments compares the segments of two folders; what is behind the
// last batch, zeros, may be of different length.
func requireSameSegments(t *testing.T, ours, theirs string) {
	t.Helper()
	want, err := filepath.Glob(filepath.Join(theirs, "*.wal"))
	require.NoError(t, err)
	got, err := filepath.Glob(filepath.Join(ours, "*.wal"))
	require.NoError(t, err)
	require.Len(t, got, len(want))
	require.NotEmpty(t, want)
	for i := range want {
		require.Equal(t, filepath.Base(want[i]), filepath.Base(got[i]))
		a, err := os.ReadFile(want[i])
		require.NoError(t, err)
		b, err := os.ReadFile(got[i])
		require.NoError(t, err)
		require.True(t, bytes.Equal(bytes.TrimRight(a, "\x00"), bytes.TrimRight(b, "\x00")), "%s differs", got[i])
	}
}

// TestWALAppendsOnlyWhatItWasGiven hands a segment what is not the batch under way.
func TestWALAppendsOnlyWhatItWasGiven(t *testing.T) {
	given := batchOf(1, 3)
	encoded := func(l raft.Log) types.LogEntry {
		var b bytes.Buffer
		require.NoError(t, (&wal.BinaryCodec{}).Encode(&l, &b))
		return types.LogEntry{Index: l.Index, Data: b.Bytes()}
	}
	bare := func(change func(i int, l *raft.Log)) (entries []types.LogEntry) {
		for i, l := range given {
			b := raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, AppendedAt: l.AppendedAt}
			change(i, &b)
			entries = append(entries, encoded(b))
		}
		return entries
	}
	asGiven := bare(func(int, *raft.Log) {})
	for name, entries := range map[string][]types.LogEntry{
		"fewer":           asGiven[:2],
		"more":            append(bare(func(int, *raft.Log) {}), encoded(raft.Log{Index: 4})),
		"another order":   {asGiven[1], asGiven[0], asGiven[2]},
		"another index":   bare(func(i int, l *raft.Log) { l.Index += uint64(i) }),
		"another term":    bare(func(i int, l *raft.Log) { l.Term += uint64(i) }),
		"another type":    bare(func(i int, l *raft.Log) { l.Type = raft.LogBarrier }),
		"another time":    bare(func(i int, l *raft.Log) { l.AppendedAt = time.Unix(int64(i), 0) }),
		"data of its own": bare(func(i int, l *raft.Log) { l.Data = []byte("x") }),
		"none":            {},
	} {
		t.Run(name, func(t *testing.T) {
			written := &countedSegment{}
			e := &batchEncoder{}
			s := encodedSegment{written, e}
			err := e.store(given, func([]*raft.Log) error { return s.Append(entries) })
			require.ErrorIs(t, err, errOtherBatch)
			require.Zero(t, written.appended)

			// What was refused leaves nothing to the next.
			require.NoError(t, e.store(given, func([]*raft.Log) error { return s.Append(asGiven) }))
			require.Equal(t, 3, written.appended)
		})
	}

	written := &countedSegment{}
	e := &batchEncoder{}
	s := encodedSegment{written, e}
	require.ErrorIs(t, s.Append(asGiven), errOtherBatch, "nothing is stored")
	err := e.store(given, func([]*raft.Log) error {
		require.NoError(t, s.Append(asGiven))
		return s.Append(asGiven)
	})
	require.ErrorIs(t, err, errOtherBatch, "the same batch twice")
	require.Equal(t, 3, written.appended)

	err = e.store(given, func([]*raft.Log) error {
		require.ErrorIs(t, e.store(given, func([]*raft.Log) error { return nil }), errTwoBatches)
		return s.Append(asGiven)
	})
	require.NoError(t, err)
	require.Equal(t, 6, written.appended)

	err = e.store(given, func([]*raft.Log) error { return nil })
	require.ErrorIs(t, err, errNotEncoded, "a segment that was not wrapped")
	require.NoError(t, e.store(nil, func([]*raft.Log) error { return nil }))
}

// countedSegment counts the entries that are appended.
type countedSegment struct {
	types.SegmentWriter
	appended int
}

func (s *countedSegment) Append(entries []types.LogEntry) error {
	s.appended += len(entries)
	return nil
}

// TestWALLetsGoOfALargeBatch: one batch of large commands does not stay.
func TestWALLetsGoOfALargeBatch(t *testing.T) {
	l := openSmallWAL(t, t.TempDir(), &metadb.BoltMetaDB{})
	defer l.Close()
	large := &raft.Log{Index: 1, Term: 1, Data: make([]byte, 3*keptBatchBytes)}
	require.NoError(t, l.StoreLog(large))
	require.Zero(t, l.encoder.buf.Cap())
	require.NoError(t, l.StoreLog(walEntry(2)))
	require.Positive(t, l.encoder.buf.Cap())
	var got raft.Log
	require.NoError(t, l.GetLog(1, &got))
	require.Equal(t, large.Data, got.Data)
}

// BenchmarkWALStore stores an entry, by raft-wal alone and with the encoder, on files
// that are not synced.
func BenchmarkWALStore(b *testing.B) {
	for _, size := range []int{300, 16 << 10, 64 << 10} {
		data := make([]byte, size)
		entry := raft.Log{Term: 1, Data: data, Extensions: entryMeta{term: 1}.encode(data)}
		for _, of := range []string{"raft-wal", "ours"} {
			b.Run(fmt.Sprintf("entry=%d/%s", size, of), func(b *testing.B) {
				l := openWALFiles(b, b.TempDir(), unsynced{fs.New()}, wal.DefaultSegmentSize)
				defer l.Close()
				store := l.StoreLogs
				if of == "raft-wal" {
					w, err := wal.Open(b.TempDir(), wal.WithSegmentFiler(walsegment.NewFiler(b.TempDir(), unsynced{fs.New()})))
					require.NoError(b, err)
					defer w.Close()
					store = w.StoreLogs
				}
				b.ReportAllocs()
				index := uint64(0)
				for b.Loop() {
					index++
					l := entry
					l.Index = index
					if err := store([]*raft.Log{&l}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
