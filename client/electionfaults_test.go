package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivettest"
)

// observed follows an election in the background, until the end of the test.
func observed(t *testing.T, e *client.Election) <-chan string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	told := make(chan string, 1000)
	var wg sync.WaitGroup
	wg.Go(func() {
		for leader, err := range e.Observe(ctx) {
			switch {
			case err != nil:
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			case leader == nil:
				told <- "nobody"
			default:
				told <- string(leader.Value)
			}
		}
	})
	t.Cleanup(func() { stop(); wg.Wait() })
	return told
}

// Whatever becomes of any one kind of request, a term of office goes as it should: it is
// won and kept, another candidate comes next and has the greater token, and an observer
// sees each change once.
func TestElectionsGetOverFaults(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, cluster *trivettest.Cluster) {
		ctx := t.Context()
		a, b, watcher := open(t, cluster.Config()), open(t, cluster.Config()), open(t, cluster.Config())
		told := observed(t, watcher.Election("e"))
		require.Equal(t, "nobody", <-told)
		last := uint64(0)
		for _, what := range []string{"POST /v1/locks/", "PUT /v1/locks/", "DELETE /v1/locks/", "/v1/batch", "/v1/watch"} {
			for _, tt := range everyFault {
				at := what + ": " + tt.name
				happened := cluster.Fail(trivettest.AnyMember, tt.how, trivettest.To(what))
				if what == "/v1/watch" {
					// Of a client of its own: those of one client share a stream.
					told = observed(t, open(t, cluster.Config()).Election("e"))
					require.Equal(t, "nobody", <-told)
				}
				const ttl = 6 * time.Second
				first, err := a.Election("e").Campaign(ctx, []byte("a, "+at), client.WithTTL(ttl))
				require.NoError(t, err, at)
				require.Greater(t, first.Token(), last, at)
				require.Equal(t, "a, "+at, <-told)
				if what == "PUT /v1/locks/" {
					time.Sleep(2 * ttl) // virtual
				}
				require.NoError(t, first.Err(), at)
				require.NoError(t, first.Proclaim(ctx, []byte("still a")), at)
				require.Equal(t, "still a", <-told, at)

				next := make(chan *client.Leadership)
				go func() {
					l, err := b.Election("e").Campaign(ctx, []byte("b"), client.WithTTL(ttl))
					if err != nil {
						t.Error(at, err)
					}
					if first.Context().Err() == nil {
						t.Error(at, "two lead")
					}
					next <- l
				}()
				require.NoError(t, first.Resign(ctx), at)
				require.Equal(t, "nobody", <-told, at)
				second := <-next
				require.Greater(t, second.Token(), first.Token(), at)
				require.Equal(t, "b", <-told, at)
				require.NoError(t, second.Resign(ctx), at)
				require.Equal(t, "nobody", <-told, at)
				last = second.Token()
				<-happened
			}
		}
	})
}

