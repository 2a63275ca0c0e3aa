package raftnode

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// A TCP connection says what it has room for, under whatever it is wrapped in, and takes
// that much while nobody reads.
func TestSendRoom(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	conn, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	other, err := ln.Accept()
	require.NoError(t, err)
	defer other.Close()
	require.NoError(t, conn.(*net.TCPConn).SetWriteBuffer(40<<10))

	room := sendRoom(conn)
	require.Contains(t, []int{20 << 10, 40 << 10}, room) // Linux doubles what is asked for
	require.Equal(t, room, sendRoom(trackedConn{tls.Client(conn, &tls.Config{}), nil}))
	_, err = conn.Write(make([]byte, room))
	require.NoError(t, err)
	_, err = io.ReadFull(other, make([]byte, room))
	require.NoError(t, err)

	inMemory, _ := net.Pipe()
	require.Equal(t, unknownRoom, sendRoom(inMemory))
	require.NoError(t, conn.Close())
	require.Zero(t, sendRoom(conn))
}
