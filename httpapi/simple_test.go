package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// simple says how many connections of the server are simple ones.
func (d *door) simple() int {
	d.srv.simple.mu.Lock()
	defer d.srv.simple.mu.Unlock()
	return len(d.srv.simple.all)
}

// withoutSimple has net/http serve all connections.
func withoutSimple(s *Server) { s.noSimple = true }

// head is a request without a body.
func head(method, target string, lines ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

func withBody(method, target, body string, lines ...string) string {
	return head(method, target, append(lines, "Content-Length: "+itoa(len(body)))...) + body
}

// What goes through the two servers, ours for simple requests and net/http's for all, is
// answered alike: status, header fields and body of each.
func TestSimpleAsNetHTTP(t *testing.T) {
	long := strings.Repeat("v", 100<<10)
	// stays: the connection is still a simple one behind the last.
	for name, row := range map[string]struct {
		stays    bool
		requests []string
	}{
		"a key": {true, []string{
			withBody("PUT", "/v1/kv/a", "1"), head("GET", "/v1/kv/a"), head("GET", "/v1/kv/a", "Accept: application/json"),
			head("GET", "/v1/kv/a", `If-None-Match: "2"`), head("GET", "/v1/kv/a", `If-Match: "7"`),
			head("POST", "/v1/kv/n?add=5"), head("DELETE", "/v1/kv/a?prev=true"), head("GET", "/v1/kv/a")}},
		"fields once, then none, then others": {true, []string{
			withBody("PUT", "/v1/kv/a", "1", "Idempotency-Key: k"), withBody("PUT", "/v1/kv/a", "1", "Idempotency-Key: k"), withBody("PUT", "/v1/kv/a", "2"),
			withBody("PUT", "/v1/kv/a", "3", `If-Match: "2"`), head("GET", "/v1/kv/a")}},
		"names and values as they come": {true, []string{
			"GET /v1/kv/a HTTP/1.1\r\nhOST:x\r\naccept:  application/json \t\r\nCONNECTION: Keep-Alive\r\nUser-agent:\r\nAuthorization: Bearer t\r\n\r\n"}},
		"keys with escapes": {true, []string{
			withBody("PUT", "/v1/kv/a%2Fb%20c%25", "1"), head("GET", "/v1/kv/a/b%20c%25"), head("GET", "/v1/kv/a/b+c"), head("GET", "/v1/kv/%ff%00"),
			withBody("PUT", "/v1/kv//..//x", "1"), head("GET", "/v1/kv//..//x"), head("GET", "/v1/kv/")}},
		"queries": {true, []string{
			head("GET", "/v1/kv/a?consistency=stale"), head("GET", "/v1/kv/a?"), head("GET", "/v1/kv/a?nonsense=1"), head("GET", "/v1/kv/a?timeout=%zz"),
			head("GET", "/v1/kv/a?timeout=1s&timeout=1s"), head("GET", "/v1/kv?prefix=a?b"), head("GET", "/v1/kv?prefix=%2F")}},
		"documents": {true, []string{
			withBody("POST", "/v1/batch", `{"ops":[{"op":"put","key":"a","value":"1"},{"op":"get","key":"b"}]}`),
			withBody("POST", "/v1/batch", "", "Content-Type: application/x-protobuf"), withBody("POST", "/v1/batch", "{"),
			withBody("POST", "/v1/txn", `{"if":[],"then":[{"op":"get","key":"a"}],"else":[]}`), withBody("POST", "/v1/txn", "", "Content-Encoding: gzip"), head("GET", "/v1/txn")}},
		"long values and pages": {true, []string{
			withBody("PUT", "/v1/kv/a", long), withBody("PUT", "/v1/kv/b", long), head("GET", "/v1/kv/a"), head("GET", "/v1/kv"),
			head("GET", "/v1/kv", "Accept: application/x-ndjson"), head("GET", "/v1/kv?keys_only=true")}},
		"a body that nobody reads": {true, []string{
			withBody("GET", "/v1/kv/a", "body"), withBody("PUT", "/v1/kv/?x=1", long)}},
		"guards that contradict": {true, []string{
			withBody("PUT", "/v1/kv/a", "1", "Trivet-Guard: l;token=1", "Trivet-Guard: l;token=2"), withBody("PUT", "/v1/kv/a", "1", "Trivet-Session: 1;seq=1", "Idempotency-Key: k")}},

		"head":                   {false, []string{head("GET", "/v1/kv/a"), head("HEAD", "/v1/kv/a"), head("GET", "/v1/kv/a")}},
		"another path":           {false, []string{head("GET", "/v1/kv/a"), head("GET", "/v1/leases"), head("GET", "/v1/kv/a")}},
		"no path":                {false, []string{head("GET", "/v1/kvs"), head("GET", "/v1/kv/a")}},
		"an escaped slash":       {false, []string{head("GET", "/v1/kv%2Fa")}},
		"another method":         {false, []string{head("PATCH", "/v1/kv/a"), head("GET", "/v1/kv/a")}},
		"http 1.0":               {false, []string{"GET /v1/kv/a HTTP/1.0\r\n\r\n"}},
		"the connection closes":  {false, []string{head("GET", "/v1/kv/a"), head("GET", "/v1/kv/a", "Connection: close")}},
		"chunks":                 {false, []string{head("PUT", "/v1/kv/a", "Transfer-Encoding: chunked") + "2\r\nab\r\n0\r\n\r\n", head("GET", "/v1/kv/a")}},
		"two lengths":            {false, []string{"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"}},
		"a length and chunks":    {false, []string{"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"}},
		"a length that is none":  {false, []string{"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na"}},
		"no host":                {false, []string{"GET /v1/kv/a HTTP/1.1\r\n\r\n"}},
		"two hosts":              {false, []string{"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"}},
		"a host that is none":    {false, []string{"GET /v1/kv/a HTTP/1.1\r\nHost: x y\r\n\r\n"}},
		"a folded field":         {false, []string{"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nAccept: a\r\n b\r\n\r\n"}},
		"a space behind a name":  {false, []string{"GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n\r\na"}},
		"a bare line feed":       {false, []string{"GET /v1/kv/a HTTP/1.1\nHost: x\n\n"}},
		"a web page":             {false, []string{withBody("PUT", "/v1/kv/a", "1", "Origin: http://elsewhere"), head("GET", "/v1/kv/a")}},
		"a field unknown here":   {false, []string{head("GET", "/v1/kv/a", "Expect: 100-continue")}},
		"a fragment":             {false, []string{head("GET", "/v1/kv/a#b")}},
		"an escape that is none": {false, []string{head("GET", "/v1/kv/a%zz")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			node, plain := newSoloNode(), newSoloNode()
			node.put(t, "first", "")
			plain.put(t, "first", "")
			cfg := Config{MaxHeldBytes: 64 << 20, MaxDocumentBytes: 1 << 20}
			simple, netHTTP := openDoor(t, node, cfg), openDoor(t, plain, cfg, withoutSimple)
			a, b := simple.dial(), netHTTP.dial()
			for i, request := range row.requests {
				a.send(request)
				b.send(request)
				method, _, _ := strings.Cut(request, " ")
				got, want := a.receive(method), b.receive(method)
				require.Equal(t, want.header["Date"] == nil, got.header["Date"] == nil)
				if date := got.header.Get("Date"); date != "" {
					_, err := http.ParseTime(date)
					require.NoError(t, err)
				}
				got.header.Del("Date")
				want.header.Del("Date")
				require.Equal(t, want, got, "request %d", i)
			}
			require.Equal(t, row.stays, simple.simple() == 1)
			require.Zero(t, netHTTP.simple())
			// In one write, all answers come too.
			c := simple.dial()
			c.send(strings.Join(row.requests, ""))
			for i, request := range row.requests {
				method, _, _ := strings.Cut(request, " ")
				resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
				require.NoError(t, err, "request %d", i)
				c.read(method, resp)
				if resp.Close {
					break
				}
			}
		})
	}
}

// A body that comes late is waited for, here and where nobody reads it, and not for
// longer than BodyTimeout.
func TestSimpleBodyInParts(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	c := d.dial()
	for _, target := range []string{"/v1/kv/a", "/v1/kv/a?nonsense=1", "/v1/kv/a"} {
		c.send(head("PUT", target, "Content-Length: 4") + "ab")
		require.Eventually(t, func() bool { return d.srv.underWay.held.Load() == 1 || strings.Contains(target, "?") }, waitAtMost, waitStep)
		c.send("cd")
		r := c.receive("PUT")
		require.Equal(t, strings.Contains(target, "?"), r.status == 400, r.body)
	}
	c.send(head("GET", "/v1/kv/a"))
	require.Equal(t, "abcd", c.receive("GET").body)
	require.Equal(t, 1, d.simple())

	// Who is told that the connection closes is not waited for.
	d.srv.leaving.Store(true)
	c.send(head("PUT", "/v1/kv/a?nonsense=1", "Content-Length: 4") + "ab")
	c.receive("PUT").requireProblem(t, trivetpb.Code_BAD_REQUEST)

	hasty := openDoor(t, newSoloNode(), Config{BodyTimeout: 10 * time.Millisecond})
	for _, target := range []string{"/v1/kv/a", "/v1/kv/a?nonsense=1"} {
		c := hasty.dial()
		c.send(head("PUT", target, "Content-Length: 4") + "ab")
		resp, err := http.ReadResponse(c.in, nil)
		require.NoError(t, err)
		require.True(t, resp.Close)
		c.read("PUT", resp).requireProblem(t, trivetpb.Code_BAD_REQUEST)
		c.requireClosed()
	}
	require.Eventually(t, func() bool { return hasty.srv.conns.Load() == 0 }, waitAtMost, waitStep)
}

// A body that takes longer than the time that the connection may wait has its own time.
func TestSimpleDeadlinesOfOneRequestAreNotThoseOfTheNext(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{HeaderTimeout: time.Minute, BodyTimeout: 50 * time.Millisecond})
	c := d.dial()
	c.send(head("PUT", "/v1/kv/a", "Content-Length: 2") + "a")
	require.Eventually(t, func() bool { return d.srv.underWay.held.Load() == 1 }, waitAtMost, waitStep)
	c.send("b")
	require.Equal(t, 201, c.receive("PUT").status)
	require.Eventually(t, func() bool {
		d.srv.simple.mu.Lock()
		defer d.srv.simple.mu.Unlock()
		for s := range d.srv.simple.all {
			// Where it waits, nobody else changes what is looked at.
			return s.state.Load() == simpleWaits && time.Until(s.readBy) > time.Minute
		}
		return false
	}, waitAtMost, waitStep)
}

