package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// smallDisk gives a node a data folder on a file system of its own, of a size as
// tmpfs takes it, and returns a function that gives it another size. It skips the
// test where that is not allowed: it takes root.
func (c *benchCluster) smallDisk(t *testing.T, i int, size string) (resize func(size string)) {
	t.Helper()
	dir := c.data(i)
	require.NoError(t, os.Mkdir(dir, 0o700))
	if err := syscall.Mount("trivet-test", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	// Before the folder is removed, and after the nodes have ended.
	c.b.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return func(size string) {
		require.NoError(t, syscall.Mount("trivet-test", dir, "tmpfs", syscall.MS_REMOUNT, "mode=0700,size="+size))
	}
}

// acked are the writes that were acknowledged, a number of bytes each.
type acked struct {
	bytes int
	keys  []string
}

// value is what a key was written with.
func (a *acked) value(key string) []byte {
	return bytes.Repeat([]byte(key+","), a.bytes/(len(key)+1)+1)[:a.bytes]
}

// write puts the next key.
func (a *acked) write(t *testing.T, c *client.Client, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	key := fmt.Sprintf("full/%04d", len(a.keys))
	_, err := c.Put(ctx, key, a.value(key))
	if err == nil {
		a.keys = append(a.keys, key)
	}
	return err
}

// check reads what was acknowledged through one node.
func (a *acked) check(t *testing.T, c *client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for _, key := range a.keys {
		item, err := c.Get(ctx, key)
		require.NoError(t, err)
		require.True(t, bytes.Equal(a.value(key), item.Value), "%s was acknowledged", key)
	}
}

// hasEnded says whether a node's process has.
func (c *benchCluster) hasEnded(i int) bool {
	select {
	case <-c.nodes[i].exited:
		return true
	default:
		return false
	}
}

// wasFull checks how a node ended whose disk is full: with one line at the end
// that names the file and the reason.
func (c *benchCluster) wasFull(t *testing.T, i int) {
	t.Helper()
	status, err := c.nodes[i].ended()
	require.NoError(t, err)
	require.Equal(t, 1, status, c.nodes[i].output())
	require.Regexp(t, `(?m)^trivet: node n`+strconv.Itoa(i+1)+` took itself out of service: .*`+c.data(i)+`/raft/.*: no space left on device$`,
		c.nodes[i].output())
}

// The leader's disk is full: it says so and ends, the others go on, and lose
// nothing that was acknowledged. With space and another start it is back.
func TestFullDiskOfTheLeader(t *testing.T) {
	for _, kind := range []struct{ store, size string }{{"wal", "65m"}, {"boltdb", "4m"}} {
		t.Run(kind.store, func(t *testing.T) {
			c := newBenchCluster(t, "--log-store", kind.store)
			resize := c.smallDisk(t, 0, kind.size)
			c.startAll()
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			others := openAt(t, c.urls(0)...)
			if c.leader() != 0 {
				_, err := others.TransferLeadership(ctx, "n1")
				require.NoError(t, err)
			}
			require.Zero(t, c.leader())

			// raft-wal has made room for its first 64 MiB.
			writes := acked{bytes: 1 << 20}
			for !c.hasEnded(0) && len(writes.keys) < 100 {
				require.NoError(t, writes.write(t, others, deadline), "a node that stays up finds out")
			}
			c.wasFull(t, 0)
			for range 3 {
				require.NoError(t, writes.write(t, others, deadline))
			}
			for i := 1; i < 3; i++ {
				writes.check(t, openAt(t, c.url(i)))
			}

			// As a supervisor would, with the disk as it is: it ends again, sooner
			// or later, and harms nobody.
			c.start(0)
			for !c.hasEnded(0) && len(writes.keys) < 120 {
				require.NoError(t, writes.write(t, others, deadline))
			}
			c.wasFull(t, 0)

			resize("300m")
			c.start(0)
			c.await(0)
			writes.check(t, openAt(t, c.url(0)))
			require.NoError(t, writes.write(t, openAt(t, c.url(0)), deadline))
			writes.check(t, openAt(t, c.url(1)))
		})
	}
}

// All disks are full: nothing is acknowledged any more, and nothing that was is
// lost. With space and another start of those that ended, the cluster takes
// writes again.
func TestFullDisksOfAll(t *testing.T) {
	c := newBenchCluster(t, "--log-store", "boltdb")
	var resize [3]func(string)
	for i := range resize {
		resize[i] = c.smallDisk(t, i, "4m")
	}
	c.startAll()
	all := openAt(t, c.urls()...)
	writes := acked{bytes: 64 << 10}
	ended := func() (n int) {
		for i := range c.nodes {
			if c.hasEnded(i) {
				n++
			}
		}
		return n
	}
	// The one that is left when two have ended writes nothing more.
	for ended() < 2 {
		_ = writes.write(t, all, time.Second) // unknown at the end, and then refused
		require.Less(t, len(writes.keys), 200, "the disks are never full")
	}
	require.Greater(t, len(writes.keys), 5)
	require.Error(t, writes.write(t, all, time.Second))
	for i := range c.nodes {
		resize[i]("300m")
		if c.hasEnded(i) {
			c.wasFull(t, i)
			c.start(i)
		}
	}
	for i := range c.nodes {
		c.await(i)
		writes.check(t, openAt(t, c.url(i)))
	}
	require.NoError(t, writes.write(t, all, deadline))
	for i := range c.nodes {
		writes.check(t, openAt(t, c.url(i)))
	}
}
