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
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"trivet/internal/mutant"
)

// asyncIO writes by Linux's native asynchronous I/O (io_submit(2)), and learns of the
// end of a write from an eventfd, which Go's runtime waits for as it does for sockets.
// io_uring does the same; it is newer, and is switched off in many containers, where
// this is not.
//
// Memory that the kernel reads while Go runs on is not Go's: it is mapped. What Go
// allocates is given to system calls that are over with it when they return.
type asyncIO struct {
	mu      sync.Mutex
	context uintptr // aio_context_t
	done    *os.File
	doneFD  uint32
	wait    syscall.RawConn // of done

	memory []byte // a batch on its way, in whole blocks
	zeros  []byte // zeroStep of them

	// The request under way and its answer.
	request  iocb
	requests *iocb // io_submit takes a list
	parts    [2]unix.Iovec
	event    ioEvent
}

// iocb is struct iocb of linux/aio_abi.h, where the machine is little-endian.
type iocb struct {
	_        uint64 // data
	_        uint32 // key
	rwFlags  uint32
	opcode   uint16
	_        int16 // priority
	fd       uint32
	buf      uint64
	bytes    uint64
	offset   int64
	_        uint64 // reserved
	flags    uint32
	resultFD uint32
}

// ioEvent is struct io_event.
type ioEvent struct {
	_, _   uint64 // data, request
	result int64  // bytes written, or an error number below 0
	_      int64
}

const (
	cmdPwritev   = 8 // IOCB_CMD_PWRITEV
	flagResultFD = 1 // IOCB_FLAG_RESFD

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
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&d.context)), 0); errno != 0 {
		return nil, os.NewSyscallError("io_setup", errno)
	}
	if err := d.init(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *asyncIO) init() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	d.doneFD, d.done = uint32(fd), os.NewFile(uintptr(fd), "eventfd")
	if d.wait, err = d.done.SyscallConn(); err != nil {
		return err
	}
	const private = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS
	if d.memory, err = unix.Mmap(-1, 0, directMemory, unix.PROT_READ|unix.PROT_WRITE, private); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	if d.zeros, err = unix.Mmap(-1, 0, zeroStep, unix.PROT_READ, private); err != nil {
		return os.NewSyscallError("mmap", err)
	}
	return nil
}

// Close waits for a write under way. Files that are open may be closed later, and can
// be written no more.
func (d *asyncIO) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.context == 0 {
		return nil
	}
	unix.Syscall(unix.SYS_IO_DESTROY, d.context, 0, 0)
	d.context = 0
	if d.done != nil {
		d.done.Close()
	}
	for _, m := range [][]byte{d.memory, d.zeros} {
		if m != nil {
			unix.Munmap(m)
		}
	}
	d.memory, d.zeros = nil, nil
	return nil
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
// (ENOSYS, EPERM), or the kernel has no memory for it now (EAGAIN, ENOMEM).
func noDirectIO(err error) error {
	for _, errno := range []syscall.Errno{unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS, unix.EPERM, unix.EAGAIN, unix.ENOMEM} {
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
	if d.context == 0 {
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
	var res int64
	cerr := conn.Control(func(fd uintptr) { // keeps it open
		d.request = iocb{
			opcode: cmdPwritev, rwFlags: unix.RWF_DSYNC,
			fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&d.parts[0]))), bytes: uint64(n), offset: at,
			flags: flagResultFD, resultFD: d.doneFD,
		}
		if mutant.On("direct-unsynced") {
			d.request.rwFlags = 0
		}
		res = d.submit()
	})
	switch {
	case cerr != nil:
		return &fs.PathError{Op: "write", Path: f.Name(), Err: os.ErrClosed}
	case res < 0:
		return &fs.PathError{Op: "write", Path: f.Name(), Err: syscall.Errno(-res)}
	case res != int64(len(blocks)+len(zeros)):
		return &fs.PathError{Op: "write", Path: f.Name(), Err: io.ErrShortWrite}
	}
	return nil
}

// submit has the request done and returns its result. When it returns the kernel reads
// the memory no more.
func (d *asyncIO) submit() int64 {
	submitted := false
	var refused syscall.Errno
	err := d.wait.Read(func(uintptr) bool {
		// The runtime has forgotten what it had heard of the eventfd right before the
		// first time, and remembers what it hears from then on: the end of the write
		// cannot be missed. Nobody reads the eventfd: it is told of each time that it is
		// added to (epoll, edge-triggered), and it takes 2⁶⁴ writes to be full.
		if !submitted {
			d.requests = &d.request
			_, _, refused = unix.Syscall(unix.SYS_IO_SUBMIT, d.context, 1, uintptr(unsafe.Pointer(&d.requests)))
			submitted = refused == 0
			return !submitted
		}
		return d.reap(0)
	})
	runtime.KeepAlive(d)
	if refused != 0 {
		return -int64(refused)
	}
	if err != nil {
		// It cannot be waited for, which does not happen; it is under way all the same.
		for !d.reap(1) {
		}
	}
	if !submitted {
		return -int64(unix.EIO)
	}
	return d.event.result
}

// reap takes the answer, and waits for it where least is 1.
func (d *asyncIO) reap(least uintptr) bool {
	n, _, _ := unix.Syscall6(unix.SYS_IO_GETEVENTS, d.context, least, 1, uintptr(unsafe.Pointer(&d.event)), 0, 0)
	return n == 1
}
