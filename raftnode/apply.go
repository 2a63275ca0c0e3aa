package raftnode

import (
	"container/heap"
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"trivet/store"
	"trivet/trivetpb"
)

// fsm is the state machine that raft sees: entries go to the store, and what
// became of them to those who wait. Raft calls Apply*, Snapshot and Restore
// from one goroutine, and Restore once from within NewRaft.
type fsm struct {
	n *Node
	// decoder's entries alias the log's, which nobody ever changes: raft, the cache and
	// the connections to followers read them too. store.Apply keeps nothing of one.
	decoder trivetpb.Decoder
	// deadline is the state's nearest one, as keepTime was last told.
	deadline uint64
}

var (
	_ raft.BatchingFSM        = (*fsm)(nil)
	_ raft.ConfigurationStore = (*fsm)(nil)
)

// ApplyBatch applies committed entries in the order of the log. The responses
// are for raft's futures, which nobody reads.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	for _, l := range logs {
		f.apply(l)
	}
	last := logs[len(logs)-1].Index
	f.n.appliedIndex.advance(last)
	f.n.appliedRevision.advance(f.n.store.Revision())
	return make([]any, len(logs))
}

func (f *fsm) Apply(l *raft.Log) any {
	return f.ApplyBatch([]*raft.Log{l})[0]
}

// StoreConfiguration is never called, since ApplyBatch gets configurations
// too; it makes fsm the ConfigurationStore that raft asks for.
func (f *fsm) StoreConfiguration(index uint64, _ raft.Configuration) {
	f.n.store.Advance(index)
}

func (f *fsm) apply(l *raft.Log) {
	var results []*trivetpb.Result
	switch l.Type {
	case raft.LogCommand:
		start := time.Now()
		entry, err := f.decoder.Entry(l.Data)
		if err == nil && f.n.cfg.onEntry != nil {
			f.n.cfg.onEntry(l.Index, entry)
		}
		if err == nil {
			results, err = f.n.store.Apply(l.Index, entry)
		}
		f.decoder.Reset()
		if err != nil {
			// A later version wrote it, or the entry is broken in a way that
			// its checksum did not show. To skip it is to differ from the
			// others from here on.
			f.n.fail(fmt.Errorf("log entry %d cannot be applied by this version: %w", l.Index, err))
			runtime.Goexit() // see guardedLog.abandon
		}
		f.n.counters.applies.took(start)
		f.n.counters.appliedCommands.Add(uint64(len(results)))
	default:
		f.n.store.Advance(l.Index)
		if l.Type == raft.LogConfiguration {
			f.n.committedConfiguration(l.Index, raft.DecodeConfiguration(l.Data), l.Index)
		}
	}
	hash := f.n.store.Stats().Hash
	f.n.compare.ring.record(l.Index, hash)
	if f.n.cfg.onApplied != nil {
		f.n.cfg.onApplied(l.Index, hash)
	}
	term, answered := f.n.proposer.applied(l, results)
	if l.Type == raft.LogCommand && !answered {
		f.n.store.Reuse() // as mostly: one member proposed the entry, all apply it
	}
	if term != 0 {
		f.n.markerApplied(term, l.Index)
	}
	f.n.snapshots.applied(len(l.Data))
	if deadline, _ := f.n.store.NextDeadline(); deadline != f.deadline {
		f.deadline = deadline
		f.n.wakeClock()
	}
}

// Restore replaces the state by a snapshot, or leaves it as it is.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	if restoring := f.n.cfg.Restoring; restoring != nil && !f.n.running() {
		defer restoring(f.n.snaps.bytes.Load())()
	}
	err := f.n.store.Restore(r)
	meta := f.n.snaps.openedAt(f.n.store.Index())
	if err == nil && meta == nil {
		err = fmt.Errorf("the newest one's state is of entry %d, its meta.json speaks of another", f.n.store.Index())
	}
	if err != nil {
		f.n.snapshots.failed(err)
		if f.n.running() {
			// The leader's log does not go back far enough for this member, and
			// its snapshot cannot be read: there is no way on. The snapshot
			// stays on disk, where the next start names it.
			f.n.fail(fmt.Errorf("snapshots in %s, the newest, from the leader: %w", f.n.snaps.where, err))
			runtime.Goexit()
		}
		return err
	}
	stats := f.n.store.Stats()
	index := stats.Index
	f.n.compare.ring.record(index, stats.Hash)
	f.n.committedConfiguration(meta.ConfigurationIndex, meta.Configuration, index)
	f.n.snapshots.restored()
	f.n.counters.snapshotsRestored.Add(1)
	f.n.proposer.skipped(index)
	f.n.appliedIndex.advance(index)
	f.n.appliedRevision.advance(f.n.store.Revision())
	return nil
}

// Snapshot takes a view, which costs nothing; Persist writes it beside the
// entries that are applied meanwhile.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	view, err := f.n.store.View(0)
	if err != nil {
		return nil, err
	}
	return fsmSnapshot{view, func(w io.Writer) io.Writer {
		return newPacer(w, f.n.served, f.n.snapshots.late, f.n.ctx.Done())
	}}, nil
}

type fsmSnapshot struct {
	view *store.View
	pace func(io.Writer) io.Writer
}

func (s fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.view.WriteSnapshot(s.pace(sink)); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (s fsmSnapshot) Release() { s.view.Close() }

// waiters wait for a number that only grows.
type waiters struct {
	mu   sync.Mutex
	at   uint64
	heap waiterHeap
}

type waiter struct {
	target uint64
	done   chan struct{}
	place  int // in the heap; -1 once out of it
}

// advance says that the number has reached at.
func (w *waiters) advance(at uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = max(w.at, at)
	for len(w.heap) > 0 && w.heap[0].target <= w.at {
		close(heap.Pop(&w.heap).(*waiter).done)
	}
}

// wait returns once the number has reached target, or with the context's error,
// or once stop is closed.
func (w *waiters) wait(ctx context.Context, stop <-chan struct{}, target uint64) error {
	w.mu.Lock()
	if w.at >= target {
		w.mu.Unlock()
		return nil
	}
	me := &waiter{target: target, done: make(chan struct{})}
	heap.Push(&w.heap, me)
	w.mu.Unlock()
	var err error
	select {
	case <-me.done:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-stop:
		err = errStopped
	}
	w.mu.Lock()
	if me.place >= 0 {
		heap.Remove(&w.heap, me.place)
	}
	w.mu.Unlock()
	return err
}

type waiterHeap []*waiter

func (h waiterHeap) Len() int           { return len(h) }
func (h waiterHeap) Less(i, j int) bool { return h[i].target < h[j].target }
func (h waiterHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}
func (h *waiterHeap) Push(x any) {
	w := x.(*waiter)
	w.place = len(*h)
	*h = append(*h, w)
}
func (h *waiterHeap) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	w.place = -1
	return w
}
