package httpapi

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// countedListener counts the writes to its connections: system calls.
type countedListener struct {
	net.Listener
	writes atomic.Int64
}

func (l *countedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return &countedConn{nc, &l.writes}, err
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// What a watch has to say at one time goes out in one write, also where it is
// more than net/http's buffer.
func TestFramesGoOutInOneWrite(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	counted := &countedListener{Listener: l}
	served := make(chan error, 1)
	go func() { served <- d.srv.Serve(counted) }()
	w := openWatch(t, d.client, l.Addr().String(), "key=k")
	require.Equal(t, "synced", w.next().Type)
	for _, size := range []int{1, 4 << 10, spillBytes - 1<<10} {
		before := counted.writes.Load()
		d.node.put(t, "k", strings.Repeat("v", size))
		require.Len(t, w.next().Events[0].Value, size)
		// A frame can be read before the last of its writes. Once the next one
		// is there all were counted.
		d.node.put(t, "k", "")
		require.Empty(t, w.next().Events[0].Value)
		require.EqualValues(t, 2, counted.writes.Load()-before, "%d bytes", size)
	}
}
