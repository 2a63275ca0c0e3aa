package raftnode

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/raft-wal/types"

	"trivet/internal/mutant"
)

// segmentFiles is the files of the log's segments, with cheaper syncs than
// raft-wal's own, which cost most of what a small batch costs. raft-wal makes a
// segment's file at its full length (fallocate) and syncs each batch with fsync.
// A file system then has its journal written for every batch: it keeps
// for each extent whether it was ever written, so that what was allocated
// reads as zeros, and a batch changes that; and fsync syncs the time of the
// last change. Here
//
//   - a batch is synced with fdatasync, which leaves out of the inode only what
//     is not needed to read the data back: the size and where the data is are
//     synced with it (POSIX, fdatasync and "synchronized I/O data integrity
//     completion"; fdatasync(2)). Except for the first time, when the file itself
//     and its folder are synced whole, as the file may be new;
//   - zeros are written ahead of the batches, a step at a time, with the batch that
//     reaches the end of what was written before, and the sync of that batch covers both. The
//     batches that follow overwrite: nothing but their data changes, and no
//     journal is written.
//
// Each byte of the log is thus written twice (as in PostgreSQL, wal_init_zero).
// The batch that pays for a step takes somewhat longer; all others gain more.
// A file system that never overwrites in place gains nothing from it, and loses
// nothing but that.
//
// Where the system has them, direct writes do both at once, for less (directio.go).
//
// What is behind the last batch reads as zeros before and after, so recovery
// and waltail.go meet what they always met: a batch that a crash tore ends in
// zeros, or in what some earlier crash left.
type segmentFiles struct {
	types.VFS
	// syncData syncs a file's data: fdatasync, but in tests.
	syncData func(segmentFile) error
	// direct writes files past the page cache (directio.go); nil: none are.
	direct directIO
	// notDirect is told why a file is not, or no longer; it may be nil.
	notDirect func(error)
}

// segmentFile is an *os.File, or raft-wal's around one.
type segmentFile interface {
	types.WritableFile
	syscall.Conn
	Name() string
	Stat() (fs.FileInfo, error)
}

// zeroStep is how far ahead zeros are written: far enough that few batches
// pay for it, and little enough that those few take a millisecond longer.
const zeroStep = 1 << 20

var zeroesAhead [zeroStep]byte

func (v segmentFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := v.VFS.Create(dir, name, size)
	return v.open(dir, name, f, err)
}

// OpenWriter syncs the file before recovery reads it. A process that was killed may have
// left a batch in the page cache, or in the disk's, whole and not synced. Recovery takes it, and
// raft tells the leader that this node has it, without another write: it must not
// be lost with the power after that.
func (v segmentFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := v.VFS.OpenWriter(dir, name)
	if f, err = v.open(dir, name, f, err); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (v segmentFiles) open(dir, name string, f types.WritableFile, err error) (types.WritableFile, error) {
	if err != nil {
		return nil, err
	}
	file, ok := f.(segmentFile)
	if !ok {
		return nil, fmt.Errorf("%s: not a file", filepath.Join(dir, name))
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	p := &preparedFile{segmentFile: file, dir: dir, size: info.Size(), syncData: v.syncData, notDirect: v.notDirect}
	if v.direct != nil {
		d, err := v.direct.open(filepath.Join(dir, name))
		switch {
		case err == nil:
			p.blocks = &blocks{directFile: d, was: file}
		case !errors.Is(err, errNoDirectIO):
			file.Close()
			return nil, err
		default:
			p.fallBack(err)
		}
	}
	return p, nil
}

// preparedFile is a segment's file that is written to. raft-wal writes and syncs
// it from one goroutine at a time, forwards but for a batch that failed.
type preparedFile struct {
	segmentFile
	dir      string
	size     int64 // as it was made; a segment's last batch may go beyond
	syncData func(segmentFile) error
	blocks   *blocks // writes it; nil where the page cache does
	// notDirect is that of segmentFiles.
	notDirect func(error)

	written int64 // zeros or more were written up to here; 0: not known
	durable bool  // what was written last is
	synced  bool  // file and folder were, whole
}

func (f *preparedFile) WriteAt(b []byte, at int64) (int, error) {
	end := at + int64(len(b))
	// Where zeros are to be written up to, never below end, where the batch is. What is
	// above it is nobody's, in a file that was just opened too: recovery is over, and
	// went by what there was.
	zeros := int64(0)
	if end > f.written {
		zeros = min(end-end%zeroStep+zeroStep, f.size)
	}
	if f.blocks != nil {
		to := zeros - zeros%blockBytes
		err := f.blocks.writeAt(b, at, to)
		if err == nil {
			f.written, f.durable = max(f.written, end, to), true
			return len(b), nil
		}
		if !errors.Is(err, errNoDirectIO) {
			return 0, err
		}
		f.fallBack(err)
	}
	f.durable = false
	n, err := f.segmentFile.WriteAt(b, at)
	if err != nil {
		return n, err
	}
	if zeros > end {
		if _, err := f.segmentFile.WriteAt(zeroesAhead[:zeros-end], end); err != nil {
			return n, err
		}
	}
	f.written = max(f.written, end, zeros)
	return n, nil
}

func (f *preparedFile) Sync() error {
	if f.synced || mutant.On("sync-data-only") {
		if f.durable {
			return nil
		}
		return f.syncData(f.segmentFile)
	}
	if err := f.segmentFile.Sync(); err != nil {
		return err
	}
	// A process may have died between making the file and its first sync, so it
	// is not only new files whose folder was never synced.
	if err := syncFolder(f.dir); err != nil {
		return err
	}
	f.synced = true
	return nil
}

func (f *preparedFile) Close() error {
	f.closeBlocks()
	return f.segmentFile.Close()
}

// fallBack has the page cache write the file from here on.
func (f *preparedFile) fallBack(why error) {
	if f.notDirect != nil {
		f.notDirect(why)
	}
	f.closeBlocks()
}

func (f *preparedFile) closeBlocks() {
	if f.blocks != nil {
		f.blocks.Close() // nothing is left to write: each write is durable
		f.blocks = nil
	}
}
