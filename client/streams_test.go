package client_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivettest"
)

// watchOne watches a key until it has the value, in a goroutine of its own; ready is
// told once.
func watchOne(ctx context.Context, t *testing.T, c *client.Client, key, value string, ready, done *sync.WaitGroup) {
	ready.Add(1)
	done.Go(func() {
		isReady := sync.OnceFunc(ready.Done)
		defer isReady()
		for f, err := range c.Watch(ctx, client.Key(key)) {
			if err != nil {
				t.Errorf("%s: %v", key, err)
				return
			}
			isReady()
			if f.Kind == client.FrameChange {
				if string(f.Events[0].Item.Value) != value {
					t.Errorf("%s: %q", key, f.Events[0].Item.Value)
				}
				return
			}
		}
	})
}

// A thousand watches of different keys take a connection to each node.
func TestAThousandWatchesOfAClient(t *testing.T) {
	c := open(t, client.Config{Endpoints: endpoints(t)})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // with the race detector, on a busy machine
	defer cancel()
	const n = 1000
	var ready, done sync.WaitGroup
	for i := range n {
		watchOne(ctx, t, c, fmt.Sprint("many/", i), strconv.Itoa(i), &ready, &done)
	}
	ready.Wait()
	conns := c.StreamConns()
	var writing sync.WaitGroup
	for w := range 10 {
		writing.Go(func() {
			for i := w; i < n; i += 10 {
				if _, err := c.Put(ctx, fmt.Sprint("many/", i), []byte(strconv.Itoa(i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	done.Wait()
	require.LessOrEqual(t, conns, 3, "three nodes")
}

// What stands in front of a node may not speak HTTP/2. Watches go on over HTTP/1.1.
func TestWatchesThroughWhatSpeaksNoHTTP2(t *testing.T) {
	target, err := url.Parse(endpoints(t)[0])
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1
	inFront := map[string]func(w http.ResponseWriter, r *http.Request){
		"a proxy of HTTP/1.1": proxy.ServeHTTP,
	}
	for name, handler := range inFront {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(handler))
			defer srv.Close()
			checkPlainWatches(t, srv.URL)
		})
	}
	for name, answer := range map[string]string{
		"one that hangs up":         "",
		"one that is silent":        "silent",
		"one that answers as HTTP":  "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		"one that answers nonsense": "SSH-2.0-OpenSSH_9.6\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			var serving sync.WaitGroup
			defer serving.Wait()
			defer l.Close()
			serving.Go(func() {
				for {
					nc, err := l.Accept()
					if err != nil {
						return
					}
					serving.Go(func() { relay(nc, target.Host, answer) })
				}
			})
			checkPlainWatches(t, "http://"+l.Addr().String())
		})
	}
}

// relay passes a connection on that begins with a request of HTTP/1.1, and treats
// others as answer says.
func relay(nc net.Conn, to, answer string) {
	defer nc.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(nc, head); err != nil {
		return
	}
	if string(head) == "PRI " {
		if answer != "silent" {
			_, _ = io.WriteString(nc, answer)
			return
		}
		_, _ = io.Copy(io.Discard, nc) // until the client has had enough
		return
	}
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	go func() {
		_, _ = io.Copy(up, io.MultiReader(strings.NewReader(string(head)), nc))
		up.Close()
	}()
	_, _ = io.Copy(nc, up)
}

func checkPlainWatches(t *testing.T, endpoint string) {
	t.Helper()
	c, err := client.Open(t.Context(), client.Config{Endpoints: []string{endpoint}, DisableDiscovery: true})
	require.NoError(t, err)
	defer c.Close()
	ctx := within(t)
	var ready, done sync.WaitGroup
	for i := range 5 {
		watchOne(ctx, t, c, fmt.Sprint("plain/", i), "v", &ready, &done)
	}
	ready.Wait()
	for i := range 5 {
		_, err := c.Put(ctx, fmt.Sprint("plain/", i), []byte("v"))
		require.NoError(t, err)
	}
	done.Wait()
}

// Watches of one client, some of which share a stream, outlive the nodes that serve
// them.
func TestSharedWatchesOutliveMembers(t *testing.T) {
	cluster := trivettest.Start(t)
	ctx := within(t)
	writer, c := open(t, client.Config{Endpoints: cluster.Endpoints()}), open(t, client.Config{Endpoints: cluster.Endpoints()})
	_, err := writer.Put(ctx, "n", []byte("0"))
	require.NoError(t, err)
	const writes, watchers = 300, 12
	var watching, finished sync.WaitGroup
	watching.Add(watchers)
	for i := range watchers {
		finished.Go(func() {
			started := sync.OnceFunc(watching.Done)
			defer started()
			var options []client.WatchOption
			if i%3 == 0 {
				options = append(options, client.Initial())
			}
			if i%4 == 0 {
				options = append(options, client.WithPrev())
			}
			next, last := 1, uint64(0)
			for f, err := range c.Watch(ctx, client.Key("n"), options...) {
				if err != nil {
					t.Error(i, err)
					return
				}
				if f.Kind == client.FrameSynced {
					started()
				}
				for _, e := range f.Events {
					n, err := strconv.Atoi(string(e.Item.Value))
					if err != nil || n != next || f.Revision <= last || (e.Prev != nil) != (i%4 == 0) {
						t.Errorf("watch %d: %q at revision %d, behind %d at %d", i, e.Item.Value, f.Revision, next-1, last)
						return
					}
					next, last = next+1, f.Revision
				}
				if next > writes {
					return
				}
			}
		})
	}
	watching.Wait()
	for i := range writes {
		if i == writes/2 {
			cluster.Kill(cluster.Leader())
		}
		_, err := writer.Put(ctx, "n", strconv.AppendInt(nil, int64(i+1), 10))
		require.NoError(t, err)
	}
	finished.Wait()
}

// A client that is closed leaves no connection, be its watches over HTTP/2 just ended.
func TestCloseLeavesNoConnection(t *testing.T) {
	urls := endpoints(t)
	for range 20 {
		c, err := client.Open(t.Context(), client.Config{Endpoints: urls})
		require.NoError(t, err)
		for range c.Watch(within(t), client.All()) { // which alone would be over HTTP/1.1
			for range c.Watch(within(t), client.Key("other")) {
				break
			}
			break
		}
		require.NoError(t, c.Close())
		require.Zero(t, c.StreamConns())
	}
}
