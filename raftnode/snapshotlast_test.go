package raftnode

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// TestAStopSparesTheNextStartTheLog: a member that stops gracefully takes a
// snapshot where it has applied a sixteenth of SnapshotBytes since the last; the
// start goes on from there. One that has applied less does not.
func TestAStopSparesTheNextStartTheLog(t *testing.T) {
	dir := written(t, 20, func(c *Config) { c.SnapshotBytes = 1 << 20 })
	small := func(c *Config) { c.SnapshotBytes = 1 << 20 }
	newest := func(n *Node) uint64 {
		metas, err := n.snaps.List()
		require.NoError(t, err)
		if len(metas) == 0 {
			return 0
		}
		return metas[0].Index
	}
	n, err := openAlone(t, dir, small)
	require.NoError(t, err)
	require.Zero(t, newest(n), "20 small writes")
	ctx, cancel := within(30 * time.Second)
	defer cancel()
	rs, err := n.Propose(ctx, []*trivetpb.Command{put("large", strings.Repeat("x", 1<<20/stopShare))})
	require.NoError(t, err)
	require.Nil(t, rs[0].Problem)
	applied := n.store.Index()
	closeNode(t, n)

	n, err = openAlone(t, dir, small)
	require.NoError(t, err)
	require.GreaterOrEqual(t, newest(n), applied)
	require.GreaterOrEqual(t, n.store.Index(), applied, "it is there before an entry is applied")
	closeNode(t, n)
}

// TestARestoreOfAStartIsTold: Open tells of the snapshot that it restores, with the
// size of the file, and of its end, the failure included; and of nothing where there
// is none.
func TestARestoreOfAStartIsTold(t *testing.T) {
	var told []int64
	over := 0
	tell := func(c *Config) {
		c.Restoring = func(bytes int64) func() {
			told = append(told, bytes)
			return func() { over++ }
		}
	}
	n, err := openAlone(t, written(t, 5, tell), tell)
	require.NoError(t, err)
	require.Empty(t, told)
	closeNode(t, n)

	dir := snapshotted(t)
	state := filepath.Join(snapshotDir(t, dir), "state.bin")
	file, err := os.Stat(state)
	require.NoError(t, err)
	n, err = openAlone(t, dir, tell)
	require.NoError(t, err)
	require.Equal(t, []int64{file.Size()}, told)
	require.Equal(t, 1, over)
	closeNode(t, n)

	replaceInMeta(t, snapshotDir(t, dir), `"Index":(\d+)`, `"Index":999`)
	_, err = openAlone(t, dir, tell)
	require.ErrorContains(t, err, "its meta.json speaks of another")
	require.Len(t, told, 2)
	require.Equal(t, 2, over)
}

// TestALastSnapshotIsOfWhatIsSoonWritten: a state that takes long to write is not.
func TestALastSnapshotIsOfWhatIsSoonWritten(t *testing.T) {
	s := newSnapshotter(1 << 20)
	s.applied(1 << 20)
	require.False(t, s.last(maxStopBytes+1))
	require.False(t, s.late())
	require.True(t, s.last(maxStopBytes))
	require.True(t, s.late(), "it does not give way")
	s.restored()
	require.False(t, s.last(0), "nothing was applied since")
}

// TestAStopDoesNotWaitForASnapshot: what is being written ends with the node.
func TestAStopDoesNotWaitForASnapshot(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	sink := &snapshotSink{SnapshotSink: discardSink{}, stopped: ctx.Done()}
	_, err := sink.Write([]byte("x"))
	require.NoError(t, err)
	stop()
	_, err = sink.Write([]byte("x"))
	require.True(t, errors.Is(err, errStopped))
}

type discardSink struct{ raft.SnapshotSink }

func (discardSink) Write(p []byte) (int, error) { return len(p), nil }
