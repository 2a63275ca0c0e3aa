package client_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivettest"
)

// A cache that was cut off while the history behind it was compacted comes back with
// the present state. In between no read is older than its bound; and who watches the
// same keys is told to begin anew, and what there is.
func TestACacheThatWasCutOffWhileHistoryWent(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, cluster *trivettest.Cluster) {
		ctx, writer := within(t), cluster.Client()
		put := func(key, value string) uint64 {
			res, err := writer.Put(ctx, key, []byte(value))
			require.NoError(t, err)
			return res.Revision
		}
		put("c/changed", "old")
		seen := put("c/deleted", "old")
		reader, gate := gated(t, cluster)
		const bound = time.Second
		k, err := reader.Cache(ctx, client.Prefix("c/"), client.WithMaxAge(bound))
		require.NoError(t, err)

		frames, watching := make(chan client.WatchFrame, 100), context.Context(nil)
		watching, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer stop()
		wg.Go(func() {
			for f, err := range reader.Watch(watching, client.Prefix("c/"), client.Initial(), client.WithResync()) {
				if err != nil {
					require.ErrorIs(t, err, context.Canceled)
					return
				}
				frames <- f
			}
		})
		next := func(kind client.FrameKind) client.WatchFrame {
			t.Helper()
			f := <-frames
			require.Equal(t, kind, f.Kind)
			return f
		}
		require.Len(t, next(client.FrameItems).Items, 2)
		next(client.FrameSynced)

		// Somebody reads all the while. Of the old state that is right for the bound.
		var mu sync.Mutex
		var changed time.Time // when the writes had been acknowledged; zero before
		old, failed, current := 0, 0, 0
		wg.Go(func() {
			for watching.Err() == nil {
				mu.Lock()
				before := changed
				mu.Unlock()
				began := time.Now()
				short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				it, err := k.Get(short, "c/changed")
				cancel()
				switch {
				case err != nil:
					failed++
				case string(it.Value) == "old":
					old++
					if !before.IsZero() && began.Sub(before) > bound {
						t.Errorf("%v after the change", began.Sub(before))
					}
				default:
					current++
				}
				time.Sleep(20 * time.Millisecond) // virtual
			}
		})

		gate.close()
		put("c/changed", "new")
		_, err = writer.Delete(ctx, "c/deleted")
		require.NoError(t, err)
		put("c/created", "new")
		mu.Lock()
		changed = time.Now()
		mu.Unlock()
		for i := range 100 {
			put(fmt.Sprint("other/", i), "")
		}
		for _, err := range writer.Watch(ctx, client.All(), client.FromRevision(seen+1)) {
			requireError(t, err, client.NotApplied, client.ErrCompacted)
		}
		time.Sleep(10 * time.Second)
		mu.Lock()
		require.Positive(t, old)
		require.Positive(t, failed)
		require.Zero(t, current)
		mu.Unlock()

		gate.open()
		require.Equal(t, []string{"c/changed", "c/created"}, keysOf(t, k, client.Prefix("c/")))
		it, err := k.Get(ctx, "c/changed")
		require.NoError(t, err)
		require.Equal(t, "new", string(it.Value))
		_, err = k.Get(ctx, "c/deleted")
		require.ErrorIs(t, err, client.ErrNotFound)

		next(client.FrameReset)
		items := next(client.FrameItems).Items
		require.Equal(t, []string{"c/changed", "c/created"}, []string{items[0].Key, items[1].Key})
		next(client.FrameSynced)
		put("c/created", "newer")
		require.Equal(t, "newer", string(next(client.FrameChange).Events[0].Item.Value))
		require.Eventually(t, func() bool {
			it, err := k.Get(ctx, "c/created")
			return err == nil && string(it.Value) == "newer"
		}, 2*bound, 10*time.Millisecond)
		stop()
		wg.Wait()
		require.Positive(t, current)
		k.Close()
	}, trivettest.History(10))
}
