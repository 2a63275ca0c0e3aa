package raftnode

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"trivet/store"
	"trivet/trivetpb"
)

// Recovery is what Recover makes of a data folder.
type Recovery struct {
	ID string
	// Cluster is the one that the folder belonged to, NewCluster the one that it
	// belongs to from then on: members of the old one that come back are strangers
	// to it, and cannot overwrite what the new one writes.
	Cluster, NewCluster string
	// LastIndex and LastTerm are where the folder's log ends: all of it counts as
	// committed. Of several survivors the one that is greatest by LastTerm, then by
	// LastIndex, has the most.
	LastIndex, LastTerm uint64
	Revision, Keys      uint64
	Before              []ConfiguredMember
	After               []Peer
}

// Recover makes the member of a data folder one of the voters that are listed, in
// a cluster of its own, for when a majority of the old one is lost for good. The
// process that uses the folder must have ended. Entries that no majority had, and
// nobody was told of, may be taken for committed; acknowledged ones that only the
// lost members had are gone.
//
// confirm is asked before anything is written; its error is returned. A crash leaves a folder that only
// Recover takes, which goes on from there. Where several survivors are listed,
// Recover is run for each with the same list; they have the same NewCluster only
// if their logs end alike, and otherwise stay strangers to each other, so that
// states that differ never meet: the one that has less is to be wiped and joined.
func Recover(dir string, peers []Peer, log *slog.Logger, confirm func(Recovery) error) (Recovery, error) {
	if err := checkPeers(peers); err != nil {
		return Recovery{}, err
	}
	d, err := openDataDir(dir)
	if err != nil {
		return Recovery{}, err
	}
	defer d.close()
	id, err := d.identity()
	switch {
	case err != nil:
		return Recovery{}, err
	case id == nil:
		return Recovery{}, fmt.Errorf("data folder %s knows no cluster", dir)
	case id.State != stateReady && id.State != stateRecovering:
		return Recovery{}, fmt.Errorf("data folder %s is of member %s, which has not had a part in cluster %s yet", dir, id.ID, id.Cluster)
	case !slices.ContainsFunc(peers, func(p Peer) bool { return p.ID == id.ID }):
		return Recovery{}, fmt.Errorf("data folder %s is of member %s, which is not in the list", dir, id.ID)
	}
	c := Config{ID: id.ID, DataDir: dir, Logger: log, DiskTimeout: time.Minute}
	s, err := openStores(d, &c, id, false, newRaftLog(log, new(atomic.Bool)))
	if err != nil {
		return Recovery{}, err
	}
	defer s.close()
	r := &recovery{log: log, store: store.New(), storage: s}
	if err := r.open(&c); err != nil {
		return Recovery{}, err
	}
	plan, err := r.plan(id, peers)
	if err == nil {
		err = confirm(plan)
	}
	if err != nil {
		return plan, err
	}
	// From here on the folder is no member of the old cluster, and not yet one of
	// the new.
	id.State = stateRecovering
	if err := d.setIdentity(id); err != nil {
		return plan, err
	}
	if err := r.recover(id, peers); err != nil {
		return plan, err
	}
	id.State, id.Cluster, id.JoinedAt = stateReady, plan.NewCluster, 1
	id.Peers, id.BecomesVoter = addresses(peers), false
	return plan, d.setIdentity(id)
}

// recovery is the work on one data folder.
type recovery struct {
	log     *slog.Logger
	storage *storage
	store   *store.Store
	config  *raft.Config
	logs    *guardedLog
	stable  *guardedStable
	snaps   *snapshotStore
	last    uint64
	term    uint64
	before  raft.Configuration
	failed  error // the first failure below raft, which drops it
}

// open puts the guards around the stores and makes the checks of a start.
func (r *recovery) open(c *Config) error {
	s := r.storage
	r.config = raft.DefaultConfig()
	r.config.LocalID = raft.ServerID(c.ID)
	r.config.Logger = newRaftLog(r.log, new(atomic.Bool))
	fail := func(err error) { r.failed = cmp.Or(r.failed, err) }
	r.logs = newGuardedLog(s.log, s.logWhere, c.DiskTimeout, fail, nil)
	r.logs.configured = func(l *raft.Log) { r.before = raft.DecodeConfiguration(l.Data) }
	var err error
	if r.stable, err = newGuardedStable(s.stable, s.where, fail); err != nil {
		return err
	}
	if err := r.stable.claim(c.ID, false); err != nil {
		return err
	}
	r.snaps = &snapshotStore{SnapshotStore: s.snapshots, where: s.snapWhere, taken: r.logs.snapshot}
	// What Node checks at a start.
	n := &Node{cfg: *c, storage: s, logs: r.logs, stable: r.stable, snaps: r.snaps, commits: &commits{}}
	metas, err := r.snaps.List()
	if err != nil {
		return err
	}
	if len(metas) > 0 {
		r.before, r.last, r.term = metas[0].Configuration, metas[0].Index, metas[0].Term
	}
	if err := n.checkSnapshot(); err != nil {
		return err
	}
	return n.checkLog()
}

