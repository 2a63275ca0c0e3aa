package raftnode

import (
	"net"
	"syscall"
)

// unknownRoom is what a connection is taken to have room for that does not say.
const unknownRoom = 64 << 10

// sendRoom says how many bytes can be written to a connection without waiting for the
// other end, where all that was written before has arrived: half of the send buffer,
// since the kernel counts what it keeps beside the bytes as well (socket(7), SO_SNDBUF). The buffer
// of a TCP connection grows as it is used, and is not made larger here: one that is
// set does not grow. So it is asked for each time, which allocates nothing.
type sendRoom struct {
	raw    syscall.RawConn // nil where the connection does not say
	look   func(fd uintptr)
	buffer int // what look saw
}

// sendRoomOf finds the socket of a connection, under whatever that is wrapped in.
func sendRoomOf(conn net.Conn) *sendRoom {
	for {
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = over.NetConn()
	}
	r := &sendRoom{}
	r.look = func(fd uintptr) { r.buffer = sendBuffer(fd) }
	if sys, ok := conn.(syscall.Conn); ok {
		r.raw, _ = sys.SyscallConn() // an error only where there is no socket
	}
	return r
}

// bytes is the number; 0 for a connection that is closed. One caller at a time.
func (r *sendRoom) bytes() int {
	if r.raw == nil {
		return unknownRoom
	}
	if r.raw.Control(r.look) != nil {
		return 0
	}
	return r.buffer / 2
}
