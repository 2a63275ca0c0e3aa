package httpapi

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// gate is a node whose reads wait until the test lets them.
func gate() (node *soloNode, entered, leave chan struct{}) {
	node, entered, leave = newSoloNode(), make(chan struct{}, 16), make(chan struct{})
	node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) {
		entered <- struct{}{}
		<-leave
		return raftnode.Proof{}, nil
	}
	return node, entered, leave
}

func TestConfigs(t *testing.T) {
	cfg, err := Config{}.withDefaults()
	require.NoError(t, err)
	require.Equal(t, 1<<20, cfg.MaxValueBytes)
	require.Equal(t, 10*time.Minute, cfg.StreamTimeout)
	for name, cfg := range map[string]Config{
		"negative":                   {MaxConns: -1},
		"a negative time":            {BodyTimeout: -1},
		"headers without a key":      {MaxHeaderBytes: 100},
		"values past the hard limit": {MaxValueBytes: 5 << 20},
		"less than one body":         {MaxHeldBytes: 100},
	} {
		_, err := New(newSoloNode(), cfg)
		require.ErrorContains(t, err, "httpapi: ", name)
	}
}

func TestBodiesThatAreTooLarge(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{MaxValueBytes: 10, MaxDocumentBytes: 30})
	require.Equal(t, 201, d.do("PUT", "/v1/kv/a", "0123456789").status)
	p := d.do("PUT", "/v1/kv/a", "0123456789a").requireProblem(t, trivetpb.Code_TOO_LARGE)
	require.EqualValues(t, 10, *p.Limit)
	require.Equal(t, "not_applied", p.Outcome)
	for _, path := range []string{"/v1/txn", "/v1/batch"} {
		p = d.do("POST", path, strings.Repeat(" ", 31)).requireProblem(t, trivetpb.Code_TOO_LARGE)
		require.EqualValues(t, 30, *p.Limit)
	}
	p = d.do("POST", "/v1/batch", `{"ops":[{"op":"get","key":"`).requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Contains(t, p.Detail, "the end of the string")

	chunked := func(body string) response {
		c := d.dial()
		c.send("PUT /v1/kv/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
		return c.receive("PUT")
	}
	require.Equal(t, 201, chunked("5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n").status)
	p = chunked("5\r\n01234\r\n6\r\n56789a\r\n").requireProblem(t, trivetpb.Code_TOO_LARGE)
	require.EqualValues(t, 10, *p.Limit)
	require.Equal(t, "0123456789", d.do("GET", "/v1/kv/c", "").body)

	// A body that is refused by its length is not even asked for.
	c := d.dial()
	c.send("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n")
	c.receive("PUT").requireProblem(t, trivetpb.Code_TOO_LARGE)
	c.requireClosed()
	require.EqualValues(t, 0, d.srv.held.held.Load())
}

func TestValuesInDocumentsHaveTheSameLimit(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{MaxValueBytes: 4})
	p := d.do("POST", "/v1/txn", `{"then":[{"op":"put","key":"a","value":"12345"}]}`).requireProblem(t, trivetpb.Code_TOO_LARGE)
	require.EqualValues(t, 4, *p.Limit)
	r := d.do("POST", "/v1/batch", `{"ops":[{"op":"put","key":"a","value":"12345"},{"op":"put","key":"a","value":"1234"}]}`)
	require.Contains(t, r.body, `"results":[{"status":413,`)
	require.Contains(t, r.body, `{"status":201,`)
}

func TestBodiesThatDoNotCome(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{BodyTimeout: 20 * time.Millisecond})
	for _, head := range []string{"Content-Length: 5\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nabc"} {
		c := d.dial()
		c.send("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n" + head)
		p := c.receive("PUT").requireProblem(t, trivetpb.Code_BAD_REQUEST)
		require.Contains(t, p.Detail, "20ms")
		require.Equal(t, "not_applied", p.Outcome)
		c.requireClosed()
	}
	// Nor where nobody reads the body.
	for _, line := range []string{"GET /v1/kv/a", "POST /none", "PATCH /v1/kv", "POST /v1/kv/a?add=1"} {
		c := d.dial()
		c.send(line + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc")
		require.GreaterOrEqual(t, c.receive("GET").status, 400)
		c.requireClosed()
	}
	require.EqualValues(t, 1, d.node.data.Revision())
	require.EqualValues(t, 0, d.srv.held.held.Load())
	// A body that is cut off.
	c := d.dial()
	c.send("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")
	p := c.receive("PUT").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Contains(t, p.Detail, "whole")
}

// The deadline of the body does not cut the wait for the cluster behind it.
func TestTheBodysDeadlineEndsWithTheBody(t *testing.T) {
	node := newSoloNode()
	node.onPropose = func(ctx context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond): // well past the deadline
		}
		return node.apply(commands, nil)
	}
	d := openDoor(t, node, Config{BodyTimeout: 10 * time.Millisecond})
	c := d.dial()
	for range 2 {
		c.send("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")
		require.Less(t, c.receive("PUT").status, 300)
	}
}

