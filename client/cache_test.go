package client_test

import (
	"bytes"
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

// keysOf are the keys that a cache has of a range.
func keysOf(t testing.TB, k *client.Cache, keys client.KeyRange) (list []string) {
	t.Helper()
	for it, err := range k.Range(t.Context(), keys) {
		require.NoError(t, err)
		list = append(list, it.Key)
	}
	return list
}

// A cache has what was there, and everything that its client writes by the time that
// the write has returned, whatever kind of write it is.
func TestCacheReadsItsOwnWrites(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	_, err := c.Put(ctx, "c/1", []byte("one"))
	require.NoError(t, err)
	_, err = c.Put(ctx, "d", []byte("outside"))
	require.NoError(t, err)
	k, err := c.Cache(ctx, client.Prefix("c/"), client.WithMaxAge(time.Minute))
	require.NoError(t, err)
	defer k.Close()
	require.Equal(t, 1, k.Len())
	it, err := k.Get(ctx, "c/1")
	require.NoError(t, err)
	whole, err := c.Get(ctx, "c/1")
	require.NoError(t, err)
	require.Equal(t, whole, it)
	it.Value[0] = 'X' // is the caller's
	again, err := k.Get(ctx, "c/1")
	require.NoError(t, err)
	require.Equal(t, whole, again)

	lease, err := c.LeaseGrant(ctx, time.Minute)
	require.NoError(t, err)
	for i := range 30 {
		key := fmt.Sprintf("c/%02d\xff", i)
		put, err := c.Put(ctx, key, []byte(strconv.Itoa(i)), client.WithLease(lease.ID))
		require.NoError(t, err)
		it, err := k.Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, put.Revision, it.ModRevision)
	}
	require.Len(t, keysOf(t, k, client.Between("c/10", "c/20")), 10)
	sum, err := c.Add(ctx, "c/n", 7)
	require.NoError(t, err)
	it, err = k.Get(ctx, "c/n")
	require.NoError(t, err)
	require.Equal(t, strconv.FormatInt(sum, 10), string(it.Value))
	_, err = c.Put(ctx, "c/k", nil, client.WithIdempotencyKey("cache-own-writes"))
	require.NoError(t, err)
	_, err = k.Get(ctx, "c/k")
	require.NoError(t, err)
	_, err = c.Txn().Then(client.OpDelete("c/n"), client.OpPut("c/t", nil), client.OpPut("e", nil)).Commit(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"c/t"}, keysOf(t, k, client.Between("c/n", "c/z")))
	_, err = c.LeaseRevoke(ctx, lease.ID)
	require.NoError(t, err)
	require.Equal(t, []string{"c/1", "c/k", "c/t"}, keysOf(t, k, client.Prefix("c/")))
	_, err = c.DeleteRange(ctx, client.Prefix("c/"))
	require.NoError(t, err)
	_, err = k.Get(ctx, "c/1")
	requireError(t, err, client.NotApplied, client.ErrNotFound)
	require.Empty(t, keysOf(t, k, client.Prefix("c/")))
}

// What others write arrives by itself; and one whose bound is short asks for it.
func TestCacheFollowsOthers(t *testing.T) {
	urls := endpoints(t)
	other, c, ctx := open(t, client.Config{Endpoints: urls}), open(t, client.Config{Endpoints: urls}), within(t)
	k, err := c.Cache(ctx, client.All(), client.WithMaxAge(10*time.Millisecond))
	require.NoError(t, err)
	defer k.Close()
	for i := range 50 {
		_, err := other.Put(ctx, "k", strconv.AppendInt(nil, int64(i), 10))
		require.NoError(t, err)
		acked := time.Now()
		for {
			began := time.Now()
			it, err := k.Get(ctx, "k")
			if err != nil {
				require.ErrorIs(t, err, client.ErrNotFound)
			}
			if string(it.Value) == strconv.Itoa(i) {
				break
			}
			require.LessOrEqual(t, began.Sub(acked), 10*time.Millisecond, "too old")
		}
	}
	require.Less(t, k.Age(), time.Hour)
	require.NotZero(t, k.Revision())
}

