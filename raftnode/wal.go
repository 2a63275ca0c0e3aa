package raftnode

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	walsegment "github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"trivet/internal/mutant"
)

// walLog is raft-wal with what it does not do where a segment file is full.
//
// The last batch that fits seals the segment: its index is written and synced
// with the batch. Then, in a goroutine of its own, raft-wal writes down in
// wal-meta.db that the segment is sealed, and makes the file of the next one.
//
//   - An error of that (no space is left for the next file, most often) goes to
//     the log alone, and every later write fails with "segment is sealed", which
//     names neither the file nor the reason. So what failed is remembered, and is
//     the error of those writes.
//   - Where that never happened, because of an error or because the process died
//     between the two, the next start takes the sealed segment for the one to
//     write to, and every write fails with "segment is sealed", at each start
//     anew. The same where the batch that seals was torn by a crash, and is cut off:
//     the segment still counts as sealed. So the start ends what was begun, or
//     takes it back (finishRotation).
//
// And entries are encoded into memory that is used again (walencode.go).
type walLog struct {
	*wal.WAL
	rotation *rotation
	dir      string
	files    types.VFS
	segments *segmentList
	encoder  *batchEncoder
	direct   directIO // what its files are written with; nil: none
}

func (l *walLog) Close() error {
	err := l.WAL.Close()
	if l.direct != nil {
		l.direct.Close()
	}
	return err
}

// segmentList is what wal-meta.db says of the segments.
type segmentList struct {
	mu       sync.Mutex
	segments []types.SegmentInfo
}

func (l *segmentList) set(s types.PersistentState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = slices.Clone(s.Segments)
}

// now returns the segments, oldest first.
func (l *segmentList) now() []types.SegmentInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.segments
}

// rotation remembers why the last change of segments failed.
type rotation struct {
	mu  sync.Mutex
	err error
}

func (r *rotation) note(err error) error {
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
	return err
}

// instead returns what failed before, for an error that is only its consequence.
func (r *rotation) instead(err error) error {
	if !errors.Is(err, types.ErrSealed) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		return err
	}
	return fmt.Errorf("the next segment cannot be begun: %w", r.err)
}

func (l *walLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

func (l *walLog) StoreLogs(logs []*raft.Log) error {
	return l.rotation.instead(l.encoder.store(logs, l.WAL.StoreLogs))
}

// openWAL opens the log in dir; its own bolt file may be damaged.
func openWAL(dir string, log hclog.Logger) (*walLog, error) {
	files := segmentFiles{VFS: fs.New(), syncData: fdatasync}
	files.notDirect = func(err error) { log.Info("the log is written through the page cache", "reason", err) }
	if !mutant.On("no-fsync") { // a write that is a sync cannot leave it out
		direct, err := newDirectIO(dir)
		if err == nil {
			files.direct = direct
		} else {
			files.notDirect(err)
		}
	}
	l, err := openWALOver(dir, log, &metadb.BoltMetaDB{}, files, wal.DefaultSegmentSize)
	if files.direct == nil {
		return l, err
	}
	if err != nil {
		files.direct.Close()
		return nil, err
	}
	l.direct = files.direct
	return l, nil
}

// openWALOver is openWAL for tests, with segments of a size in bytes.
func openWALOver(dir string, log hclog.Logger, meta types.MetaStore, files types.VFS, segmentBytes int) (l *walLog, err error) {
	defer recoverDamage(filepath.Join(dir, "wal-meta.db"), &err)
	r := &rotation{}
	if mutant.On("no-fsync") {
		files = unsynced{files}
	}
	encoder := &batchEncoder{}
	filer := walFiler{walsegment.NewFiler(dir, files), r, dir, encoder}
	segments := &segmentList{}
	w, err := wal.Open(dir, wal.WithLogger(log), wal.WithSegmentSize(segmentBytes),
		wal.WithSegmentFiler(filer), wal.WithMetaStore(walMeta{meta, filer, segments}))
	if err != nil {
		return nil, err
	}
	return &walLog{WAL: w, rotation: r, dir: dir, files: files, segments: segments, encoder: encoder}, nil
}

// walFiler makes and opens segment files.
type walFiler struct {
	types.SegmentFiler
	rotation *rotation
	dir      string
	encoder  *batchEncoder
}

// Create and RecoverTail are where raft-wal gets what it appends to.
func (f walFiler) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	w, err := f.SegmentFiler.Create(info)
	if err != nil {
		// What preallocates does not say which file.
		return nil, f.rotation.note(fmt.Errorf("%s: %w", filepath.Join(f.dir, walsegment.FileName(info)), err))
	}
	return encodedSegment{w, f.encoder}, nil
}

func (f walFiler) RecoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	w, err := f.SegmentFiler.RecoverTail(info)
	if err != nil {
		return nil, err
	}
	return encodedSegment{w, f.encoder}, nil
}

// walMeta is what is kept in wal-meta.db: which segments there are.
type walMeta struct {
	types.MetaStore
	filer    walFiler
	segments *segmentList
}

func (m walMeta) Load(dir string) (types.PersistentState, error) {
	s, err := m.MetaStore.Load(dir)
	if err == nil {
		err = m.finishRotation(&s)
		m.segments.set(s)
	}
	return s, err
}

func (m walMeta) CommitState(s types.PersistentState) error {
	if err := m.MetaStore.CommitState(s); err != nil {
		return m.filer.rotation.note(fmt.Errorf("%s: %w", filepath.Join(m.filer.dir, "wal-meta.db"), err))
	}
	m.segments.set(s)
	return nil
}

// finishRotation looks whether the segment to write to is sealed. Where it is,
// what raft-wal would have written down is (rotateSegmentLocked); the next
// segment's file is made by raft-wal, as after a crash in between. Where the batch
// that seals it is not whole, it goes.
func (m walMeta) finishRotation(s *types.PersistentState) error {
	if len(s.Segments) == 0 {
		return nil
	}
	tail := &s.Segments[len(s.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	w, err := m.filer.RecoverTail(*tail)
	if err != nil {
		return nil // raft-wal makes it, or says what is wrong with it
	}
	defer w.Close()
	sealed, indexStart, err := w.Sealed()
	if err != nil || !sealed {
		return err
	}
	path, last := filepath.Join(m.filer.dir, walsegment.FileName(*tail)), w.LastIndex()
	end, err := checkSegmentTail(path, tail.BaseIndex, last)
	if err != nil {
		return err
	}
	if uint64(end) <= indexStart {
		return cutFile(path, end)
	}
	tail.SealTime, tail.MaxIndex, tail.IndexStart = time.Now(), last, indexStart
	s.Segments = append(s.Segments, types.SegmentInfo{
		ID: s.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1,
		SizeLimit: tail.SizeLimit, Codec: tail.Codec, CreateTime: time.Now(),
	})
	s.NextSegmentID++
	return m.CommitState(*s)
}

// cutFile truncates a file, durably.
func cutFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
