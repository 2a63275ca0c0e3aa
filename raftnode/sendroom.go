package raftnode

import (
	"net"
	"syscall"
)

// unknownRoom is what a connection is taken to have room for that does not say.
const unknownRoom = 64 << 10

// sendRoom is how many bytes can be written to a connection without waiting for the
// other end, where all that was written before has arrived: half of the send buffer,
// since the kernel counts what it keeps beside the bytes as well (socket(7), SO_SNDBUF). The buffer
// of a TCP connection grows as it is used, and is not made larger here: one that is
// set does not grow.
func sendRoom(conn net.Conn) int {
	for {
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = over.NetConn()
	}
	sys, ok := conn.(syscall.Conn)
	if !ok {
		return unknownRoom
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return 0 // closed
	}
	room := 0
	if err := raw.Control(func(fd uintptr) { room = sendBuffer(fd) / 2 }); err != nil {
		return 0
	}
	return room
}
