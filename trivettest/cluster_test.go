package trivettest_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"trivet/client"
	"trivet/trivettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// everywhere runs a test over sockets and in memory, in virtual time.
func everywhere(t *testing.T, f func(*testing.T, ...trivettest.Option)) {
	t.Run("sockets", func(t *testing.T) { f(t) })
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, trivettest.InMemory()) })
	})
}

// only opens a client of one member alone.
func only(t testing.TB, cluster *trivettest.Cluster, i int) *client.Client {
	t.Helper()
	cfg := cluster.Config()
	cfg.Endpoints, cfg.DisableDiscovery = cfg.Endpoints[i:i+1], true
	c, err := client.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// Every member is killed and restarted in turn; what was written stays, and arrives
// at those that were down.
func TestKillAndRestart(t *testing.T) { everywhere(t, killAndRestart) }

func killAndRestart(t *testing.T, opts ...trivettest.Option) {
	cluster, ctx := trivettest.Start(t, opts...), within(t)
	c := cluster.Client()
	require.Same(t, c, cluster.Client())
	var last uint64
	for i := range 3 {
		cluster.Kill(i)
		cluster.Kill(i) // is down already
		put, err := c.Put(ctx, fmt.Sprint("k", i), []byte("v"))
		require.NoError(t, err)
		require.NotEqual(t, i, cluster.Leader())
		cluster.Restart(i)
		_, err = only(t, cluster, i).Get(ctx, fmt.Sprint("k", i), client.MinRevision(put.Revision), client.Stale())
		require.NoError(t, err)
		last = put.Revision
	}
	cluster.Restart(cluster.Leader()) // runs, and is killed before
	count, err := c.Count(ctx, client.All(), client.MinRevision(last))
	require.NoError(t, err)
	require.EqualValues(t, 3, count)
}

// A paused leader is replaced, while whoever asks it alone hears nothing; when it is
// resumed it follows, and answers what it was asked.
func TestPauseAndResume(t *testing.T) { everywhere(t, pauseAndResume) }

func pauseAndResume(t *testing.T, opts ...trivettest.Option) {
	cluster, ctx := trivettest.Start(t, opts...), within(t)
	c := cluster.Client()
	_, err := c.Put(ctx, "k", []byte("old"))
	require.NoError(t, err)
	old := cluster.Leader()
	cluster.Pause(old)
	_, err = c.Put(ctx, "k", []byte("new"))
	require.NoError(t, err)
	require.NotEqual(t, old, cluster.Leader())

	alone, asked := only(t, cluster, old), make(chan string, 1)
	go func() {
		it, err := alone.Get(ctx, "k")
		asked <- fmt.Sprint(string(it.Value), err)
	}()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = alone.Get(short, "k", client.AnyState())
	require.ErrorIs(t, err, context.DeadlineExceeded, "nothing comes through")
	cluster.Resume(old)
	require.Equal(t, "new<nil>", <-asked)
}

// Cut off from the others a member answers what it has, and nothing that it would
// have to ask them for; clients reach it all the same.
func TestPartitionAndHeal(t *testing.T) { everywhere(t, partitionAndHeal) }

func partitionAndHeal(t *testing.T, opts ...trivettest.Option) {
	cluster, ctx := trivettest.Start(t, opts...), within(t)
	put, err := cluster.Client().Put(ctx, "k", []byte("old"))
	require.NoError(t, err)
	cut := cluster.Leader()
	alone := only(t, cluster, cut)
	_, err = alone.Get(ctx, "k", client.MinRevision(put.Revision))
	require.NoError(t, err)

	cluster.Partition([]int{cut}, []int{0, 1, 2})
	put, err = cluster.Client().Put(ctx, "k", []byte("new"))
	require.NoError(t, err)
	it, err := alone.Get(ctx, "k", client.AnyState())
	require.NoError(t, err)
	require.Equal(t, "old", string(it.Value))
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err = alone.Get(short, "k")
	require.ErrorIs(t, err, client.ErrUnavailable)
	require.NotEqual(t, cut, cluster.Leader())

	cluster.Heal()
	it, err = alone.Get(ctx, "k", client.MinRevision(put.Revision))
	require.NoError(t, err)
	require.Equal(t, "new", string(it.Value))
}

func TestOneNodeAndTooMany(t *testing.T) {
	cluster := trivettest.Start(t, trivettest.Nodes(1))
	require.Len(t, cluster.Endpoints(), 1)
	require.Equal(t, 0, cluster.Leader())
	for _, n := range []int{-1, 0, 10} {
		_, err := trivettest.Open(trivettest.Nodes(n))
		require.ErrorContains(t, err, "it may be 1 to 9")
	}
}

// A cluster that was closed leaves a client whose calls fail.
func TestCloseTwice(t *testing.T) {
	cluster, err := trivettest.Open(trivettest.Nodes(1))
	require.NoError(t, err)
	cluster.Pause(0) // is no reason to hang
	require.NoError(t, cluster.Close())
	require.NoError(t, cluster.Close())
	_, err = cluster.Client().Get(t.Context(), "k")
	require.ErrorIs(t, err, client.ErrClosed)
}

// How long it takes until a cluster has served its first write, and is gone again.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		cluster, err := trivettest.Open()
		require.NoError(b, err)
		_, err = cluster.Client().Put(b.Context(), "k", nil)
		require.NoError(b, err)
		require.NoError(b, cluster.Close())
	}
}

// A client whose endpoints are of two clusters belongs to one of them.
func TestEndpointsOfTwoClusters(t *testing.T) {
	one, other := trivettest.Start(t, trivettest.Nodes(1)), trivettest.Start(t, trivettest.Nodes(1))
	c, err := client.Open(t.Context(), client.Config{Endpoints: append(one.Endpoints(), other.Endpoints()...)})
	require.NoError(t, err)
	defer c.Close()
	for i := range 20 {
		_, err := c.Put(within(t), fmt.Sprintf("k%d", i), nil)
		require.NoError(t, err)
	}
	counts := map[uint64]int{}
	for _, cluster := range []*trivettest.Cluster{one, other} {
		n, err := cluster.Client().Count(within(t), client.All())
		require.NoError(t, err)
		counts[n]++
	}
	require.Equal(t, map[uint64]int{0: 1, 20: 1}, counts)
}
