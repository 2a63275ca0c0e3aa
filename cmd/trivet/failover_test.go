package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A leader that is told to stop fails no request, neither of those sent to it
// nor of those sent elsewhere, as long as callers leave when they are told to.
func TestStopOfTheLeaderFailsNoRequest(t *testing.T) {
	c := startBenchCluster(t)
	for range 2 {
		r := c.run("term")
		require.Zero(t, r.failed, "requests that were not acknowledged")
		t.Logf("%d acknowledged, none for %v", r.acked, r.gap)
	}
}

// A leader that is stopped in the middle of everything, deposed, and wakes up
// with a read in front of it, which was sent after another leader had been
// written to: it answers with what was written, or not at all.
func TestStoppedLeaderAnswersWithNothingOld(t *testing.T) {
	c := startBenchCluster(t)
	put := func(i int, value string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, c.url(i)+"/v1/kv/k", strings.NewReader(value))
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, 2, resp.StatusCode/100, "%s", body)
	}
	for round := range 2 {
		old := c.leader()
		put(old, "old")
		c.nodes[old].signal(syscall.SIGSTOP)
		put((old+1)%3, "new") // waits for the next leader
		// Its kernel takes the connections and what comes on them.
		var reads [8]net.Conn
		for i := range reads {
			conn, err := net.Dial("tcp", strings.TrimPrefix(c.url(old), "http://"))
			require.NoError(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, "GET /v1/kv/k HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			reads[i] = conn
		}
		c.nodes[old].signal(syscall.SIGCONT)
		for _, conn := range reads {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			require.NoError(t, err)
			value, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			if resp.StatusCode == http.StatusOK {
				require.Equal(t, "new", string(value), "round %d", round)
			}
		}
		c.await(old)
	}
}
