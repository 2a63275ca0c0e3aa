package raftnode

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// fdatasync syncs a file's data, and of its inode what it takes to read the
// data back.
func fdatasync(f segmentFile) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := conn.Control(func(fd uintptr) {
		for { // as os.File.Sync does
			if err = unix.Fdatasync(int(fd)); err != unix.EINTR {
				return
			}
		}
	})
	if err == nil {
		err = cerr
	}
	if err != nil {
		return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}
