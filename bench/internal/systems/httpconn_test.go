package systems

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testConn is a connection to a handler.
func testConn(t *testing.T, handler http.HandlerFunc) *httpConn {
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	port, err := strconv.Atoi(u.Port())
	require.NoError(t, err)
	c := newHTTPConn(port)
	t.Cleanup(func() { c.Close() })
	return c
}

// TestHTTPConnReadsWhatNetHTTPWrites: with a length, chunked, empty, and closed
// behind the answer; one after the other over what is left of the connection.
func TestHTTPConnReadsWhatNetHTTPWrites(t *testing.T) {
	remotes := map[string]bool{}
	c := testConn(t, func(w http.ResponseWriter, r *http.Request) {
		remotes[r.RemoteAddr] = true
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		if r.URL.Query().Has("close") {
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusAccepted)
		for i := 0; i < n; i += 1000 {
			fmt.Fprint(w, strings.Repeat("x", min(1000, n-i)))
			if r.URL.Query().Has("flush") {
				w.(http.Flusher).Flush()
			}
		}
	})
	for i, query := range []string{"n=0", "n=5", "n=100000", "n=2500&flush=1", "n=7&close=1", "n=9"} {
		status, body, err := c.do(t.Context(), prepare("GET", "/?"+query, "", nil))
		require.NoError(t, err, query)
		require.Equal(t, http.StatusAccepted, status)
		n, _ := strconv.Atoi(strings.TrimLeft(strings.Split(query, "&")[0], "n="))
		require.Equal(t, strings.Repeat("x", n), string(body), query)
		want := 1
		if i == 5 {
			want = 2 // the one before was told to close
		}
		require.Len(t, remotes, want, query)
	}
}

func TestHTTPConnSendsBodies(t *testing.T) {
	c := testConn(t, func(w http.ResponseWriter, r *http.Request) {
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s %s ", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
		buf := make([]byte, 100)
		n, _ := r.Body.Read(buf)
		b.Write(buf[:n])
		fmt.Fprint(w, b.String())
	})
	_, body, err := c.do(t.Context(), prepare("PUT", "/a/b", "text/plain", []byte("hello")))
	require.NoError(t, err)
	require.Equal(t, "PUT /a/b text/plain hello", string(body))
}

// TestHTTPConnStreams: line by line as they come, until the context ends.
func TestHTTPConnStreams(t *testing.T) {
	got := make(chan string)
	c := testConn(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "line %d\n", i)
			w.(http.Flusher).Flush()
			require.Equal(t, fmt.Sprintf("line %d\n", i), <-got) // it does not wait for the next
		}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := c.stream(ctx, prepare("GET", "/", "", nil), func(line []byte) {
		if n++; n == 3 {
			cancel()
		}
		got <- string(line)
	})
	require.NoError(t, err)
	require.Equal(t, 3, n)
}

func TestHTTPConnRefusesWhatItCannotRead(t *testing.T) {
	for _, answer := range []string{"HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 200 OK\r\n\r\nno length"} {
		c := testConn(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			require.NoError(t, err)
			defer conn.Close()
			fmt.Fprint(conn, answer)
		})
		_, _, err := c.do(t.Context(), prepare("GET", "/", "", nil))
		require.ErrorIs(t, err, errMalformed, answer)
		require.Nil(t, c.conn)
	}
}
