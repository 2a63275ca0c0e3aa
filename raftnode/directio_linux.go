//go:build amd64 || arm64

package raftnode

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"trivet/internal/mutant"
)

// asyncIO writes by io_uring (io_uring_setup(2)), one request at a time, and learns of
// the end of a write from an eventfd, which Go's runtime waits for as it does for sockets.
//
// The older interface (io_submit) does the same, in more containers; but the kernel waits for
// it for some 35 ms when a process is killed, before it closes the process's
// sockets, by which the others know that their leader is dead.
//
// Memory that the kernel reads while Go runs on is not Go's: it is mapped. What Go
// allocates is given to system calls that are over with it when they return.
type asyncIO struct {
	mu     sync.Mutex
	ring   int // its file descriptor
	done   *os.File
	wait   syscall.RawConn // of done
	closed bool

	memory []byte // a batch on its way, in whole blocks
	zeros  []byte // zeroStep of them

	queues   []byte // of requests and of results, as the kernel lays them out
	requests []byte
	offsets  uringParams

	parts  [2]unix.Iovec
	result int32
}

// uringParams is struct io_uring_params.
type uringParams struct {
	requests, results uint32 // entries
	_                 [3]uint32
	features          uint32
	_                 [4]uint32
	request           struct {
		head, tail, mask, _, _, _, array, _ uint32
		_                                   uint64
	}
	answer struct {
		head, tail, mask, _, _, events, _, _ uint32
		_                                    uint64
	}
}

// uringRequest is struct io_uring_sqe.
type uringRequest struct {
	opcode  uint8
	_       uint8
	_       uint16
	fd      int32
	offset  uint64
	parts   uint64 // address of iovecs
	count   uint32
	rwFlags uint32
	_       [4]uint64
}

// uringResult is struct io_uring_cqe.
type uringResult struct {
	_      uint64
	result int32 // bytes written, or an error number below 0
	_      uint32
}

const (
	opWritev        = 2          // IORING_OP_WRITEV
	featureOneMap   = 1          // IORING_FEAT_SINGLE_MMAP
	mapQueues       = 0          // IORING_OFF_SQ_RING
	mapRequests     = 0x10000000 // IORING_OFF_SQES
	registerEventfd = 4          // IORING_REGISTER_EVENTFD
	enterForResults = 1          // IORING_ENTER_GETEVENTS

	// directMemory is how much of a batch is written at once: a longer one is in parts.
	directMemory = 1 << 20

	xfsMagic = 0x58465342
)

// newDirectIO is for files in a folder on ext4 or XFS, of which it is known that they
// write in place, at once, and sync. Others may take such writes and do them some other
// way: FUSE does without the sync, tmpfs has no disk, and those that never overwrite gain
// nothing.
func newDirectIO(dir string) (directIO, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if stat.Type != unix.EXT4_SUPER_MAGIC && stat.Type != xfsMagic {
		return nil, fmt.Errorf("%w: %s is not on ext4 or XFS", errNoDirectIO, dir)
	}
	d := &asyncIO{}
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&d.offsets)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	d.ring = int(ring)
	if err := d.init(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *asyncIO) init() (err error) {
	if d.offsets.features&featureOneMap == 0 {
		return fmt.Errorf("%w: the kernel's io_uring is too old", errNoDirectIO)
	}
	o := &d.offsets
	size := max(o.request.array+o.requests*4, o.answer.events+o.results*uint32(unsafe.Sizeof(uringResult{})))
	const both = unix.PROT_READ | unix.PROT_WRITE
	for _, m := range []struct {
		memory *[]byte
		of     int
		from   int64
		bytes  int
		how    int
		flags  int
	}{
		{&d.queues, d.ring, mapQueues, int(size), both, unix.MAP_SHARED | unix.MAP_POPULATE},
		{&d.requests, d.ring, mapRequests, int(o.requests) * int(unsafe.Sizeof(uringRequest{})), both, unix.MAP_SHARED | unix.MAP_POPULATE},
		{&d.memory, -1, 0, directMemory, both, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS},
		{&d.zeros, -1, 0, zeroStep, unix.PROT_READ, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS},
	} {
		if *m.memory, err = unix.Mmap(m.of, m.from, m.bytes, m.how, m.flags); err != nil {
			return os.NewSyscallError("mmap", err)
		}
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	d.done = os.NewFile(uintptr(fd), "eventfd")
	if d.wait, err = d.done.SyscallConn(); err != nil {
		return err
	}
	tell := int32(fd)
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(d.ring), registerEventfd, uintptr(unsafe.Pointer(&tell)), 1, 0, 0); errno != 0 {
		return os.NewSyscallError("io_uring_register", errno)
	}
	return nil
}

// Close waits for a write under way. Files that are open may be closed later, and can
// be written no more.
func (d *asyncIO) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	if d.done != nil {
		d.done.Close()
	}
	for _, m := range []*[]byte{&d.queues, &d.requests, &d.memory, &d.zeros} {
		if *m != nil {
			unix.Munmap(*m)
			*m = nil
		}
	}
	return unix.Close(d.ring)
}

func (d *asyncIO) open(path string) (directFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, noDirectIO(err)
	}
	return &asyncFile{File: f, io: d}, nil
}

