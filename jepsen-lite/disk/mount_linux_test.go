package disk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	boltstore "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain has all tests in a mount namespace of their own, where they may mount:
// nothing is left of it however they end.
func TestMain(m *testing.M) {
	const inside = "TRIVET_DISK_TEST_INSIDE"
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Go makes all mounts private with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the signal is for the end of this thread
	switch err := cmd.Run().(type) {
	case nil:
		os.Exit(0)
	case *exec.ExitError:
		os.Exit(1)
	default: // no such namespaces here
		fmt.Fprintln(os.Stderr, err)
		os.Exit(m.Run())
	}
}

// mounted does f over a disk that is mounted.
func mounted(t *testing.T, f func(d *Disk, dir string, losePower func())) {
	if os.Getenv("TRIVET_DISK_TEST_INSIDE") == "" {
		t.Skip("takes root, and mount namespaces")
	}
	d, dir := New(256<<20), t.TempDir()
	m, err := d.Mount(dir)
	if err != nil {
		t.Skip(err) // no FUSE
	}
	t.Cleanup(func() { require.NoError(t, m.Unmount()) })
	f(d, dir, func() {
		require.NoError(t, m.Unmount())
		d.LosePower(nil)
		m, err = d.Mount(dir)
		require.NoError(t, err)
	})
}

// logStore is either.
type logStore interface {
	raft.LogStore
	Close() error
}

func logs(from, to uint64) (out []*raft.Log) {
	for i := from; i <= to; i++ {
		out = append(out, &raft.Log{Index: i, Term: 1, Data: []byte(fmt.Sprintf("%06000d", i))})
	}
	return out
}

// child runs a test of this binary as a process of its own: one that reads a
// mapping of a file that it serves itself waits for itself.
func child(t *testing.T, name string, env ...string) {
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+name+"$", "-test.timeout", "20s")
	cmd.Env = append(append(os.Environ(), "TRIVET_DISK_TEST_CHILD=1"), env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func inChild(t *testing.T) {
	if os.Getenv("TRIVET_DISK_TEST_CHILD") == "" {
		t.Skip("for the other tests")
	}
}

// Both log stores work over it, bolt through its mapping, and what they synced
// is what they have after a loss of power.
func TestLogStoresOverIt(t *testing.T) {
	for _, name := range []string{"wal", "bolt"} {
		t.Run(name, func(t *testing.T) {
			mounted(t, func(d *Disk, dir string, losePower func()) {
				for last := 0; last < 600; last += 200 {
					child(t, "TestChildLogStore", "STORE="+name, "DIR="+dir, fmt.Sprint("LAST=", last))
					losePower()
				}
				require.GreaterOrEqual(t, d.Syncs(), int64(3*40))
			})
		})
	}
}

func TestChildLogStore(t *testing.T) {
	inChild(t)
	var s logStore
	var err error
	if os.Getenv("STORE") == "wal" {
		s, err = wal.Open(os.Getenv("DIR"), wal.WithSegmentSize(1<<20))
	} else {
		s, err = boltstore.New(boltstore.Options{Path: filepath.Join(os.Getenv("DIR"), "log.db")})
	}
	require.NoError(t, err)
	var last uint64
	fmt.Sscan(os.Getenv("LAST"), &last)
	got, err := s.LastIndex()
	require.NoError(t, err)
	require.Equal(t, last, got, "after the loss")
	for range 40 {
		require.NoError(t, s.StoreLogs(logs(last+1, last+5)))
		last += 5
	}
	var l raft.Log
	for i := uint64(1); i <= last; i++ {
		require.NoError(t, s.GetLog(i, &l))
		require.Equal(t, fmt.Sprintf("%06000d", i), string(l.Data))
	}
	// It is not closed: the process ends, as by a kill.
}

// What one descriptor writes another one's mapping shows.
func TestMapping(t *testing.T) {
	mounted(t, func(_ *Disk, dir string, _ func()) { child(t, "TestChildMapping", "DIR="+dir) })
}

func TestChildMapping(t *testing.T) {
	inChild(t)
	f, err := os.Create(filepath.Join(os.Getenv("DIR"), "a"))
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, f.Truncate(2*pageBytes))
	m, err := unix.Mmap(int(f.Fd()), 0, 2*pageBytes, unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer unix.Munmap(m)
	for _, s := range []string{"one", "two"} {
		_, err := f.WriteAt([]byte(s), pageBytes-1)
		require.NoError(t, err)
		require.Equal(t, s, string(m[pageBytes-1:pageBytes+2]))
	}
}

// Folders are listed, and removed with what is in them.
func TestFolders(t *testing.T) {
	mounted(t, func(_ *Disk, dir string, _ func()) {
		sub := filepath.Join(dir, "d")
		for i := range 500 {
			require.NoError(t, os.MkdirAll(filepath.Join(sub, fmt.Sprint(i)), 0o700))
		}
		entries, err := os.ReadDir(sub)
		require.NoError(t, err)
		require.Len(t, entries, 500)
		require.NoError(t, os.RemoveAll(sub))
		require.NoDirExists(t, sub)
	})
}
