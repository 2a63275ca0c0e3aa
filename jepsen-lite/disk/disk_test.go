package disk

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// shell does to a disk what a process does, with paths.
type shell struct {
	t *testing.T
	d *Disk
}

func (s shell) find(path string) *node {
	n := s.d.root
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		if n = n.names[name]; n == nil {
			return nil
		}
	}
	return n
}

func (s shell) in(path string) (uint64, string) {
	i := strings.LastIndex(path, "/")
	parent := s.find(path[:i])
	require.NotNil(s.t, parent, path)
	return parent.id, path[i+1:]
}

func (s shell) mkdir(path string) {
	parent, name := s.in(path)
	_, err := s.d.make(parent, name, syscall.S_IFDIR|0o700)
	require.Zero(s.t, err)
}

// write makes the file if need be.
func (s shell) write(path string, off int64, what string) syscall.Errno {
	n := s.find(path)
	if n == nil {
		parent, name := s.in(path)
		var err syscall.Errno
		if n, err = s.d.make(parent, name, syscall.S_IFREG|0o600); err != 0 {
			return err
		}
	}
	return s.d.write(n.id, off, []byte(what))
}

func (s shell) sync(path string) syscall.Errno { return s.d.sync(s.find(path).id) }

func (s shell) rename(from, to string) {
	a, name := s.in(from)
	b, as := s.in(to)
	require.Zero(s.t, s.d.rename(a, name, b, as))
}

func (s shell) remove(path string) {
	parent, name := s.in(path)
	require.Zero(s.t, s.d.remove(parent, name, s.find(path).folder()))
}

func (s shell) read(path string) string {
	n := s.find(path)
	if n == nil {
		return "there is none"
	}
	b := make([]byte, n.content.size)
	_, err := s.d.read(n.id, 0, b)
	require.Zero(s.t, err)
	return string(b)
}

func newShell(t *testing.T) shell { return shell{t, New(1 << 20)} }

func TestWhatSurvivesALossOfPower(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(s shell)
		want map[string]string
	}{
		{"a file that was never synced is empty, in a folder that was", func(s shell) {
			s.write("/a", 0, "one")
			s.sync("/")
		}, map[string]string{"/a": ""}},
		{"a file that has no synced name is gone", func(s shell) {
			s.write("/a", 0, "one")
		}, map[string]string{"/a": "there is none"}},
		{"a sync keeps content, length and the way to the file", func(s shell) {
			s.mkdir("/d")
			s.write("/d/a", 0, "one")
			s.sync("/d/a")
		}, map[string]string{"/d/a": "one"}},
		{"what comes after a sync goes", func(s shell) {
			s.write("/a", 0, "one")
			s.sync("/a")
			s.write("/a", 0, "twothree")
		}, map[string]string{"/a": "one"}},
		{"a sync covers its own file alone", func(s shell) {
			s.write("/a", 0, "one")
			s.write("/b", 0, "two")
			s.sync("/a")
			s.sync("/")
		}, map[string]string{"/a": "one", "/b": ""}},
		{"a rename takes a sync of the folder", func(s shell) {
			s.write("/a.tmp", 0, "new")
			s.write("/a", 0, "old")
			s.sync("/a")
			s.sync("/a.tmp")
			s.rename("/a.tmp", "/a")
		}, map[string]string{"/a": "old", "/a.tmp": "new"}},
		{"and has it", func(s shell) {
			s.write("/a.tmp", 0, "new")
			s.write("/a", 0, "old")
			s.sync("/a")
			s.sync("/a.tmp")
			s.rename("/a.tmp", "/a")
			s.sync("/")
		}, map[string]string{"/a": "new", "/a.tmp": "there is none"}},
		{"a removal takes a sync of the folder", func(s shell) {
			s.write("/a", 0, "one")
			s.write("/b", 0, "two")
			s.sync("/a")
			s.sync("/b")
			s.remove("/a")
			s.sync("/")
			s.remove("/b")
		}, map[string]string{"/a": "there is none", "/b": "two"}},
		{"a file that is cut short has its old length and content", func(s shell) {
			s.write("/a", 0, strings.Repeat("x", 3*pageBytes))
			s.sync("/a")
			require.Zero(t, s.d.resize(s.find("/a").id, 10))
			s.write("/a", 0, "y")
		}, map[string]string{"/a": strings.Repeat("x", 3*pageBytes)}},
		{"what is reserved reads as zeros, once it is synced", func(s shell) {
			s.write("/a", 0, "")
			require.Zero(t, s.d.reserve(s.find("/a").id, 0, 10, false))
			s.sync("/a")
		}, map[string]string{"/a": strings.Repeat("\x00", 10)}},
		{"a sync that failed kept nothing, nor does the next for it", func(s shell) {
			s.write("/a", 0, "one")
			s.sync("/a")
			s.write("/a", 0, "two")
			s.d.Fail(true)
			require.Equal(t, syscall.EIO, s.sync("/a"))
			s.d.Fail(false)
			require.Zero(t, s.sync("/a"))
		}, map[string]string{"/a": "one"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShell(t)
			s.t = t
			c.do(s)
			for range 2 { // the second loss has nothing left to take
				s.d.LosePower(nil)
				for path, want := range c.want {
					require.Equal(t, want, s.read(path), path)
				}
			}
		})
	}
}