// While an answer takes long, the caller's going away ends the wait for the cluster; what
// it sends meanwhile is its next request.
func TestSimpleCallerWhileItWaits(t *testing.T) {
	node, entered, leave := gate()
	d := openDoor(t, node, Config{})
	c := d.dial()
	c.send(head("GET", "/v1/kv/a"))
	<-entered
	s := d.oneSimple(t)
	// It is looked for: otherwise the test would show nothing.
	require.Eventually(t, s.caller.looks, waitAtMost, waitStep)
	c.send(head("GET", "/v1/kv/b"))
	require.Eventually(t, func() bool { return !s.caller.looks() }, waitAtMost, waitStep)
	leave <- struct{}{}
	c.receive("GET").requireProblem(t, trivetpb.Code_KEY_NOT_FOUND)
	<-entered
	require.Eventually(t, s.caller.looks, waitAtMost, waitStep)
	close(leave)
	c.receive("GET").requireProblem(t, trivetpb.Code_KEY_NOT_FOUND)
	for range 3 {
		c.send(head("GET", "/v1/kv/c"))
		c.receive("GET").requireProblem(t, trivetpb.Code_KEY_NOT_FOUND)
	}
	require.Equal(t, 1, d.simple())
}

// looks says that the caller is being looked for.
func (w *callerWatch) looks() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reading && len(w.looked) == 0
}

