package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// member is a real member with its HTTP door.
type member struct {
	node   *raftnode.Node
	server *Server
	addr   string
}

// startCluster starts n members with real disks and real sockets, and returns
// them with the leader first.
func startCluster(t testing.TB, n int) []member {
	t.Helper()
	return startClusterWith(t, n, Config{ProgressInterval: time.Hour}) // see openDoor
}

// startClusterWith is startCluster with a configuration of the doors.
func startClusterWith(t testing.TB, n int, cfg Config) []member {
	t.Helper()
	dir := t.TempDir()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	var peers []raftnode.Peer
	var lns []net.Listener
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		lns = append(lns, ln)
		peers = append(peers, raftnode.Peer{ID: fmt.Sprintf("n%d", i+1), Addr: ln.Addr().String()})
	}
	var doors []member
	for i := range n {
		api, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		node, err := raftnode.Open(raftnode.Config{
			ID: peers[i].ID, DataDir: filepath.Join(dir, peers[i].ID), PeerListener: lns[i],
			AdvertiseAPI: "http://" + api.Addr().String(), InitialCluster: peers, Logger: cfg.Logger,
		})
		require.NoError(t, err)
		server, err := New(node, cfg)
		require.NoError(t, err)
		go server.Serve(api)
		doors = append(doors, member{node, server, api.Addr().String()})
	}
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		var wg sync.WaitGroup
		for _, d := range doors {
			wg.Go(func() {
				d.server.Close()
				d.node.Close(now)
			})
		}
		wg.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := doors[0].node.AwaitRead(ctx, raftnode.ReadOptions{})
	require.NoError(t, err)
	leader := doors[0].node.Status().Leader
	for i, d := range doors {
		if d.node.ID() == leader {
			doors[0], doors[i] = doors[i], doors[0]
		}
	}
	return doors
}

