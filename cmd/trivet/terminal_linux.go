package main

import (
	"os"
	"syscall"
	"unsafe"
)

// isTerminal says that the file is a terminal.
func isTerminal(f *os.File) bool {
	var settings syscall.Termios
	return terminalControl(f, syscall.TCGETS, unsafe.Pointer(&settings)) == nil
}

// foreground returns the process group that the terminal belongs to.
func foreground(tty *os.File) (group int, err error) {
	var id int32
	err = terminalControl(tty, syscall.TIOCGPGRP, unsafe.Pointer(&id))
	return int(id), err
}

// setForeground gives the terminal to a process group. Where the caller's own
// does not have it, the caller must ignore SIGTTOU meanwhile.
func setForeground(tty *os.File, group int) error {
	id := int32(group)
	return terminalControl(tty, syscall.TIOCSPGRP, unsafe.Pointer(&id))
}

func terminalControl(f *os.File, request uintptr, argument unsafe.Pointer) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(argument))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}