// oneSimple returns the only connection, once the server has accepted it.
func (d *door) oneSimple(t *testing.T) (one *simpleConn) {
	t.Helper()
	require.Eventually(t, func() bool { return d.simple() == 1 }, waitAtMost, waitStep)
	d.srv.simple.mu.Lock()
	defer d.srv.simple.mu.Unlock()
	for s := range d.srv.simple.all {
		one = s
	}
	return one
}

// Shutdown closes the connections that wait, has those under way close behind their
// answers, and waits for them no longer than it may.
func TestSimpleShutdown(t *testing.T) {
	node, entered, leave := gate()
	d := openDoor(t, node, Config{})
	waits, busy := d.dial(), d.dial()
	waits.send(withBody("PUT", "/v1/kv/a", "1"))
	require.Equal(t, 201, waits.receive("PUT").status)
	busy.send(head("GET", "/v1/kv/a"))
	<-entered
	require.Equal(t, 2, d.simple())
	short, cancel := context.WithCancel(t.Context())
	cancel()
	down := make(chan error, 1)
	go func() { down <- d.srv.Shutdown(t.Context()) }()
	waits.requireClosed()
	require.Eventually(t, func() bool { return d.simple() == 1 }, waitAtMost, waitStep)
	close(leave)
	r := busy.receive("GET")
	require.Equal(t, "1", r.body)
	busy.requireClosed()
	require.NoError(t, <-down)
	require.Zero(t, d.srv.conns.Load())

	node, entered, leave = gate()
	d = openDoor(t, node, Config{})
	busy = d.dial()
	busy.send(head("GET", "/v1/kv/a"))
	<-entered
	require.ErrorIs(t, d.srv.Shutdown(short), context.Canceled)
	busy.requireClosed()
	close(leave)
}

