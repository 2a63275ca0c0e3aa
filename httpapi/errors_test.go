package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// Every problem that the node or the store can return goes out with the status
// of the table, on every kind of call, with the outcome that was said.
func TestProblemsOfTheNode(t *testing.T) {
	for code := range trivetpb.Code_name {
		code := trivetpb.Code(code)
		if code == trivetpb.Code_OK {
			continue
		}
		for _, unknown := range []bool{false, true} {
			problem := &trivetpb.Problem{Code: code, Detail: `why "it" failed`, Unknown: unknown,
				ModRevision: 3, CompactRevision: 4, Revision: 5, Limit: 6,
				Holder: &trivetpb.LockHolder{Token: 7, Lease: 8, Owner: `"me"`, TtlMs: 9000}}
			node := newSoloNode()
			node.onPropose = func(context.Context, []*trivetpb.Command) ([]*trivetpb.Result, error) {
				return nil, fmt.Errorf("raftnode: propose: %w", problem)
			}
			node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) { return raftnode.Proof{}, problem }
			node.onCluster = func(context.Context) (raftnode.ClusterStatus, error) { return raftnode.ClusterStatus{}, problem }
			d := openDoor(t, node, Config{})
			for _, call := range []struct{ method, path, body string }{
				{"PUT", "/v1/kv/a", "1"}, {"DELETE", "/v1/kv/a", ""}, {"POST", "/v1/kv/a?add=1", ""}, {"DELETE", "/v1/kv?prefix=a", ""},
				{"GET", "/v1/kv/a", ""}, {"GET", "/v1/kv/a?revision=1", ""}, {"GET", "/v1/kv", ""}, {"GET", "/v1/cluster", ""},
				{"POST", "/v1/txn", `{"then":[{"op":"put","key":"a","value":""}]}`}, {"POST", "/v1/txn", `{"then":[{"op":"get","key":"a"}]}`},
				{"POST", "/v1/leases", `{"ttl":"1s"}`}, {"PUT", "/v1/leases/1", ""}, {"DELETE", "/v1/leases/1", ""}, {"GET", "/v1/leases/1", ""}, {"GET", "/v1/leases", ""},
				{"POST", "/v1/locks/l", ""}, {"PUT", "/v1/locks/l", `{"token":1}`}, {"DELETE", "/v1/locks/l?token=1", ""}, {"GET", "/v1/locks/l", ""},
				{"POST", "/v1/sessions", ""}, {"PUT", "/v1/sessions/1", ""}, {"DELETE", "/v1/sessions/1", ""}, {"GET", "/v1/snapshot", ""},
			} {
				r := d.do(call.method, call.path, call.body)
				p := r.problem(t)
				require.Equal(t, code.Info().Status, r.status)
				require.Equal(t, code.Info().Name, p.Code)
				require.Equal(t, problem.Detail, p.Detail)
				require.Equal(t, map[bool]string{true: "unknown", false: "not_applied"}[unknown], p.Outcome)
				require.Equal(t, code == trivetpb.Code_PRECONDITION_FAILED, p.ModRevision != nil)
				require.Equal(t, code == trivetpb.Code_COMPACTED, p.CompactRevision != nil)
				require.Equal(t, code == trivetpb.Code_COMPACTED || code == trivetpb.Code_FUTURE_REVISION, p.Revision != nil)
				require.Equal(t, code == trivetpb.Code_TOO_LARGE || code == trivetpb.Code_HEADERS_TOO_LARGE, p.Limit != nil)
				require.Equal(t, code == trivetpb.Code_LOCKED, p.Holder != nil)
				if p.Holder != nil {
					require.Equal(t, holderJSON{7, 8, `"me"`, "9s"}, *p.Holder)
				}
			}
			head := d.do("HEAD", "/v1/kv/a", "")
			require.Equal(t, code.Info().Status, head.status)
			require.Equal(t, problemType, head.header.Get("Content-Type"))
			require.NotEmpty(t, head.header.Get("Content-Length"))
			require.Empty(t, d.log.String(), "a problem is the caller's to know, not the log's")
		}
	}
}

// The same where one operation fails and not the proposal.
func TestProblemsOfTheStore(t *testing.T) {
	node := newSoloNode()
	node.onPropose = func(_ context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
		return []*trivetpb.Result{{Revision: 42, Problem: &trivetpb.Problem{Code: trivetpb.Code_QUOTA_EXCEEDED}}}, nil
	}
	d := openDoor(t, node, Config{})
	r := d.do("PUT", "/v1/kv/a", "1")
	r.requireProblem(t, trivetpb.Code_QUOTA_EXCEEDED)
	require.Equal(t, "42", r.header.Get("Trivet-Revision"))
}

