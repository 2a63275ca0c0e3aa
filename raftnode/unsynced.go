package raftnode

import "github.com/hashicorp/raft-wal/types"

// unsynced is files whose syncs do nothing: what a server that is broken on
// purpose (no-fsync) has its log in. No other build holds it.
type unsynced struct{ types.VFS }

func (v unsynced) Create(dir, name string, size uint64) (types.WritableFile, error) {
	return unsyncedFile(v.VFS.Create(dir, name, size))
}

func (v unsynced) OpenWriter(dir, name string) (types.WritableFile, error) {
	return unsyncedFile(v.VFS.OpenWriter(dir, name))
}

// unsyncedFile syncs once: that an empty log is there is not what it is about.
func unsyncedFile(f types.WritableFile, err error) (types.WritableFile, error) {
	return &neverSynced{WritableFile: f}, err
}

type neverSynced struct {
	types.WritableFile
	once bool
}

func (f *neverSynced) Sync() error {
	if f.once {
		return nil
	}
	f.once = true
	return f.WritableFile.Sync()
}
