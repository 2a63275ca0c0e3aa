package raftnode

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// snapshotStore is raft's file snapshot store with three differences: what is
// damaged is named and stops the node instead of being passed over, what a
// crash left half-written is removed, and the log is told of each snapshot
// (logstore.go says why).
//
// raft falls back to an older snapshot where the newest cannot be read. But
// the log behind the newest may have been compacted already, so that the older
// one would be less than what was acknowledged. So raft is shown the newest
// only, and an unreadable one is an error.
type snapshotStore struct {
	raft.SnapshotStore
	where string
	// taken is called with the end of each snapshot that is on disk.
	taken func(index, term uint64)
	// stopped is closed when the node stops: what is being written then ends, and
	// holds up no stop.
	stopped <-chan struct{}
	// bytes is the size of the newest one's state; 0 for none.
	bytes atomic.Int64

	mu     sync.Mutex
	err    error                // the last failure, for Open's message: raft logs it and drops it
	opened []*raft.SnapshotMeta // of the last ones opened
}

// retainSnapshots is how many snapshots stay on disk: the newest is what the
// member rests on, the one before it is for a person to look at.
const retainSnapshots = 2

// openSnapshots opens the snapshots in dir/snapshots, removes what is left of
// unfinished ones, and fails where one cannot be read.
func openSnapshots(dir string, log *slog.Logger, raftLog hclog.Logger) (raft.SnapshotStore, error) {
	where := filepath.Join(dir, "snapshots")
	inner, err := raft.NewFileSnapshotStoreWithLogger(dir, retainSnapshots, raftLog)
	if err != nil {
		return nil, fmt.Errorf("snapshots in %s: %w", where, err)
	}
	entries, err := os.ReadDir(where)
	if err != nil {
		return nil, err
	}
	whole := 0
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			// raft writes under this name and renames when all is synced; after
			// a crash the remains are of no use.
			log.Info("removing an unfinished snapshot", "path", filepath.Join(where, e.Name()))
			if err := os.RemoveAll(filepath.Join(where, e.Name())); err != nil {
				return nil, err
			}
			continue
		}
		if e.IsDir() {
			whole++
		}
	}
	// raft's List leaves out what it cannot read.
	metas, err := inner.List()
	if err != nil {
		return nil, fmt.Errorf("snapshots in %s: %w", where, err)
	}
	if len(metas) < min(whole, retainSnapshots) {
		readable := map[string]bool{}
		for _, m := range metas {
			readable[m.ID] = true
		}
		for _, e := range entries {
			if e.IsDir() && !strings.HasSuffix(e.Name(), ".tmp") && !readable[e.Name()] {
				return nil, fmt.Errorf("snapshot %s: its meta.json cannot be read", filepath.Join(where, e.Name()))
			}
		}
	}
	return syncedSnapshots{inner, where}, nil
}

// List returns the newest snapshot.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	metas, err := s.SnapshotStore.List()
	if len(metas) > 1 {
		metas = metas[:1]
	}
	return metas, err
}

// Open checks the whole snapshot against its checksum and opens it.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.SnapshotStore.Open(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("snapshot %s: %w", filepath.Join(s.where, id), err)
		s.err = err
		return nil, nil, err
	}
	s.opened = append(s.opened[max(0, len(s.opened)-7):], meta)
	return meta, r, nil
}

// openedAt returns what the meta.json of a snapshot says that was opened lately
// and ends at index; nil where none was. Lately, since one may be restored while
// another is sent.
func (s *snapshotStore) openedAt(index uint64) *raft.SnapshotMeta {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, meta := range slices.Backward(s.opened) {
		if meta.Index == index {
			return meta
		}
	}
	return nil
}

// Create begins a snapshot, taken here or sent by the leader. Once it is whole
// and on disk, the log is told where it ends.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, c, cIndex, t)
	if err != nil {
		return nil, err
	}
	return &snapshotSink{SnapshotSink: sink, stopped: s.stopped, closed: func(size int64) {
		s.bytes.Store(size)
		s.taken(index, term)
	}}, nil
}

type snapshotSink struct {
	raft.SnapshotSink
	size    int64
	stopped <-chan struct{}
	closed  func(size int64)
}

func (s *snapshotSink) Write(p []byte) (int, error) {
	select {
	case <-s.stopped:
		return 0, errStopped
	default:
	}
	n, err := s.SnapshotSink.Write(p)
	s.size += int64(n)
	return n, err
}

func (s *snapshotSink) Close() error {
	err := s.SnapshotSink.Close()
	if err == nil {
		s.closed(s.size)
	}
	return err
}

// syncedSnapshots is raft's file snapshot store, but that it syncs a snapshot as
// it grows. raft syncs it at its end, which for a large one is a long write to the
// disk, behind which those to the log wait.
type syncedSnapshots struct {
	raft.SnapshotStore
	where string
}

// syncEach is how much of a snapshot is synced at a time.
const syncEach = 8 << 20

func (s syncedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, c, cIndex, t)
	if err != nil {
		return nil, err
	}
	// raft keeps the file that it writes to itself; this is another way to it.
	file, err := os.OpenFile(filepath.Join(s.where, sink.ID()+".tmp", "state.bin"), os.O_RDWR, 0)
	if err != nil {
		_ = sink.Cancel() // the first error is the one to tell
		return nil, err
	}
	return &syncedSink{SnapshotSink: sink, file: file}, nil
}

