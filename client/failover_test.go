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
	"trivet/trivettest"
)

// The leader dies in the middle of a load, and no call fails: each is repeated until
// its answer is there. A counter is exactly what was added, a key that may be written
// once was. Callers with little patience leave, and Resolve tells them to a man what
// became of theirs.
func TestLeaderDiesUnderLoad(t *testing.T) {
	cluster := trivettest.Start(t)
	c, ctx := open(t, client.Config{Endpoints: cluster.Endpoints(), Timeout: 30 * time.Second}), within(t)
	_, err := c.Add(ctx, "counter", 0)
	require.NoError(t, err)
	leader := cluster.Leader()
	require.GreaterOrEqual(t, leader, 0)

	const workers, impatient, before, after = 16, 4, 400, 800
	var acked, sinceDeath atomic.Int64
	var dead atomic.Bool
	// kill is closed after some writes, done after some more behind the death.
	kill, done := make(chan struct{}), make(chan struct{})
	var enough sync.Once
	var mu sync.Mutex
	var unknown []error
	written := map[string]bool{}
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
				if w < impatient {
					short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
					_, err := c.Add(short, "counter", 1)
					cancel()
					if err == nil {
						acked.Add(1)
					} else if errors.Is(err, client.ErrUnknown) {
						mu.Lock()
						unknown = append(unknown, err)
						mu.Unlock()
					}
					continue
				}
				if _, err := c.Add(ctx, "counter", 1); err != nil {
					t.Error(err)
				} else if acked.Add(1) >= before {
					enough.Do(func() { close(kill) })
				}
				key := fmt.Sprintf("put/%d/%d", w, i)
				if _, err := c.Put(ctx, key, []byte(key), client.IfAbsent()); err != nil {
					t.Error(err) // ErrConflict where it was applied twice
				}
				mu.Lock()
				written[key] = true
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
	cluster.Kill(leader)
	dead.Store(true)
	wg.Wait()
	require.NoError(t, ctx.Err())

	var applied int64
	for _, err := range unknown {
		res, err := c.Resolve(ctx, err)
		require.NoError(t, err)
		if res.Applied {
			applied++
		}
	}
	t.Log("acknowledged", acked.Load(), "unknown", len(unknown), "of which were applied", applied)
	item, err := c.Get(ctx, "counter")
	require.NoError(t, err)
	require.Equal(t, strconv.FormatInt(acked.Load()+applied, 10), string(item.Value))
	count := 0
	for it, err := range c.List(ctx, client.Prefix("put/")) {
		require.NoError(t, err)
		require.True(t, written[it.Key], it.Key)
		count++
	}
	require.Len(t, written, count)
}

// Reads go on over a death without any failing.
func TestReadsOutliveAnyMember(t *testing.T) {
	cluster := trivettest.Start(t)
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
	cluster.Kill(cluster.Leader())
	select {
	case <-enough:
	case <-stop.Done():
	}
	cancel()
	wg.Wait()
}

// With the majority gone a write says what it knows, and a stale read still works.
func TestWithoutAMajority(t *testing.T) {
	cluster := trivettest.Start(t)
	c, ctx := open(t, client.Config{Endpoints: cluster.Endpoints()}), within(t)
	_, err := c.Put(ctx, "k", []byte("v"))
	require.NoError(t, err)
	last := (cluster.Leader() + 1) % 3
	one := open(t, client.Config{Endpoints: cluster.Endpoints()[last : last+1], DisableDiscovery: true})
	_, err = one.Get(ctx, "k") // so that it has arrived there
	require.NoError(t, err)
	for i := range 3 {
		if i != last {
			cluster.Kill(i)
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
