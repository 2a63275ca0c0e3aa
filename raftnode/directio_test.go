package raftnode

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"
)

// directFunc opens files for direct writes.
type directFunc func(path string) (directFile, error)

func (f directFunc) open(path string) (directFile, error) { return f(path) }
func (f directFunc) Close() error                         { return nil }

// plainDirect writes as a directFile does, through the page cache.
type plainDirect struct{ to io.WriterAt }

func (f plainDirect) write(at, end int64, parts ...[]byte) error {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	if at%blockBytes != 0 || end%blockBytes != 0 || at+int64(len(b)) > end {
		return errors.New("not whole blocks")
	}
	_, err := f.to.WriteAt(append(b, make([]byte, end-at-int64(len(b)))...), at)
	return err
}

func (f plainDirect) Close() error { return nil }

// plainFile is a file of its own that plainDirect writes to.
type plainFile struct {
	plainDirect
	io.Closer
}

func (f plainFile) Close() error { return f.Closer.Close() }

func openPlain(path string) (directFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	return plainFile{plainDirect{f}, f}, err
}

// directWays are the ways that batches are written directly: in whole blocks, but
// through the page cache, and as the system does it, where it does.
func directWays(t *testing.T) map[string]directIO {
	ways := map[string]directIO{"plain": directFunc(openPlain)}
	d, err := newDirectIO(t.TempDir())
	if err != nil {
		t.Log("only in whole blocks: ", err)
		return ways
	}
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	ways["system"] = d
	return ways
}

// unevenEntry has any length from 0 to 40,000 bytes, with all kinds of ends in blocks.
func unevenEntry(i uint64) *raft.Log {
	e := &raft.Log{Index: i, Term: 1, Data: make([]byte, (i*i*i*997)%40000)}
	for k := range e.Data {
		e.Data[k] = byte(uint64(k)%251 + i)
	}
	return e
}

// A log that is written directly has the files that it has otherwise, byte for byte,
// sealed ones and the one that is written to; also where it was closed in the middle.
// What is in it can be read at any time.
func TestWALDirect(t *testing.T) {
	for name, direct := range directWays(t) {
		t.Run(name, func(t *testing.T) {
			files := segmentFiles{VFS: fs.New(), syncData: fdatasync}
			dirs := []string{t.TempDir(), t.TempDir()}
			for way, files := range []segmentFiles{files, {VFS: files.VFS, syncData: files.syncData, direct: direct}} {
				var last uint64
				for range 4 {
					l := openWALFiles(t, dirs[way], files, 1<<20)
					for range 40 {
						batch := []*raft.Log{unevenEntry(last + 1), unevenEntry(last + 2)}
						if last%3 == 0 {
							batch = batch[:1]
						}
						require.NoError(t, l.StoreLogs(batch))
						last += uint64(len(batch))
						for _, e := range batch {
							var got raft.Log
							require.NoError(t, l.GetLog(e.Index, &got))
							require.Equal(t, e.Data, append([]byte{}, got.Data...))
						}
					}
					require.NoError(t, l.Close())
				}
			}
			segments, err := filepath.Glob(filepath.Join(dirs[0], "*.wal"))
			require.NoError(t, err)
			require.Greater(t, len(segments), 2)
			for _, path := range segments {
				want, err := os.ReadFile(path)
				require.NoError(t, err)
				got, err := os.ReadFile(filepath.Join(dirs[1], filepath.Base(path)))
				require.NoError(t, err)
				// The last batch of a sealed one ends in a whole block.
				n := min(len(want), len(got))
				require.Less(t, len(got)-n, blockBytes)
				require.Equal(t, make([]byte, len(got)-n), got[n:])
				require.Equal(t, len(want), n)
				require.True(t, string(want) == string(got[:n]), filepath.Base(path))
			}
		})
	}
}

// Zeros are written ahead of batches directly too, once a step, and over what an earlier
// crash left there: no batch is ever followed by anything else.
func TestWALDirectWritesAhead(t *testing.T) {
	const size = 3*zeroStep - 1000
	dir := t.TempDir()
	path := filepath.Join(dir, "segment")
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{0xee}, size), 0o600))
	files := segmentFiles{VFS: fs.New(), syncData: fdatasync, direct: directFunc(openPlain)}
	f, err := files.OpenWriter(dir, "segment")
	require.NoError(t, err)
	defer f.Close()
	batch := bytes.Repeat([]byte("batch"), 30_000)
	ahead := 0 // batches that are written over zeros
	at := int64(5000)
	for at+int64(len(batch)) < size-2*blockBytes {
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		end := at + int64(len(batch))
		if bytes.Equal(got[at:end], make([]byte, len(batch))) {
			ahead++
		}
		_, err = f.WriteAt(batch, at)
		require.NoError(t, err)
		got, err = os.ReadFile(path)
		require.NoError(t, err)
		require.True(t, bytes.Equal(batch, got[at:end]))
		step := min(end-end%zeroStep+zeroStep, size-size%blockBytes)
		require.True(t, bytes.Equal(make([]byte, step-end), got[end:step]), "behind the batch that ends at %d", end)
		at = end
	}
	require.GreaterOrEqual(t, ahead, 10)
}