type syncedSink struct {
	raft.SnapshotSink
	file    *os.File
	waiting int // bytes that were written since the last sync
}

func (s *syncedSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	if s.waiting += n; err == nil && s.waiting >= syncEach {
		s.waiting = 0
		err = s.file.Sync()
	}
	return n, err
}

func (s *syncedSink) Cancel() error {
	s.file.Close()
	return s.SnapshotSink.Cancel()
}

func (s *syncedSink) Close() error {
	s.file.Close()
	return s.SnapshotSink.Close()
}

// lastError returns why Open failed, nil where it did not.
func (s *snapshotStore) lastError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// snapshotter decides when this member takes a snapshot: once it has applied a
// given number of bytes since the last one. raft counts entries, of which one
// may hold a command or a thousand.
//
// All members apply the same, and would take their snapshots at the same moment,
// with nobody left to do the work. So each draws by chance how much less than
// the number it waits for, up to a quarter.
type snapshotter struct {
	wake  chan struct{} // has room for one
	limit int64

	mu         sync.Mutex
	next       int64 // of limit, for the next snapshot
	bytes      int64 // applied since the last snapshot
	restoreErr error // why the last restore failed
	stopping   bool  // the snapshot that is taken is the node's last
}

func newSnapshotter(limit int64) *snapshotter {
	s := &snapshotter{limit: limit, wake: make(chan struct{}, 1)}
	s.draw()
	return s
}

// draw draws when the next snapshot is due.
func (s *snapshotter) draw() { s.next = s.limit - rand.N(s.limit/4+1) }

func (s *snapshotter) applied(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += int64(bytes)
	if s.bytes >= s.next {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (s *snapshotter) restored() {
	s.mu.Lock()
	s.bytes = 0
	s.mu.Unlock()
}

func (s *snapshotter) failed(err error) {
	s.mu.Lock()
	s.restoreErr = err
	s.mu.Unlock()
}

func (s *snapshotter) lastError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.restoreErr
}

// taken resets the count to what was applied since the snapshot began.
func (s *snapshotter) taken(before int64) {
	s.mu.Lock()
	s.bytes -= before
	s.draw()
	s.mu.Unlock()
}

// late says, while a snapshot is taken, that there is no time to give way: what has
// been applied since would be enough for another, or the node waits for it to stop.
func (s *snapshotter) late() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping || s.bytes >= 2*s.limit
}

// last says whether a node that stops is to take a snapshot first.
func (s *snapshotter) last(stateBytes uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = s.bytes >= s.limit/stopShare && stateBytes <= maxStopBytes
	return s.stopping
}

// due returns what was applied since the last snapshot, and whether that is
// enough for another.
func (s *snapshotter) due() (bytes int64, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.bytes >= s.next
}

// takeSnapshots runs until the node stops.
func (n *Node) takeSnapshots() {
	for {
		select {
		case <-n.snapshots.wake:
		case <-n.ctx.Done():
			return
		}
		before, due := n.snapshots.due()
		if !due {
			continue
		}
		start := time.Now()
		err := n.snapshot()
		switch {
		case err == nil:
			n.counters.snapshots.took(start)
		case n.ctx.Err() == nil:
			n.counters.snapshotFailures.Add(1)
			n.log.Warn("no snapshot was taken; it is tried again as the log grows", "error", err)
		}
		n.snapshots.taken(before)
	}
}

// A node that stops takes a snapshot where that is soon done and saves the next
// start more: to apply a log takes three times as long as to read a snapshot of
// what came of it, and whoever stops a node is mostly about to start it again.
const (
	// stopShare is how much of SnapshotBytes must have been applied since the last
	// one: less is applied again in a moment.
	stopShare = 16
	// maxStopBytes is the largest state, by Stats.Bytes, that is written: a second
	// or two. A larger one would not be written in the time that a stop has.
	maxStopBytes = 512 << 20
)

// snapshotLast takes a node's last snapshot, until the context ends. Nothing rests
// on it: without it the next start applies more of the log.
func (n *Node) snapshotLast(ctx context.Context) {
	if !n.snapshots.last(n.store.Stats().Bytes) {
		return
	}
	taken := make(chan error, 1)
	start := time.Now()
	go func() { taken <- n.snapshot() }() // ends with raft, if not before
	select {
	case err := <-taken:
		if err != nil {
			n.log.Info("no snapshot was taken before the stop", "error", err)
			return
		}
		n.counters.snapshots.took(start)
	case <-ctx.Done():
		n.log.Info("the snapshot before the stop was given up", "after", time.Since(start))
	}
}

// snapshot takes one now, and drops the log before it but for a quarter of
// SnapshotBytes, so that a follower that was away shortly needs no snapshot.
func (n *Node) snapshot() error {
	rc := n.raft.ReloadableConfig()
	rc.TrailingLogs = n.logs.trailing(n.cfg.SnapshotBytes / 4)
	if err := n.raft.ReloadConfig(rc); err != nil {
		return err
	}
	done := make(chan error, 1)
	f := n.raft.Snapshot()
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-n.raftStopped:
		return errStopped // the future may hang
	}
}