func TestCacheRefusals(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	_, err := c.Cache(ctx, client.KeyRange{})
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.Cache(ctx, client.Prefix("c/"), client.WithMaxAge(time.Millisecond))
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = c.Cache(ended, client.Prefix("c/"))
	requireError(t, err, client.NotApplied, context.Canceled)

	k, err := c.Cache(ctx, client.Prefix("c/"))
	require.NoError(t, err)
	_, err = k.Get(ctx, "d")
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	for _, keys := range []client.KeyRange{client.All(), client.Prefix("c"), client.From("c/1"), client.Between("c/1", "d"), {}} {
		n := 0
		for _, err := range k.Range(ctx, keys) {
			requireError(t, err, client.NotApplied, client.ErrBadRequest)
			n++
		}
		require.Equal(t, 1, n)
	}
	k.Close()
	k.Close()
	_, err = k.Get(ctx, "c/1")
	requireError(t, err, client.NotApplied, client.ErrClosed)
	require.Zero(t, k.Len())

	// One that outlives its client.
	k, err = c.Cache(ctx, client.Prefix("c/"), client.WithMaxAge(10*time.Millisecond))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	for err == nil || !errors.Is(err, client.ErrClosed) {
		_, err = k.Get(ctx, "c/1")
	}
	_, err = c.Cache(ctx, client.All())
	requireError(t, err, client.NotApplied, client.ErrClosed)
}

// A cache whose node is cut off from the others never answers what is too old: it
// fails, until the node is back.
func TestCacheOfAMemberThatIsCutOff(t *testing.T) {
	cluster, ctx := trivettest.Start(t), within(t)
	others := cluster.Client()
	_, err := others.Put(ctx, "k", []byte("old"))
	require.NoError(t, err)
	cut := (cluster.Leader() + 1) % 3
	c := open(t, client.Config{Endpoints: cluster.Endpoints()[cut : cut+1], DisableDiscovery: true})
	const maxAge = 100 * time.Millisecond
	k, err := c.Cache(ctx, client.All(), client.WithMaxAge(maxAge))
	require.NoError(t, err)
	_, err = k.Get(ctx, "k")
	require.NoError(t, err)

	cluster.Partition([]int{cut}, []int{0, 1, 2})
	_, err = others.Put(ctx, "k", []byte("new"))
	require.NoError(t, err)
	acked := time.Now()
	for {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		began := time.Now()
		it, err := k.Get(short, "k")
		cancel()
		if err != nil {
			requireError(t, err, client.NotApplied, client.ErrUnavailable)
			require.Greater(t, k.Age(), maxAge)
			break
		}
		require.Equal(t, "old", string(it.Value))
		require.LessOrEqual(t, began.Sub(acked), maxAge)
	}
	cluster.Heal()
	it, err := k.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "new", string(it.Value))
}