// A torn loss leaves any of the pages that were not synced, never what was
// there before them once they were, and never half a page.
func TestTornLoss(t *testing.T) {
	const pages = 3
	seen := map[string]bool{}
	for seed := range uint64(400) {
		s := newShell(t)
		s.write("/a", 0, strings.Repeat("o", pages*pageBytes))
		s.sync("/a")
		s.write("/a", 0, strings.Repeat("n", pages*pageBytes))
		s.write("/a", pages*pageBytes, "longer")
		s.d.LosePower(rand.New(rand.NewPCG(seed, 0)))
		got := s.read("/a")
		outcome := ""
		for i := range pages {
			page := got[i*pageBytes : (i+1)*pageBytes]
			require.Equal(t, strings.Repeat(page[:1], pageBytes), page)
			outcome += page[:1]
		}
		require.Contains(t, []string{"", "longer", "\x00\x00\x00\x00\x00\x00"}, got[pages*pageBytes:])
		seen[outcome+got[pages*pageBytes:]] = true
	}
	require.Len(t, seen, 8*3, "%v", slices.Sorted(maps.Keys(seen)))
}

func TestFullDisk(t *testing.T) {
	s := newShell(t) // 256 pages
	require.Zero(t, s.write("/a", 0, strings.Repeat("a", 200*pageBytes)))
	require.Equal(t, syscall.ENOSPC, s.write("/b", 0, strings.Repeat("b", 57*pageBytes)))
	require.Equal(t, "", s.read("/b"), "a write that failed wrote nothing")
	require.Zero(t, s.write("/b", 0, strings.Repeat("b", 56*pageBytes)))
	require.Zero(t, s.write("/a", 0, "A"), "what has room can be written")
	require.Equal(t, syscall.ENOSPC, s.d.reserve(s.find("/a").id, 200*pageBytes, 1, true))
	s.remove("/b")
	require.Zero(t, s.write("/c", 0, "c"))

	s.d.Fill(true)
	require.Equal(t, syscall.ENOSPC, s.write("/d", 0, ""))
	require.Equal(t, syscall.ENOSPC, s.write("/c", pageBytes, "c"))
	s.d.Fill(false)
	require.Zero(t, s.write("/c", pageBytes, "c"))
	require.EqualValues(t, 202, s.d.used)
	s.d.LosePower(nil)
	require.Zero(t, s.d.used)
}

// A file that was removed keeps its room until the kernel lets go of it.
func TestRemovedFileIsUsedOn(t *testing.T) {
	s := newShell(t)
	s.write("/a", 0, "one")
	n := s.find("/a")
	n.lookups = 2
	s.remove("/a")
	b := make([]byte, 3)
	_, err := s.d.read(n.id, 0, b)
	require.Zero(t, err)
	require.Equal(t, "one", string(b))
	s.d.forget(n.id, 1)
	require.EqualValues(t, 1, s.d.used)
	s.d.forget(n.id, 1)
	require.Zero(t, s.d.used)
}

func TestExport(t *testing.T) {
	s := newShell(t)
	s.mkdir("/d")
	big := append(bytes.Repeat([]byte("x"), pageBytes+3), make([]byte, 2*pageBytes)...)
	s.write("/d/a", 0, string(big))
	require.NoError(t, s.d.Export(t.TempDir()))
	s.d.Wipe()
	require.Nil(t, s.find("/d"))
	require.Zero(t, s.d.used)
}
