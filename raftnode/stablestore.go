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
//
// # The vote
//
// raft keeps a vote in two writes, first its term, then for whom, and answers
// once both are done. Here they are one: the term waits for the candidate, and
// goes to disk with it. A crash before is a crash before the vote. An election
// has a vote at the candidate and one at each voter, one after the other, with
// two syncs to each write: on a busy disk they are most of what it takes.
type guardedStable struct {
	inner raft.StableStore
	where string
	fail  func(error)

	// voteTerm is the term of a vote whose candidate is not known yet; raft's
	// main goroutine writes and reads it.
	voteTerm uint64

	gate sync.RWMutex
	term uint64 // guarded by gate; the term last written

	mu      sync.Mutex
	running bool
}

// These are raft's words; it compares the text of the error.
var errStableNotFound = errors.New("not found")

// raft's keys: for its current term, and for the term and the candidate of its
// last vote. The value of keyVoteTerm is the term, 8 bytes, and behind it the
// candidate. Earlier versions kept the candidate under keyVoteCand; they refuse
// the longer value, and so vote for nobody where a later version has voted.
var (
	keyTerm     = []byte("CurrentTerm")
	keyVoteTerm = []byte("LastVoteTerm")
	keyVoteCand = []byte("LastVoteCand")
)

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
	if string(key) == string(keyVoteCand) {
		if vote, err := s.get(keyVoteTerm); err != nil || len(vote) > 8 {
			return vote[min(len(vote), 8):], err
		}
	}
	return s.get(key)
}

func (s *guardedStable) get(key []byte) ([]byte, error) {
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
	b, err := s.get(key)
	switch {
	case err != nil:
		return 0, err
	case string(key) == string(keyVoteTerm) && len(b) > 8: // with its candidate
		b = b[:8]
	case len(b) != 8:
		return 0, fmt.Errorf("%s: the value of %s has %d bytes, not 8", s.where, key, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// Set writes and syncs. Where that fails while raft runs, the node is failed
// and the calling goroutine ends: raft would panic (the term) or go on without
// having kept its vote.
func (s *guardedStable) Set(key, value []byte) error {
	if string(key) == string(keyVoteCand) {
		if s.voteTerm == 0 || len(value) == 0 {
			return fmt.Errorf("%s: a vote for %q in term %d", s.where, value, s.voteTerm)
		}
		key, value = keyVoteTerm, append(binary.BigEndian.AppendUint64(nil, s.voteTerm), value...)
		s.voteTerm = 0
	}
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
	switch string(key) {
	case string(keyVoteTerm):
		s.voteTerm = v // written with the candidate
		return nil
	case string(keyTerm):
	default:
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
