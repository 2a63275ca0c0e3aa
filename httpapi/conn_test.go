package httpapi

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
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
// more than net/http's buffer. What is long is not copied for that: over this connection,
// which is not TCP's own, it is written by itself, between what comes before and behind it.
func TestFramesGoOutInOneWrite(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	counted := &countedListener{Listener: l}
	served := make(chan error, 1)
	go func() { served <- d.srv.Serve(counted) }()
	w := openWatch(t, d.client, l.Addr().String(), "key=k")
	require.Equal(t, "synced", w.next().Type)
	for size, writes := range map[int]int{1: 1, 4 << 10: 1, 12 << 10: 1, spillBytes - 1<<10: 3} {
		before := counted.writes.Load()
		d.node.put(t, "k", strings.Repeat("v", size))
		require.Len(t, w.next().Events[0].Value, size)
		// A frame can be read before the last of its writes. Once the next one
		// is there all were counted.
		d.node.put(t, "k", "")
		require.Empty(t, w.next().Events[0].Value)
		require.EqualValues(t, writes+1, counted.writes.Load()-before, "%d bytes", size)
	}
}

// An answer goes out in one write, also where it is more than net/http's buffer: a
// value, a page, what reads of a batch return, and each piece of what is longer. What
// is long goes out by itself here, as above.
func TestAnswersGoOutInOneWrite(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	counted := &countedListener{Listener: l}
	go func() { _ = d.srv.Serve(counted) }()
	for i := range 40 {
		d.node.put(t, fmt.Sprintf("k/%02d", i), strings.Repeat("v", 1000))
	}
	d.node.put(t, "empty", "")
	d.node.put(t, "short", strings.Repeat("v", 3<<10))
	d.node.put(t, "long", strings.Repeat("v", 1<<20))
	for _, c := range []struct {
		target       string
		bytes, calls int
	}{
		{"/v1/kv/empty", 0, 1},
		{"/v1/kv/short", 3 << 10, 1},
		{"/v1/kv/long", 1 << 20, 2},
		{"/v1/kv?prefix=k/&limit=3", 3_000, 1},
		{"/v1/kv?prefix=k/&limit=4", 4_000, 1},
		{"/v1/kv?prefix=k/&limit=10", 10_000, 1},
		{"/v1/kv?prefix=k/", 40_000, 2},
		{"/v1/kv?prefix=long", 1 << 20, 4}, // one piece, and the last chunk behind it
	} {
		before := counted.writes.Load()
		resp, err := d.client.Get("http://" + l.Addr().String() + c.target)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode)
		require.GreaterOrEqual(t, len(body), c.bytes)
		// The end of the body, read, was written.
		require.EqualValues(t, c.calls, counted.writes.Load()-before, c.target)
	}
}

// recordedConn keeps what is written to it.
type recordedConn struct {
	net.Conn
	written [][]byte
}

func (c *recordedConn) Write(p []byte) (int, error) {
	c.written = append(c.written, bytes.Clone(p))
	return len(p), nil
}

// What is long is not copied to go out with what was held back before it, over no
// kind of connection, and comes in its order.
func TestCorkHoldsNothingLong(t *testing.T) {
	nc := &recordedConn{}
	c := &conn{Conn: nc, answering: true, corked: &buffer{}}
	long := bytes.Repeat([]byte("v"), 4<<20)
	for _, p := range [][]byte{[]byte("head"), []byte("er"), long, long[:corkBytes], []byte("end")} {
		n, err := c.Write(p)
		require.NoError(t, err)
		require.Equal(t, len(p), n)
		require.Less(t, cap(c.corked.b), corkBytes)
	}
	require.NoError(t, c.uncork())
	require.Len(t, nc.written, 4)
	require.Equal(t, "header", string(nc.written[0]))
	require.True(t, bytes.Equal(long, nc.written[1]))
	require.Len(t, nc.written[2], corkBytes)
	require.Equal(t, "end", string(nc.written[3]))
}
