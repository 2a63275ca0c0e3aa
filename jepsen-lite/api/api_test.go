package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/jepsen-lite/history"
)

// What became of a request is what can be proven, and no more.
func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		name  string
		read  bool
		serve http.HandlerFunc
		want  history.Type
		code  string
	}{
		{"answered", false, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "{}") }, history.OK, ""},
		{"refused by a node", false, problem(503, `{"code":"no_leader","outcome":"not_applied"}`), history.Fail, "no_leader"},
		{"a node that does not know", false, problem(504, `{"code":"timeout","outcome":"unknown"}`), history.Info, "timeout"},
		{"somebody who is no node", false, problem(502, `bad gateway`), history.Info, ""},
		{"the same, of a read", true, problem(502, `bad gateway`), history.Fail, ""},
		{"cut off in the answer", false, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "{")
			panic(http.ErrAbortHandler)
		}, history.Info, "broken"},
		{"cut off before the answer", false, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, history.Info, "broken"},
		{"the same, of a read", true, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, history.Fail, "broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked atomic.Int32
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				c.serve(w, r)
			}))
			defer s.Close()
			k := NewCaller(time.Minute)
			defer k.Close()
			a := k.Do(context.Background(), Node{URL: s.URL}, Request{Method: "PUT", Path: "/v1/kv/a", Body: []byte("x"), Read: c.read})
			require.Equal(t, c.want, a.Type, a.Why)
			require.Equal(t, c.code, a.Code)
			require.EqualValues(t, 1, asked.Load(), "nothing is sent twice")
		})
	}
}

func problem(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestRefusedConnectionIsAFail(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.Close()
	a := NewCaller(time.Minute).Do(context.Background(), Node{URL: "http://" + l.Addr().String()}, Request{Method: "PUT", Path: "/v1/kv/a"})
	require.Equal(t, history.Fail, a.Type)
	require.Equal(t, "refused", a.Code)
}

// A node that does not answer leaves a write open, and its connection is not
// used again: the answer may yet come, and would be taken for the next one's.
func TestGivingUpIsAnInfo(t *testing.T) {
	asked := make(chan string, 2)
	ctx, cancel := context.WithCancel(context.Background())
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.RemoteAddr
		if r.URL.Path == "/hang" {
			cancel()
			<-release
		}
	}))
	defer s.Close()
	defer close(release)
	k := NewCaller(time.Minute)
	defer k.Close()
	a := k.Do(ctx, Node{URL: s.URL}, Request{Method: "POST", Path: "/hang"})
	require.Equal(t, history.Info, a.Type)
	require.Equal(t, "timeout", a.Code)
	a = k.Do(context.Background(), Node{URL: s.URL}, Request{Method: "POST", Path: "/next"})
	require.Equal(t, history.OK, a.Type, a.Why)
	require.NotEqual(t, <-asked, <-asked)
}

// A connection that the node closed while it was idle is not written to, since
// that would make an Info of a request that nobody got.
func TestIdleConnectionThatWasClosed(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	k := NewCaller(time.Minute)
	defer k.Close()
	a := k.Do(context.Background(), Node{URL: s.URL}, Request{Method: "POST", Path: "/"})
	require.Equal(t, history.OK, a.Type, a.Why)
	s.CloseClientConnections()
	s.Close()
	a = k.Do(context.Background(), Node{URL: s.URL}, Request{Method: "POST", Path: "/"})
	require.Equal(t, history.Fail, a.Type)
	require.Equal(t, "refused", a.Code)
}

func TestPathsGoOutAsTheyAre(t *testing.T) {
	var got string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = r.RequestURI }))
	defer s.Close()
	k := NewCaller(time.Second)
	defer k.Close()
	k.Do(context.Background(), Node{URL: s.URL}, Request{Method: "GET", Path: keyPath("a//b/../c d?")})
	require.Equal(t, "/v1/kv/a//b/../c%20d%3F?timeout=1s", got)
}
