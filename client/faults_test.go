package client_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// faulty is a server that reads whole requests, answers each as a test says, in
// raw bytes, and then closes the connection where the answer is not followed by
// another request.
type faulty struct {
	url  string
	mu   sync.Mutex
	seen []string // method and target, in order
	// arrived gets a value for each request.
	arrived chan string
}

// keep, at the start of a raw answer, keeps the connection for another request.
const keep = "keep:"

// agree is the answer that all is well.
const agree = "agree"

// inBytes is a response as it goes over the wire.
func inBytes(resp *http.Response) string {
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		panic(err)
	}
	return b.String()
}

// hang is an answer that does not come, until the client closes the connection.
const hang = "hang"

func startFaulty(t testing.TB, answer func(method, target string) string) *faulty {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f := &faulty{url: "http://" + l.Addr().String(), arrived: make(chan string, 100)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f.serve(nc, answer) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return f
}

func (f *faulty) serve(nc net.Conn, answer func(method, target string) string) {
	defer nc.Close()
	in := bufio.NewReader(nc)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		if strings.HasPrefix(req.URL.Path, "/v1/sessions") {
			io.WriteString(nc, inBytes(agreeable(req)))
			continue
		}
		method := methodOf(req)
		f.mu.Lock()
		f.seen = append(f.seen, method+" "+req.RequestURI)
		f.mu.Unlock()
		f.arrived <- method
		text := answer(method, req.RequestURI)
		if text == agree {
			text = keep + inBytes(agreeable(req))
		}
		if text == hang {
			io.Copy(io.Discard, in)
			return
		}
		text, kept := strings.CutPrefix(text, keep)
		io.WriteString(nc, text)
		if !kept {
			return
		}
	}
}

// count is how many requests of the method came.
func (f *faulty) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, s := range f.seen {
		if strings.HasPrefix(s, method+" ") {
			n++
		}
	}
	return n
}

func raw(status, headers, body string) string {
	h := "HTTP/1.1 " + status + "\r\n"
	if headers != "" {
		h += headers + "\r\n"
	}
	return h + "\r\n" + body
}

const (
	putBody  = `{"revision":7,"version":1,"created":true}`
	jsonHead = "Content-Type: application/json\r\nContent-Length: 41"
)

func problem(status, code, outcome, more string) string {
	body := `{"code":"` + code + `","outcome":"` + outcome + `"` + more + `}`
	return raw(status, "Content-Type: application/problem+json\r\nConnection: close", body)
}

