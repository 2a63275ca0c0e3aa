package httpapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"trivet/raftnode"
)

// openFiles returns what the process has open.
func openFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("this system has no /proc")
	}
	require.NoError(t, err)
	var open []string
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil {
			open = append(open, to)
		}
	}
	return open
}

// A member with its API in somebody else's process leaves nothing there once both
// are closed, with watches open, a lock waited for and requests on their way, over
// connections and in the process; again and again over the same folder.
func TestAnEmbeddedMemberLeavesNothingBehind(t *testing.T) {
	dir, quiet := t.TempDir(), slog.New(slog.DiscardHandler)
	goroutines := goleak.IgnoreCurrent()
	before := openFiles(t)
	for round := range 3 {
		peer, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		node, err := raftnode.Open(raftnode.Config{
			ID: "n1", DataDir: dir, PeerListener: peer, AdvertisePeer: "127.0.0.1:1",
			InitialCluster: []raftnode.Peer{{ID: "n1", Addr: "127.0.0.1:1"}}, Logger: quiet,
		})
		require.NoError(t, err)
		server, err := New(node, Config{Logger: quiet})
		require.NoError(t, err)
		api, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		served := make(chan error, 1)
		go func() { served <- server.Serve(api) }()
		overTCP := &http.Transport{}
		ctx, cancel := context.WithTimeout(t.Context(), 2*waitAtMost)
		defer cancel()
		call := func(rt http.RoundTripper, method, path, body string) (*http.Response, error) {
			r, err := http.NewRequestWithContext(ctx, method, "http://"+api.Addr().String()+path, strings.NewReader(body))
			require.NoError(t, err)
			return rt.RoundTrip(r)
		}
		var wg sync.WaitGroup
		for _, rt := range []http.RoundTripper{overTCP, server.Transport()} {
			resp, err := call(rt, "PUT", "/v1/kv/k", "v")
			require.NoError(t, err)
			require.Less(t, resp.StatusCode, 300)
			require.NoError(t, resp.Body.Close())
			watch, err := call(rt, "GET", "/v1/watch?prefix=", "")
			require.NoError(t, err)
			require.Equal(t, 200, watch.StatusCode)
			wg.Go(func() {
				io.Copy(io.Discard, watch.Body) // ends with the server
				watch.Body.Close()
			})
			for range 4 {
				wg.Go(func() { // until it stops
					for {
						resp, err := call(rt, "PUT", "/v1/kv/k", "v")
						if err != nil {
							return
						}
						io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
						if resp.StatusCode == 503 {
							return
						}
					}
				})
			}
			wg.Go(func() { // the second of them waits
				resp, err := call(rt, "POST", "/v1/locks/l", `{"ttl":"1h","wait":"1h"}`)
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		}
		require.Eventually(t, func() bool { return server.lockWaits.held.Load() > 0 || round > 0 }, waitAtMost, waitStep)
		require.NoError(t, server.Shutdown(ctx))
		require.NoError(t, <-served)
		_ = node.Close(ctx) // there is nobody to hand over to
		wg.Wait()
		overTCP.CloseIdleConnections()
		require.NoError(t, goleak.Find(goroutines))
		require.ElementsMatch(t, before, openFiles(t))
	}
}
