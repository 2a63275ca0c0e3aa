package raftnode

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

func configurationOf(ids ...string) raft.Configuration {
	var conf raft.Configuration
	for _, id := range ids {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id + ":1")})
	}
	return conf
}

// The folder that was seen last is the one that is talked to, whatever happens in
// between, until a newer one is let in.
func TestMetFolders(t *testing.T) {
	var saved map[string]metFolder
	m := newMet(nil, func(f map[string]metFolder) error { saved = f; return nil })
	again := func() { m = newMet(saved, m.save) } // the member is started again
	require.NoError(t, m.check("n2", "a", 1, false))
	for range 2 {
		require.NoError(t, m.check("n2", "a", 1, false))
		require.NoError(t, m.check("n2", "", 0, false), "a version that has none")
		require.ErrorIs(t, m.check("n2", "b", 1, false), errOtherFolder)
		require.Equal(t, "a", m.folder("n2"))
		again()
	}

	// Removed, it stays out, and so does every folder that was let in before.
	require.NoError(t, m.removed(50, configurationOf("n1", "n2"), configurationOf("n1")))
	for range 2 {
		require.ErrorIs(t, m.check("n2", "a", 1, false), errNotAnew)
		require.ErrorIs(t, m.check("n2", "", 0, false), errNotAnew)
		require.ErrorIs(t, m.check("n2", "b", 50, false), errNotAnew)
		again()
	}
	require.NoError(t, m.check("n2", "b", 60, false))
	require.ErrorIs(t, m.check("n2", "a", 1, false), errOtherFolder)

	// The log is replayed: the removal is met again, and is an old one.
	again()
	require.NoError(t, m.removed(50, configurationOf("n1", "n2"), configurationOf("n1")))
	require.Equal(t, "b", m.folder("n2"))
	require.ErrorIs(t, m.check("n2", "c", 60, false), errOtherFolder)
	require.NoError(t, m.check("n2", "c", 70, false), "let in again, which this member may not have heard of")
}

// What cannot be written down is not taken: it would be forgotten in a crash.
func TestMetFoldersAreWrittenFirst(t *testing.T) {
	full := errors.New("no space left")
	m := newMet(nil, func(map[string]metFolder) error { return full })
	require.ErrorIs(t, m.check("n2", "a", 1, false), full)
	require.Empty(t, m.folder("n2"))
}

// Ids that come and go for ever leave no more than so much behind, and nothing of
// those that are there is dropped.
func TestMetFoldersAreBounded(t *testing.T) {
	m := newMet(nil, func(map[string]metFolder) error { return nil })
	require.NoError(t, m.check("n1", "a", 1, false))
	for i := range uint64(2 * maxMet) {
		id := fmt.Sprint("m", i)
		require.NoError(t, m.check(id, "x", 2*i+2, false))
		require.NoError(t, m.removed(2*i+3, configurationOf("n1", id), configurationOf("n1")))
	}
	require.Len(t, m.folders, maxMet)
	require.Equal(t, "a", m.folder("n1"))
	require.Contains(t, m.folders, fmt.Sprint("m", 2*maxMet-1))
	require.NotContains(t, m.folders, "m0")
}

// A data folder keeps what its member has met.
func TestMetFoldersAreKept(t *testing.T) {
	dir := written(t, 1, nil)
	for i := range 3 {
		n, err := openAlone(t, dir, nil)
		require.NoError(t, err)
		if i == 0 {
			require.NoError(t, n.met.check("n2", "a", 7, false))
		}
		require.Equal(t, "a", n.met.folder("n2"))
		closeNode(t, n)
	}
	d, err := openDataDir(dir)
	require.NoError(t, err)
	id, err := d.identity()
	require.NoError(t, err)
	require.NotEmpty(t, id.Incarnation)
	// One of a version that had none gets its name with the next start.
	id.Incarnation, id.JoinedAt = "", 0
	require.NoError(t, d.setIdentity(id))
	d.close()
	var names []string
	for range 2 {
		n, err := openAlone(t, dir, nil)
		require.NoError(t, err)
		names = append(names, n.storage.incarnation)
		closeNode(t, n)
	}
	require.NotEmpty(t, names[0])
	require.Equal(t, names[0], names[1])
}