// faults are answers to a PUT, and what is then known of it.
var faults = []struct {
	name, answer string
	outcome      client.Outcome
	kind         error
}{
	{"no answer", "", client.Unknown, client.ErrUnavailable},
	{"half a status line", "HTTP/1.", client.Unknown, client.ErrUnavailable},
	{"half the headers", "HTTP/1.1 200 OK\r\nContent-Le", client.Unknown, client.ErrUnavailable},
	{"no HTTP", "SSH-2.0-OpenSSH_9.6\r\n", client.Unknown, client.ErrUnavailable},
	{"half a body", raw("200 OK", jsonHead, putBody[:20]), client.Unknown, client.ErrUnavailable},
	{"half a chunked body", raw("200 OK", "Content-Type: application/json\r\nTransfer-Encoding: chunked", "29\r\n"+putBody+"\r\n"), client.Unknown, client.ErrUnavailable},
	{"an empty body", raw("200 OK", "Content-Type: application/json\r\nContent-Length: 0", ""), client.Unknown, client.ErrUnavailable},
	{"no content", raw("204 No Content", "", ""), client.Unknown, client.ErrUnavailable},
	{"an empty document", raw("200 OK", "Content-Type: application/json\r\nContent-Length: 2", "{}"), client.Unknown, client.ErrUnavailable},
	{"null", raw("200 OK", "Content-Type: application/json\r\nContent-Length: 4", "null"), client.Unknown, client.ErrUnavailable},
	{"another document", raw("200 OK", "Content-Type: application/json\r\nContent-Length: 10", `["a",true]`), client.Unknown, client.ErrUnavailable},
	{"the wrong type", raw("200 OK", "Content-Type: text/plain\r\nContent-Length: 41", putBody), client.Unknown, client.ErrUnavailable},
	{"an unasked encoding", raw("200 OK", jsonHead+"\r\nContent-Encoding: gzip", putBody), client.Unknown, client.ErrUnavailable},
	{"a captive portal", raw("200 OK", "Content-Type: text/html\r\nContent-Length: 15", "<html>Hi</html>"), client.Unknown, client.ErrUnavailable},
	{"a redirect", raw("307 Temporary Redirect", "Location: /elsewhere\r\nContent-Length: 0", ""), client.Unknown, client.ErrUnavailable},
	{"a proxy's 404", raw("404 Not Found", "Content-Type: text/html\r\nContent-Length: 9", "not found"), client.Unknown, client.ErrUnavailable},
	{"a proxy's 412", raw("412 Precondition Failed", "Content-Length: 0", ""), client.Unknown, client.ErrUnavailable},
	{"a proxy's 502", raw("502 Bad Gateway", "Content-Type: text/html\r\nContent-Length: 15", "<html>no</html>"), client.Unknown, client.ErrUnavailable},
	{"a proxy's 503", raw("503 Service Unavailable", "Retry-After: 1\r\nContent-Length: 0", ""), client.Unknown, client.ErrUnavailable},
	{"an endless header", raw("200 OK", "X: "+strings.Repeat("x", 1<<17), ""), client.Unknown, client.ErrUnavailable},
	{"a huge length", raw("200 OK", "Content-Type: application/json\r\nContent-Length: 9223372036854775807", "{"), client.Unknown, client.ErrUnavailable},
	{"a problem without an outcome", raw("503 Service Unavailable", "Content-Type: application/problem+json\r\nConnection: close", `{"code":"no_leader","retryable":true}`), client.Unknown, client.ErrNoLeader},
	{"a problem with a strange outcome", problem("503 Service Unavailable", "draining", "perhaps", `,"retryable":true`), client.Unknown, client.ErrUnavailable},
	{"half a problem", raw("503 Service Unavailable", "Content-Type: application/problem+json\r\nConnection: close", `{"code":"no_leader","outcome":"not_applied"`), client.Unknown, client.ErrUnavailable},
	{"a timeout", problem("504 Gateway Timeout", "timeout", "unknown", `,"retryable":true`), client.Unknown, client.ErrUnavailable},
	{"an internal failure", problem("500 Internal Server Error", "internal", "not_applied", ""), client.NotApplied, client.ErrUnavailable},
	{"a failed condition", problem("412 Precondition Failed", "precondition_failed", "not_applied", `,"mod_revision":9`), client.NotApplied, client.ErrConflict},
	{"a denial", problem("403 Forbidden", "permission_denied", "not_applied", ""), client.NotApplied, client.ErrDenied},
	{"a quota", problem("507 Insufficient Storage", "quota_exceeded", "not_applied", ""), client.NotApplied, client.ErrQuota},
	{"a code of the future", problem("418 I'm a teapot", "teapot", "not_applied", ""), client.NotApplied, nil},
	{"an expired session", problem("409 Conflict", "session_expired", "unknown", ""), client.Unknown, client.ErrSessionExpired},
}

// Whatever goes wrong with the answer to a write: it was sent once, and nothing
// is claimed that is not known.
func TestFaultyAnswersToAWrite(t *testing.T) {
	for _, tt := range faults {
		for _, reused := range []bool{false, true} {
			for _, value := range []string{"", "value"} {
				first := reused
				f := startFaulty(t, func(string, string) string {
					if first {
						first = false
						return agree
					}
					return tt.answer
				})
				c := open(t, client.Config{Endpoints: []string{f.url}, DisableDiscovery: true, DisableSessions: true})
				want := 1
				if reused {
					want = 2
					_, err := c.Put(t.Context(), "k", []byte(value))
					require.NoError(t, err, tt.name)
				}
				_, err := c.Put(t.Context(), "k", []byte(value))
				e := requireError(t, err, tt.outcome)
				if tt.kind != nil {
					require.ErrorIs(t, err, tt.kind, tt.name)
				}
				require.NotErrorIs(t, err, client.ErrNotFound)
				require.Equal(t, want, f.count("PUT"), tt.name)
				require.Contains(t, err.Error(), `put "k": `+e.Code)
				if !reused && value == "" {
					t.Logf("%-34s %v", tt.name, err)
				}
			}
		}
	}
}

