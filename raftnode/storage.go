package raftnode

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	boltstore "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"trivet/internal/mutant"
)

// storage is what raft keeps its things in, still unguarded.
type storage struct {
	cluster   string
	log       raft.LogStore
	logWhere  string // file or folder, for errors
	stable    raft.StableStore
	where     string // of stable
	snapshots raft.SnapshotStore
	snapWhere string
	// fresh is set where the stores were just made.
	fresh bool
	close func()

	// Of member.json (datadir.go says what its states mean). incarnation is the
	// folder's, joinedAt by which entry it was let in, peers who the others were
	// then.
	incarnation string
	joinedAt    uint64
	peers       map[string]string
	// joins is set for one that joins, in place of being one of the first; joined
	// is called once its stores are made.
	joins  bool
	joined func() error
	// formed is set once a first member has agreed with all others on folders, which
	// setFormed says; follows, where it finds that they have begun with it.
	formed    bool
	folders   map[string]string
	setFormed func(folders map[string]string) error
	follows   func() error
	// waits is set while the member has applied no configuration that has it;
	// arrived is called when it has.
	waits   atomic.Bool
	arrived func() error
	// becomesVoter is set until a member that joins votes, where it is to; settled
	// is called when it does.
	becomesVoter atomic.Bool
	settled      func() error
}

// openStorage opens the data folder, or makes it.
func openStorage(c *Config, log hclog.Logger) (s *storage, err error) {
	if c.storage != nil {
		return c.storage, nil
	}
	dir, err := openDataDir(c.DataDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			dir.close()
		}
	}()
	id, fresh, err := dir.claim(c)
	if err != nil {
		return nil, err
	}
	if id.State == stateJoining {
		if err := id.join(c); err != nil {
			return nil, err
		}
	}
	if s, err = openStores(dir, c, id, fresh, log); err != nil {
		return nil, err
	}
	closeStores := s.close
	s.close = func() {
		closeStores()
		dir.close()
	}
	return s, nil
}

// openStores opens what is in a data folder, or makes it.
func openStores(dir *dataDir, c *Config, id *identity, fresh bool, log hclog.Logger) (s *storage, err error) {
	var closers []func()
	closeAll := func() {
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i]()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	if err := os.MkdirAll(dir.file("raft", "wal"), 0o700); err != nil {
		return nil, err
	}
	// member.json is written in Open, and later by the state machine and by the
	// one that settles the membership.
	var writing sync.Mutex
	change := func(f func()) error {
		writing.Lock()
		defer writing.Unlock()
		f()
		return dir.setIdentity(id)
	}
	s = &storage{
		cluster:     id.Cluster,
		fresh:       fresh,
		where:       dir.file("raft", "stable.db"),
		close:       closeAll,
		incarnation: id.Incarnation,
		joinedAt:    id.JoinedAt,
		peers:       id.Peers,

		joins:   id.State == stateJoining || id.State == stateJoined,
		joined:  func() error { return change(func() { id.State = stateJoined }) },
		formed:  id.State != stateNew,
		folders: id.Folders,
		setFormed: func(folders map[string]string) error {
			return change(func() { id.State, id.Folders = stateFormed, folders })
		},
		follows: func() error { return change(func() { id.State = stateJoined }) },
		arrived: func() error { return change(func() { id.State, id.Folders = stateReady, nil }) },
		settled: func() error { return change(func() { id.BecomesVoter = false }) },
	}
	s.waits.Store(id.State != stateReady)
	s.becomesVoter.Store(id.BecomesVoter)

	stable, err := openBolt(s.where, fresh)
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() { stable.Close() })
	s.stable = stable

	switch id.LogStore {
	case LogStoreBoltDB:
		s.logWhere = dir.file("raft", "log.db")
		b, err := openBolt(s.logWhere, fresh)
		if err != nil {
			return nil, err
		}
		closers = append(closers, func() { b.Close() })
		s.log = b
	default:
		s.logWhere = dir.file("raft", "wal")
		if !fresh {
			if err := checkBoltFile(dir.file("raft", "wal", "wal-meta.db")); err != nil {
				return nil, err
			}
		}
		w, err := openWAL(s.logWhere, log)
		if err != nil {
			return nil, fmt.Errorf("log in %s: %w", s.logWhere, err)
		}
		closers = append(closers, func() { w.Close() })
		if err := checkWALTail(s.logWhere, w); err != nil {
			return nil, err
		}
		s.log = w
	}

	s.snapWhere = dir.file("snapshots")
	if s.snapshots, err = openSnapshots(dir.path, c.Logger.With("node", c.ID), log); err != nil {
		return nil, err
	}
	return s, nil
}

// join has the cluster let the member in.
func (id *identity) join(c *Config) error {
	if !isAddress(c.AdvertisePeer) {
		return fmt.Errorf("joining a cluster takes an address under which the other members reach this one, not %q", c.AdvertisePeer)
	}
	joined, err := c.Join(JoinRequest{ID: c.ID, Peer: c.AdvertisePeer, Incarnation: id.Incarnation})
	if err != nil {
		return err
	}
	if joined.Cluster == "" || joined.Index == 0 || len(joined.Members) == 0 {
		return errors.New("the cluster to join does not say who it is")
	}
	id.Cluster, id.JoinedAt, id.Peers = joined.Cluster, joined.Index, addresses(joined.Members)
	return nil
}

// recoverDamage makes a panic of bolt, its answer to damaged pages, an error.
func recoverDamage(path string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%s is damaged: %v", path, r)
	}
}

// openBolt opens a bolt file; one that should be there must be.
func openBolt(path string, fresh bool) (b *boltstore.BoltStore, err error) {
	defer recoverDamage(path, &err)
	if !fresh {
		if err := checkBoltFile(path); err != nil {
			return nil, err
		}
	}
	b, err = boltstore.New(boltstore.Options{
		Path: path,
		// The folder is locked already; bolt's own lock must not be waited for.
		// The free list stays on disk: without it bolt looks for free pages at
		// every start, in a goroutine of its own, where a damaged page is a
		// panic that nobody can recover.
		BoltOptions: &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType},
		NoSync:      mutant.On("no-fsync") && filepath.Base(path) == "log.db",
		// Known to every version of this program: times are of no interest here.
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}
