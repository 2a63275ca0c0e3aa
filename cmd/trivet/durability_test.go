package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// TestNoAcknowledgedWriteIsLost kills the leader under load, then everything,
// and asks every node for every write that it was told of.
func TestNoAcknowledgedWriteIsLost(t *testing.T) {
	dir, ports := t.TempDir(), freePorts(t)
	startDev := func() *process {
		p := startProcess(t, dir, os.Environ(), "dev", "--api-port", strconv.Itoa(ports), "--peer-port", strconv.Itoa(ports+10))
		t.Cleanup(p.stop)
		require.NoError(t, p.await(`Ctrl-C stops`))
		return p
	}
	url := func(id string) string {
		n, _ := strconv.Atoi(id[1:])
		return fmt.Sprintf("http://127.0.0.1:%d", ports+n-1)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	defer cancel()

	dev := startDev()
	require.NoError(t, put(ctx, t, url("n2"), "greeting", "hello"))
	item, err := openAt(t, url("n3")).Get(ctx, "greeting")
	require.NoError(t, err)
	require.Equal(t, "hello", string(item.Value))

	// Writers go through those that will survive. Each writes keys of its own,
	// one after the other.
	killed := dev.leader()
	require.NotEmpty(t, killed)
	var survivors []string
	for _, id := range []string{"n1", "n2", "n3"} {
		if id != killed {
			survivors = append(survivors, id)
		}
	}
	const writers, before, after = 8, 500, 1000
	var (
		mu      sync.Mutex
		acked   = map[string]string{}
		unknown = map[string]string{}
		enough  = make(chan struct{})
		done    = make(chan struct{})
		wg      sync.WaitGroup
	)
	for w := range writers {
		c := openAt(t, url(survivors[w%2]), url(survivors[(w+1)%2]))
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				select {
				case <-done:
					return
				default:
				}
				key, value := fmt.Sprintf("load/%d/%06d", w, i), fmt.Sprintf("value %d of %d", i, w)
				_, err := c.Put(ctx, key, []byte(value))
				mu.Lock()
				switch {
				case err == nil:
					acked[key] = value
					switch len(acked) {
					case before:
						close(enough)
					case before + after:
						close(done)
					}
				case errors.Is(err, client.ErrUnknown):
					unknown[key] = value
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	began := time.Now()
	require.NoError(t, syscall.Kill(dev.nodePID(killed), syscall.SIGKILL))
	require.NoError(t, dev.awaitAll(`^`+killed+`  is gone \(signal: killed\)`, `^n\d  is the leader now$`))
	t.Logf("a new leader was reported %v after the kill of the old one", time.Since(began).Round(time.Millisecond))
	wg.Wait()
	require.NoError(t, ctx.Err())
	t.Logf("%d acknowledged", len(acked))
	require.Empty(t, unknown, "a node that stays up finds out")

	check := func(id string) {
		t.Helper()
		found := map[string]string{}
		for it, err := range openAt(t, url(id)).List(ctx, client.Prefix("load/")) {
			require.NoError(t, err)
			found[it.Key] = string(it.Value)
		}
		for key, value := range acked {
			require.Equal(t, value, found[key], "%s at %s was acknowledged", key, id)
		}
		for key, value := range found {
			if acked[key] != value {
				require.Equal(t, unknown[key], value, "%s at %s was never written", key, id)
			}
		}
	}
	for _, id := range survivors {
		check(id)
	}

	dev.signal(syscall.SIGKILL) // and its nodes with it
	_, err = dev.ended()
	require.NoError(t, err)
	for _, id := range survivors {
		require.NoError(t, awaitGone(dev.nodePID(id)))
	}
	dev = startDev()
	for _, id := range []string{"n1", "n2", "n3"} {
		check(id)
	}
	dev.signal(syscall.SIGTERM)
	status, err := dev.ended()
	require.NoError(t, err)
	require.Zero(t, status, dev.output())
}

// openAt returns a client that keeps to the given nodes.
func openAt(t *testing.T, urls ...string) *client.Client {
	c, err := client.Open(t.Context(), client.Config{Endpoints: urls, DisableDiscovery: true})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// put writes through one node, with a client that is gone again when it returns:
// its node may be, by the end of the test.
func put(ctx context.Context, t *testing.T, url, key, value string) error {
	c, err := client.Open(t.Context(), client.Config{Endpoints: []string{url}, DisableDiscovery: true, DisableSessions: true})
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Put(ctx, key, []byte(value))
	return err
}
