package raftnode

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func recoverAlone(t *testing.T, dir string) (Recovery, error) {
	t.Helper()
	return Recover(dir, []Peer{{"n1", "127.0.0.1:7171"}}, testLog(t), func(Recovery) error { return nil })
}

// What a member had is there after a recovery, whatever of it was in the log and
// whatever in a snapshot, in a cluster with another id; and again after another
// recovery.
func TestRecoverKeepsWhatWasThere(t *testing.T) {
	for name, make := range map[string]func(t *testing.T) string{
		"log":      func(t *testing.T) string { return written(t, 20, nil) },
		"bolt":     func(t *testing.T) string { return written(t, 20, func(c *Config) { c.LogStore = LogStoreBoltDB }) },
		"snapshot": snapshotted,
	} {
		t.Run(name, func(t *testing.T) {
			dir := make(t)
			n, err := openAlone(t, dir, nil)
			require.NoError(t, err)
			cluster := n.ClusterID()
			awaitApplied(t, n)
			before := n.store.Stats()
			closeNode(t, n)
			for range 2 {
				r, err := recoverAlone(t, dir)
				require.NoError(t, err)
				require.Equal(t, cluster, r.Cluster)
				require.NotEqual(t, cluster, r.NewCluster)
				require.Equal(t, before.Keys, r.Keys)
				require.Equal(t, before.Revision, r.Revision)
				n, err = openAlone(t, dir, func(c *Config) { c.InitialCluster = nil })
				require.NoError(t, err)
				require.Equal(t, r.NewCluster, n.ClusterID())
				require.Equal(t, before.Revision, n.store.Revision())
				require.Equal(t, map[string]string{"n1": n.storage.incarnation}, foldersOf(n.configuration()))
				write(t, n, 1)
				before = n.store.Stats()
				cluster = n.ClusterID()
				closeNode(t, n)
			}
		})
	}
}

// awaitApplied waits until a node has applied something of its present term.
func awaitApplied(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := within(20 * time.Second)
	defer cancel()
	_, err := n.AwaitRead(ctx, ReadOptions{})
	require.NoError(t, err)
}

// The survivors of a cluster have the same new cluster only where they have the
// same to bring to it.
func TestRecoveredClustersAreOneOnlyWithOneState(t *testing.T) {
	dir := written(t, 5, nil)
	same := filepath.Join(t.TempDir(), "same")
	require.NoError(t, os.CopyFS(same, os.DirFS(dir)))
	a, err := recoverAlone(t, dir)
	require.NoError(t, err)

	more := filepath.Join(t.TempDir(), "more")
	require.NoError(t, os.CopyFS(more, os.DirFS(same)))
	b, err := recoverAlone(t, same)
	require.NoError(t, err)
	require.Equal(t, a.NewCluster, b.NewCluster)
	n, err := openAlone(t, more, nil)
	require.NoError(t, err)
	write(t, n, 1)
	closeNode(t, n)
	c, err := recoverAlone(t, more)
	require.NoError(t, err)
	require.NotEqual(t, a.NewCluster, c.NewCluster)
}

// All survivors begin with the same configuration, whether the old one had folders or
// not: of the two that there are, only one is written down.
func TestRecoveredConfigurationIsTheSameForAll(t *testing.T) {
	peers := []Peer{{"n1", "a:1"}, {"n2", "b:2"}, {"n9", "c:3"}}
	before := func(folders ...string) raft.Configuration {
		var conf raft.Configuration
		for i, folder := range folders {
			id := fmt.Sprint("n", i+1)
			conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: serverAddress(id+":1", folder)})
		}
		return conf
	}
	for _, c := range []struct {
		before raft.Configuration
		want   map[string]string
	}{
		{before("f1", "f2", "f3"), map[string]string{"n1": "f1", "n2": "f2"}},
		{before("f1", "", "f3"), map[string]string{"n1": "f1"}},
		{before("", "", ""), nil},
		{before("f1"), map[string]string{"n1": "f1"}},
	} {
		for _, id := range []*identity{{ID: "n1", Incarnation: "f1"}, {ID: "n2", Incarnation: "f2"}} {
			conf := recovered(c.before, id, peers)
			require.Equal(t, c.want, foldersOf(conf), "%v by %s", c.before, id.ID)
			for i, s := range conf.Servers {
				require.Equal(t, peers[i], Peer{string(s.ID), peerOf(s)})
			}
		}
	}
}

// A refusal writes nothing; a folder that a crash left in the middle starts no
// member, and is gone on with.
func TestRecoverInSteps(t *testing.T) {
	dir := written(t, 20, nil)
	_, err := Recover(dir, []Peer{{"n2", "127.0.0.1:7172"}}, testLog(t), func(Recovery) error { return nil })
	require.ErrorContains(t, err, "is of member n1, which is not in the list")
	no := errors.New("no")
	_, err = Recover(dir, []Peer{{"n1", "127.0.0.1:7171"}}, testLog(t), func(Recovery) error { return no })
	require.ErrorIs(t, err, no)
	n, err := openAlone(t, dir, nil)
	require.NoError(t, err)
	_, err = recoverAlone(t, dir)
	require.ErrorContains(t, err, "is in use by another process")
	closeNode(t, n)
	_, err = recoverAlone(t, t.TempDir())
	require.ErrorContains(t, err, "knows no cluster")

	// Ended before its last step: what it wrote first is still there.
	d, err := openDataDir(dir)
	require.NoError(t, err)
	first, err := d.identity()
	require.NoError(t, err)
	d.close()
	r, err := recoverAlone(t, dir)
	require.NoError(t, err)
	d, err = openDataDir(dir)
	require.NoError(t, err)
	first.State = stateRecovering
	require.NoError(t, d.setIdentity(first))
	d.close()
	_, err = openAlone(t, dir, nil)
	require.ErrorContains(t, err, "was being recovered: run the recovery again")
	again, err := recoverAlone(t, dir)
	require.NoError(t, err)
	require.Equal(t, r.NewCluster, again.NewCluster)
	n, err = openAlone(t, dir, nil)
	require.NoError(t, err)
	write(t, n, 1)
	closeNode(t, n)
}

// A damaged log or snapshot is named, and nothing is made of the rest.
func TestRecoverTakesNothingDamaged(t *testing.T) {
	dir := written(t, 20, nil)
	flip(t, tailSegment(t, dir), 1600, 1)
	_, err := recoverAlone(t, dir)
	require.ErrorContains(t, err, filepath.Join(dir, "raft", "wal"))

	dir = snapshotted(t)
	states, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin"))
	require.NoError(t, err)
	for _, state := range states {
		flip(t, state, 100, 1)
	}
	_, err = recoverAlone(t, dir)
	require.ErrorContains(t, err, "snapshot")
	d, err := openDataDir(dir)
	require.NoError(t, err)
	id, err := d.identity()
	require.NoError(t, err)
	require.Equal(t, stateReady, id.State)
	d.close()
}
