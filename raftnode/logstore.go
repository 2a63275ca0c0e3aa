package raftnode

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
)

// guardedLog is the log store that raft gets: another one (raft-wal or
// raft-boltdb) with what that lacks.
//
//   - A fence: an entry whose proposer led another term than raft stamped it
//     with is refused (entrymeta.go).
//   - A checksum, added when an entry is first stored and checked whenever one
//     is stored or read back. raft-wal checks its own at recovery only, bolt
//     never: a flipped bit in a data page reads as valid.
//   - A watch: a write or sync that fails, or takes longer than limit, poisons
//     the store. A failed fsync is never tried again: the kernel may have
//     dropped the pages that it could not write and would report success
//     (Rebello et al., "Can Applications Recover from fsync Failures?", 2020).
//     And a leader whose disk hangs would keep its leadership, because raft
//     heartbeats come from other goroutines (raft issues 503, 666).
//   - A cache of the newest entries, so that replication and application read
//     none of them back from disk.
//   - What a snapshot that the leader sent does to the log, below.
//
// # A snapshot in the middle of the log
//
// A leader whose log is compacted sends a snapshot to a follower whose log ends
// in entries of a deposed leader, and the snapshot may end before they do. raft
// gets this wrong with either kind of log store. For one that takes no gaps
// (IsMonotonic) it deletes the whole log and still remembers its last index: it
// then refuses the leader's entries up to there, so that the snapshot is sent
// again and again; or it takes a commit of entries that are gone, and panics.
// For any other store it keeps the entries around the snapshot's end, and
// refuses the leader's next ones because the entry there is of another term, or
// missing. A snapshot of its own that ends after an installed one sets back
// what raft remembers of it, to the same effect.
//
// So raft is told that gaps are fine, which makes it keep the log, and
//
//   - where the log has another entry than the snapshot at the snapshot's end, or
//     none, everything up to there is deleted, at once: it may hold entries that
//     were never committed, which this member would send to others if it came to
//     lead;
//   - the entry at the newest snapshot's end, asked for by index, is of the
//     snapshot's term. What follows it in the log is compared with the leader's
//     entries, and truncated where it differs, as always;
//   - entries that come after a gap are taken if the snapshot covers the gap;
//     what was before is deleted then;
//   - a message that follows the snapshot's end is not compared with what raft
//     remembers of the log (matchSnapshot in transport.go).
//
// A poisoned store fails every call from then on and tells the node, which
// stops (Node.fail).
type guardedLog struct {
	inner raft.LogStore
	where string // the file or folder, for errors
	limit time.Duration

	// fail takes the node out of service. Called at most once, from any
	// goroutine, and returns without waiting for the node to have stopped.
	fail func(error)
	// storing is called in raft's main goroutine before entries are written:
	// from here on they may be on disk, whatever the write answers. stored is
	// called after they were synced.
	storing, stored func([]*raft.Log)
	// sending is called after storing, where the entries follow prev, the last one
	// stored. It must not wait for anybody. May be nil.
	sending func(prev logPosition, logs []*raft.Log)
	// applied returns the index of the last entry that was applied.
	applied func() uint64
	// counted is called after entries were written and synced, with the time
	// before.
	counted func(start time.Time, logs []*raft.Log)
	// configured is called with each configuration that the log holds, once it is
	// synced or found at the start, and truncated where the log was cut off from
	// an entry on. Either may be nil.
	configured func(l *raft.Log)
	truncated  func(from uint64)

	mu     sync.Mutex
	broken error
	next   uint64 // the index after the last entry stored; 0: not known
	// running says that raft's goroutines are at work: see abandon.
	running bool
	cache   entryCache
	sizes   sizeIndex
	// The end of the newest snapshot; 0 for none.
	snapshotIndex, snapshotTerm uint64
}

// errFenced is what an entry of another term than its proposer led gets.
var errFenced = errors.New("raftnode: the entry's proposer did not lead the term that it was stamped with")