func TestFailuresThatAreNoProblem(t *testing.T) {
	for name, row := range map[string]struct {
		err    error
		code   trivetpb.Code
		logged bool
	}{
		"the time is over":     {context.DeadlineExceeded, trivetpb.Code_TIMEOUT, false},
		"it is over, wrapped":  {fmt.Errorf("raftnode: %w", context.DeadlineExceeded), trivetpb.Code_TIMEOUT, false},
		"the caller went away": {context.Canceled, trivetpb.Code_TIMEOUT, false},
		"the node broke":       {errors.New("disk on fire"), trivetpb.Code_INTERNAL, true},
	} {
		t.Run(name, func(t *testing.T) {
			node := newSoloNode()
			node.onPropose = func(context.Context, []*trivetpb.Command) ([]*trivetpb.Result, error) { return nil, row.err }
			node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) { return raftnode.Proof{}, row.err }
			d := openDoor(t, node, Config{})
			p := d.do("PUT", "/v1/kv/a", "1").requireProblem(t, row.code)
			require.Equal(t, "unknown", p.Outcome)
			require.NotContains(t, p.Detail, "disk", "what is inside stays inside")
			p = d.do("GET", "/v1/kv/a", "").requireProblem(t, row.code)
			require.Equal(t, "not_applied", p.Outcome)
			require.Equal(t, row.logged, strings.Contains(d.log.String(), "disk on fire"))
		})
	}
}

// A node that does not answer in ?timeout= is a 504.
func TestTimeouts(t *testing.T) {
	node := newSoloNode()
	node.onPropose = func(ctx context.Context, _ []*trivetpb.Command) ([]*trivetpb.Result, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	d := openDoor(t, node, Config{})
	p := d.do("PUT", "/v1/kv/a?timeout=1ms", "1").requireProblem(t, trivetpb.Code_TIMEOUT)
	require.Equal(t, "unknown", p.Outcome)
}

// A number of results that fits no commands proves nothing about any of them.
func TestResultsThatDoNotFit(t *testing.T) {
	node := newSoloNode()
	node.onPropose = func(context.Context, []*trivetpb.Command) ([]*trivetpb.Result, error) { return nil, nil }
	d := openDoor(t, node, Config{})
	p := d.do("PUT", "/v1/kv/a", "1").requireProblem(t, trivetpb.Code_INTERNAL)
	require.Equal(t, "unknown", p.Outcome)
}

func TestPanics(t *testing.T) {
	node := newSoloNode()
	node.onPropose = func(context.Context, []*trivetpb.Command) ([]*trivetpb.Result, error) { panic("boom") }
	node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) { panic("bang") }
	d := openDoor(t, node, Config{})
	p := d.do("PUT", "/v1/kv/a", "1").requireProblem(t, trivetpb.Code_INTERNAL)
	require.Equal(t, "unknown", p.Outcome)
	p = d.do("GET", "/v1/kv/a", "").requireProblem(t, trivetpb.Code_INTERNAL)
	require.Equal(t, "not_applied", p.Outcome)
	require.Contains(t, d.log.String(), "boom")
	require.Contains(t, d.log.String(), "errors_test.go", "the stack is there")
	require.EqualValues(t, 0, d.srv.underWay.held.Load())
	require.EqualValues(t, 0, d.srv.held.held.Load())
}

// An answer that broke off is never taken for a whole one.
func TestPanicsInTheMidstOfAnAnswer(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c := &call{srv: d.srv, w: w, r: r}
		defer c.recoverPanic()
		doc := c.newDocument(jsonType)
		doc.buf.b = append(doc.buf.b, `{"items":[`...)
		doc.flush()
		panic("boom")
	})
	other := httptest.NewServer(mux)
	defer other.Close()
	resp, err := other.Client().Get(other.URL)
	if err == nil {
		defer resp.Body.Close()
		_, err = resp.Body.Read(make([]byte, 100))
		for err == nil {
			_, err = resp.Body.Read(make([]byte, 100))
		}
		require.NotEqual(t, "EOF", err.Error())
	}
	require.Contains(t, d.log.String(), "boom")
}