// Every member takes every request, and a read anywhere sees the write before.
func TestClusterTakesEverythingEverywhere(t *testing.T) {
	doors := startCluster(t, 3)
	for i, w := range doors {
		value := fmt.Sprint("value ", i)
		req, err := http.NewRequest(http.MethodPut, "http://"+w.addr+"/v1/kv/a%2Fb//c", strings.NewReader(value))
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.Less(t, resp.StatusCode, 300, string(body))
		for _, r := range doors {
			resp, err := http.Get("http://" + r.addr + "/v1/kv/a%2Fb//c")
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			require.Equal(t, value, string(body))
			require.Equal(t, "linearizable", resp.Header.Get("Trivet-Consistency"))
			require.Equal(t, r.node.ID(), resp.Header.Get("Trivet-Node"))
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// Without a majority, a write says that it was not applied where it was not,
// and reads that need no leader work.
func TestClusterWithoutAMajority(t *testing.T) {
	doors := startCluster(t, 3)
	now, cancel := context.WithCancel(t.Context())
	cancel()
	for _, d := range doors[:2] {
		d.server.Close()
		d.node.Close(now)
	}
	base := "http://" + doors[2].addr
	deadline := time.Now().Add(20 * time.Second)
	for {
		req, err := http.NewRequest(http.MethodPut, base+"/v1/kv/k?timeout=300ms", strings.NewReader("v"))
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		require.GreaterOrEqual(t, resp.StatusCode, 500, string(body))
		if resp.StatusCode == http.StatusServiceUnavailable {
			require.Contains(t, string(body), `"code":"no_leader"`)
			require.Contains(t, string(body), `"outcome":"not_applied"`)
			require.NotEmpty(t, resp.Header.Get("Retry-After"))
			break
		}
		// At first the write may have been under way to the leader that died.
		require.Contains(t, string(body), `"code":"timeout"`)
		require.True(t, time.Now().Before(deadline))
	}
	for path, status := range map[string]int{
		"/v1/kv/k?consistency=stale": http.StatusNotFound,
		"/v1/kv/k?timeout=200ms":     http.StatusServiceUnavailable,
		"/livez":                     http.StatusOK,
		"/readyz":                    http.StatusServiceUnavailable,
		"/v1/status":                 http.StatusOK,
		"/v1/cluster":                http.StatusOK,
	} {
		resp, err := http.Get(base + path)
		require.NoError(t, err)
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		require.Equal(t, status, resp.StatusCode, path)
	}
	http.DefaultClient.CloseIdleConnections()
}

// BenchmarkCluster measures three real members in this process, over HTTP
// keep-alive, with callers that cost little themselves: prepared requests, and
// answers of which no more than the length is looked at.
//
// put and get are a request each; batch sends 256 puts in one /v1/batch in
// protobuf, from 8 callers. The figure to look at is ops/s.
func BenchmarkCluster(b *testing.B) {
	value := strings.Repeat("x", 256)
	key := func(i int) string { return fmt.Sprintf("key-%028d", i%100_000) }
	put := func(i int) []byte {
		return fmt.Appendf(nil, "PUT /v1/kv/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 256\r\n\r\n%s", key(i), value)
	}
	get := func(int) []byte { return []byte("GET /v1/kv/" + key(0) + " HTTP/1.1\r\nHost: x\r\n\r\n") }
	batch := func(i int) []byte {
		req := &trivetpb.BatchRequest{}
		for j := range 256 {
			req.Ops = append(req.Ops, &trivetpb.BatchOp{Op: &trivetpb.Op{Op: &trivetpb.Op_Put{
				Put: &trivetpb.PutOp{Key: []byte(key(i*256 + j)), Value: []byte(value)}}}})
		}
		body, _ := req.MarshalVT()
		return append(fmt.Appendf(nil, "POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"+
			"Accept: application/x-protobuf\r\nContent-Length: %d\r\n\r\n", len(body)), body...)
	}
	for _, c := range []struct {
		name    string
		callers int
		each    int // operations in a request
		all     bool
		request func(int) []byte
	}{
		{"put/leader/callers=1", 1, 1, false, put},
		{"put/leader/callers=256", 256, 1, false, put},
		{"put/all/callers=256", 256, 1, true, put},
		{"get/leader/callers=256", 256, 1, false, get},
		{"get/all/callers=256", 256, 1, true, get},
		{"batch-put/leader/callers=8", 8, 256, false, batch},
		{"batch-put/all/callers=8", 8, 256, true, batch},
	} {
		b.Run(c.name, func(b *testing.B) {
			doors := startCluster(b, 3)
			var conns []net.Conn
			for i := range c.callers {
				d := doors[0]
				if c.all {
					d = doors[i%len(doors)]
				}
				conn, err := net.Dial("tcp", d.addr)
				require.NoError(b, err)
				defer conn.Close()
				conns = append(conns, conn)
			}
			requests := make([][]byte, 512)
			for i := range requests {
				requests[i] = c.request(i * 7919)
			}
			exchange(b, conns[0], bufio.NewReader(conns[0]), put(0))
			var next atomic.Int64
			b.ResetTimer()
			var wg sync.WaitGroup
			for _, conn := range conns {
				wg.Go(func() {
					r := bufio.NewReader(conn)
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						exchange(b, conn, r, requests[int(i)%len(requests)])
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N*c.each)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}

// exchange sends a request and reads past its answer.
func exchange(b testing.TB, conn net.Conn, r *bufio.Reader, request []byte) {
	if err := exchangeOnce(conn, r, request); err != nil {
		b.Error(err)
	}
}

func exchangeOnce(conn net.Conn, r *bufio.Reader, request []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	length, first := 0, true
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		switch {
		case first:
			if first = false; !bytes.HasPrefix(line, []byte("HTTP/1.1 20")) {
				return fmt.Errorf("the answer is %q", line)
			}
		case len(line) == 2:
			_, err := r.Discard(length)
			return err
		case bytes.HasPrefix(line, []byte("Content-Length: ")):
			length, _ = strconv.Atoi(string(line[16 : len(line)-2]))
		}
	}
}