func TestHeadersThatDoNotCome(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{HeaderTimeout: 10 * time.Millisecond, IdleTimeout: 10 * time.Millisecond})
	c := d.dial()
	c.send("GET /livez HTTP/1.1\r\nHost:")
	c.requireClosed()
	// Nor does what could yet become HTTP/2, or nothing at all, hold a connection.
	for _, start := range []string{"", "G", "PRI * HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM"} {
		c := d.dial()
		c.send(start)
		_, err := io.Copy(io.Discard, c.in) // a refusal, or nothing
		require.NoError(t, err)
	}
	idle := d.dial()
	idle.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Equal(t, 200, idle.receive("GET").status)
	idle.requireClosed()
}

func TestTooManyRequests(t *testing.T) {
	node, entered, leave := gate()
	d := openDoor(t, node, Config{MaxRequests: 2})
	done := make(chan int, 2)
	for range 2 {
		go func() { done <- d.do("GET", "/v1/kv", "").status }()
	}
	<-entered
	<-entered
	r := d.do("PUT", "/v1/kv/a", "1")
	require.Equal(t, "not_applied", r.requireProblem(t, trivetpb.Code_OVERLOADED).Outcome)
	require.Equal(t, "1", r.header.Get("Retry-After"))
	for _, path := range []string{"/livez", "/readyz", "/v1/status", "/v1/openapi.json"} {
		require.Equal(t, 200, d.do("GET", path, "").status, "%s answers an overloaded node too", path)
	}
	close(leave)
	require.Equal(t, 200, <-done)
	require.Equal(t, 200, <-done)
	require.Equal(t, 201, d.do("PUT", "/v1/kv/a", "1").status)
}

func TestTooManyBytes(t *testing.T) {
	node, entered, leave := gate()
	d := openDoor(t, node, Config{MaxValueBytes: 100, MaxDocumentBytes: 100, MaxHeldBytes: 150})
	txn := `{"then":[{"op":"get","key":"a"}]}`
	txn += strings.Repeat(" ", 100-len(txn))
	done := make(chan int, 1)
	go func() { done <- d.do("POST", "/v1/txn", txn).status }()
	<-entered
	d.do("PUT", "/v1/kv/a", strings.Repeat("v", 51)).requireProblem(t, trivetpb.Code_OVERLOADED)
	require.Equal(t, 201, d.do("PUT", "/v1/kv/a", strings.Repeat("v", 50)).status)
	c := d.dial()
	c.send("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
	c.receive("PUT").requireProblem(t, trivetpb.Code_OVERLOADED)
	close(leave)
	require.Equal(t, 200, <-done)
	require.Eventually(t, func() bool { return d.srv.held.held.Load() == 0 }, waitAtMost, waitStep)
	require.Equal(t, 200, d.do("PUT", "/v1/kv/a", strings.Repeat("v", 100)).status)
}

func TestTooManyConnections(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{MaxConns: 2})
	var conns []*rawConn
	for range 2 {
		c := d.dial()
		c.send("GET /v1/kv HTTP/1.1\r\nHost: x\r\n\r\n")
		require.Equal(t, 200, c.receive("GET").status)
		conns = append(conns, c)
	}
	surplus := d.dial()
	surplus.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\nPUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")
	require.Equal(t, 200, surplus.receive("GET").status, "a health check is answered")
	surplus.receive("PUT").requireProblem(t, trivetpb.Code_OVERLOADED)
	surplus.requireClosed()
	require.Eventually(t, func() bool { return d.srv.conns.Load() == 2 }, waitAtMost, waitStep)
	// One whose first request is a simple one, too.
	surplus = d.dial()
	surplus.send("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")
	surplus.receive("PUT").requireProblem(t, trivetpb.Code_OVERLOADED)
	surplus.requireClosed()
	require.Eventually(t, func() bool { return d.srv.conns.Load() == 2 }, waitAtMost, waitStep)

	// Past the surplus the next one waits, and is served once there is room.
	second := d.dial()
	second.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
	require.Equal(t, 200, second.receive("GET").status)
	waiting := d.dial()
	waiting.send("GET /v1/kv HTTP/1.1\r\nHost: x\r\n\r\n")
	conns[0].Conn.Close()
	second.Conn.Close()
	require.Contains(t, []int{200, 429}, waiting.receive("GET").status)
	require.LessOrEqual(t, d.srv.conns.Load(), int64(3))
}

// A server that waits for room can be stopped, and a listener that fails is said.
func TestServeEnds(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{MaxConns: 1})
	for range 2 {
		c := d.dial()
		c.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		require.Equal(t, 200, c.receive("GET").status)
	}
	d.dial() // for this one Accept has no room: the end of the test closes it

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	s, err := New(newSoloNode(), Config{})
	require.NoError(t, err)
	require.ErrorIs(t, s.Serve(l), net.ErrClosed)
	require.NoError(t, s.Shutdown(context.Background()))
	require.NoError(t, s.Serve(l), "after Shutdown there is nothing to serve")
}

