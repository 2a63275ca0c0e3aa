package raftnode

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// simDisk is a member's disk in memory: log, term and vote, snapshots. It
// outlives the member's crashes, and holds what a real one would after the loss
// of power: what was synced. Writes take time, and fail or hang on request.
type simDisk struct {
	mu      sync.Mutex
	entries map[uint64]*raft.Log
	first   uint64
	last    uint64
	kv      map[string][]byte
	snaps   []*simSnapshot
	delay   func() time.Duration // of each sync
	failing error                // what the next writes answer
	hang    chan struct{}        // where set, writes wait for it to close
	writes  int
	boot    bool // has been used
	// What member.json holds.
	incarnation  string
	joined       *Joined
	formed       bool
	arrived      bool
	becomesVoter bool
	folders      map[string]string
}

func newSimDisk() *simDisk {
	return &simDisk{
		incarnation: newIncarnation(),
		entries:     map[uint64]*raft.Log{}, kv: map[string][]byte{},
		delay: func() time.Duration { return 300 * time.Microsecond },
	}
}

// sync is what every write goes through.
func (d *simDisk) sync() error {
	d.mu.Lock()
	d.writes++
	delay, hang, err := d.delay(), d.hang, d.failing
	d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	time.Sleep(delay) // virtual
	return err
}

func (d *simDisk) FirstIndex() (uint64, error) { d.mu.Lock(); defer d.mu.Unlock(); return d.first, nil }
func (d *simDisk) LastIndex() (uint64, error)  { d.mu.Lock(); defer d.mu.Unlock(); return d.last, nil }

func (d *simDisk) GetLog(index uint64, l *raft.Log) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.entries[index]
	if e == nil {
		return raft.ErrLogNotFound
	}
	*l = *e
	return nil
}

func (d *simDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *simDisk) StoreLogs(logs []*raft.Log) error {
	if err := d.sync(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range logs { // no gaps, like raft-wal
		if d.last != 0 && l.Index != d.last+1 {
			return fmt.Errorf("entry %d after %d", l.Index, d.last)
		}
		c := *l
		c.Data = bytes.Clone(l.Data)
		d.entries[l.Index] = &c
		d.last = l.Index
		if d.first == 0 {
			d.first = l.Index
		}
	}
	return nil
}

func (d *simDisk) DeleteRange(from, to uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := from; i <= to; i++ {
		delete(d.entries, i)
	}
	if from <= d.first {
		d.first = to + 1
	}
	if to >= d.last {
		d.last = from - 1
	}
	if len(d.entries) == 0 {
		d.first, d.last = 0, 0
	}
	return nil
}

func (d *simDisk) Set(key, value []byte) error {
	if err := d.sync(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kv[string(key)] = bytes.Clone(value)
	return nil
}

func (d *simDisk) Get(key []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.kv[string(key)]
	if !ok {
		return nil, errors.New("not found")
	}
	return v, nil
}

func (d *simDisk) SetUint64([]byte, uint64) error   { panic("raft writes through guardedStable") }
func (d *simDisk) GetUint64([]byte) (uint64, error) { panic("raft reads through guardedStable") }

type simSnapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

// simSnapshots is the disk's snapshot store: one that is not closed is not
// there.
type simSnapshots struct{ d *simDisk }

func (s simSnapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &simSink{d: s.d, meta: raft.SnapshotMeta{
		ID: fmt.Sprintf("%d-%d-%d", term, index, time.Now().UnixNano()), Version: version, Index: index, Term: term,
		Configuration: c, ConfigurationIndex: cIndex,
	}}, nil
}

func (s simSnapshots) List() ([]*raft.SnapshotMeta, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if len(s.d.snaps) == 0 {
		return nil, nil
	}
	m := s.d.snaps[len(s.d.snaps)-1].meta
	return []*raft.SnapshotMeta{&m}, nil
}

func (s simSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	for _, snap := range s.d.snaps {
		if snap.meta.ID == id {
			m := snap.meta
			return &m, io.NopCloser(bytes.NewReader(snap.data)), nil
		}
	}
	return nil, nil, fmt.Errorf("no snapshot %s", id)
}

type simSink struct {
	d    *simDisk
	meta raft.SnapshotMeta
	buf  bytes.Buffer
}

func (s *simSink) Write(b []byte) (int, error) { return s.buf.Write(b) }
func (s *simSink) ID() string                  { return s.meta.ID }
func (s *simSink) Cancel() error               { return nil }
func (s *simSink) Close() error {
	if err := s.d.sync(); err != nil {
		return err
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.meta.Size = int64(s.buf.Len())
	s.d.snaps = append(s.d.snaps, &simSnapshot{s.meta, s.buf.Bytes()})
	slices.SortFunc(s.d.snaps, func(a, b *simSnapshot) int { // as raft's file store orders them
		return cmp.Or(cmp.Compare(a.meta.Term, b.meta.Term), cmp.Compare(a.meta.Index, b.meta.Index))
	})
	return nil
}

// storage hands the disk to a node.
func (d *simDisk) storage(cluster string, peers []Peer) *storage {
	d.mu.Lock()
	defer d.mu.Unlock()
	locked := func(f func()) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		f()
		return nil
	}
	s := &storage{
		cluster: cluster, log: d, logWhere: "simulated log", stable: d, where: "simulated stable store",
		snapshots: simSnapshots{d}, fresh: !d.boot,
		close:       func() {},
		incarnation: d.incarnation, joinedAt: 1,
		joins:     d.joined != nil,
		joined:    func() error { return nil },
		formed:    d.formed,
		folders:   d.folders,
		setFormed: func(f map[string]string) error { return locked(func() { d.formed, d.folders = true, f }) },
		follows:   func() error { return locked(func() { d.joined = &Joined{Cluster: cluster, Index: 1, Members: peers} }) },
		arrived:   func() error { return locked(func() { d.arrived = true }) },
		settled:   func() error { return locked(func() { d.becomesVoter = false }) },
	}
	s.waits.Store(!d.arrived)
	d.boot = true
	s.peers = addresses(peers)
	s.becomesVoter.Store(d.becomesVoter)
	if d.joined != nil {
		s.joinedAt, s.peers = d.joined.Index, addresses(d.joined.Members)
	}
	return s
}
