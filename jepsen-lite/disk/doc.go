// Package disk is a disk that can lose power, run full, be slow and fail: a file
// system in memory, mounted by FUSE under a process that knows nothing of it.
//
// # What survives a loss of power
//
// A file has the pages and the length of its last sync (fsync or fdatasync); one
// that was never synced is empty. A folder has the names of its last sync, and
// those on the way to a file that was synced after it was given its name: ext4,
// XFS and btrfs all promise that much, POSIX does not. Renames and removals take
// a sync of the folder. Modes and times are of no interest and survive.
//
// Of what was not synced nothing survives, or, in a torn loss, what chance takes:
// each page of a file by itself, a new length, the names of each folder as a
// whole. A page is 4 KiB and is never half written. A file that was shortened
// since its sync is either as before or as after.
//
// A sync that fails is the last that is heard of what it was for: Linux takes
// such pages for clean, so that the next sync succeeds and they are not on the
// disk all the same.
//
// # What it is not
//
// It keeps no order between syncs of one process that overlap, writes nothing
// late by itself, and has no hard links, no symbolic links and no attributes. A
// mapping of a file sees what is written to it, as on any disk; what is written
// through a mapping is no more than written.
//
// Reading order: content.go (a file), disk.go (names and faults), power.go,
// fuse_linux.go and mount_linux.go.
package disk
