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

func TestLeases(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	key := client.WithIdempotencyKey(fmt.Sprint("lease-", time.Now().UnixNano()))
	lease, err := c.LeaseGrant(ctx, time.Hour, key)
	require.NoError(t, err)
	require.Equal(t, time.Hour, lease.TTL)
	again, err := c.LeaseGrant(ctx, time.Hour, key)
	require.NoError(t, err)
	require.Equal(t, lease, again, "the same lease, not another")

	for _, key := range []string{"lease/a", "lease/\xff"} {
		_, err = c.Put(ctx, key, nil, client.WithLease(lease.ID))
		require.NoError(t, err)
	}
	item, err := c.Get(ctx, "lease/a")
	require.NoError(t, err)
	require.Equal(t, lease.ID, item.Lease)
	info, err := c.LeaseInfo(ctx, lease.ID)
	require.NoError(t, err)
	require.Equal(t, lease, info.Lease)
	require.Equal(t, []string{"lease/a", "lease/\xff"}, info.Keys)
	require.EqualValues(t, 2, info.KeyCount)
	require.False(t, info.MoreKeys)
	require.Positive(t, info.Remaining)

	var found []client.LeaseInfo
	for l, err := range c.Leases(ctx) {
		require.NoError(t, err)
		if l.ID == lease.ID {
			found = append(found, l)
		}
	}
	require.Len(t, found, 1)
	require.Nil(t, found[0].Keys)

	kept, err := c.LeaseKeepAlive(ctx, lease.ID)
	require.NoError(t, err)
	require.Equal(t, lease, kept)
	revoked, err := c.LeaseRevoke(ctx, lease.ID)
	require.NoError(t, err)
	require.EqualValues(t, 2, revoked.Deleted)
	_, err = c.Get(ctx, "lease/a")
	requireError(t, err, client.NotApplied, client.ErrNotFound)

	for _, call := range []func() error{
		func() error { _, err := c.LeaseKeepAlive(ctx, lease.ID); return err },
		func() error { _, err := c.KeepAlive(ctx, lease.ID); return err },
		func() error { _, err := c.LeaseRevoke(ctx, lease.ID); return err },
		func() error { _, err := c.LeaseInfo(ctx, lease.ID); return err },
		func() error { _, err := c.Put(ctx, "lease/b", nil, client.WithLease(lease.ID)); return err },
		func() error {
			_, err := c.Txn().Then(client.OpPut("lease/b", nil, client.WithLease(lease.ID))).Commit(ctx)
			return err
		},
	} {
		err := call()
		requireError(t, err, client.NotApplied, client.ErrLeaseNotFound)
		require.NotErrorIs(t, err, client.ErrNotFound, "no key was asked for")
	}
	_, err = c.LeaseGrant(ctx, time.Millisecond)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.LeaseInfo(ctx, 0)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
}

// A lease that was lost to somebody who revoked it is known to be lost with the
// next renewal.
func TestAKeptLeaseThatIsRevoked(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	lease, err := c.LeaseGrant(ctx, time.Second)
	require.NoError(t, err)
	kept, err := c.KeepAlive(ctx, lease.ID)
	require.NoError(t, err)
	require.Equal(t, lease, kept.Lease())
	require.NoError(t, kept.Err())
	_, err = c.LeaseRevoke(ctx, lease.ID)
	require.NoError(t, err)
	<-kept.Done()
	require.ErrorIs(t, kept.Err(), client.ErrLeaseLost)
	require.ErrorIs(t, kept.Err(), client.ErrLeaseNotFound)

	short, cancel := context.WithCancel(ctx)
	lease, err = c.LeaseGrant(ctx, time.Hour)
	require.NoError(t, err)
	kept, err = c.KeepAlive(short, lease.ID)
	require.NoError(t, err)
	cancel()
	<-kept.Done()
	require.ErrorIs(t, kept.Err(), context.Canceled)
	require.NotErrorIs(t, kept.Err(), client.ErrLeaseLost)
}

func TestLocks(t *testing.T) {
	urls, ctx := endpoints(t), within(t)
	c, other := open(t, client.Config{Endpoints: urls}), open(t, client.Config{Endpoints: urls})
	for i, name := range []string{"lock", "lock/a b,c=d", "\xff\x00/../x"} {
		lock, err := c.Lock(ctx, name, client.WithOwner("first"), client.WithTTL(time.Hour))
		require.NoError(t, err)
		require.Equal(t, name, lock.Name())
		require.NoError(t, lock.Err())
		require.NoError(t, lock.Context().Err())

		_, err = other.TryLock(ctx, name)
		e := requireError(t, err, client.NotApplied, client.ErrLocked)
		require.Equal(t, client.LockHolder{Token: lock.Token(), Lease: lock.Lease(), Owner: "first", TTL: time.Hour}, *e.Holder)
		_, err = other.Lock(ctx, name, client.WithWait(10*time.Millisecond))
		requireError(t, err, client.NotApplied, client.ErrLocked)

		// The next in the queue has it when it is free, and a greater token.
		waiting := make(chan *client.Lock)
		go func() {
			l, err := other.Lock(ctx, name, client.WithOwner("second"))
			if err != nil {
				t.Error(err)
			}
			waiting <- l
		}()
		info := client.LockInfo{}
		for len(info.Queue) == 0 && ctx.Err() == nil {
			info, err = c.GetLock(ctx, name)
			require.NoError(t, err)
		}
		require.Equal(t, lock.Token(), info.Holder.Token)
		require.Equal(t, "second", info.Queue[0].Owner)
		require.EqualValues(t, 1, info.Waiting)

		// What is written under the lock.
		key := fmt.Sprint("locked/", i)
		_, err = other.Put(ctx, key, []byte("v"), lock.Guard())
		require.NoError(t, err)
		_, err = c.Put(ctx, key+"/mortal", nil, client.WithLease(lock.Lease()))
		require.NoError(t, err)
		require.NoError(t, lock.Unlock(ctx))
		require.NoError(t, lock.Unlock(ctx))
		require.Error(t, lock.Context().Err())
		require.ErrorIs(t, lock.Err(), context.Canceled)
		second := <-waiting
		require.NotNil(t, second)
		require.Greater(t, second.Token(), lock.Token())
		_, err = other.Put(ctx, key, []byte("w"), lock.Guard())
		requireError(t, err, client.NotApplied, client.ErrGuardFailed)
		_, err = c.Txn().Then(client.OpGet(key)).Commit(ctx, lock.Guard())
		requireError(t, err, client.NotApplied, client.ErrGuardFailed)
		read, err := c.Txn().Then(client.OpGet(key)).Commit(ctx, second.Guard())
		require.NoError(t, err)
		require.Equal(t, "v", string(read.Results[0].Get.Item.Value))
		_, err = c.Get(ctx, key+"/mortal")
		requireError(t, err, client.NotApplied, client.ErrNotFound)

		require.NoError(t, second.Unlock(ctx))
		info, err = c.GetLock(ctx, name)
		require.NoError(t, err)
		require.Equal(t, client.LockInfo{Name: name}, info)
	}
	for _, options := range [][]client.LockOption{
		{client.WithTTL(time.Millisecond)}, {client.WithWait(-1)}, {client.WithOwner("\xff")},
	} {
		_, err := c.Lock(ctx, "lock", options...)
		requireError(t, err, client.NotApplied, client.ErrBadRequest)
	}
	_, err := c.Lock(ctx, "")
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
}