func newGuardedLog(inner raft.LogStore, where string, limit time.Duration, fail func(error), stored func([]*raft.Log)) *guardedLog {
	return &guardedLog{inner: inner, where: where, limit: limit, fail: fail, stored: stored}
}

// start says that raft runs from here on.
func (g *guardedLog) start() {
	g.mu.Lock()
	g.running = true
	g.mu.Unlock()
}

// poison makes every later call fail with err and takes the node out.
func (g *guardedLog) poison(err error) {
	g.mu.Lock()
	first := g.broken == nil
	if first {
		g.broken = err
	}
	g.mu.Unlock()
	if first {
		g.fail(err)
	}
}

func (g *guardedLog) err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.broken
}

// abandon ends the calling goroutine of raft in an orderly way: its deferred
// calls run, so that Shutdown can wait for it. Where raft cannot read an entry
// that it needs, its own answer is a panic, which would take down a process
// that merely embeds the node. The node has been failed before.
func (g *guardedLog) abandon() {
	g.mu.Lock()
	running := g.running
	g.mu.Unlock()
	if running {
		runtime.Goexit()
	}
}

// snapshot says where a snapshot that is on disk ends, and deletes what the log
// has up to there if it is not what led to the snapshot. A crash in between
// leaves that to the next start, which calls this too.
func (g *guardedLog) snapshot(index, term uint64) {
	g.mu.Lock()
	newer := index > g.snapshotIndex
	if newer {
		g.snapshotIndex, g.snapshotTerm = index, term
	}
	g.mu.Unlock()
	if !newer || mutant.On("snapshot-on-log") {
		return
	}
	first, err := g.FirstIndex()
	if err != nil {
		return
	}
	last, err := g.LastIndex()
	if err != nil || last == 0 || first > index {
		return
	}
	var l raft.Log
	if g.inner.GetLog(index, &l) == nil && l.Term == term {
		return // Log Matching: all before it is what the snapshot holds
	}
	_ = g.DeleteRange(first, min(index, last)) // poisons where it fails
}

// snapshotEnd returns where the newest snapshot ends; 0 for none.
func (g *guardedLog) snapshotEnd() (index, term uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.snapshotIndex, g.snapshotTerm
}

func (g *guardedLog) FirstIndex() (uint64, error) {
	if err := g.err(); err != nil {
		return 0, err
	}
	return g.inner.FirstIndex()
}

func (g *guardedLog) LastIndex() (uint64, error) {
	if err := g.err(); err != nil {
		return 0, err
	}
	return g.inner.LastIndex()
}

// GetLog reads one entry. An entry that is not what was written poisons the
// store and does not return while raft runs (abandon).
func (g *guardedLog) GetLog(index uint64, l *raft.Log) error {
	g.mu.Lock()
	broken, cached := g.broken, g.cache.get(index)
	atSnapshot, term := index == g.snapshotIndex, g.snapshotTerm
	g.mu.Unlock()
	if atSnapshot && index > 1 && !mutant.On("snapshot-in-log") {
		if cached == nil || cached.Term != term {
			err := g.read(index, l)
			if err == nil && l.Term == term {
				return nil
			}
			if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
				return err
			}
			// raft asks for its term. It can never take it for an entry to send
			// or to apply: both come after the one before it, which is not there.
			*l = raft.Log{Index: index, Term: term, Type: raft.LogNoop}
			return nil
		}
	}
	if cached != nil {
		*l = *cached
		return nil
	}
	if broken != nil {
		g.abandon()
		return broken
	}
	return g.read(index, l)
}

// read reads one entry from the store below and checks it.
func (g *guardedLog) read(index uint64, l *raft.Log) error {
	err := g.inner.GetLog(index, l)
	if errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	if err == nil {
		if _, err = decodeEntryMeta(l); err == nil && l.Index != index {
			err = fmt.Errorf("is entry %d", l.Index)
		}
	}
	if err != nil {
		err = fmt.Errorf("log entry %d in %s: %w", index, g.where, err)
		g.poison(err)
		g.abandon()
	}
	return err
}