// What is read while the block that it is in is written again is what was written.
func TestWALDirectReads(t *testing.T) {
	for name, direct := range directWays(t) {
		t.Run(name, func(t *testing.T) {
			l := openWALFiles(t, t.TempDir(), segmentFiles{VFS: fs.New(), syncData: fdatasync, direct: direct}, 8<<20)
			defer l.Close()
			var written atomic.Uint64
			done := make(chan error)
			go func() {
				defer close(done)
				for written.Load() < 200 {
					last := written.Load()
					var got raft.Log
					if last == 0 {
						continue
					}
					err := l.GetLog(last, &got)
					if err == nil && string(got.Data) != string(shortEntry(last).Data) {
						err = errors.New("not what was written")
					}
					if err != nil {
						done <- err
						return
					}
				}
			}()
			for i := range uint64(200) {
				require.NoError(t, l.StoreLog(shortEntry(i+1)))
				written.Store(i + 1)
			}
			require.NoError(t, <-done)
		})
	}
}

func shortEntry(i uint64) *raft.Log {
	return &raft.Log{Index: i, Term: 1, Data: unevenEntry(i).Data[:min(300, len(unevenEntry(i).Data))]}
}

// failingDirect fails from a write on.
type failingDirect struct {
	directFile
	left int
	err  error
}

func (f *failingDirect) write(at, end int64, parts ...[]byte) error {
	if f.left--; f.left < 0 {
		// Half of it was written.
		half := parts[len(parts)-1]
		_ = f.directFile.write(at, end, parts[0], half[:len(half)/2])
		return f.err
	}
	return f.directFile.write(at, end, parts...)
}

// Where the file system does not take a direct write after all, the batch is written
// and synced through the page cache, and all that follow. Any other error is the
// batch's, and the batch that comes in its place is written as if it had not been.
func TestWALDirectFails(t *testing.T) {
	disk := errors.New("a bad disk")
	for _, err := range []error{errNoDirectIO, disk} {
		dir := t.TempDir()
		syncs := 0
		var notDirect []error
		files := segmentFiles{
			VFS: fs.New(), syncData: func(f segmentFile) error { syncs++; return fdatasync(f) },
			notDirect: func(err error) { notDirect = append(notDirect, err) },
		}
		var failing *failingDirect
		files.direct = directFunc(func(path string) (directFile, error) {
			f, oerr := openPlain(path)
			failing = &failingDirect{f, 10, err}
			return failing, oerr
		})
		l := openWALFiles(t, dir, files, 8<<20)
		for i := range uint64(10) {
			require.NoError(t, l.StoreLog(shortEntry(i+1)))
		}
		require.Zero(t, syncs)
		if err == disk {
			require.ErrorIs(t, l.StoreLog(shortEntry(11)), disk)
			failing.left = 100
		}
		for i := range uint64(10) {
			require.NoError(t, l.StoreLog(shortEntry(11+i)))
		}
		if err == disk {
			require.Zero(t, syncs)
			require.Empty(t, notDirect)
		} else {
			require.Equal(t, 10, syncs)
			require.Equal(t, []error{errNoDirectIO}, notDirect, "it is told once")
		}
		require.NoError(t, l.Close())
		l = openWALFiles(t, dir, files, 8<<20)
		require.NoError(t, checkWALTail(dir, l))
		for i := range uint64(20) {
			var got raft.Log
			require.NoError(t, l.GetLog(i+1, &got))
			require.Equal(t, shortEntry(i+1).Data, append([]byte{}, got.Data...))
		}
		require.NoError(t, l.Close())
	}
}

// A folder whose file system has no direct writes is no error, another one is.
func TestWALDirectOpens(t *testing.T) {
	broken := errors.New("no such luck")
	files := segmentFiles{VFS: fs.New(), syncData: fdatasync}
	files.direct = directFunc(func(string) (directFile, error) { return nil, broken })
	_, err := files.Create(t.TempDir(), "a", 4096)
	require.ErrorIs(t, err, broken)
	files.direct = directFunc(func(string) (directFile, error) { return nil, errNoDirectIO })
	told := 0
	files.notDirect = func(err error) {
		require.ErrorIs(t, err, errNoDirectIO)
		told++
	}
	f, err := files.Create(t.TempDir(), "a", 4096)
	require.NoError(t, err)
	require.Equal(t, 1, told)
	_, err = f.WriteAt([]byte("batch"), 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	var _ types.WritableFile = f
}
