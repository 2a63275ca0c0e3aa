package client_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/internal/testcluster"
)

// The leader dies in the middle of a load. What was acknowledged is there, what
// was certainly not applied is not, and a counter is at least what was
// acknowledged and at most that and what is unknown.
func TestLeaderDiesUnderLoad(t *testing.T) {
	cluster := testcluster.Start(t, 3)
	c, ctx := open(t, client.Config{Endpoints: cluster.Endpoints()}), within(t)
	_, err := c.Add(ctx, "counter", 0)
	require.NoError(t, err)
	leader := cluster.Leader()
	require.GreaterOrEqual(t, leader, 0)

	const workers, before, after = 16, 200, 400
	var acked, unknown, failed atomic.Int64
	var mu sync.Mutex
	fate := map[string]client.Outcome{} // of keys whose put failed
	written := map[string]bool{}
	// kill is closed after some writes, done after some more behind the death.
	kill, done := make(chan struct{}), make(chan struct{})
	var sinceDeath atomic.Int64
	var dead atomic.Bool
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				case <-ctx.Done():
					return
				default:
				}
				_, err := c.Add(ctx, "counter", 1)
				switch {
				case err == nil:
					if acked.Add(1) == before {
						close(kill)
					}
				case errors.Is(err, client.ErrUnknown):
					unknown.Add(1)
				default:
					failed.Add(1)
				}
				key := fmt.Sprintf("put/%d/%d", w, i)
				_, err = c.Put(ctx, key, []byte(key), client.IfAbsent())
				mu.Lock()
				if err == nil {
					written[key] = true
				} else if errors.Is(err, client.ErrUnknown) {
					fate[key] = client.Unknown
				} else {
					fate[key] = client.NotApplied
				}
				mu.Unlock()
				if dead.Load() && sinceDeath.Add(1) == after {
					close(done)
				}
			}
		})
	}
	select {
	case <-kill:
	case <-ctx.Done():
		t.Fatal("no load")
	}
	began := time.Now()
	require.NoError(t, cluster.Kill(leader))
	dead.Store(true)
	for err = client.ErrUnknown; errors.Is(err, client.ErrUnknown); {
		// A kept connection to the dead may not be known to be closed yet.
		_, err = c.Put(ctx, "after", nil)
	}
	require.NoError(t, err)
	t.Log("writes again after", time.Since(began))
	wg.Wait()
	require.NoError(t, ctx.Err())
	t.Log("acknowledged", acked.Load(), "unknown", unknown.Load(), "not applied", failed.Load())
	require.Zero(t, failed.Load(), "a write that was certainly not applied was to be tried again")

	item, err := c.Get(ctx, "counter")
	require.NoError(t, err)
	final, err := strconv.ParseInt(string(item.Value), 10, 64)
	require.NoError(t, err)
	require.GreaterOrEqual(t, final, acked.Load())
	require.LessOrEqual(t, final, acked.Load()+unknown.Load())

	found := map[string]bool{}
	for it, err := range c.List(ctx, client.Prefix("put/")) {
		require.NoError(t, err)
		found[it.Key] = true
	}
	for key := range written {
		require.True(t, found[key], "%s was acknowledged and is gone", key)
	}
	for key, outcome := range fate {
		if outcome == client.NotApplied {
			require.False(t, found[key], "%s was not applied and is there", key)
		}
		delete(found, key)
	}
	require.Len(t, found, len(written))
}

// Reads go on over a death without any failing.
func TestReadsOutliveAnyMember(t *testing.T) {
	cluster := testcluster.Start(t, 3)
	c, ctx := open(t, client.Config{Endpoints: cluster.Endpoints()}), within(t)
	_, err := c.Put(ctx, "k", []byte("v"))
	require.NoError(t, err)
	var wg sync.WaitGroup
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	var reads atomic.Int64
	enough := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for stop.Err() == nil {
				it, err := c.Get(ctx, "k")
				if err != nil || string(it.Value) != "v" {
					t.Error(err)
					cancel()
					return
				}
				if reads.Add(1) == 2000 {
					close(enough)
				}
			}
		})
	}
	require.NoError(t, cluster.Kill(cluster.Leader()))
	select {
	case <-enough:
	case <-stop.Done():
	}
	cancel()
	wg.Wait()
}

// With the majority gone a write says what it knows, and a stale read still works.
func TestWithoutAMajority(t *testing.T) {
	cluster := testcluster.Start(t, 3)
	c, ctx := open(t, client.Config{Endpoints: cluster.Endpoints()}), within(t)
	_, err := c.Put(ctx, "k", []byte("v"))
	require.NoError(t, err)
	last := (cluster.Leader() + 1) % 3
	one := open(t, client.Config{Endpoints: cluster.Endpoints()[last : last+1], DisableDiscovery: true})
	_, err = one.Get(ctx, "k") // so that it has arrived there
	require.NoError(t, err)
	for i := range 3 {
		if i != last {
			require.NoError(t, cluster.Kill(i))
		}
	}
	short, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	defer cancel()
	_, err = c.Put(short, "k", []byte("w"))
	require.ErrorIs(t, err, client.ErrUnavailable)
	t.Log(err)
	_, err = c.Get(short, "k")
	requireError(t, err, client.NotApplied, client.ErrUnavailable)
	it, err := c.Get(ctx, "k", client.Stale())
	require.NoError(t, err)
	require.Equal(t, "v", string(it.Value))
}
