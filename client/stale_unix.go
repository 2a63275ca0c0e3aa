//go:build unix

package client

import (
	"net"
	"syscall"
)

// stale says that an idle connection cannot be used again: the other end has closed it,
// or said something that nobody asked for. It looks without waiting. A connection of
// another kind than the system's is taken for a good one.
func stale(conn net.Conn) bool {
	if counted, ok := conn.(*countedConn); ok {
		conn = counted.Conn
	}
	sys, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return true
	}
	bad := true
	var b [1]byte
	err = raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		bad = err != syscall.EAGAIN && err != syscall.EWOULDBLOCK && err != syscall.EINTR
	})
	return err != nil || bad
}
