package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Everything that a node says goes through its log, what its libraries have to
// say too: raft, raft-wal, bolt, go-metrics and net/http. Nothing is written to the
// standard streams beside it.
func TestEveryLineIsOfTheLog(t *testing.T) {
	dir, port := t.TempDir(), freePorts(t)
	peer := func(i int) string { return "127.0.0.1:" + strconv.Itoa(port+10+i) }
	cluster := fmt.Sprintf("n1=%s,n2=%s,n3=%s", peer(0), peer(1), peer(2))
	start := func(i int, store string) *process {
		p := startProcess(t, dir, os.Environ(), "serve", "--id", fmt.Sprint("n", i+1), "--data", fmt.Sprint("d", i+1),
			"--api", "127.0.0.1:"+strconv.Itoa(port+i), "--peer", peer(i), "--initial-cluster", cluster, "--log-store", store,
			"--snapshot-bytes", "16KiB", "--log-format", "json", "--log-level", "debug")
		t.Cleanup(func() {
			p.signal(syscall.SIGKILL)
			p.ended()
		})
		require.NoError(t, p.await(`"msg":"listening"`))
		return p
	}
	n1, n2, n3 := start(0, "wal"), start(1, "boltdb"), start(2, "wal")
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	defer cancel()
	url := "http://127.0.0.1:" + strconv.Itoa(port)
	require.NoError(t, put(ctx, t, url, "k", "v"))
	// n3 is gone from here on, so that there is something to complain of.
	n3.signal(syscall.SIGKILL)
	n3.ended()
	for i := range 50 {
		require.NoError(t, put(ctx, t, url, fmt.Sprint("k", i), strings.Repeat("v", 2000)))
	}
	n2.signal(syscall.SIGKILL)
	n2.ended()
	require.Error(t, put(ctx, t, url+"/nowhere", "k", "v"))
	n2 = start(1, "boltdb")
	require.NoError(t, put(ctx, t, url, "k", "v"))
	for _, p := range []*process{n1, n2} {
		p.signal(syscall.SIGTERM)
	}
	for _, p := range []*process{n1, n2} {
		p.ended()
		lines := 0
		for s := bufio.NewScanner(strings.NewReader(p.output())); s.Scan(); lines++ {
			var line struct{ Time, Level, Msg, Node string }
			require.NoError(t, json.Unmarshal(s.Bytes(), &line), "%s", s.Text())
			for name, value := range map[string]string{"time": line.Time, "level": line.Level, "msg": line.Msg, "node": line.Node} {
				require.NotEmpty(t, value, "%s", s.Text())
				require.Equal(t, 1, strings.Count(s.Text(), `,"`+name+`":`)+strings.Count(s.Text(), `{"`+name+`":`), "%s", s.Text())
			}
		}
		require.Greater(t, lines, 10)
		require.Contains(t, p.output(), `"part":"raft"`)
	}
}