func (g *guardedLog) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes and syncs entries. Raft calls it from one goroutine.
func (g *guardedLog) StoreLogs(logs []*raft.Log) error {
	if err := g.err(); err != nil {
		return err
	}
	for _, l := range logs {
		if len(l.Extensions) == 0 {
			// Raft's own entry (a no-op or a configuration), fresh: its leader
			// stamps it here. What a follower stores was stamped by its leader.
			l.Extensions = entryMeta{term: l.Term}.encode(l.Data)
			continue
		}
		m, err := decodeEntryMeta(l)
		if err != nil {
			err = fmt.Errorf("raftnode: entry %d of term %d, not stored: %w", l.Index, l.Term, err)
			if errors.Is(err, errMetaVersion) {
				g.poison(err) // it would be refused again and again
			}
			return err
		}
		if m.term != l.Term && !mutant.On("no-fence") {
			return fmt.Errorf("%w: entry %d, term %d, proposed in %d", errFenced, l.Index, l.Term, m.term)
		}
	}

	if err := g.closeGap(logs[0].Index); err != nil {
		return err
	}
	if g.storing != nil {
		g.storing(logs)
	}
	if g.sending != nil {
		g.mu.Lock()
		prev := g.cache.get(logs[0].Index - 1)
		g.mu.Unlock()
		if prev != nil {
			g.sending(logPosition{prev.Index, prev.Term}, logs)
		}
	}
	stop := g.watch(len(logs))
	start := time.Now()
	err := g.inner.StoreLogs(logs)
	stop()
	if err != nil && mutant.On("retry-sync") {
		return err
	}
	if err != nil {
		err = fmt.Errorf("log in %s: %w", g.where, err)
		g.poison(err)
		return err
	}
	if err := g.err(); err != nil {
		return err // too late: the node is already on its way out
	}
	g.mu.Lock()
	g.next = logs[len(logs)-1].Index + 1
	for _, l := range logs {
		g.cache.add(l)
		g.sizes.add(l.Index, len(l.Data))
	}
	g.mu.Unlock()
	if g.counted != nil {
		g.counted(start, logs)
	}
	for _, l := range logs {
		g.noteConfiguration(l)
	}
	if g.stored != nil {
		g.stored(logs)
	}
	return nil
}

func (g *guardedLog) noteConfiguration(l *raft.Log) {
	if l.Type == raft.LogConfiguration && g.configured != nil {
		g.configured(l)
	}
}