// The other writes are no different.
func TestNoWriteIsSentTwice(t *testing.T) {
	for name, write := range map[string]func(context.Context, *client.Client) error{
		"DELETE": func(ctx context.Context, c *client.Client) error { _, err := c.Delete(ctx, "k"); return err },
		"DELETE ": func(ctx context.Context, c *client.Client) error {
			_, err := c.DeleteRange(ctx, client.Prefix("k"))
			return err
		},
		"POST": func(ctx context.Context, c *client.Client) error { _, err := c.Add(ctx, "k", 1); return err },
		"POST ": func(ctx context.Context, c *client.Client) error {
			_, err := c.Txn().Then(client.OpAdd("k", 1)).Commit(ctx)
			return err
		},
	} {
		f := startFaulty(t, func(method, _ string) string {
			if method == http.MethodPut {
				return agree
			}
			return ""
		})
		other := startFaulty(t, func(string, string) string { return "" })
		c := open(t, client.Config{Endpoints: []string{f.url, other.url}, DisableDiscovery: true, DisableSessions: true})
		_, err := c.Put(t.Context(), "k", nil) // leaves a connection to reuse
		if err != nil {
			t.Fatal(err)
		}
		// The other endpoint's turn, then again the first one's.
		requireError(t, write(t.Context(), c), client.Unknown, client.ErrUnavailable)
		requireError(t, write(t.Context(), c), client.Unknown, client.ErrUnavailable)
		method := strings.TrimSpace(name)
		require.Equal(t, 2, f.count(method)+other.count(method), name)
	}
}

const value = "Content-Type: application/octet-stream\r\nETag: \"5\"\r\nTrivet-Create-Revision: 4\r\n" +
	"Trivet-Version: 2\r\nTrivet-Lease: 0\r\nTrivet-Revision: 9\r\nTrivet-Node: n1\r\n"

// A read gets over any fault by asking another node.
func TestReadsGetOverFaults(t *testing.T) {
	good := startFaulty(t, func(string, string) string { return agree })
	for _, tt := range faults {
		switch tt.kind {
		case client.ErrConflict, client.ErrDenied, client.ErrQuota, client.ErrSessionExpired, nil:
			continue // what a request brings upon itself
		}
		bad := startFaulty(t, func(string, string) string { return tt.answer })
		c := open(t, client.Config{Endpoints: []string{bad.url, good.url}, DisableDiscovery: true})
		for range 2 { // whoever's turn it is first
			it, err := c.Get(t.Context(), "k")
			require.NoError(t, err, tt.name)
			require.Equal(t, client.Item{Key: "k", Value: []byte("ok"), CreateRevision: 4, ModRevision: 5, Version: 2}, it)
		}
		require.EqualValues(t, 6, c.Revision())
	}
}

func TestFaultyAnswersToARead(t *testing.T) {
	for name, answer := range map[string]string{
		"an unknown length": raw("200 OK", value+"Connection: close", "half a va"),
		"no headers":        raw("200 OK", "Content-Type: application/octet-stream\r\nContent-Length: 2", "ok"),
		"the wrong type":    raw("200 OK", strings.Replace(value, "octet-stream", "json", 1)+"Content-Length: 2", "{}"),
		"another status":    raw("206 Partial Content", value+"Content-Length: 2", "ok"),
		"a proxy's 404":     raw("404 Not Found", "Content-Type: application/json\r\nContent-Length: 2", "{}"),
	} {
		f := startFaulty(t, func(string, string) string { return answer })
		c := open(t, client.Config{Endpoints: []string{f.url}, DisableDiscovery: true})
		_, err := c.Get(t.Context(), "k", client.AtRevision(4)) // the one that is not in a batch
		require.Equal(t, "bad_response", requireError(t, err, client.NotApplied, client.ErrUnavailable).Code, name)
		require.NotErrorIs(t, err, client.ErrNotFound, name)
		for _, opts := range [][]client.ListOption{nil, {client.Reverse()}} { // in a batch, and by itself
			for _, err := range c.List(t.Context(), client.All(), opts...) {
				requireError(t, err, client.NotApplied, client.ErrUnavailable)
			}
		}
	}
}

// A page that says there is more and holds nothing would be asked for for ever.
func TestAListThatGoesNowhere(t *testing.T) {
	f := startFaulty(t, func(string, string) string {
		return raw("200 OK", "Content-Type: application/json\r\nConnection: close", `{"revision":3,"items":[],"next":"x"}`)
	})
	c := open(t, client.Config{Endpoints: []string{f.url}, DisableDiscovery: true})
	n := 0
	for _, err := range c.List(t.Context(), client.All(), client.Reverse()) { // which is not in a batch
		requireError(t, err, client.NotApplied, client.ErrUnavailable)
		n++
	}
	require.Equal(t, 1, n)
}