func TestDraining(t *testing.T) {
	node, entered, leave := gate()
	d := openDoor(t, node, Config{})
	done := make(chan response, 1)
	go func() { done <- d.do("GET", "/v1/kv", "") }()
	<-entered
	d.srv.Drain()
	for _, call := range []struct{ method, path string }{
		{"GET", "/v1/kv/a"}, {"PUT", "/v1/kv/a"}, {"DELETE", "/v1/kv/a"}, {"GET", "/v1/kv"}, {"POST", "/v1/txn"}, {"POST", "/v1/batch"}, {"GET", "/v1/cluster"},
		{"POST", "/v1/leases"}, {"GET", "/v1/locks/l"}, {"POST", "/v1/locks/l"}, {"POST", "/v1/sessions"}, {"GET", "/v1/snapshot"}, {"PUT", "/v1/snapshot"},
	} {
		r := d.do(call.method, call.path, "")
		require.Equal(t, "not_applied", r.requireProblem(t, trivetpb.Code_DRAINING).Outcome)
	}
	r := d.do("GET", "/readyz", "")
	require.Equal(t, 503, r.status)
	require.Equal(t, `{"ready":false,"reasons":["draining"]}`+"\n", r.body)
	require.Equal(t, 200, d.do("GET", "/livez", "").status)
	require.Equal(t, 200, d.do("GET", "/v1/status", "").status)

	// Shutdown waits for what is under way.
	stopped := make(chan error, 1)
	go func() { stopped <- d.srv.Shutdown(context.Background()) }()
	<-d.srv.stopping
	close(leave)
	require.Equal(t, 200, (<-done).status)
	require.NoError(t, <-stopped)
}

func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	node := newSoloNode()
	entered := make(chan struct{})
	node.onRead = func(ctx context.Context, _ raftnode.ReadOptions) (raftnode.Proof, error) {
		close(entered)
		<-ctx.Done()
		return raftnode.Proof{}, ctx.Err()
	}
	d := openDoor(t, node, Config{})
	failed := make(chan error, 1)
	go func() {
		resp, err := d.client.Get("http://" + d.addr + "/v1/kv?timeout=1m")
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, d.srv.Shutdown(ctx), context.Canceled)
	require.Error(t, <-failed)
}

// A caller in the same process has no connection and no deadlines.
func TestInProcess(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	serve := func(method, path, body string) response {
		w := httptest.NewRecorder()
		d.srv.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		resp := w.Result()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return d.check(method, response{resp.StatusCode, resp.Header, string(b)})
	}
	require.Equal(t, 201, serve("PUT", "/v1/kv/a", "1").status)
	require.Equal(t, "1", serve("GET", "/v1/kv/a", "").body)
	require.Equal(t, `"2"`, serve("HEAD", "/v1/kv/a", "").header.Get("ETag"))
	require.Equal(t, http.StatusNotFound, serve("HEAD", "/v1/kv/b", "").status)
}

func TestStatus(t *testing.T) {
	node := newSoloNode()
	node.put(t, "a", "12345")
	d := openDoor(t, node, Config{})
	require.JSONEq(t, `{"node":"n1","cluster":"c-test","role":"leader","leader":"n1","term":3,"commit_index":1,"applied_index":1,
		"revision":2,"compact_revision":1,"state_hash":"0000000000000abc","keys":1,"bytes":134,"watchers":0,"uptime":"1m30s","version":"v0"}`,
		d.do("GET", "/v1/status", "").body)
	require.JSONEq(t, `{"cluster":"c-test","leader":"n1","term":3,"members":[
		{"id":"n1","api":"127.0.0.1:7071","peer":"127.0.0.1:7171","role":"voter","leader":true,"healthy":true,"applied_index":7,"lag":0,"last_contact_ms":0,"version":"v0"},
		{"id":"n2","api":"","peer":"127.0.0.1:7172","role":"replica","leader":false,"healthy":false,"applied_index":0,"lag":7,"last_contact_ms":null,"version":""}]}`,
		d.do("GET", "/v1/cluster", "").body)
	require.Equal(t, `{"live":true}`+"\n", d.do("GET", "/livez", "").body)
	require.Equal(t, `{"ready":true,"reasons":[]}`+"\n", d.do("GET", "/readyz?max_lag=5", "").body)
	d.do("GET", "/readyz", "")
	require.Equal(t, []uint64{5, 0}, node.lagged)
}

func TestNodesThatCannotServe(t *testing.T) {
	node := newSoloNode()
	node.reasons = []string{"no leader is known", `"x"`}
	node.failed = "the state differs from the leader's"
	d := openDoor(t, node, Config{})
	r := d.do("GET", "/readyz", "")
	require.Equal(t, 503, r.status)
	require.Equal(t, `{"ready":false,"reasons":["no leader is known","\"x\""]}`+"\n", r.body)
	require.Contains(t, d.do("GET", "/v1/status", "").body, `"failed":"the state differs from the leader's"`)
	require.Equal(t, 503, d.do("HEAD", "/readyz", "").status)
}