// At no time do two believe that they lead. The one that cannot renew its term knows
// that it is over before the next one's campaign is won, whatever stands between it and
// the cluster; and what it writes then is refused.
func TestAtMostOneLeads(t *testing.T) {
	for _, tt := range []struct {
		name string
		cut  func(cluster *trivettest.Cluster, node int, g *gate)
		// leads: the node that it is cut off with, or from, leads the cluster.
		leads []bool
	}{
		{"its client is cut off", func(_ *trivettest.Cluster, _ int, g *gate) { g.close() }, []bool{true}},
		{"its node hangs", func(c *trivettest.Cluster, node int, _ *gate) { c.Pause(node) }, []bool{true, false}},
		{"its node is killed", func(c *trivettest.Cluster, node int, _ *gate) { c.Kill(node) }, []bool{true, false}},
		{"its node is cut off", func(c *trivettest.Cluster, node int, _ *gate) {
			c.Partition([]int{node}, []int{0, 1, 2})
		}, []bool{true, false}},
		{"its renewals are lost", func(c *trivettest.Cluster, _ int, _ *gate) {
			c.Fail(trivettest.AnyMember, trivettest.LoseRequest(), trivettest.To("PUT /v1/locks/"), trivettest.Times(1000))
		}, []bool{true}},
		{"its renewals are late", func(c *trivettest.Cluster, _ int, _ *gate) {
			c.Fail(trivettest.AnyMember, trivettest.Delay(time.Minute), trivettest.To("PUT /v1/locks/"), trivettest.Times(1000))
		}, []bool{true}},
	} {
		for _, leads := range tt.leads {
			t.Run(fmt.Sprintf("%s, leader of the cluster: %v", tt.name, leads), func(t *testing.T) {
				t.Parallel()
				inBubble(t, func(t *testing.T, cluster *trivettest.Cluster) {
					ctx := t.Context()
					node := cluster.Leader()
					if !leads {
						node = (node + 1) % 3
					}
					a, g := gated(t, cluster, node)
					b, _ := gated(t, cluster, (node+1)%3, (node+2)%3)
					watcher, _ := gated(t, cluster, (node+1)%3, (node+2)%3)
					told := observed(t, watcher.Election("e"))
					require.Equal(t, "nobody", <-told)
					const ttl = 5 * time.Second
					first, err := a.Election("e").Campaign(ctx, []byte("a"), client.WithTTL(ttl))
					require.NoError(t, err)
					require.Equal(t, "a", <-told)
					time.Sleep(ttl) // it is renewed
					require.NoError(t, first.Err())

					ended := make(chan time.Time, 1)
					stop := context.AfterFunc(first.Context(), func() { ended <- time.Now() })
					defer stop()
					tt.cut(cluster, node, g)
					lost := time.Now()
					long, cancel := context.WithTimeout(ctx, time.Minute)
					defer cancel()
					second, err := b.Election("e").Campaign(long, []byte("b"), client.WithTTL(time.Minute))
					require.NoError(t, err)
					won := time.Now()
					over := <-ended
					require.True(t, over.Before(won), "it ended %v after the cut, and %v the other had won", over.Sub(lost), won.Sub(lost))
					require.ErrorIs(t, first.Err(), client.ErrLockLost)
					require.ErrorIs(t, context.Cause(first.Context()), client.ErrLockLost)
					require.Greater(t, second.Token(), first.Token())
					require.Equal(t, "nobody", <-told)
					require.Equal(t, "b", <-told)

					cluster.Heal()
					cluster.Restart(node)
					g.open()
					requireError(t, first.Proclaim(long, []byte("still a")), client.NotApplied, client.ErrGuardFailed)
					requireError(t, first.Resign(long), client.NotApplied, client.ErrGuardFailed)
					require.NoError(t, second.Err())
					require.NoError(t, second.Resign(long))
					require.Equal(t, "nobody", <-told)
					require.Empty(t, told)
				})
			})
		}
	}
}

// Without a cluster, and without time, there are clear errors and nothing is left in the
// queue.
func TestElectionsWithoutAClusterOrTime(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, cluster *trivettest.Cluster) {
		ctx := t.Context()
		c, g := gated(t, cluster)
		e := c.Election("e")
		_, err := e.Campaign(canceled(), nil)
		requireError(t, err, client.NotApplied, context.Canceled)
		_, err = e.Leader(canceled())
		requireError(t, err, client.NotApplied, context.Canceled)
		for _, err := range e.Observe(canceled()) {
			require.ErrorIs(t, err, context.Canceled)
		}

		// It gives up in the queue, and is not there when its turn would have come.
		first, err := e.Campaign(ctx, []byte("first"), client.WithTTL(time.Minute))
		require.NoError(t, err)
		_, err = cluster.Client().Election("e").Campaign(shortly(t), []byte("gave up"))
		requireError(t, err, client.NotApplied, client.ErrLocked)
		require.NoError(t, first.Resign(ctx))
		again, err := e.Campaign(ctx, []byte("again"), client.WithTTL(10*time.Second))
		require.NoError(t, err)

		// The process sleeps, or as good as: its session and its lock are gone after.
		g.close()
		_, err = e.Campaign(shortly(t), nil)
		requireError(t, err, client.NotApplied, client.ErrUnavailable, context.DeadlineExceeded)
		_, err = e.Leader(shortly(t))
		requireError(t, err, client.NotApplied, client.ErrUnavailable)
		for leader, err := range e.Observe(shortly(t)) {
			require.Nil(t, leader)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		time.Sleep(3 * time.Minute) // virtual
		g.open()
		require.ErrorIs(t, again.Err(), client.ErrLockLost)
		requireError(t, again.Proclaim(ctx, nil), client.NotApplied, client.ErrGuardFailed)
		anew, err := e.Campaign(ctx, []byte("anew"))
		require.NoError(t, err)
		require.Greater(t, anew.Token(), again.Token())
		it, err := e.Leader(ctx)
		require.NoError(t, err)
		require.Equal(t, "anew", string(it.Value))
		require.NoError(t, anew.Resign(ctx))
	})
}
