package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"sync"

	"github.com/hashicorp/raft"
)

// guardedStable is the stable store that raft gets for its term and vote:
// another one with a checksum on every value (bolt reads a flipped bit as
// valid, and a wrong term or vote can elect two leaders), an end to the node
// where a write fails, and the gate that makes the heartbeat fast path safe.
//
// # The gate
//
// raft lets heartbeats bypass its main goroutine, so that a slow disk does not
// look like a dead leader: they run appendEntries concurrently with it. That
// is a data race on the term. A heartbeat of a new term can change the term
// under a running leader loop (raft issue 695). And even one of the current
// term can do harm: between its check and its act the main goroutine may stand
// for election and raise the term, and the heartbeat, meeting a candidate,
// sets it back.
//
// So the fast path (transport.go) holds the gate shared, and takes a heartbeat
// only if its term is the one last written here; every change of the term is
// written here first, and holds the gate alone. While a heartbeat is in the
// fast path the term cannot change; once it has changed, no older heartbeat
// gets in. The one write of the term that the fast path may make itself sets
// it to what it is, and is answered without touching gate or disk.
type guardedStable struct {
	inner raft.StableStore
	where string
	fail  func(error)

	gate sync.RWMutex
	term uint64 // guarded by gate; the term last written

	mu      sync.Mutex
	running bool
}

// These are raft's words; it compares the text of the error.
var errStableNotFound = errors.New("not found")

// keyTerm is raft's key for its current term.
var keyTerm = []byte("CurrentTerm")

func newGuardedStable(inner raft.StableStore, where string, fail func(error)) (*guardedStable, error) {
	s := &guardedStable{inner: inner, where: where, fail: fail}
	term, err := s.GetUint64(keyTerm)
	if err != nil && err != errStableNotFound {
		return nil, err
	}
	s.term = term
	return s, nil
}

// keyMember names the member whose term and vote these are.
var keyMember = []byte("TrivetMember")

// claim makes sure that term and vote are this member's own: with another one's,
// copied here, it would vote twice.
func (s *guardedStable) claim(id string, fresh bool) error {
	owner, err := s.Get(keyMember)
	switch {
	case err == errStableNotFound && fresh:
		return s.Set(keyMember, []byte(id))
	case err == errStableNotFound:
		return fmt.Errorf("%s does not say whose it is: it is damaged, or of no member", s.where)
	case err != nil:
		return err
	case string(owner) != id:
		return fmt.Errorf("%s belongs to member %s, not to %s", s.where, owner, id)
	}
	return nil
}

// start says that raft runs from here on.
func (s *guardedStable) start() {
	s.mu.Lock()
	s.running = true
	s.mu.Unlock()
}

// fastPath runs f if term is the current one, and keeps it so until f returns.
// It waits for nobody: while the term is being changed, a write to disk, the
// answer is false.
func (s *guardedStable) fastPath(term uint64, f func()) bool {
	if !s.gate.TryRLock() {
		return false
	}
	defer s.gate.RUnlock()
	if term != s.term {
		return false
	}
	f()
	return true
}

func (s *guardedStable) Get(key []byte) ([]byte, error) {
	b, err := s.inner.Get(key)
	if err != nil && err.Error() != errStableNotFound.Error() {
		return nil, fmt.Errorf("%s: %w", s.where, err)
	}
	if len(b) == 0 {
		return nil, errStableNotFound
	}
	if len(b) < 4 || crc32.Checksum(b[4:], castagnoli) != binary.BigEndian.Uint32(b) {
		return nil, fmt.Errorf("%s: the value of %s %w", s.where, key, errChecksum)
	}
	return b[4:], nil
}

func (s *guardedStable) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	switch {
	case err != nil:
		return 0, err
	case len(b) != 8:
		return 0, fmt.Errorf("%s: the value of %s has %d bytes, not 8", s.where, key, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// Set writes and syncs. Where that fails while raft runs, the node is failed
// and the calling goroutine ends: raft would panic (the term) or go on without
// having kept its vote.
func (s *guardedStable) Set(key, value []byte) error {
	b := binary.BigEndian.AppendUint32(nil, crc32.Checksum(value, castagnoli))
	if err := s.inner.Set(key, append(b, value...)); err != nil {
		err = fmt.Errorf("%s: writing %s: %w", s.where, key, err)
		s.fail(err)
		s.mu.Lock()
		running := s.running
		s.mu.Unlock()
		if running {
			runtime.Goexit()
		}
		return err
	}
	return nil
}

func (s *guardedStable) SetUint64(key []byte, v uint64) error {
	value := binary.BigEndian.AppendUint64(nil, v)
	if string(key) != string(keyTerm) {
		return s.Set(key, value)
	}
	// Raft writes the term from its main goroutine and from the fast path
	// alone, and the latter holds the gate: reading s.term is safe in both.
	if s.term == v {
		return nil
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	if v < s.term {
		err := fmt.Errorf("%s: the term would go back from %d to %d", s.where, s.term, v)
		s.fail(err)
		return err
	}
	if err := s.Set(key, value); err != nil {
		return err
	}
	s.term = v
	return nil
}
