package httpapi

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// A node that is about to stop serves everything, says so to load balancers, and
// closes each connection behind an answer, never between two.
func TestLeaving(t *testing.T) {
	node, entered, leave := gate()
	d := openDoor(t, node, Config{})
	type keeper struct {
		net.Conn
		answers *bufio.Reader
	}
	dial := func() *keeper {
		c, err := net.Dial("tcp", d.addr)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return &keeper{c, bufio.NewReader(c)}
	}
	send := func(c *keeper, request string) {
		t.Helper()
		_, err := c.Write([]byte(request + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))
		require.NoError(t, err)
	}
	closes := func(c *keeper) bool {
		t.Helper()
		resp, err := http.ReadResponse(c.answers, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.Equal(t, 2, resp.StatusCode/100)
		return resp.Close
	}
	slow, quiet := dial(), dial()
	send(slow, "GET /v1/kv")
	<-entered
	send(quiet, "PUT /v1/kv/b")
	require.False(t, closes(quiet), "connections are kept otherwise")

	left := make(chan struct{})
	go func() {
		defer close(left)
		d.srv.Leave(context.Background(), time.Hour)
	}()
	require.Eventually(t, func() bool { return d.srv.leaving.Load() }, time.Minute, time.Millisecond)
	r := d.do("GET", "/readyz", "")
	require.Equal(t, 503, r.status)
	require.Equal(t, `{"ready":false,"reasons":["draining"]}`+"\n", r.body)
	another := dial()
	send(another, "PUT /v1/kv/a")
	require.True(t, closes(another), "come while it leaves")
	close(leave)
	require.True(t, closes(slow), "under way since before")
	select {
	case <-left:
		t.Fatal("there is still a connection")
	default:
	}
	send(quiet, "PUT /v1/kv/b")
	require.True(t, closes(quiet))
	slow.Close()
	quiet.Close()
	another.Close()
	<-left // nobody is left: no need to wait out the hour
	d.srv.Drain()
	r = d.do("PUT", "/v1/kv/a", "2")
	require.Equal(t, "not_applied", r.requireProblem(t, trivetpb.Code_DRAINING).Outcome)
}

// Callers who do not leave are not waited for.
func TestLeavingEnds(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	quiet, err := net.Dial("tcp", d.addr)
	require.NoError(t, err)
	defer quiet.Close()
	require.Eventually(t, func() bool { return d.srv.conns.Load() == 1 }, time.Minute, time.Millisecond)
	d.srv.Leave(context.Background(), time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d.srv.Leave(ctx, time.Hour)
}
