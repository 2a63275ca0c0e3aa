package client_test

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivettest"
)

func TestWatch(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	first, err := c.Put(ctx, "watch/\xff", []byte("\xfe"))
	require.NoError(t, err)
	_, err = c.Put(ctx, "other", nil)
	require.NoError(t, err)
	lease, err := c.LeaseGrant(ctx, time.Second)
	require.NoError(t, err)

	// What is there, then what changes.
	var seen []client.WatchFrame
	var revisions []uint64
	for f, err := range c.Watch(ctx, client.Prefix("watch/"), client.Initial(), client.WithPrev()) {
		require.NoError(t, err)
		seen = append(seen, f)
		if f.Kind == client.FrameSynced {
			put, err := c.Put(ctx, "watch/a", []byte("1"), client.WithLease(lease.ID))
			require.NoError(t, err)
			txn, err := c.Txn().Then(
				client.OpPut("watch/\xff", []byte("2")), client.OpPut("other", nil), client.OpPut("watch/b", nil),
			).Commit(ctx)
			require.NoError(t, err)
			deleted, err := c.Delete(ctx, "watch/b")
			require.NoError(t, err)
			revisions = []uint64{put.Revision, txn.Revision, deleted.Revision}
		}
		if len(seen) == 6 { // the lease has expired
			break
		}
	}
	require.Equal(t, client.FrameItems, seen[0].Kind)
	require.Len(t, seen[0].Items, 1)
	require.Equal(t, first.Revision, seen[0].Items[0].ModRevision)
	require.Equal(t, "watch/\xff", seen[0].Items[0].Key)
	require.Equal(t, client.FrameSynced, seen[1].Kind)
	for i, revision := range revisions {
		require.Equal(t, client.FrameChange, seen[2+i].Kind)
		require.Equal(t, revision, seen[2+i].Revision)
	}
	require.Len(t, seen[3].Events, 2, "a txn is one frame, of the range alone")
	require.Equal(t, client.EventPut, seen[3].Events[0].Type)
	require.Equal(t, "\xfe", string(seen[3].Events[0].Prev.Value))
	require.Nil(t, seen[3].Events[1].Prev)
	require.Equal(t, client.EventDelete, seen[4].Events[0].Type)
	require.False(t, seen[4].Events[0].Expired)
	require.Equal(t, "watch/b", seen[4].Events[0].Prev.Key)
	require.Equal(t, "watch/a", seen[5].Events[0].Item.Key)
	require.True(t, seen[5].Events[0].Expired)

	// The past.
	var again []client.WatchFrame
	for f, err := range c.Watch(ctx, client.Prefix("watch/"), client.FromRevision(revisions[0]), client.WithPrev()) {
		require.NoError(t, err)
		if f.Kind == client.FrameSynced {
			continue // as far as that node knew
		}
		if again = append(again, f); len(again) == len(seen[2:]) {
			break
		}
	}
	require.Equal(t, seen[2:], again)

	for _, err := range c.Watch(ctx, client.All(), client.FromRevision(c.Revision()+1000)) {
		requireError(t, err, client.NotApplied, client.ErrFutureRevision)
	}
	for f, err := range c.Watch(ctx, client.Key("watch/c")) {
		require.NoError(t, err)
		if f.Kind == client.FrameSynced {
			_, err = c.Put(ctx, "watch/cc", nil)
			require.NoError(t, err)
			_, err = c.Put(ctx, "watch/c", nil)
			require.NoError(t, err)
			continue
		}
		require.Equal(t, "watch/c", f.Events[0].Item.Key)
		break
	}
}

// Watches see every write of a load in order, while each member but the last two
// is killed under them.
func TestWatchesOutliveMembers(t *testing.T) {
	cluster := trivettest.Start(t)
	ctx := within(t)
	writer := open(t, client.Config{Endpoints: cluster.Endpoints()})
	_, err := writer.Put(ctx, "n", []byte("0"))
	require.NoError(t, err)

	const writes, watchers = 300, 6
	var watching, finished sync.WaitGroup
	watching.Add(watchers)
	for i := range watchers {
		c := open(t, client.Config{Endpoints: cluster.Endpoints()})
		finished.Go(func() {
			var options []client.WatchOption
			if i%2 == 0 {
				options = append(options, client.Initial())
			}
			next, last, started := 1, uint64(0), false
			for f, err := range c.Watch(ctx, client.Key("n"), options...) {
				if err != nil {
					t.Error(i, err)
					break
				}
				if f.Kind == client.FrameSynced {
					started = true
					watching.Done()
				}
				for _, e := range f.Events {
					n, err := strconv.Atoi(string(e.Item.Value))
					if err != nil || n != next || f.Revision <= last {
						t.Errorf("watch %d: %q at revision %d, behind %d at %d", i, e.Item.Value, f.Revision, next-1, last)
						return
					}
					next, last = next+1, f.Revision
				}
				if next > writes {
					return
				}
			}
			if !started {
				watching.Done()
			}
		})
	}
	watching.Wait()
	for i := range writes {
		if i == writes/2 {
			cluster.Kill(cluster.Leader())
		}
		_, err := writer.Put(ctx, "n", strconv.AppendInt(nil, int64(i+1), 10), client.WithIdempotencyKey(fmt.Sprint("n-", i)))
		require.NoError(t, err)
	}
	finished.Wait()
}

// A restore ends watches: what they would have to tell is no longer there.
func TestARestoreEndsWatches(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	var file bytes.Buffer
	require.NoError(t, c.SnapshotSave(ctx, &file, nil))
	var last error
	for f, err := range c.Watch(ctx, client.All()) {
		last = err
		if err == nil && f.Kind == client.FrameSynced {
			restored, err := c.SnapshotRestore(ctx, bytes.NewReader(file.Bytes()), nil)
			require.NoError(t, err)
			require.Greater(t, restored.Revision, f.Revision)
		}
	}
	requireError(t, last, client.NotApplied, client.ErrCompacted)
	require.NotErrorIs(t, last, context.DeadlineExceeded)
}

// With WithResync a watch gets over a restore: it tells what there is then, and goes
// on.
func TestAWatchResyncsAfterARestore(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	_, err := c.Put(ctx, "restored", []byte("v"))
	require.NoError(t, err)
	var file bytes.Buffer
	require.NoError(t, c.SnapshotSave(ctx, &file, nil))
	_, err = c.DeleteRange(ctx, client.All())
	require.NoError(t, err)
	var kinds []client.FrameKind
	var last uint64
	for f, err := range c.Watch(ctx, client.All(), client.WithResync()) {
		require.NoError(t, err)
		kinds = append(kinds, f.Kind)
		if f.Kind != client.FrameReset {
			require.GreaterOrEqual(t, f.Revision, last)
			last = f.Revision
		}
		switch f.Kind {
		case client.FrameSynced:
			if len(kinds) == 1 {
				_, err := c.SnapshotRestore(ctx, bytes.NewReader(file.Bytes()), nil)
				require.NoError(t, err)
				continue
			}
			_, err := c.Put(ctx, "after", nil)
			require.NoError(t, err)
		case client.FrameItems:
			require.Len(t, f.Items, 1)
			require.Equal(t, "restored", f.Items[0].Key)
		}
		if f.Kind == client.FrameChange {
			require.Equal(t, "after", f.Events[0].Item.Key)
			break
		}
	}
	require.Equal(t, []client.FrameKind{
		client.FrameSynced, client.FrameReset, client.FrameItems, client.FrameSynced, client.FrameChange,
	}, kinds)
}
