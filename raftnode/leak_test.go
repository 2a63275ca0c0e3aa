package raftnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"trivet/trivetpb"
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

// Close leaves no goroutine and no open file behind, in the middle of a load, with
// either log store, whether the members stop gracefully, at once, or after they
// failed.
func TestCloseLeavesNothingBehind(t *testing.T) {
	for _, kind := range []string{LogStoreWAL, LogStoreBoltDB} {
		for _, how := range []string{"gracefully", "at once", "after a failure"} {
			t.Run(kind+" "+how, func(t *testing.T) {
				before, goroutines := openFiles(t), goleak.IgnoreCurrent()
				nodes := realCluster(t, 3, func(c *Config) {
					c.LogStore, c.SnapshotBytes = kind, 16<<10
				})
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				var wg sync.WaitGroup
				enough := make(chan struct{}, 1000)
				for i, n := range nodes {
					for range 4 {
						wg.Go(func() {
							for ctx.Err() == nil {
								rs, err := n.Propose(ctx, []*trivetpb.Command{put(fmt.Sprint("k", i), string(make([]byte, 512)))})
								if err != nil || rs[0].Problem.GetCode() == trivetpb.Code_DRAINING {
									return // the node has stopped
								}
								if _, err := n.AwaitRead(ctx, ReadOptions{}); err != nil {
									return
								}
								select {
								case enough <- struct{}{}:
								default:
								}
							}
						})
					}
				}
				for range 200 {
					<-enough
				}
				patience, stop := context.WithCancel(ctx)
				defer stop()
				if how != "gracefully" {
					stop()
				}
				if how == "after a failure" {
					nodes[0].fail(errors.New("a disk that broke"))
					<-nodes[0].Failed()
					nodes[1].diverge(hashAt{1, 2}, "for the test")
				}
				for i, n := range nodes {
					if i > 0 {
						stop() // the rest has no majority to finish anything with
					}
					n.Close(patience)
				}
				cancel()
				wg.Wait()
				require.NoError(t, goleak.Find(goroutines))
				require.ElementsMatch(t, before, openFiles(t))
			})
		}
	}
}

// An Open that fails leaves nothing behind either, wherever it does.
func TestAnOpenThatFailsLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{ID: "n1", DataDir: dir, PeerAddr: "127.0.0.1:0", AdvertisePeer: "127.0.0.1:1", Logger: testLog(t)}
	cfg.InitialCluster = []Peer{{ID: "n1", Addr: "127.0.0.1:1"}}
	n, err := Open(cfg)
	require.NoError(t, err)
	_, err = n.Propose(t.Context(), []*trivetpb.Command{put("k", "a value to damage"), put("l", "w")})
	require.NoError(t, err)
	_, err = n.Propose(t.Context(), []*trivetpb.Command{put("k", "v")})
	require.NoError(t, err)
	require.NoError(t, n.Close(t.Context()))
	before, goroutines := openFiles(t), goleak.IgnoreCurrent()
	for _, row := range []struct {
		name   string
		damage func()
	}{
		{"no member id", func() { cfg.ID = "" }},
		{"no such address", func() { cfg.PeerAddr = "256.0.0.1:0" }},
		{"another member's folder", func() { cfg.ID = "n2" }},
		{"a log that was damaged", func() {
			files, err := filepath.Glob(filepath.Join(dir, "raft", "wal", "*.wal"))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			b, err := os.ReadFile(files[0])
			require.NoError(t, err)
			b[bytes.Index(b, []byte("a value to damage"))]++
			require.NoError(t, os.WriteFile(files[0], b, 0o600))
		}},
		{"a file of bolt's that was cut", func() { require.NoError(t, os.Truncate(filepath.Join(dir, "raft", "stable.db"), 4096)) }},
	} {
		was := cfg
		row.damage()
		_, err := Open(cfg)
		require.Error(t, err, row.name)
		cfg = was
		require.NoError(t, goleak.Find(goroutines), row.name)
		require.ElementsMatch(t, before, openFiles(t), row.name)
	}
}