// watch poisons the store if the returned function is not called within limit.
// It counts in ticks of its own, not by the clock: a process that was stopped or
// a machine that was frozen has not had a slow disk.
func (g *guardedLog) watch(entries int) (stop func()) {
	const ticks = 10
	left := ticks
	var mu sync.Mutex
	var timer *time.Timer
	tick := func() {
		mu.Lock()
		defer mu.Unlock()
		if left--; left > 0 {
			timer.Reset(g.limit / ticks)
		} else if left == 0 && !mutant.On("no-watch") {
			g.poison(fmt.Errorf("log in %s: writing %d entries takes longer than %v", g.where, entries, g.limit))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(g.limit/ticks, tick)
	return func() {
		mu.Lock()
		left = 0 // a tick under way does nothing more
		timer.Stop()
		mu.Unlock()
	}
}

// closeGap deletes the whole log where next does not follow its last entry, and
// a snapshot covers what is missing.
func (g *guardedLog) closeGap(next uint64) error {
	g.mu.Lock()
	follows, covered := next == g.next, g.snapshotIndex
	g.mu.Unlock()
	if follows {
		return nil
	}
	first, err := g.inner.FirstIndex()
	if err != nil {
		return err
	}
	last, err := g.inner.LastIndex()
	if err != nil {
		return err
	}
	switch {
	case last == 0 && next > covered+1, last != 0 && next > last+1 && next > covered+1:
		return fmt.Errorf("raftnode: entry %d after %d, and the newest snapshot ends at %d: not stored", next, last, covered)
	case last != 0 && next > last+1:
		return g.DeleteRange(first, last)
	}
	return nil
}

// DeleteRange removes entries from either end.
func (g *guardedLog) DeleteRange(from, to uint64) error {
	if err := g.err(); err != nil {
		return err
	}
	last, err := g.inner.LastIndex()
	if err == nil && last == 0 {
		return nil // raft compacts an empty log too
	}
	g.mu.Lock()
	if to+1 >= g.next {
		g.next = 0
	}
	g.cache.remove(from, to)
	g.sizes.remove(from, to)
	g.mu.Unlock()
	if err := g.keepsApplied(from, to); err != nil {
		g.poison(err)
		g.abandon()
		return err
	}
	if err := g.inner.DeleteRange(from, to); err != nil {
		err = fmt.Errorf("log in %s: deleting %d to %d: %w", g.where, from, to, err)
		g.poison(err)
		return err
	}
	if to >= last && g.truncated != nil {
		g.truncated(from)
	}
	return nil
}

// keepsApplied refuses to cut off what was applied: raft truncates a log where
// the leader's differs, which can only be behind what is committed. If it is
// not, the cluster has lost acknowledged writes (members came back with less than
// they had), and to go on would hide it.
func (g *guardedLog) keepsApplied(from, to uint64) error {
	if g.applied == nil {
		return nil
	}
	first, err := g.inner.FirstIndex()
	if err != nil {
		return err
	}
	last, err := g.inner.LastIndex()
	if err != nil {
		return err
	}
	if from > first && to >= last && from <= g.applied() {
		return fmt.Errorf("log in %s: the leader has another entry %d than the one that was applied here: the cluster has lost acknowledged writes", g.where, from)
	}
	return nil
}

// IsMonotonic says no: see above. raft-wal itself takes no gaps.
func (g *guardedLog) IsMonotonic() bool { return mutant.On("snapshot-in-log") }

// verify reads every entry from after on and checks it, so that Open refuses a
// damaged log before raft sees it. It returns the log's first and last index.
func (g *guardedLog) verify() (first, last uint64, err error) {
	if first, err = g.FirstIndex(); err != nil {
		return 0, 0, fmt.Errorf("log in %s: %w", g.where, err)
	}
	if last, err = g.LastIndex(); err != nil {
		return 0, 0, fmt.Errorf("log in %s: %w", g.where, err)
	}
	if last == 0 {
		return 0, 0, nil
	}
	scan := g.scan
	if s, ok := g.inner.(logScanner); ok {
		scan = s.scan
	}
	next, term := first, uint64(0)
	err = scan(first, last, func(l *raft.Log) error {
		m, err := decodeEntryMeta(l)
		switch {
		case err != nil:
			return fmt.Errorf("log entry %d in %s: %w", next, g.where, err)
		case l.Index != next, m.term != l.Term, l.Term < term:
			return fmt.Errorf("log entry %d in %s: is entry %d of term %d, proposed in %d, after one of term %d",
				next, g.where, l.Index, l.Term, m.term, term)
		}
		next, term = l.Index+1, l.Term
		g.sizes.add(l.Index, len(l.Data))
		if l.Type == raft.LogConfiguration {
			kept := *l
			kept.Data, kept.Extensions = bytes.Clone(l.Data), bytes.Clone(l.Extensions)
			g.noteConfiguration(&kept)
		}
		return nil
	})
	return first, last, err
}

// logScanner is a log store that can read its entries one after the other at less
// cost than one by one. The entry's Data and Extensions are visit's until it
// returns. An error that is not visit's names the entry.
type logScanner interface {
	scan(first, last uint64, visit func(*raft.Log) error) error
}

// scan is for log stores that are no logScanner.
func (g *guardedLog) scan(first, last uint64, visit func(*raft.Log) error) error {
	for i := first; i <= last; i++ {
		var l raft.Log
		if err := g.inner.GetLog(i, &l); err != nil {
			return fmt.Errorf("log entry %d in %s: %w", i, g.where, err)
		}
		if err := visit(&l); err != nil {
			return err
		}
	}
	return nil
}

// trailing returns how many of the newest entries hold at most bytes of data.
func (g *guardedLog) trailing(bytes int64) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sizes.newest(bytes)
}