// A node that leaves has each connection closed behind its next answer.
func TestSimpleLeaving(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	c := d.dial()
	for _, leaving := range []bool{false, true} {
		d.srv.leaving.Store(leaving)
		c.send(head("GET", "/v1/kv/a"))
		resp, err := http.ReadResponse(c.in, nil)
		require.NoError(t, err)
		c.read("GET", resp)
		require.Equal(t, leaving, resp.Close)
	}
	c.requireClosed()
}

// Nobody looks for the caller but while a handler runs: who waits for the next request
// reads the same connection.
func TestSimpleNobodyLooksBetweenRequests(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	c := d.dial()
	long := strings.Repeat("a", 2*simpleBuffer)
	for _, request := range []string{
		withBody("PUT", "/v1/kv/a?nonsense=1", long), withBody("PUT", "/v1/kv/a", long), head("GET", "/v1/kv/a"),
	} {
		c.send(request)
		method, _, _ := strings.Cut(request, " ")
		c.receive(method)
		s := d.oneSimple(t)
		require.Eventually(t, func() bool { return s.state.Load() == simpleWaits }, waitAtMost, waitStep)
		require.False(t, s.caller.expected, request[:20])
	}
}

// Who sends several requests and ends that half of the connection gets all answers, also
// where the first takes long.
func TestSimpleHalfClosed(t *testing.T) {
	node, entered, leave := gate()
	node.onRead = func(ctx context.Context, _ raftnode.ReadOptions) (raftnode.Proof, error) {
		entered <- struct{}{}
		<-leave
		return raftnode.Proof{}, ctx.Err()
	}
	d := openDoor(t, node, Config{})
	c := d.dial()
	c.send(head("GET", "/v1/kv/a") + head("GET", "/v1/kv/b"))
	require.NoError(t, c.Conn.(*net.TCPConn).CloseWrite())
	<-entered
	s := d.oneSimple(t)
	require.False(t, s.caller.looks())
	require.False(t, s.caller.timer != nil)
	leave <- struct{}{}
	c.receive("GET").requireProblem(t, trivetpb.Code_KEY_NOT_FOUND)
	close(leave)
}

// The caller is looked for however long the answer takes, and longer than a connection may
// wait for a request.
func TestSimpleCallerOfALongAnswer(t *testing.T) {
	node, entered, leave := gate()
	defer close(leave)
	ended := make(chan error, 1)
	node.onRead = func(ctx context.Context, _ raftnode.ReadOptions) (raftnode.Proof, error) {
		entered <- struct{}{}
		select {
		case <-ctx.Done():
			ended <- ctx.Err()
		case <-leave:
		}
		return raftnode.Proof{}, ctx.Err()
	}
	d := openDoor(t, node, Config{HeaderTimeout: goneAfter, IdleTimeout: goneAfter})
	c := d.dial()
	c.send(head("GET", "/v1/kv/a?timeout=60s"))
	<-entered
	s := d.oneSimple(t)
	require.Eventually(t, s.caller.looks, waitAtMost, waitStep)
	over := time.Now().Add(2 * goneAfter) // the deadline that the connection had is over
	require.Eventually(t, func() bool { return time.Now().After(over) }, waitAtMost, waitStep)
	require.True(t, s.caller.looks())
	require.NoError(t, c.Conn.Close())
	require.ErrorIs(t, <-ended, context.Canceled)
}

// A connection that is new when the server stops still gets an answer.
func TestSimpleNewAtShutdown(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	c, silent := d.dial(), d.dial()
	require.Eventually(t, func() bool { return d.simple() == 2 }, waitAtMost, waitStep)
	down := make(chan error, 1)
	go func() { down <- d.srv.Shutdown(t.Context()) }()
	require.Eventually(t, d.srv.simple.closed.Load, waitAtMost, waitStep)
	c.send(head("GET", "/v1/kv/a"))
	c.receive("GET").requireProblem(t, trivetpb.Code_DRAINING)
	c.requireClosed()
	silent.requireClosed()
	require.NoError(t, <-down)
}

