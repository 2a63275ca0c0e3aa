package raftnode

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// The data folder of a member:
//
//	LOCK          held by the process that uses the folder
//	member.json   which member of which cluster this is (identity)
//	raft/         term and vote (stable.db), the log (wal/ or log.db)
//	snapshots/    what raft's file snapshot store keeps
//
// Making one is done in steps, each of which a crash may end:
//
//  1. member.json with "state":"new" and the folder's incarnation. Found at a
//     start, everything else is removed and made again: the member has taken part
//     in nothing, so it has promised nothing.
//  2. Empty stores.
//  3. member.json with "state":"formed" and the folders of all first members, once
//     they have agreed on those (formation.go). Where the others have begun without
//     waiting for this one's word, it goes on as one that joins, at step 3 below.
//  4. The initial configuration as log entry 1 of term 1; made again at a start
//     where it is missing. The member votes after that.
//  5. member.json with "state":"ready", when the first configuration is applied.
//     From here on a log or snapshot that is missing is a fault, never a fresh
//     start.
//
// That of a member that joins a running cluster is made in these:
//
//  1. member.json with "state":"joining" and the folder's incarnation. Found at
//     a start, the cluster is asked again to let this very incarnation in, which
//     changes nothing where it was let in before, but its address where it has
//     another one by now.
//  2. The cluster lets it in (Config.Join): an entry of its log says so.
//  3. Empty stores, and member.json with "state":"joined" and the cluster. The
//     member now waits for the leader to find it. It is no voter of any
//     configuration that counts it (admission.go), so that a log that is empty
//     can have lost nothing.
//  4. member.json with "state":"ready", when the first configuration that has
//     the member is applied. It is made a voter after that only, once it has
//     caught up (memberchange.go).
//
// A members.json is of an earlier version, which kept there what configurations
// hold now (folder.go). It is neither read nor written.

// identity is the content of member.json.
type identity struct {
	Format  int    `json:"format"`
	Cluster string `json:"cluster"`
	ID      string `json:"id"`
	State   string `json:"state"`
	// LogStore is what the log was made with; another kind cannot read it.
	LogStore string `json:"log_store"`
	// Incarnation names this data folder, drawn at random when it was made; empty
	// in a folder of a version that had none.
	Incarnation string `json:"incarnation,omitempty"`
	// JoinedAt is the log entry by which this folder was let in: 1 for a first
	// member.
	JoinedAt uint64 `json:"joined_at,omitempty"`
	// Peers are the members and their addresses when this one was let in, or the
	// first members.
	Peers map[string]string `json:"peers,omitempty"`
	// Folders are those of all first members, in the state "formed".
	Folders map[string]string `json:"folders,omitempty"`
	// BecomesVoter is set until the member has become the voter that it was
	// started to be.
	BecomesVoter bool `json:"becomes_voter,omitempty"`
}

const (
	identityFormat = 1
	stateNew       = "new"
	stateFormed    = "formed"
	stateJoining   = "joining"
	stateJoined    = "joined"
	stateReady     = "ready"
	// stateRecovering is that of a folder which Recover did not come to the end
	// with.
	stateRecovering = "recovering"
)

// dataDir is a locked data folder.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes and locks the folder.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("data folder %s is in use by another process", path)
		}
		return nil, fmt.Errorf("data folder %s: locking: %w", path, err)
	}
	return &dataDir{path: path, lock: lock}, nil
}

func (d *dataDir) close() { d.lock.Close() }

func (d *dataDir) file(parts ...string) string {
	return filepath.Join(append([]string{d.path}, parts...)...)
}

