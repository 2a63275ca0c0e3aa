//go:build unix

package raftnode

import "syscall"

// sendBuffer is the size of a socket's send buffer, 0 where it has none.
func sendBuffer(fd uintptr) int {
	n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
	if err != nil {
		return 0
	}
	return n
}
