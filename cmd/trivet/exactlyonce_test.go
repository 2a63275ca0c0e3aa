package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPlainWritesAreAppliedOnce adds to a counter by plain HTTP requests,
// without a client that would try again and without an identity, through a node
// that stays up, while one leader after the other is killed: every request
// succeeds, and the counter is their number.
func TestPlainWritesAreAppliedOnce(t *testing.T) {
	dir, ports := t.TempDir(), freePorts(t)
	dev := startProcess(t, dir, os.Environ(), "dev", "--restart",
		"--api-port", strconv.Itoa(ports), "--peer-port", strconv.Itoa(ports+10))
	t.Cleanup(dev.stop)
	require.NoError(t, dev.await(`Ctrl-C stops`))
	url := func(id string) string {
		n, _ := strconv.Atoi(id[1:])
		return fmt.Sprintf("http://127.0.0.1:%d", ports+n-1)
	}
	leader, through := dev.leader(), ""
	require.NotEmpty(t, leader)
	for _, id := range []string{"n1", "n2", "n3"} {
		if id != leader {
			through = id
		}
	}
	const writers, kills = 8, 2
	var added atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := http.Post(url(through)+"/v1/kv/n?add=1&timeout=60s", "", nil)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%s: %v", body, err)
					return
				}
				added.Add(1)
			}
		})
	}
	for range kills {
		before := added.Load()
		require.NoError(t, poll(func() bool { return added.Load() > before+200 || t.Failed() }))
		// The node that the writers ask stays up; once it leads itself there is
		// nobody left to kill.
		if leader = dev.leader(); leader == through {
			break
		}
		require.NoError(t, syscall.Kill(dev.nodePID(leader), syscall.SIGKILL))
		require.NoError(t, poll(func() bool { return dev.leader() != leader || t.Failed() }))
	}
	before := added.Load()
	require.NoError(t, poll(func() bool { return added.Load() > before+200 || t.Failed() }))
	close(done)
	wg.Wait()
	resp, err := http.Get(url(through) + "/v1/kv/n")
	require.NoError(t, err)
	defer resp.Body.Close()
	value, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, strconv.FormatInt(added.Load(), 10), string(value))
	t.Logf("%d additions", added.Load())
}
