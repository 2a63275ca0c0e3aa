package disk

import (
	"cmp"
	"maps"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// server answers the kernel. All changes come through it, so the kernel may keep
// what it was told for as long as it likes.
type server struct {
	fuse.RawFileSystem // what is not here does not exist
	disk               *Disk
}

const keepSeconds = 3600

func (s *server) attr(n *node, out *fuse.Attr) {
	t := uint64(n.time.Unix())
	ns := uint32(n.time.Nanosecond())
	*out = fuse.Attr{
		Ino: n.id, Size: uint64(n.bytes()), Blocks: uint64(n.content.used()) * pageBytes / 512, Blksize: pageBytes,
		Mode: n.mode, Nlink: n.links(), Atime: t, Mtime: t, Ctime: t, Atimensec: ns, Mtimensec: ns, Ctimensec: ns,
	}
}

// entry tells the kernel of a node.
func (s *server) entry(n *node, out *fuse.EntryOut) {
	n.lookups++
	out.NodeId, out.Generation = n.id, 1
	out.EntryValid, out.AttrValid = keepSeconds, keepSeconds
	s.attr(n, &out.Attr)
}

func (s *server) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	n, err := s.disk.lookup(header.NodeId, name)
	if err == 0 {
		s.entry(n, out)
	}
	return fuse.Status(err)
}

func (s *server) Forget(id, lookups uint64) { s.disk.forget(id, lookups) }

func (s *server) GetAttr(_ <-chan struct{}, input *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	n := s.disk.nodes[input.NodeId]
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	out.AttrValid = keepSeconds
	s.attr(n, &out.Attr)
	return fuse.OK
}

func (s *server) SetAttr(_ <-chan struct{}, input *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	n := s.disk.nodes[input.NodeId]
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if size, ok := input.GetSize(); ok {
		if err := s.disk.resize(n.id, int64(size)); err != 0 {
			return fuse.Status(err)
		}
	}
	if mode, ok := input.GetMode(); ok {
		n.mode = n.mode&syscall.S_IFMT | mode&0o7777
	}
	if t, ok := input.GetMTime(); ok {
		n.time = t
	}
	out.AttrValid = keepSeconds
	s.attr(n, &out.Attr)
	return fuse.OK
}

func (s *server) Mkdir(_ <-chan struct{}, input *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	n, err := s.disk.make(input.NodeId, name, syscall.S_IFDIR|input.Mode&0o7777)
	if err == 0 {
		s.entry(n, out)
	}
	return fuse.Status(err)
}

func (s *server) Create(_ <-chan struct{}, input *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	n, err := s.disk.make(input.NodeId, name, syscall.S_IFREG|input.Mode&0o7777)
	if err == 0 {
		s.entry(n, &out.EntryOut)
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
	return fuse.Status(err)
}

func (s *server) Unlink(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return fuse.Status(s.disk.remove(header.NodeId, name, false))
}

func (s *server) Rmdir(_ <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return fuse.Status(s.disk.remove(header.NodeId, name, true))
}

func (s *server) Rename(_ <-chan struct{}, input *fuse.RenameIn, name, as string) fuse.Status {
	if input.Flags != 0 {
		return fuse.EINVAL // to exchange, or not to replace: nobody asks for it here
	}
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return fuse.Status(s.disk.rename(input.NodeId, name, input.Newdir, as))
}

// Open leaves the page cache on: without it there is no mapping, and bolt reads
// through one.
func (s *server) Open(_ <-chan struct{}, input *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	n, err := s.disk.file(input.NodeId)
	if err == 0 && input.Flags&syscall.O_TRUNC != 0 {
		err = s.disk.resize(n.id, 0)
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.Status(err)
}

func (s *server) Read(_ <-chan struct{}, input *fuse.ReadIn, b []byte) (fuse.ReadResult, fuse.Status) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	n, err := s.disk.read(input.NodeId, int64(input.Offset), b[:min(len(b), int(input.Size))])
	return fuse.ReadResultData(b[:n]), fuse.Status(err)
}

func (s *server) Write(_ <-chan struct{}, input *fuse.WriteIn, b []byte) (uint32, fuse.Status) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if err := s.disk.write(input.NodeId, int64(input.Offset), b); err != 0 {
		return 0, fuse.Status(err)
	}
	return uint32(len(b)), fuse.OK
}

func (s *server) Fallocate(_ <-chan struct{}, input *fuse.FallocateIn) fuse.Status {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE
	if input.Mode&^keepSize != 0 {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return fuse.Status(s.disk.reserve(input.NodeId, int64(input.Offset), int64(input.Length), input.Mode == keepSize))
}

func (s *server) Fsync(_ <-chan struct{}, input *fuse.FsyncIn) fuse.Status {
	return fuse.Status(s.disk.sync(input.NodeId))
}

func (s *server) FsyncDir(_ <-chan struct{}, input *fuse.FsyncIn) fuse.Status {
	return fuse.Status(s.disk.sync(input.NodeId))
}

func (s *server) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }
func (s *server) Release(<-chan struct{}, *fuse.ReleaseIn)         {}
func (s *server) ReleaseDir(*fuse.ReleaseIn)                       {}
func (s *server) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status {
	return fuse.OK
}
func (s *server) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.OK
}

// ReadDir lists by the nodes' numbers, which only grow: what is removed or comes
// meanwhile moves nothing else.
func (s *server) ReadDir(_ <-chan struct{}, input *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	n := s.disk.nodes[input.NodeId]
	if n == nil || !n.folder() {
		return fuse.ENOTDIR
	}
	children := slices.SortedFunc(maps.Values(n.names), func(a, b *node) int { return cmp.Compare(a.id, b.id) })
	for _, child := range children {
		if child.id <= input.Offset {
			continue
		}
		if !out.AddDirEntry(fuse.DirEntry{Name: child.name, Mode: child.mode, Ino: child.id, Off: child.id}) {
			break
		}
	}
	return fuse.OK
}

func (s *server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	free := uint64(max(0, s.disk.capacity-s.disk.used))
	if s.disk.full {
		free = 0
	}
	*out = fuse.StatfsOut{
		Blocks: uint64(s.disk.capacity), Bfree: free, Bavail: free, Files: 1 << 20, Ffree: 1 << 20,
		Bsize: pageBytes, Frsize: pageBytes, NameLen: 255,
	}
	return fuse.OK
}