func TestAWriteIsTriedElsewhereWhereThatIsSafe(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	refusing := "http://" + gone.Addr().String()
	require.NoError(t, gone.Close())
	for name, answer := range map[string]string{
		"refused":   "",
		"no leader": problem("503 Service Unavailable", "no_leader", "not_applied", `,"retryable":true`),
		"draining":  problem("503 Service Unavailable", "draining", "not_applied", `,"retryable":true`),
		"timeout":   problem("504 Gateway Timeout", "timeout", "not_applied", `,"retryable":true`),
	} {
		first := refusing
		if answer != "" {
			first = startFaulty(t, func(string, string) string { return answer }).url
		}
		good := startFaulty(t, func(string, string) string { return agree })
		c := open(t, client.Config{Endpoints: []string{first, good.url}, DisableDiscovery: true, DisableSessions: true})
		put, err := c.Put(t.Context(), "k", []byte("v"))
		require.NoError(t, err, name)
		require.Equal(t, client.PutResult{Revision: 7, Version: 1, Created: true}, put)
		require.Equal(t, 1, good.count("PUT"), name)
	}
	c := open(t, client.Config{Endpoints: []string{refusing}, DisableDiscovery: true, Timeout: 50 * time.Millisecond})
	_, err = c.Put(t.Context(), "k", nil)
	requireError(t, err, client.NotApplied, client.ErrUnavailable, context.DeadlineExceeded)
	var dial *net.OpError
	require.ErrorAs(t, err, &dial)
}

func TestContextsThatEnd(t *testing.T) {
	f := startFaulty(t, func(string, string) string { return hang })
	c := open(t, client.Config{Endpoints: []string{f.url}, DisableDiscovery: true, MaxConnsPerNode: 1})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Put(ended, "k", []byte("v"))
	require.Equal(t, "canceled", requireError(t, err, client.NotApplied, context.Canceled).Code)
	require.Zero(t, f.count("PUT"))

	waiting, leave := context.WithCancelCause(t.Context())
	sent := make(chan error, 1)
	go func() {
		_, err := c.Put(waiting, "k", []byte("v"))
		sent <- err
	}()
	<-f.arrived
	// There is no connection for this one: it is not sent.
	short, cancelShort := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancelShort()
	_, err = c.Put(short, "k2", []byte("v"))
	requireError(t, err, client.NotApplied, client.ErrUnavailable, context.DeadlineExceeded)

	reason := errors.New("the user went away")
	leave(reason)
	err = <-sent
	requireError(t, err, client.Unknown, context.Canceled, reason)
	require.Equal(t, 1, f.count("PUT"))
	t.Log(err)

	late, cancelLate := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancelLate()
	other := open(t, client.Config{Endpoints: []string{f.url}, DisableDiscovery: true})
	_, err = other.Add(late, "k", 1)
	requireError(t, err, client.Unknown, client.ErrUnavailable, context.DeadlineExceeded)
	_, err = c.Get(late, "k")
	requireError(t, err, client.NotApplied, client.ErrUnavailable, context.DeadlineExceeded)
}

func TestClose(t *testing.T) {
	f := startFaulty(t, func(string, string) string { return hang })
	c := open(t, client.Config{Endpoints: []string{f.url}})
	for method := "GET"; method == "GET"; { // discovery hangs as well
		sent := make(chan error, 1)
		go func() {
			_, err := c.Put(t.Context(), "k", []byte("v"))
			sent <- err
		}()
		for method = range f.arrived {
			if method == "PUT" {
				break
			}
		}
		require.NoError(t, c.Close())
		requireError(t, <-sent, client.Unknown, client.ErrClosed)
	}
	require.NoError(t, c.Close())
	_, err := c.Put(t.Context(), "k", nil)
	requireError(t, err, client.NotApplied, client.ErrClosed)
	_, err = c.Status(t.Context(), f.url)
	requireError(t, err, client.NotApplied, client.ErrClosed)
	for _, err := range c.List(t.Context(), client.All()) {
		requireError(t, err, client.NotApplied, client.ErrClosed)
	}
}

// The bytes are counted below TLS too.
func TestTLS(t *testing.T) {
	puts := 0
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3cret" {
			t.Error("no token")
		}
		resp := agreeable(r)
		if puts++; puts > 1 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		io.Copy(w, resp.Body)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	c := open(t, client.Config{
		Endpoints: []string{srv.URL}, TLS: &tls.Config{RootCAs: pool}, Token: "s3cret", DisableDiscovery: true, DisableSessions: true,
	})
	_, err := c.Put(t.Context(), "k", []byte("v"))
	require.NoError(t, err)
	_, err = c.Put(t.Context(), "k", []byte("v"))
	requireError(t, err, client.Unknown, client.ErrUnavailable)
	require.Equal(t, 2, puts)

	// A certificate that is not trusted: nothing of the request was sent.
	// Nor would it ever be, so nobody waits for the call's time to be up.
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for _, u := range []string{srv.URL, "https" + plain.URL[4:]} {
		c = open(t, client.Config{Endpoints: []string{u}, DisableDiscovery: true})
		_, err = c.Put(t.Context(), "k", []byte("v"))
		requireError(t, err, client.NotApplied, client.ErrUnavailable)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		t.Log(err)
	}
}
