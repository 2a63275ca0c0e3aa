package raftnode

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"
)

// openWALFiles opens a log over files of a kind.
func openWALFiles(t testing.TB, dir string, files types.VFS, segmentBytes int) *walLog {
	t.Helper()
	l, err := openWALOver(dir, newRaftLog(testLog(t), new(atomic.Bool)), &metadb.BoltMetaDB{}, files, segmentBytes)
	require.NoError(t, err)
	return l
}

// writtenFiles remember how far their files were written.
type writtenFiles struct {
	types.VFS
	ahead, extends int // writes within what was written before, and beyond it
}

type writtenFile struct {
	segmentFile
	files *writtenFiles
	end   int64
}

func (v *writtenFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := v.VFS.Create(dir, name, size)
	if err != nil {
		return nil, err
	}
	return &writtenFile{segmentFile: f.(segmentFile), files: v}, nil
}

func (f *writtenFile) WriteAt(b []byte, at int64) (int, error) {
	if end := at + int64(len(b)); end > f.end {
		f.end = end
		f.files.extends++
	} else {
		f.files.ahead++
	}
	return f.segmentFile.WriteAt(b, at)
}

// Most batches are written over zeros, and no file gets longer by them.
func TestWALWritesAhead(t *testing.T) {
	const segmentBytes, batches = 2*zeroStep - 1000, 150
	dir := t.TempDir()
	written := &writtenFiles{VFS: fs.New()}
	l := openWALFiles(t, dir, segmentFiles{VFS: written, syncData: fdatasync}, segmentBytes)
	for i := range uint64(batches) {
		require.NoError(t, l.StoreLog(walEntry(i+1))) // 8 KiB
	}
	// The batch that reaches the end, and its zeros.
	require.LessOrEqual(t, written.extends, 2*(batches*(8<<10)/zeroStep+1))
	require.GreaterOrEqual(t, written.ahead, batches-2)
	require.NoError(t, l.Close())
	info, err := os.Stat(tailSegmentIn(t, dir))
	require.NoError(t, err)
	require.EqualValues(t, segmentBytes, info.Size())
	b, err := os.ReadFile(tailSegmentIn(t, dir))
	require.NoError(t, err)
	end := segmentEnd(t, tailSegmentIn(t, dir), 1, batches)
	require.Equal(t, make([]byte, len(b)-int(end)), b[end:])
}

// BenchmarkSegmentFiles stores each batch in three logs, in turns: over raft-wal's
// own files, over these, and over these with direct writes where there are any.
func BenchmarkSegmentFiles(b *testing.B) {
	for _, size := range []int{400, 20 << 10, 80 << 10} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			dir := b.TempDir()
			names := []string{"raft-wal", "ours", "direct"}
			direct, err := newDirectIO(dir)
			if err != nil {
				names = names[:2]
			} else {
				defer direct.Close()
			}
			logs := make([]*walLog, len(names))
			ours := segmentFiles{VFS: fs.New(), syncData: fdatasync}
			for i, files := range []types.VFS{fs.New(), ours, segmentFiles{VFS: ours.VFS, syncData: ours.syncData, direct: direct}}[:len(names)] {
				require.NoError(b, os.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0o700))
				logs[i] = openWALFiles(b, filepath.Join(dir, fmt.Sprint(i)), files, wal.DefaultSegmentSize)
				defer logs[i].Close()
			}
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(i%251 + 1)
			}
			took := make([][]time.Duration, len(names))
			b.ResetTimer()
			for i := range b.N {
				for k := range names {
					of := (i + k) % len(names)
					start := time.Now()
					require.NoError(b, logs[of].StoreLog(&raft.Log{Index: uint64(i + 1), Term: 1, Data: data}))
					took[of] = append(took[of], time.Since(start))
				}
			}
			for of, name := range names {
				slices.Sort(took[of])
				for _, p := range []int{25, 50, 99} {
					b.ReportMetric(float64(took[of][b.N*p/100].Microseconds()), fmt.Sprintf("%s-p%d-µs", name, p))
				}
			}
		})
	}
}

// segmentEnd is where the batch of entry last ends in a segment file.
func segmentEnd(t *testing.T, path string, base, last uint64) int64 {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	end, err := walEnd(f, base, last)
	require.NoError(t, err)
	return end
}
