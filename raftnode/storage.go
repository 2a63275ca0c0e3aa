package raftnode

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/hashicorp/raft"
	boltstore "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"go.etcd.io/bbolt"
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
	// fresh is set where the initial configuration is still to be written;
	// ready is called once it is.
	fresh bool
	ready func() error
	close func()
}

// openStorage opens the data folder, or makes it.
func openStorage(c *Config) (s *storage, err error) {
	if c.storage != nil {
		return c.storage, nil
	}
	dir, err := openDataDir(c.DataDir)
	if err != nil {
		return nil, err
	}
	closers := []func(){dir.close}
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

	id, fresh, err := dir.claim(c)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir.file("raft", "wal"), 0o700); err != nil {
		return nil, err
	}
	s = &storage{
		cluster: id.Cluster,
		fresh:   fresh,
		where:   dir.file("raft", "stable.db"),
		close:   closeAll,
		ready: func() error {
			id.State = stateReady
			return dir.setIdentity(id)
		},
	}

	stable, err := openBolt(s.where, fresh)
	if err != nil {
		return nil, err
	}
	closers = append(closers, func() { stable.Close() })
	s.stable = stable

	switch c.LogStore {
	case LogStoreBoltDB:
		s.logWhere = dir.file("raft", "log.db")
		log, err := openBolt(s.logWhere, fresh)
		if err != nil {
			return nil, err
		}
		closers = append(closers, func() { log.Close() })
		s.log = log
	default:
		s.logWhere = dir.file("raft", "wal")
		if !fresh {
			if err := checkBoltFile(dir.file("raft", "wal", "wal-meta.db")); err != nil {
				return nil, err
			}
		}
		log, err := wal.Open(s.logWhere, wal.WithLogger(newRaftLog(c.Logger)))
		if err != nil {
			return nil, fmt.Errorf("log in %s: %w", s.logWhere, err)
		}
		closers = append(closers, func() { log.Close() })
		if err := checkWALTail(s.logWhere, log); err != nil {
			return nil, err
		}
		s.log = log
	}

	s.snapWhere = dir.file("snapshots")
	if s.snapshots, err = openSnapshots(dir.path, c.Logger); err != nil {
		return nil, err
	}
	return s, nil
}

// openBolt opens a bolt file; one that should be there must be.
func openBolt(path string, fresh bool) (*boltstore.BoltStore, error) {
	if !fresh {
		if err := checkBoltFile(path); err != nil {
			return nil, err
		}
	}
	b, err := boltstore.New(boltstore.Options{
		Path: path,
		// The folder is locked already; bolt's own lock must not be waited for.
		BoltOptions: &bbolt.Options{Timeout: time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		// Known to every version of this program: times are of no interest here.
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// checkBoltFile reads a whole bolt file and checks its structure. bolt maps the
// file: where it was truncated, the first access beyond its end is a SIGBUS,
// which would end the process without a word about the file.
func checkBoltFile(path string) (err error) {
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("%w: a file of this data folder is missing", err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s is damaged: %v", path, r)
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second, PreLoadFreelist: true})
	if err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		if info, err := os.Stat(path); err == nil && tx.Size() > info.Size() {
			return fmt.Errorf("%s is damaged: %d bytes long, and %d are in use", path, info.Size(), tx.Size())
		}
		var all []error
		walk(tx, &all)
		if err := errors.Join(all...); err != nil {
			return fmt.Errorf("%s is damaged: %w", path, err)
		}
		return nil
	})
}

// walk touches every page that holds data, in this goroutine, where a fault is
// a panic that can be recovered (bolt's own Check does it in another one).
func walk(tx *bbolt.Tx, all *[]error) {
	err := tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if b == nil {
			return fmt.Errorf("bucket %q cannot be read", name)
		}
		return b.ForEach(func(k, v []byte) error {
			if len(v) > 0 {
				_ = v[0]
				_ = v[len(v)-1]
			}
			return nil
		})
	})
	if err != nil {
		*all = append(*all, err)
	}
}