// identity reads member.json; nil where there is none.
func (d *dataDir) identity() (*identity, error) {
	path := d.file("member.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	id := new(identity)
	if err := json.Unmarshal(b, id); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if id.Format != identityFormat {
		return nil, fmt.Errorf("%s: the data folder has format %d; this version knows %d", path, id.Format, identityFormat)
	}
	switch id.State {
	case stateNew, stateFormed, stateJoined, stateReady, stateRecovering:
		if id.ID != "" && id.Cluster != "" {
			return id, nil
		}
	case stateJoining:
		if id.ID != "" && id.Incarnation != "" {
			return id, nil
		}
	}
	return nil, fmt.Errorf("%s: incomplete", path)
}

// setIdentity writes member.json, whole or not at all.
func (d *dataDir) setIdentity(id *identity) error { return d.writeJSON("member.json", id) }

// writeJSON writes a file, whole or not at all.
func (d *dataDir) writeJSON(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	path := d.file(name)
	tmp, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// sync makes renames and new files in the folder durable.
func (d *dataDir) sync() error { return syncFolder(d.path) }

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// others lists what is in the folder beside LOCK and an unfinished member.json.
func (d *dataDir) others() ([]string, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); name != "LOCK" && name != "member.json" && name != "member.json.tmp" {
			names = append(names, name)
		}
	}
	return names, nil
}

// claim decides which member of which cluster this folder is, and whether it
// has to be made. The second result is true where it has.
func (d *dataDir) claim(c *Config) (*identity, bool, error) {
	id, err := d.identity()
	if err != nil {
		return nil, false, err
	}
	unclaimed := id == nil
	if id != nil && id.ID != c.ID && id.State == stateJoining {
		// No cluster has let it in, as far as it knows: most often since the id is
		// in use. It holds nothing. Its name is not used again, since it may have
		// been let in as the other one without hearing of it.
		id = nil
	}
	if id != nil && id.ID != c.ID {
		return nil, false, fmt.Errorf("data folder %s belongs to member %s of cluster %s, not to %s", d.path, id.ID, id.Cluster, c.ID)
	}
	if id != nil && id.State == stateRecovering {
		return nil, false, fmt.Errorf("data folder %s was being recovered: run the recovery again, to its end", d.path)
	}
	if id != nil && (id.State == stateReady || id.State == stateJoined || id.State == stateFormed) {
		if c.LogStore != "" && id.LogStore != c.LogStore {
			return nil, false, fmt.Errorf("data folder %s has a log of kind %q, not %q", d.path, id.LogStore, c.LogStore)
		}
		if id.Incarnation == "" { // of a version that had none
			id.Incarnation, id.JoinedAt = newIncarnation(), 1
			return id, false, d.setIdentity(id)
		}
		return id, false, nil
	}
	others, err := d.others()
	if err != nil {
		return nil, false, err
	}
	if unclaimed && len(others) > 0 {
		return nil, false, fmt.Errorf("data folder %s holds %s but no member.json: it is no data folder, or a damaged one", d.path, others[0])
	}
	made := identity{Format: identityFormat, ID: c.ID, LogStore: cmp.Or(c.LogStore, LogStoreWAL)}
	if id != nil {
		made.Incarnation = id.Incarnation
	}
	made.Incarnation = cmp.Or(made.Incarnation, newIncarnation())
	switch {
	case c.Join != nil:
		made.State, made.BecomesVoter = stateJoining, !c.Replica
	case len(c.InitialCluster) == 0:
		return nil, false, fmt.Errorf("data folder %s knows no cluster yet: give the initial cluster, or one to join", d.path)
	default:
		if err := c.checkInitialCluster(); err != nil {
			return nil, false, err
		}
		made.State, made.JoinedAt = stateNew, 1
		made.Cluster = clusterID(c.InitialCluster, c.ClusterToken)
		made.Peers = addresses(c.InitialCluster)
	}
	for _, name := range others { // of a member that has never run
		if err := os.RemoveAll(d.file(name)); err != nil {
			return nil, false, err
		}
	}
	return &made, true, d.setIdentity(&made)
}

// newIncarnation draws the name of a data folder.
func newIncarnation() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// checkInitialCluster checks that this member is in the list of the first
// members of its cluster, under the address that it goes by.
func (c *Config) checkInitialCluster() error {
	for _, p := range c.InitialCluster {
		if p.ID != c.ID {
			continue
		}
		if own := c.AdvertisePeer; own != "" && own != p.Addr {
			return fmt.Errorf("initial cluster: member %s is listed at %s, but goes by %s", p.ID, p.Addr, own)
		}
		return nil
	}
	return fmt.Errorf("initial cluster: this member, %s, is not in the list", c.ID)
}
