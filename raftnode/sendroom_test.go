package raftnode

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
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

	of := sendRoomOf(conn)
	room := of.bytes()
	require.Contains(t, []int{20 << 10, 40 << 10}, room) // Linux doubles what is asked for
	require.Equal(t, room, sendRoomOf(trackedConn{tls.Client(conn, &tls.Config{}), nil}).bytes())
	require.Zero(t, testing.AllocsPerRun(100, func() { of.bytes() }))
	_, err = conn.Write(make([]byte, room))
	require.NoError(t, err)
	_, err = io.ReadFull(other, make([]byte, room))
	require.NoError(t, err)

	inMemory, _ := net.Pipe()
	require.Equal(t, unknownRoom, sendRoomOf(inMemory).bytes())
	require.NoError(t, conn.Close())
	require.Zero(t, of.bytes())
}

// A frame goes out early where the connection to the follower takes it at once, and
// else when raft asks, both over TCP: a connection says how much that is, whatever
// the port and the stream keep it in.
func TestEarlyRequestNeedsRoom(t *testing.T) {
	for name, c := range map[string]struct {
		buffer, size int
		early        bool
	}{
		"more than a small buffer": {40 << 10, 50 << 10, false}, // less than unknownRoom
		"less than a small buffer": {40 << 10, 8 << 10, true},
		"less than a large buffer": {1 << 20, 100 << 10, true}, // more than unknownRoom
	} {
		t.Run(name, func(t *testing.T) {
			ports := map[string]*peerPort{}
			for _, id := range []string{"n1", "n2"} {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				p := newPeerPort(ln, "c1", id, testLog(t))
				p.address = func(to string) (string, error) { return ports[to].ln.Addr().String(), nil }
				p.dialTo = func(ctx context.Context, address string) (net.Conn, error) {
					conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
					if err != nil {
						return nil, err
					}
					return conn, conn.(*net.TCPConn).SetWriteBuffer(c.buffer)
				}
				ports[id] = p
				t.Cleanup(p.close)
			}
			n1, leader := transportsOver(t, ports["n1"], ports["n2"])
			ports["n1"].start()
			n1.setState(func() raft.RaftState { return raft.Follower }, func() uint64 { return 0 })
			leads := func() uint64 { return 5 }
			leader.leads.Store(&leads)
			var requests atomic.Int64
			to := &follower{to: n1, answer: func(_ int, req *raft.AppendEntriesRequest) (*raft.AppendEntriesResponse, error) {
				requests.Add(1)
				return &raft.AppendEntriesResponse{Term: req.Term, LastLog: end(req).index, Success: true}, nil
			}}
			go to.run()
			require.NoError(t, appendTo(leader, raftRequest(5)))

			entry := entryOf(6, 5, 5, strings.Repeat("v", c.size))
			early5(leader, entry)
			require.Equal(t, c.early, (*leader.appends.all.Load())[0].sent != nil)
			var resp raft.AppendEntriesResponse
			require.NoError(t, leader.AppendEntries("n1", "n1", raftRequest(5, entry), &resp))
			require.True(t, resp.Success)
			require.EqualValues(t, 6, resp.LastLog)
			require.EqualValues(t, 2, requests.Load())
		})
	}
}