// A handler that panics behind the head of its answer has its connection cut: nothing
// looks like a whole answer.
func TestSimplePanic(t *testing.T) {
	node := newSoloNode()
	for i := range 20 {
		node.put(t, fmt.Sprintf("k%02d", i), strings.Repeat("v", spillBytes/10))
	}
	d := openDoor(t, node, Config{})
	node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) { panic("a defect") }
	c := d.dial()
	for range 2 {
		c.send(head("GET", "/v1/kv/a"))
		c.receive("GET").requireProblem(t, trivetpb.Code_INTERNAL)
	}
	require.Contains(t, d.log.String(), "a defect")

	node.onRead = nil
	rs := *d.srv.simple.keys
	rs.methods = map[string]method{http.MethodGet: {handle: func(c *call) *trivetpb.Problem {
		doc := c.newDocument(jsonType)
		doc.buf.b = append(doc.buf.b, strings.Repeat(" ", spillBytes)...)
		doc.spill()
		panic("another defect")
	}}}
	d = openDoor(t, node, Config{}, func(s *Server) {
		s.metrics.http.serves([]*resource{&rs})
		s.simple.keys = &rs
	})
	c = d.dial()
	c.send(head("GET", "/v1/kv"))
	resp, err := http.ReadResponse(c.in, nil)
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.EqualValues(t, spillBytes, n)
	require.Contains(t, d.log.String(), "another defect")
}

// An answer is one write, of whatever length: the reader has all of it in one turn where the
// network does.
func TestSimpleAnswersGoOutInOneWrite(t *testing.T) {
	node := newSoloNode()
	node.put(t, "short", "v", "long", strings.Repeat("v", 32<<10))
	d := openDoor(t, node, Config{})
	c := d.dial()
	s := d.oneSimple(t)
	for key, size := range map[string]int{"short": 1, "long": 32 << 10} {
		c.send(head("GET", "/v1/kv/"+key))
		require.Len(t, c.receive("GET").body, size)
	}
	require.NoError(t, c.Conn.Close())
	// Its goroutine is over when it is no longer among them.
	require.Eventually(t, func() bool { return d.simple() == 0 }, waitAtMost, waitStep)
	require.Equal(t, 2, s.out.writes)
}

// FuzzSimpleHead: a head that is taken as simple is a request in net/http's eyes, and says
// the same there, also when the one before was another.
func FuzzSimpleHead(f *testing.F) {
	for _, request := range []string{
		head("GET", "/v1/kv/a"), withBody("PUT", "/v1/kv/a%2Fb?ttl=1s", "abc", `If-Match: "1"`),
		"GET /v1/kv/a HTTP/1.1\r\nhOST:x:1\r\naccept:  application/json \t\r\nCONNECTION: Keep-Alive\r\nUser-agent:\r\n\r\n",
		withBody("POST", "/v1/batch?", "{}", "Content-Type: application/json", "Trivet-Guard: a", "Trivet-Guard: b"),
		"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		f.Add([]byte(head("GET", "/v1/kv/before", "Accept: text/plain")), []byte(request))
	}
	f.Fuzz(func(t *testing.T, before, data []byte) {
		var h simpleHead
		h.parse(before)
		n := h.parse(data)
		if n == 0 {
			return
		}
		all := bufio.NewReader(bytes.NewReader(data))
		r, err := http.ReadRequest(all)
		require.NoError(t, err, "%q", data)
		require.Equal(t, len(data)-n, all.Buffered())
		require.Equal(t, r.Method, h.method)
		require.Equal(t, r.RequestURI, h.target)
		require.Equal(t, r.URL.Path, h.url.Path)
		require.Equal(t, r.URL.RawQuery, h.url.RawQuery)
		require.Equal(t, r.Host, h.host)
		require.EqualValues(t, r.ContentLength, h.length)
		require.Empty(t, r.TransferEncoding)
		require.False(t, r.Close)
		require.Equal(t, "HTTP/1.1", r.Proto)
		r.Header.Del("Connection")
		require.Equal(t, r.Header, h.header)
	})
}

// BenchmarkSimpleGet is a get over a connection, by this server and by net/http's.
func BenchmarkSimpleGet(b *testing.B) {
	for name, noSimple := range map[string]bool{"simple": false, "net-http": true} {
		b.Run(name, func(b *testing.B) {
			node := newSoloNode()
			node.put(b, "a", strings.Repeat("v", 256))
			d := openDoor(b, node, Config{}, func(s *Server) { s.noSimple, s.node = noSimple, quickNode{soloNode: node} })
			nc, err := net.Dial("tcp", d.addr)
			require.NoError(b, err)
			defer nc.Close()
			request, answer := []byte(head("GET", "/v1/kv/a")), make([]byte, 4096)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := nc.Write(request); err != nil {
					b.Fatal(err)
				}
				if _, err := nc.Read(answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
