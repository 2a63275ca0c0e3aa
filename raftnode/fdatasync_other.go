//go:build !linux

package raftnode

// fdatasync syncs a file whole: not every system has less, and macOS has nothing
// that reaches the disk but what Sync does there.
func fdatasync(f segmentFile) error { return f.Sync() }