// A caller that goes away ends the wait for the cluster, and nothing is logged.
func TestCallersThatGoAway(t *testing.T) {
	node := newSoloNode()
	waiting, gone := make(chan struct{}), make(chan error, 1)
	node.onPropose = func(ctx context.Context, _ []*trivetpb.Command) ([]*trivetpb.Result, error) {
		close(waiting)
		<-ctx.Done()
		gone <- ctx.Err()
		return nil, ctx.Err()
	}
	d := openDoor(t, node, Config{})
	c := d.dial()
	c.send("PUT /v1/kv/a?timeout=1m HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1")
	<-waiting
	require.NoError(t, c.Conn.Close())
	require.ErrorIs(t, <-gone, context.Canceled)
	require.Eventually(t, func() bool { return d.srv.underWay.held.Load() == 0 && d.srv.conns.Load() == 0 }, waitAtMost, waitStep)
	require.Empty(t, d.log.String())
}

// What net/http answers by itself has the form of all other answers.
func TestRequestsThatCannotBeParsed(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{MaxHeaderBytes: 32 << 10})
	for name, row := range map[string]struct{ request, says string }{
		"no HTTP at all":                    {"hello, who is there?\r\n\r\n", "no HTTP"},
		"no Host":                           {"GET /livez HTTP/1.1\r\n\r\n", "Host"},
		"a malformed header":                {"GET /livez HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n", "header"},
		"a malformed path":                  {"GET /v1/kv/%zz HTTP/1.1\r\nHost: x\r\n\r\n", "no HTTP"},
		"a negative length":                 {"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", ""},
		"two lengths":                       {"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", ""},
		"an unknown coding":                 {"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer encoding"},
		"an unknown expectation":            {"PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", ""},
		"a version of the future":           {"GET /livez HTTP/3.0\r\nHost: x\r\n\r\n", "version"},
		"a header with a control character": {"GET /livez HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := d.dial()
			c.send(row.request)
			p := c.receive("GET").requireProblem(t, trivetpb.Code_BAD_REQUEST)
			require.Contains(t, p.Detail, row.says)
			require.NotEmpty(t, p.Detail)
			require.Equal(t, "not_applied", p.Outcome)
			c.requireClosed()
		})
	}
	t.Run("headers that are too long", func(t *testing.T) {
		c := d.dial()
		c.send("GET /livez HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 40<<10) + "\r\n\r\n")
		r := c.receive("GET")
		require.Equal(t, 431, r.status)
		p := r.problem(t)
		require.Equal(t, "too_large", p.Code)
		require.EqualValues(t, 32<<10, *p.Limit)
	})
	t.Run("a path that is too long", func(t *testing.T) {
		c := d.dial()
		c.send("GET /v1/kv/" + strings.Repeat("a", 40<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n")
		require.Equal(t, 431, c.receive("GET").status)
	})
	t.Run("after a good request on the same connection", func(t *testing.T) {
		c := d.dial()
		c.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		require.Equal(t, 200, c.receive("GET").status)
		c.send("GET /livez HTTP/1.1\r\n\r\n")
		c.receive("GET").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	})
}

// A value that reads like an error response of net/http is still a value, even
// where it makes up all of one write to the connection.
func TestValuesAreNeverTakenForErrorResponses(t *testing.T) {
	const fake = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
	client, server := net.Pipe()
	defer client.Close()
	d := openDoor(t, newSoloNode(), Config{})
	c := &conn{Conn: server, srv: d.srv, answering: true}
	go func() {
		_, _ = c.Write([]byte(fake))
		c.Conn.Close()
	}()
	got := make([]byte, len(fake))
	n, _ := client.Read(got)
	require.Equal(t, fake, string(got[:n]))
	// With headers and filling in front that end just at the buffer of net/http.
	for size := 3600; size < 4096; size++ {
		value := strings.Repeat("x", size) + fake
		d.node.put(t, "a", value)
		require.Equal(t, value, d.do("GET", "/v1/kv/a", "").body)
	}
}

func TestWritesFromOtherOriginsAreRefused(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	for _, header := range []string{"Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "Origin: null"} {
		for _, call := range []struct{ method, path string }{{"PUT", "/v1/kv/a"}, {"POST", "/v1/kv/a?add=1"}, {"DELETE", "/v1/kv?all=true"}, {"POST", "/v1/txn"}, {"POST", "/v1/batch"}} {
			p := d.do(call.method, call.path, "", header).requireProblem(t, trivetpb.Code_PERMISSION_DENIED)
			require.Equal(t, "not_applied", p.Outcome)
		}
	}
	require.Equal(t, 201, d.do("PUT", "/v1/kv/a", "1", "Origin: http://"+d.addr, "Sec-Fetch-Site: same-origin").status)
	require.Equal(t, 200, d.do("GET", "/v1/kv/a", "", "Origin: http://evil.example").status)
}
