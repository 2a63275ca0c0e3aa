package raftnode

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

func put(key, value string) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Put{
		Put: &trivetpb.PutOp{Key: []byte(key), Value: []byte(value)},
	}}}}
}

func testLog(t testing.TB) *slog.Logger {
	if os.Getenv("TRIVET_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// realCluster starts n members on loopback, with real disks.
func realCluster(t testing.TB, n int, change func(*Config)) []*Node {
	t.Helper()
	dir := t.TempDir()
	var peers []Peer
	var lns []net.Listener
	for i := range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		lns = append(lns, ln)
		peers = append(peers, Peer{ID: fmt.Sprintf("n%d", i+1), Addr: ln.Addr().String()})
	}
	nodes := make([]*Node, n)
	for i := range n {
		c := Config{
			ID: peers[i].ID, DataDir: filepath.Join(dir, peers[i].ID), PeerListener: lns[i],
			InitialCluster: peers, Logger: testLog(t),
		}
		if change != nil {
			change(&c)
		}
		node, err := Open(c)
		require.NoError(t, err)
		nodes[i] = node
	}
	t.Cleanup(func() {
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for _, n := range nodes {
			wg.Go(func() { n.Close(ctx) })
		}
		wg.Wait()
	})
	return nodes
}

func TestRealCluster(t *testing.T) {
	nodes := realCluster(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	start := time.Now()
	for i, n := range nodes {
		rs, err := n.Propose(ctx, []*trivetpb.Command{put(fmt.Sprint("k", i), "v")})
		require.NoError(t, err)
		require.Nil(t, rs[0].Problem, "%v", rs[0].Problem)
		t.Log(n.ID(), time.Since(start))
	}
	for _, n := range nodes {
		p, err := n.AwaitRead(ctx, ReadOptions{})
		require.NoError(t, err)
		t.Log(p, n.Status())
		for i := range nodes {
			_, ok, _ := n.Store().Get(fmt.Append(nil, "k", i))
			require.True(t, ok)
		}
	}
	cs, err := nodes[0].Cluster(ctx)
	require.NoError(t, err)
	t.Logf("%+v", cs)
	closeCtx, c2 := context.WithTimeout(ctx, 5*time.Second)
	defer c2()
	for _, n := range nodes {
		if n.Status().Role == "leader" {
			start := time.Now()
			require.NoError(t, n.Close(closeCtx))
			t.Log("closed leader in", time.Since(start))
			break
		}
	}
}

func BenchmarkPropose(b *testing.B) {
	for _, kind := range []string{LogStoreWAL, LogStoreBoltDB} {
		for _, callers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", kind, callers), func(b *testing.B) {
				nodes := realCluster(b, 3, func(c *Config) { c.LogStore = kind })
				ctx := context.Background()
				nodes[0].Propose(ctx, []*trivetpb.Command{put("k", "v")})
				leader := nodes[0]
				for _, n := range nodes {
					if n.Status().Role == "leader" {
						leader = n
					}
				}
				value := string(make([]byte, 256))
				b.ResetTimer()
				var wg sync.WaitGroup
				for c := range callers {
					wg.Go(func() {
						for i := c; i < b.N; i += callers {
							rs, err := leader.Propose(ctx, []*trivetpb.Command{put(fmt.Sprintf("key-%026d", i%100000), value)})
							if err != nil || rs[0].Problem != nil {
								b.Error(err, rs)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
			})
		}
	}
}

// BenchmarkReadAfterWrite writes on the leader of an idle cluster and reads,
// linearizably, on a follower: what is measured is the read.
func BenchmarkReadAfterWrite(b *testing.B) {
	nodes := realCluster(b, 3, nil)
	ctx := context.Background()
	_, err := nodes[0].AwaitRead(ctx, ReadOptions{})
	require.NoError(b, err)
	leader, follower := nodes[0], nodes[1]
	for i, n := range nodes {
		if n.Status().Role == "leader" {
			leader, follower = n, nodes[(i+1)%3]
		}
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		rs, err := leader.Propose(ctx, []*trivetpb.Command{put("k", fmt.Sprint(i))})
		if err != nil || rs[0].Problem != nil {
			b.Fatal(err, rs)
		}
		start := time.Now()
		if _, err := follower.AwaitRead(ctx, ReadOptions{}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
		if item, _, _ := follower.Store().Get([]byte("k")); string(item.Value) != fmt.Sprint(i) {
			b.Fatalf("the read after write %d has %q", i, item.Value)
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