// The promise of a cache, under a load, while members are killed, paused and cut off:
// every read sees what was acknowledged a bound before it began, all that the client
// itself has written, and never less than a read before it.
func TestCacheKeepsItsPromise(t *testing.T) {
	cluster, ctx := trivettest.Start(t), within(t)
	const maxAge, writes, writers = 50 * time.Millisecond, 120, 3
	// acked is when each number of a writer was acknowledged; newest the last one.
	var acked [writers]sync.Map
	var newest [writers]atomic.Int64
	var running, reading sync.WaitGroup
	done := make(chan struct{})
	faults := make(chan int, writes)
	for w := range writers {
		c := open(t, client.Config{Endpoints: cluster.Endpoints()})
		k, err := c.Cache(ctx, client.Prefix("n/"), client.WithMaxAge(maxAge))
		require.NoError(t, err)
		key := fmt.Sprint("n/", w)
		running.Go(func() {
			for n := 1; n <= writes; n++ {
				if _, err := c.Put(ctx, key, strconv.AppendInt(nil, int64(n), 10)); err != nil {
					t.Error(err)
					return
				}
				acked[w].Store(int64(n), time.Now())
				newest[w].Store(int64(n))
				if it, err := k.Get(ctx, key); err != nil || string(it.Value) != strconv.Itoa(n) {
					t.Errorf("own write %d: %q, %v", n, it.Value, err)
					return
				}
				if w == 0 {
					faults <- n
				}
			}
		})
		reading.Go(func() {
			var seen [writers]int64
			tick := time.NewTicker(2 * time.Millisecond) // to leave the cluster some of the machine
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
				}
				began := time.Now()
				var before [writers]int64
				for i := range writers {
					for n := newest[i].Load(); n > 0; n-- {
						if at, ok := acked[i].Load(n); ok && began.Sub(at.(time.Time)) > maxAge {
							before[i] = n
							break
						}
					}
				}
				var got [writers]int64
				for it, err := range k.Range(ctx, client.Prefix("n/")) {
					if err != nil {
						t.Error(err)
						return
					}
					i, _ := strconv.Atoi(it.Key[2:])
					got[i], _ = strconv.ParseInt(string(it.Value), 10, 64)
				}
				for i := range writers {
					if got[i] < before[i] || got[i] < seen[i] {
						t.Errorf("cache %d: %d of writer %d, of which %d was acknowledged and %d seen", w, got[i], i, before[i], seen[i])
						return
					}
				}
				seen = got
			}
		})
	}
	go func() {
		running.Wait()
		close(done)
		close(faults)
	}()
	down := -1
	for n := range faults {
		switch n {
		case writes / 6:
			down = cluster.Leader()
			cluster.Kill(down)
		case 2 * writes / 6:
			cluster.Restart(down)
		case 3 * writes / 6:
			cluster.Pause(cluster.Leader())
		case 4 * writes / 6:
			cluster.Heal()
			cluster.Partition([]int{cluster.Leader()}, []int{0, 1, 2})
		case 5 * writes / 6:
			cluster.Heal()
		}
	}
	reading.Wait()
}

// A history that is gone, here with a restore, has the range copied anew.
func TestCacheSurvivesARestore(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	_, err := c.Put(ctx, "then", nil)
	require.NoError(t, err)
	var file bytes.Buffer
	require.NoError(t, c.SnapshotSave(ctx, &file, nil))
	_, err = c.DeleteRange(ctx, client.All())
	require.NoError(t, err)
	_, err = c.Put(ctx, "now", nil)
	require.NoError(t, err)
	k, err := c.Cache(ctx, client.All(), client.WithMaxAge(20*time.Millisecond))
	require.NoError(t, err)
	defer k.Close()
	require.Equal(t, []string{"now"}, keysOf(t, k, client.All()))
	_, err = c.SnapshotRestore(ctx, bytes.NewReader(file.Bytes()), nil)
	require.NoError(t, err)
	require.Equal(t, []string{"then"}, keysOf(t, k, client.All()), "a restore is a write, too")
	_, err = c.Put(ctx, "after", nil)
	require.NoError(t, err)
	require.Equal(t, []string{"after", "then"}, keysOf(t, k, client.All()))
}

func BenchmarkCache(b *testing.B) {
	c, ctx := open(b, client.Config{Endpoints: endpoints(b)}), b.Context()
	const n = 10_000
	for i := 0; i < n; i += 500 {
		txn := c.Txn()
		for j := range 500 {
			txn.Then(client.OpPut(fmt.Sprintf("bench/%06d", i+j), make([]byte, 100)))
		}
		_, err := txn.Commit(ctx)
		require.NoError(b, err)
	}
	k, err := c.Cache(ctx, client.Prefix("bench/"))
	require.NoError(b, err)
	defer k.Close()
	var keys [256]string
	for i := range keys {
		keys[i] = fmt.Sprintf("bench/%06d", i*7919%n)
	}
	b.Run("Get", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := k.Get(ctx, keys[i%len(keys)]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Range10", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			left := 10
			for _, err := range k.Range(ctx, client.Between("bench/005", "bench/006")) {
				if err != nil {
					b.Fatal(err)
				}
				if left--; left == 0 {
					break
				}
			}
		}
	})
}