// plan replays everything, and says what is there.
func (r *recovery) plan(id *identity, peers []Peer) (Recovery, error) {
	if err := r.replay(); err != nil {
		return Recovery{}, err
	}
	stats := r.store.Stats()
	p := Recovery{
		ID: id.ID, Cluster: id.Cluster, LastIndex: r.last, LastTerm: r.term,
		Revision: stats.Revision, Keys: stats.Keys, After: peers,
	}
	for _, s := range r.before.Servers {
		p.Before = append(p.Before, ConfiguredMember{ID: string(s.ID), Peer: peerOf(s), Voter: s.Suffrage == raft.Voter})
	}
	sorted := slices.Clone(peers)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].ID < sorted[j].ID })
	h := sha256.New()
	fmt.Fprintf(h, "trivet recovered cluster 1\n%q %d %d %x\n", id.Cluster, r.term, r.last, stats.Hash)
	for _, peer := range sorted {
		fmt.Fprintf(h, "%q %q\n", peer.ID, peer.Addr)
	}
	p.NewCluster = hex.EncodeToString(h.Sum(nil)[:8])
	return p, nil
}

// replay builds the state from the snapshot and the log.
func (r *recovery) replay() error {
	metas, err := r.snaps.List()
	if err != nil {
		return err
	}
	if len(metas) > 0 {
		_, source, err := r.snaps.Open(metas[0].ID)
		if err != nil {
			return err
		}
		if err := (*recoveryFSM)(r).Restore(source); err != nil {
			return err
		}
	}
	last, err := r.logs.LastIndex()
	if err != nil {
		return err
	}
	for i := r.last + 1; i <= last; i++ {
		var l raft.Log
		if err := r.logs.GetLog(i, &l); err != nil {
			return err
		}
		r.last, r.term = l.Index, l.Term
		if l.Type == raft.LogCommand {
			(*recoveryFSM)(r).Apply(&l)
		}
	}
	r.store.Advance(r.last)
	return r.failed
}

// recover has raft write the state, as it is now, as a snapshot with the new
// configuration, and empty the log.
func (r *recovery) recover(id *identity, peers []Peer) error {
	conf := recovered(r.before, id, peers)
	r.store = store.New() // raft replays it once more
	_, transport := raft.NewInmemTransport("")
	defer transport.Close()
	err := raft.RecoverCluster(r.config, (*recoveryFSM)(r), r.logs, r.stable, r.snaps, transport, conf)
	return cmp.Or(r.failed, err)
}

// recovered is the new configuration. It has the folders that the old one had, so
// that all survivors come to the same: where that had none (folder.go), each has its
// own written down later, once the level allows it. A survivor with another folder
// than it had holds nothing, and is no survivor; alone, it is who it is.
func recovered(before raft.Configuration, id *identity, peers []Peer) raft.Configuration {
	var conf raft.Configuration
	folders := foldersOf(before)
	for _, p := range peers {
		folder := folders[p.ID]
		if folder != "" && p.ID == id.ID {
			folder = id.Incarnation
		}
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(p.ID), Address: serverAddress(p.Addr, folder)})
	}
	return conf
}

// recoveryFSM is the state machine that raft replays the log into.
type recoveryFSM recovery

func (f *recoveryFSM) Apply(l *raft.Log) any {
	var e trivetpb.Entry
	err := e.UnmarshalVT(l.Data)
	if err == nil {
		_, err = f.store.Apply(l.Index, &e)
	}
	if err != nil && f.failed == nil {
		f.failed = fmt.Errorf("log entry %d cannot be applied by this version: %w", l.Index, err)
	}
	return nil
}

func (f *recoveryFSM) Restore(source io.ReadCloser) error {
	defer source.Close()
	err := f.store.Restore(source)
	if err == nil && f.snaps.openedAt(f.store.Index()) == nil {
		err = errors.New("its state is of another entry than its meta.json says")
	}
	if err != nil {
		f.failed = cmp.Or(f.failed, fmt.Errorf("snapshots in %s, the newest: %w", f.snaps.where, err))
	}
	return err
}

// Snapshot is where a failed replay ends: nothing has been written yet.
func (f *recoveryFSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.failed != nil {
		return nil, f.failed
	}
	// Entries that are no commands do not get here; a snapshot ends after them.
	f.store.Advance(f.last)
	view, err := f.store.View(0)
	if err != nil {
		return nil, err
	}
	return fsmSnapshot{view, func(w io.Writer) io.Writer { return w }}, nil
}
