package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/raftnode"
)

// inside is a client over a server in the process.
func inside(t *testing.T, s *Server) *client.Client {
	t.Helper()
	c, err := client.Open(t.Context(), client.Config{Endpoints: []string{"http://inside"}, DisableDiscovery: true, Transport: s.Transport()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestTheClientWorksInTheProcess(t *testing.T) {
	node := newSoloNode()
	s, err := New(node, Config{})
	require.NoError(t, err)
	c := inside(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), waitAtMost)
	defer cancel()
	_, err = c.Put(ctx, "k", []byte("v"))
	require.NoError(t, err)
	item, err := c.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "v", string(item.Value))
	_, err = c.Get(ctx, "none")
	require.ErrorIs(t, err, client.ErrNotFound)
	_, err = c.Put(ctx, "k", []byte("v"), client.IfAbsent())
	require.ErrorIs(t, err, client.ErrConflict)
	for i := range 300 { // more than one chunk
		node.put(t, fmt.Sprint("many/", i), strings.Repeat("x", 1000))
	}
	count := 0
	for _, err := range c.List(ctx, client.Prefix("many/")) {
		require.NoError(t, err)
		count++
	}
	require.Equal(t, 300, count)

	// A stream ends when its reader has enough, and leaves nothing.
	watching, stop := context.WithCancel(ctx)
	for e, err := range c.Watch(watching, client.Prefix("many/"), client.FromRevision(3)) {
		require.NoError(t, err)
		if e.Revision >= 10 {
			break
		}
	}
	stop()
	require.NoError(t, s.Shutdown(ctx))
	require.Zero(t, node.data.Watchers())
	require.EqualValues(t, 0, s.underWay.held.Load())
	_, err = s.Transport().RoundTrip(localRequest(ctx, "GET", "http://x/livez"))
	require.ErrorIs(t, err, http.ErrServerClosed)
}

func localRequest(ctx context.Context, method, url string) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		panic(err)
	}
	return r
}

// The caller's patience, a handler that fails, and a Shutdown that does not wait
// for ever.
func TestRequestsInTheProcessThatEndBadly(t *testing.T) {
	node := newSoloNode()
	entered := make(chan struct{}, 1)
	node.onRead = func(ctx context.Context, _ raftnode.ReadOptions) (raftnode.Proof, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return raftnode.Proof{}, ctx.Err()
	}
	s, err := New(node, Config{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Transport().RoundTrip(localRequest(ctx, "GET", "http://x/v1/kv/k"))
		done <- err
	}()
	<-entered
	over, end := context.WithTimeout(t.Context(), time.Millisecond)
	defer end()
	require.ErrorIs(t, s.Shutdown(over), errLocalBusy)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.NoError(t, s.Shutdown(t.Context()))

	// A body that is cut short.
	s, err = New(newSoloNode(), Config{})
	require.NoError(t, err)
	body := io.NopCloser(io.MultiReader(strings.NewReader("half"), failing{}))
	r := localRequest(t.Context(), "PUT", "http://x/v1/kv/k")
	r.Body, r.ContentLength = body, 8
	resp, err := s.Transport().RoundTrip(r)
	require.NoError(t, err)
	require.Equal(t, 400, resp.StatusCode)
	require.Equal(t, "400 Bad Request", resp.Status)
	require.NoError(t, resp.Body.Close())

	// A body that never comes ends with the context too.
	s, err = New(newSoloNode(), Config{})
	require.NoError(t, err)
	never, _ := io.Pipe()
	ctx, cancel = context.WithCancel(t.Context())
	r = localRequest(ctx, "PUT", "http://x/v1/kv/k")
	r.Body, r.ContentLength = never, 8
	go func() {
		_, err := s.Transport().RoundTrip(r)
		done <- err
	}()
	require.Eventually(t, func() bool { return s.underWay.held.Load() == 1 }, time.Minute, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	over, end = context.WithTimeout(t.Context(), 10*time.Second)
	defer end()
	require.NoError(t, s.Shutdown(over))

	// An answer that nobody reads ends with its context.
	node = newSoloNode()
	node.put(t, "large", strings.Repeat("x", 1<<20))
	s, err = New(node, Config{})
	require.NoError(t, err)
	ctx, cancel = context.WithCancel(t.Context())
	resp, err = s.Transport().RoundTrip(localRequest(ctx, "GET", "http://x/v1/kv/large"))
	require.NoError(t, err)
	cancel()
	require.NoError(t, s.Shutdown(t.Context()))
	_, err = io.ReadAll(resp.Body)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, resp.Body.Close())

	// A panic is a problem where nothing was written yet, as over a connection.
	node = newSoloNode()
	node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) { panic("a defect") }
	s, err = New(node, Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	resp, err = s.Transport().RoundTrip(localRequest(t.Context(), "GET", "http://x/v1/kv/k"))
	require.NoError(t, err)
	require.Equal(t, 500, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
	require.NoError(t, s.Shutdown(t.Context()))
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cut") }