// noDirectIO makes errNoDirectIO of what says that a write cannot be one of these: it
// is not taken so by the file system (EINVAL, EOPNOTSUPP), the process may not
// (ENOSYS, EPERM), the kernel has no memory for it now (EAGAIN, ENOMEM), or it was broken
// off, by a signal (EINTR) or the end of the thread that asked for it (ECANCELED).
func noDirectIO(err error) error {
	for _, errno := range []syscall.Errno{unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS, unix.EPERM, unix.EAGAIN, unix.ENOMEM, unix.EINTR, unix.ECANCELED} {
		if errors.Is(err, errno) {
			return fmt.Errorf("%w: %w", errNoDirectIO, err)
		}
	}
	return err
}

type asyncFile struct {
	*os.File
	io *asyncIO
}

func (f *asyncFile) write(at, end int64, parts ...[]byte) error {
	d := f.io
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return &fs.PathError{Op: "write", Path: f.Name(), Err: os.ErrClosed}
	}
	for {
		n := 0
		for n < len(d.memory) && len(parts) > 0 {
			took := copy(d.memory[n:], parts[0])
			n += took
			if parts[0] = parts[0][took:]; len(parts[0]) == 0 {
				parts = parts[1:]
			}
		}
		whole := (n + blockBytes - 1) / blockBytes * blockBytes
		clear(d.memory[n:whole])
		zeros := 0
		if len(parts) == 0 {
			zeros = int(min(end-at-int64(whole), int64(len(d.zeros))))
		}
		if whole+zeros == 0 {
			return nil
		}
		if err := d.writeBlocks(f.File, at, d.memory[:whole], d.zeros[:zeros]); err != nil {
			return noDirectIO(err)
		}
		if at += int64(whole + zeros); at == end {
			return nil
		}
	}
}

// writeBlocks writes two pieces of mapped memory.
func (d *asyncIO) writeBlocks(f *os.File, at int64, blocks, zeros []byte) error {
	n := 0
	for _, b := range [][]byte{blocks, zeros} {
		if len(b) > 0 {
			d.parts[n].Base = &b[0]
			d.parts[n].SetLen(len(b))
			n++
		}
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var res int32
	cerr := conn.Control(func(fd uintptr) { // keeps it open
		request := uringRequest{
			opcode: opWritev, rwFlags: unix.RWF_DSYNC, fd: int32(fd), offset: uint64(at),
			parts: uint64(uintptr(unsafe.Pointer(&d.parts[0]))), count: uint32(n),
		}
		if mutant.On("direct-unsynced") {
			request.rwFlags = 0
		}
		res = d.submit(request)
	})
	switch {
	case cerr != nil:
		return &fs.PathError{Op: "write", Path: f.Name(), Err: os.ErrClosed}
	case res < 0:
		return &fs.PathError{Op: "write", Path: f.Name(), Err: syscall.Errno(-res)}
	case int(res) != len(blocks)+len(zeros):
		// A full disk, or a signal: what is written another way shows which.
		return fmt.Errorf("%w: %w", errNoDirectIO, &fs.PathError{Op: "write", Path: f.Name(), Err: io.ErrShortWrite})
	}
	return nil
}

// submit has a request done and returns its result. When it returns the kernel reads
// the memory no more.
func (d *asyncIO) submit(request uringRequest) int32 {
	submitted := false
	var refused syscall.Errno
	err := d.wait.Read(func(uintptr) bool {
		// The runtime has forgotten what it had heard of the eventfd right before the
		// first time, and remembers what it hears from then on: the end of the write
		// cannot be missed. Nobody reads the eventfd: it is told of each time that it is
		// added to (epoll, edge-triggered), and it takes 2⁶⁴ writes to be full.
		if !submitted {
			refused = d.enter(request)
			submitted = refused == 0
			return !submitted
		}
		return d.reap()
	})
	for err != nil && submitted && !d.reap() {
		// It cannot be waited for, which does not happen; it is under way all the same.
		unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(d.ring), 0, 1, enterForResults, 0, 0)
	}
	runtime.KeepAlive(d)
	switch {
	case refused != 0:
		return -int32(refused)
	case !submitted:
		return -int32(unix.EIO)
	}
	return d.result
}

// word is a number in the queues, which the kernel reads or writes as well.
func (d *asyncIO) word(offset uint32) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&d.queues[offset]))
}

// enter gives the kernel a request. There is none under way, so the queue is empty.
func (d *asyncIO) enter(request uringRequest) syscall.Errno {
	at := &d.offsets.request
	tail := d.word(at.tail).Load()
	slot := tail & d.word(at.mask).Load()
	*(*uringRequest)(unsafe.Pointer(&d.requests[uintptr(slot)*unsafe.Sizeof(request)])) = request
	d.word(at.array + 4*slot).Store(slot)
	d.word(at.tail).Store(tail + 1)
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(d.ring), 1, 0, 0, 0, 0)
		switch {
		case d.word(at.head).Load() != tail:
			return 0 // taken, whatever it says
		case errno == unix.EINTR:
			continue
		case errno == 0:
			errno = unix.EAGAIN
		}
		d.word(at.tail).Store(tail) // nobody is to take it later
		return errno
	}
}

// reap takes the result, where it is there.
func (d *asyncIO) reap() bool {
	at := &d.offsets.answer
	head := d.word(at.head).Load()
	if d.word(at.tail).Load() == head {
		return false
	}
	slot := head & d.word(at.mask).Load()
	d.result = (*uringResult)(unsafe.Pointer(&d.queues[uintptr(at.events)+uintptr(slot)*unsafe.Sizeof(uringResult{})])).result
	d.word(at.head).Store(head + 1)
	return true
}
