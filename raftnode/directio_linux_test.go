//go:build amd64 || arm64

package raftnode

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// directFor returns what writes directly to a new file, and the file's path.
func directFor(t *testing.T) (*asyncIO, directFile, string) {
	t.Helper()
	dir := t.TempDir()
	made, err := newDirectIO(dir)
	if err != nil {
		t.Skip(err)
	}
	d := made.(*asyncIO)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	path := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{0xee}, 6<<20), 0o600))
	f, err := d.open(path)
	if err != nil {
		require.ErrorIs(t, err, errNoDirectIO)
		t.Skip(err)
	}
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return d, f, path
}

// Batches longer than the memory for them are written in parts, and zeros behind.
func TestDirectWriteInParts(t *testing.T) {
	_, f, path := directFor(t)
	for _, bytes := range []int{0, 1, blockBytes, directMemory - 1, directMemory, directMemory + 1, 3*directMemory + 5000} {
		for _, further := range []int{0, 1, zeroStep / blockBytes, 2*zeroStep/blockBytes + 1} {
			whole := (bytes + blockBytes - 1) / blockBytes
			end := int64(1+whole+further) * blockBytes
			content := []byte(strings.Repeat(fmt.Sprint(bytes%7, "batch"), bytes/6+1))[:bytes]
			require.NoError(t, f.write(blockBytes, end, content[:bytes/3], content[bytes/3:]))
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, string(content) == string(got[blockBytes:blockBytes+bytes]))
			require.Equal(t, make([]byte, int(end)-blockBytes-bytes), got[blockBytes+bytes:end])
		}
	}
}

// A disk's errors are those of the write, and it is known whose they are.
func TestDirectWriteErrors(t *testing.T) {
	d, f, path := directFor(t)
	err := f.write(1, blockBytes+1, []byte("not at a block"))
	require.ErrorIs(t, err, errNoDirectIO)
	require.ErrorIs(t, err, unix.EINVAL)

	closed, err := d.open(path)
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	require.ErrorIs(t, closed.write(0, blockBytes, []byte("x")), os.ErrClosed)

	only, err := os.Open(path) // not for writing
	require.NoError(t, err)
	defer only.Close()
	err = (&asyncFile{only, d}).write(0, blockBytes, []byte("x"))
	require.ErrorIs(t, err, unix.EBADF)
	require.NotErrorIs(t, err, errNoDirectIO)
	var pe *fs.PathError
	require.ErrorAs(t, err, &pe)
	require.Equal(t, path, pe.Path)

	// It is as before.
	require.NoError(t, f.write(0, blockBytes, []byte("x")))
	require.NoError(t, d.Close())
	require.ErrorIs(t, f.write(0, blockBytes, []byte("x")), os.ErrClosed)
}

// What says nothing about the disk has the batch written another way.
func TestErrorsThatAreNotTheDisks(t *testing.T) {
	for errno, direct := range map[unix.Errno]bool{unix.EINTR: false, unix.ECANCELED: false, unix.ENOMEM: false, unix.EIO: true, unix.ENOSPC: true} {
		err := noDirectIO(&fs.PathError{Op: "write", Path: "x", Err: errno})
		require.ErrorIs(t, err, errno)
		require.Equal(t, !direct, errors.Is(err, errNoDirectIO), "%v", errno)
	}
}

// tmpfs takes direct writes, but they are none.
func TestDirectNotEverywhere(t *testing.T) {
	var stat unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &stat); err != nil || stat.Type != unix.TMPFS_MAGIC {
		t.Skip("no tmpfs at /dev/shm")
	}
	_, err := newDirectIO("/dev/shm")
	require.ErrorIs(t, err, errNoDirectIO)
	require.ErrorContains(t, err, "/dev/shm")
}

// Many files are written by one, in turns; the segments of a log are.
func TestDirectFilesShare(t *testing.T) {
	d, _, path := directFor(t)
	var wg sync.WaitGroup
	for i := range 4 {
		f, err := d.open(path)
		require.NoError(t, err)
		wg.Go(func() {
			defer f.Close()
			for k := range 50 {
				if err := f.write(int64(i)*blockBytes, int64(i+1)*blockBytes, []byte(fmt.Sprint(i, " ", k, "."))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	for i := range 4 {
		require.True(t, bytes.HasPrefix(got[i*blockBytes:], []byte(fmt.Sprint(i, " 49."))))
	}
}

// flushes is how many flushes of its cache the disk that a file is on has done.
func flushes(t *testing.T, path string) int {
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	dev := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	if _, err := os.Stat(dev + "/partition"); err == nil {
		dev += "/.."
	}
	if cache, _ := os.ReadFile(dev + "/queue/write_cache"); strings.TrimSpace(string(cache)) != "write back" {
		t.Skip("the disk has no cache that is lost with the power")
	}
	if fua, _ := os.ReadFile(dev + "/queue/fua"); strings.TrimSpace(string(fua)) != "0" {
		t.Skip("the disk writes past its cache, without a flush")
	}
	stat, err := os.ReadFile(dev + "/stat")
	require.NoError(t, err)
	fields := strings.Fields(string(stat))
	if len(fields) < 17 {
		t.Skip("this kernel does not count flushes")
	}
	n, err := strconv.Atoi(fields[15])
	require.NoError(t, err)
	return n
}

// Each write has the disk write down what is in its cache. Others have it do so as
// well, so this could pass where the disk is busy and nothing is synced; it cannot fail
// where all is.
func TestDirectWritesAreSyncs(t *testing.T) {
	_, f, path := directFor(t)
	before := flushes(t, path)
	const writes = 200
	for range writes {
		require.NoError(t, f.write(0, blockBytes, []byte("batch")))
	}
	require.GreaterOrEqual(t, flushes(t, path)-before, writes/2) // two at the same time may be one
}