// Whoever revokes the lease of a lock takes the lock away; its holder learns of
// it.
func TestALockThatIsTakenAway(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	lock, err := c.Lock(ctx, "taken", client.WithTTL(time.Second))
	require.NoError(t, err)
	_, err = c.LeaseRevoke(ctx, lock.Lease())
	require.NoError(t, err)
	<-lock.Lost()
	require.ErrorIs(t, lock.Err(), client.ErrLockLost)
	require.ErrorIs(t, context.Cause(lock.Context()), client.ErrLockLost)
	requireError(t, lock.Unlock(ctx), client.NotApplied, client.ErrGuardFailed)
}

// One who gives up waiting does not have the lock when its turn comes.
func TestWhoGivesUpLeavesTheLockToTheNext(t *testing.T) {
	for name, options := range map[string][]client.LockOption{"kept": nil, "left": {client.LeaveWithConnection()}} {
		t.Run(name, func(t *testing.T) { whoGivesUpLeaves(t, append(options, client.WithTTL(time.Hour))...) })
	}
}

func whoGivesUpLeaves(t *testing.T, options ...client.LockOption) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	lock, err := c.Lock(ctx, "given up", client.WithTTL(time.Hour))
	require.NoError(t, err)
	waiting, leave := context.WithCancel(ctx)
	left := make(chan error)
	go func() {
		_, err := c.Lock(waiting, "given up", options...)
		left <- err
	}()
	for waits := uint64(0); waits == 0 && ctx.Err() == nil; {
		info, err := c.GetLock(ctx, "given up")
		require.NoError(t, err)
		waits = info.Waiting
	}
	leave()
	requireError(t, <-left, client.Unknown, context.Canceled)
	for waits := uint64(1); len(options) > 1 && waits > 0 && ctx.Err() == nil; {
		// Its connection is its place in the queue.
		info, err := c.GetLock(ctx, "given up")
		require.NoError(t, err)
		waits = info.Waiting
	}
	require.NoError(t, lock.Unlock(ctx))
	// An hour is more than the test has.
	next, err := c.Lock(ctx, "given up")
	require.NoError(t, err)
	require.NoError(t, next.Unlock(ctx))
}

// Several count what nobody may count at once, while the leader dies: nobody is
// in there with another, and whoever waits keeps waiting.
func TestLocksOutliveALeader(t *testing.T) {
	cluster := trivettest.Start(t)
	ctx := within(t)
	first := open(t, client.Config{Endpoints: cluster.Endpoints()})
	held, err := first.Lock(ctx, "critical", client.WithTTL(5*time.Second))
	require.NoError(t, err)
	_, err = first.Put(ctx, "count", []byte("0"))
	require.NoError(t, err)

	const workers, rounds = 4, 3
	var inside sync.Mutex
	var tokens []uint64
	var wg sync.WaitGroup
	for w := range workers {
		c := open(t, client.Config{Endpoints: cluster.Endpoints()})
		wg.Go(func() {
			for range rounds {
				lock, err := c.Lock(ctx, "critical", client.WithTTL(5*time.Second), client.WithOwner(fmt.Sprint("worker ", w)))
				if err != nil {
					t.Error(err)
					return
				}
				if !inside.TryLock() {
					t.Error("two hold the lock")
					return
				}
				tokens = append(tokens, lock.Token())
				_, err = c.Add(ctx, "count", 1, lock.Guard(), client.WithIdempotencyKey(fmt.Sprint("token-", lock.Token())))
				inside.Unlock()
				if err != nil {
					t.Error(err)
				}
				if err := lock.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for waits := uint64(0); waits < workers && ctx.Err() == nil; {
		info, err := first.GetLock(ctx, "critical")
		require.NoError(t, err)
		waits = info.Waiting
	}
	cluster.Kill(cluster.Leader())
	require.NoError(t, held.Unlock(ctx))
	wg.Wait()
	require.IsIncreasing(t, tokens)
	item, err := first.Get(ctx, "count")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(workers*rounds), string(item.Value))
}
