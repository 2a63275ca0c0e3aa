package disk

import (
	"maps"
	"sync"
	"syscall"
	"time"
)

// rootID is the number of the root folder.
const rootID = 1

// maxFileBytes bounds a file.
const maxFileBytes = 1 << 30

// Disk is a disk with a file system. Its methods may be called by several
// goroutines; those of a file system return what a system call would.
type Disk struct {
	mu    sync.Mutex
	nodes map[uint64]*node // all that have a name, or are open without one
	root  *node
	last  uint64 // number that was given out
	// capacity and used are pages. full says that no page has room any more that
	// had none before.
	capacity, used int64
	full           bool
	slow           time.Duration // a sync takes that much longer
	fails          bool          // syncs do
	syncs          int64
}

// node is a file or a folder.
type node struct {
	id   uint64
	mode uint32
	time time.Time // of the last change
	// parent and name are where it is; parent is nil once it has no name.
	parent  *node
	name    string
	lookups uint64 // how often the kernel was told of it
	content content
	// names and synced are those in a folder, now and after a loss of power; nil
	// in a file.
	names, synced map[string]*node
}

func (n *node) folder() bool { return n.names != nil }

// New returns an empty disk of so many bytes.
func New(bytes int64) *Disk {
	d := &Disk{nodes: map[uint64]*node{}, capacity: bytes / pageBytes, last: rootID}
	d.root = &node{id: rootID, mode: syscall.S_IFDIR | 0o700, time: time.Now(), names: map[string]*node{}, synced: map[string]*node{}}
	d.nodes[rootID] = d.root
	return d
}

// Fill leaves no room for anything that has none yet; with false it is given
// back. What a file has room for already can be written, as on a disk that
// does not write elsewhere what is written again.
func (d *Disk) Fill(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = full
}

// Slow makes every sync take longer.
func (d *Disk) Slow(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow = by
}

// Fail makes every sync fail (EIO), and what it was for be lost with the power.
func (d *Disk) Fail(fails bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = fails
}

// Syncs returns how many syncs there were.
func (d *Disk) Syncs() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

func (d *Disk) lookup(parent uint64, name string) (*node, syscall.Errno) {
	p := d.nodes[parent]
	switch {
	case p == nil:
		return nil, syscall.ESTALE
	case !p.folder():
		return nil, syscall.ENOTDIR
	case p.names[name] == nil:
		return nil, syscall.ENOENT
	}
	return p.names[name], 0
}

// make makes a file, or a folder where mode says so.
func (d *Disk) make(parent uint64, name string, mode uint32) (*node, syscall.Errno) {
	if _, err := d.lookup(parent, name); err == 0 {
		return nil, syscall.EEXIST
	} else if err != syscall.ENOENT {
		return nil, err
	}
	if d.full {
		return nil, syscall.ENOSPC
	}
	d.last++
	n := &node{id: d.last, mode: mode, time: time.Now()}
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		n.names, n.synced = map[string]*node{}, map[string]*node{}
	}
	d.nodes[n.id] = n
	d.link(d.nodes[parent], name, n)
	return n, 0
}

func (d *Disk) link(parent *node, name string, n *node) {
	n.parent, n.name = parent, name
	parent.names[name] = n
	parent.time = time.Now()
}

// remove takes a name from a folder. What had it goes with its last user.
func (d *Disk) remove(parent uint64, name string, folder bool) syscall.Errno {
	n, err := d.lookup(parent, name)
	switch {
	case err != 0:
		return err
	case folder && !n.folder():
		return syscall.ENOTDIR
	case !folder && n.folder():
		return syscall.EISDIR
	case len(n.names) > 0:
		return syscall.ENOTEMPTY
	}
	d.unlink(n)
	return 0
}

func (d *Disk) unlink(n *node) {
	delete(n.parent.names, n.name)
	n.parent.time = time.Now()
	n.parent = nil
	d.release(n)
}

// release gives back what nobody can reach any more.
func (d *Disk) release(n *node) {
	if n.parent == nil && n.lookups == 0 && n != d.root && d.nodes[n.id] == n {
		delete(d.nodes, n.id)
		d.used -= n.content.used()
	}
}

func (d *Disk) rename(from uint64, name string, to uint64, as string) syscall.Errno {
	n, err := d.lookup(from, name)
	if err != 0 {
		return err
	}
	old, err := d.lookup(to, as)
	switch {
	case err == syscall.ENOENT:
	case err != 0:
		return err
	case old == n:
		return 0
	case old.folder() != n.folder():
		if n.folder() {
			return syscall.ENOTDIR
		}
		return syscall.EISDIR
	case len(old.names) > 0:
		return syscall.ENOTEMPTY
	default:
		d.unlink(old)
	}
	delete(n.parent.names, name)
	n.parent.time = time.Now()
	d.link(d.nodes[to], as, n)
	return 0
}

// file returns the file of a number.
func (d *Disk) file(id uint64) (*node, syscall.Errno) {
	n := d.nodes[id]
	switch {
	case n == nil:
		return nil, syscall.ESTALE
	case n.folder():
		return nil, syscall.EISDIR
	}
	return n, 0
}

// take takes room for so many pages.
func (d *Disk) take(pages int64) syscall.Errno {
	if pages > 0 && (d.full || d.used+pages > d.capacity) {
		return syscall.ENOSPC
	}
	d.used += pages
	return 0
}

func (d *Disk) write(id uint64, off int64, b []byte) syscall.Errno {
	n, err := d.file(id)
	if err != 0 {
		return err
	}
	if off+int64(len(b)) > maxFileBytes {
		return syscall.EFBIG
	}
	if err := d.take(n.content.room(off, int64(len(b)))); err != 0 {
		return err
	}
	n.content.write(off, b)
	n.time = time.Now()
	return 0
}

func (d *Disk) read(id uint64, off int64, b []byte) (int, syscall.Errno) {
	n, err := d.file(id)
	if err != 0 {
		return 0, err
	}
	return n.content.read(off, b), 0
}

func (d *Disk) resize(id uint64, size int64) syscall.Errno {
	n, err := d.file(id)
	if err != 0 {
		return err
	}
	if size > maxFileBytes {
		return syscall.EFBIG
	}
	d.used -= n.content.resize(size)
	n.time = time.Now()
	return 0
}

// reserve is fallocate, which makes the file longer unless it is to keep its size.
func (d *Disk) reserve(id uint64, off, size int64, keepSize bool) syscall.Errno {
	n, err := d.file(id)
	if err != 0 {
		return err
	}
	if off+size > maxFileBytes {
		return syscall.EFBIG
	}
	if err := d.take(n.content.room(off, size)); err != 0 {
		return err
	}
	n.content.reserve(off, size)
	if !keepSize {
		n.content.size = max(n.content.size, off+size)
	}
	return 0
}

// sync makes what is in a file or in a folder survive. It sleeps where the disk
// is slow, so d.mu is not held.
func (d *Disk) sync(id uint64) syscall.Errno {
	d.mu.Lock()
	slow := d.slow
	d.mu.Unlock()
	time.Sleep(slow)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	n := d.nodes[id]
	if n == nil {
		return syscall.ESTALE
	}
	if n.folder() && !d.fails {
		n.synced = maps.Clone(n.names)
	}
	if !n.folder() {
		n.content.sync(d.fails)
	}
	if d.fails {
		return syscall.EIO
	}
	for at := n; at.parent != nil; at = at.parent {
		at.parent.synced[at.name] = at
	}
	return 0
}
