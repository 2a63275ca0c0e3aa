package raftnode

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"trivet/trivetpb"
)

// Config is how a member is started. Zero values mean the stated defaults;
// Open checks the whole in one place (withDefaults).
type Config struct {
	// ID names the member within its cluster: 1 to 64 of a-z, A-Z, 0-9, dot,
	// dash and underscore. It is stable; addresses may change.
	ID string
	// DataDir is the folder of everything that the member keeps. It is made
	// (mode 0700) where it is missing, and locked against a second process.
	DataDir string

	// PeerAddr is the address that the peer port listens on.
	// Default 127.0.0.1:7171.
	PeerAddr string
	// AdvertisePeer is the address under which the other members reach the
	// peer port. Default: what it listens on.
	AdvertisePeer string
	// PeerListener, where set, is used instead of listening on PeerAddr. The
	// Node owns it and closes it.
	PeerListener net.Listener
	// Dial connects to another member's peer port. Default: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// AdvertiseAPI is the URL of the member's HTTP API, told to the others.
	AdvertiseAPI string

	// InitialCluster lists the first members of a new cluster, this one among
	// them, the same list on each. Ignored once DataDir knows its cluster.
	InitialCluster []Peer
	// ClusterToken tells clusters apart whose InitialCluster is the same.
	ClusterToken string
	// Join has a running cluster let this member in, in place of InitialCluster.
	// Open calls it once where DataDir knows no cluster yet, and again at the next
	// start where a crash came in between: to let the same incarnation in twice is
	// to let it in once (Node.AddMember). It returns when the member is in, or why
	// it cannot be.
	Join func(JoinRequest) (Joined, error)
	// Replica goes with Join: the member never votes, unless it is promoted.
	// Else it becomes a voter by itself, once it has caught up.
	Replica bool

	// Timing is how long members wait for each other. Default TimingLAN.
	Timing Timing
	// LogStore is "wal" (raft-wal) or "boltdb". Default: what the data folder
	// has, "wal" for a new one.
	LogStore string
	// SnapshotBytes is how many bytes of log entries are applied between one
	// snapshot and the next, at most: members draw by chance up to a quarter less,
	// so that not all take theirs at the same moment. Default 256 MiB.
	SnapshotBytes int64
	// QueueBytes bounds the commands that wait in the queue and those that are
	// under way; past it Propose answers OVERLOADED. Default 64 MiB.
	QueueBytes int64
	// DiskTimeout is how long one write to the log, sync included, may take
	// before the member gives up on its disk and stops. Default 5 s.
	DiskTimeout time.Duration

	// History is how long old revisions are kept. Default 5 minutes. Like
	// HistoryRevisions and Quota, the leader's value holds for the whole
	// cluster.
	History time.Duration
	// HistoryRevisions is how many old revisions are kept. Default 100,000.
	HistoryRevisions uint64
	// Quota bounds the live data in bytes. Default 0: no bound.
	Quota uint64

	// Restoring, where it is set, is called by Open before it restores a snapshot, with
	// the size of its file; what it returns when that is done or has failed. So the
	// process may prepare for a state that comes at once. Default: nothing.
	Restoring func(fileBytes int64) (done func())

	// Version is the program's version, told to other members.
	Version string
	// Logger takes the member's and raft's own log. Default: slog.Default().
	Logger *slog.Logger

	// For tests in virtual time. storage is used instead of DataDir; the hooks
	// are called with each applied index and its state hash, when a term's marker
	// has been applied here, and with each entry before it is applied, to be
	// changed.
	storage   *storage
	onApplied func(index, hash uint64)
	onLeading func(term uint64)
	onEntry   func(index uint64, entry *trivetpb.Entry)
	// inFlight is most entries, and most forwards, that are under way at one
	// time: see maxInFlight.
	inFlight int
	// knownLevel, where it is set, makes this an earlier or a later version.
	knownLevel *uint64
}

// JoinRequest is what a member that joins says of itself.
type JoinRequest struct {
	ID, Peer    string
	Incarnation string // of its data folder
}

// Joined is what it is told.
type Joined struct {
	Cluster string
	// Index is the configuration that the member is in.
	Index uint64
	// Members are all of them, so that the new one finds them.
	Members []Peer
}

// Peer is a member of the initial cluster: its id and the address of its peer
// port.
type Peer struct {
	ID, Addr string
}

// Timing is how long members wait for each other.
type Timing struct {
	// Heartbeat is how long a follower waits for its leader before it stands
	// for election; leaders send ten times as often.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes before it starts anew.
	Election time.Duration
	// Lease is how long a leader goes on without hearing from a majority; at
	// most Heartbeat. No correctness rests on it: reads are confirmed by rounds
	// (readindex.go), and a write needs a majority. So it is as long as it may
	// be. A shorter one would only have a leader step down that its followers
	// still follow: between two answers pass up to two ways and a tenth of
	// Heartbeat and more, as between two heartbeats where they wait for one.
	Lease time.Duration
	// RPC is how long a request between members may take before its connection
	// is given up.
	RPC time.Duration
}

// The timings to choose from: within a data centre, and between data centres.
var (
	TimingLAN = Timing{
		Heartbeat: 250 * time.Millisecond,
		Election:  250 * time.Millisecond,
		Lease:     250 * time.Millisecond,
		RPC:       2 * time.Second,
	}
	TimingWAN = Timing{
		Heartbeat: 1500 * time.Millisecond,
		Election:  1500 * time.Millisecond,
		Lease:     1500 * time.Millisecond,
		RPC:       10 * time.Second,
	}
)

// Names of the log stores.
const (
	LogStoreWAL    = "wal"
	LogStoreBoltDB = "boltdb"
)

// A group, an entry's commands, is closed at whichever comes first. A single
// command larger than maxGroupBytes makes a group of its own.
const (
	maxGroupCommands = 1024
	maxGroupBytes    = 256 << 10
)

// maxInFlight bounds the entries that are proposed and not yet applied, and
// the forwards that are not yet answered. Two keep the leader's disk busy with
// one entry while the followers' are with the one before. More make groups
// smaller, and what an entry costs (a sync on each member, a request to each
// follower, and all that wake for it) is most of what a write does. One alone
// makes few callers wait for each other; where processors are crowded it is better all
// the same (crowded.go), and what they wait for is made up for (returning.go).
//
// Between data centres an entry is under way for much longer than its sync takes,
// and one that misses a request to the followers waits for the next to come back:
// there it is worth something to be on the leader's disk by then.
const (
	maxInFlight    = 2
	maxInFlightFar = 4
)

var idPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ParseInitialCluster reads "n1=127.0.0.1:7171,n2=127.0.0.1:7172".
func ParseInitialCluster(s string) ([]Peer, error) {
	var peers []Peer
	for _, part := range strings.Split(s, ",") {
		id, addr, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("initial cluster: %q is not ID=HOST:PORT", part)
		}
		peers = append(peers, Peer{ID: id, Addr: addr})
	}
	return peers, checkPeers(peers)
}

// addresses are the peers by id.
func addresses(peers []Peer) map[string]string {
	m := make(map[string]string, len(peers))
	for _, p := range peers {
		m[p.ID] = p.Addr
	}
	return m
}

func checkPeers(peers []Peer) error {
	ids, addrs := map[string]bool{}, map[string]bool{}
	for _, p := range peers {
		if !idPattern.MatchString(p.ID) {
			return fmt.Errorf("initial cluster: %q is no member id (1 to 64 of a-z, A-Z, 0-9, '.', '-', '_')", p.ID)
		}
		if !isAddress(p.Addr) {
			return fmt.Errorf("initial cluster: %q of member %s is not HOST:PORT", p.Addr, p.ID)
		}
		if ids[p.ID] {
			return fmt.Errorf("initial cluster: member %s is listed twice", p.ID)
		}
		if addrs[p.Addr] {
			return fmt.Errorf("initial cluster: address %s is listed twice", p.Addr)
		}
		ids[p.ID], addrs[p.Addr] = true, true
	}
	return nil
}

// isAddress says whether an address is one that others can reach.
func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || len(s) > maxAddress || host == "" {
		return false
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return err == nil && number != 0
}

// maxAddress bounds HOST:PORT: a name of the DNS has at most 253 characters.
const maxAddress = 260

// clusterID is the identity of a new cluster: a hash of what all its first
// members are told alike. A member that was told something else has another
// id, and the handshake of the peer port tells them so.
func clusterID(peers []Peer, token string) string {
	sorted := append([]Peer(nil), peers...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].ID < sorted[j].ID })
	h := sha256.New()
	fmt.Fprintf(h, "trivet cluster 1\n%q\n", token)
	for _, p := range sorted {
		fmt.Fprintf(h, "%q %q\n", p.ID, p.Addr)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// withDefaults fills in the defaults and checks the whole.
func (c Config) withDefaults() (Config, error) {
	if !idPattern.MatchString(c.ID) {
		return c, fmt.Errorf("%q is no member id (1 to 64 of a-z, A-Z, 0-9, '.', '-', '_')", c.ID)
	}
	if c.DataDir == "" && c.storage == nil {
		return c, errors.New("no data folder is given")
	}
	if c.PeerAddr == "" {
		c.PeerAddr = "127.0.0.1:7171"
	}
	if c.Dial == nil {
		var d net.Dialer
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", address)
		}
	}
	if c.Timing == (Timing{}) {
		c.Timing = TimingLAN
	}
	if c.inFlight == 0 {
		c.inFlight = maxInFlight
		if c.Timing.Heartbeat >= time.Second {
			c.inFlight = maxInFlightFar
		}
	}
	switch t := c.Timing; {
	case t.Heartbeat < 10*time.Millisecond, t.Election < t.Heartbeat, t.Lease < 5*time.Millisecond,
		t.Lease > t.Heartbeat, t.RPC < t.Heartbeat:
		return c, fmt.Errorf("timing %+v: need 10ms <= heartbeat <= election, 5ms <= lease <= heartbeat <= rpc", t)
	}
	switch c.LogStore {
	case "", LogStoreWAL, LogStoreBoltDB:
	default:
		return c, fmt.Errorf("log store %q is neither %q nor %q", c.LogStore, LogStoreWAL, LogStoreBoltDB)
	}
	for _, d := range []struct {
		name string
		v    *int64
		def  int64
	}{
		{"snapshot bytes", &c.SnapshotBytes, 256 << 20},
		{"queue bytes", &c.QueueBytes, 64 << 20},
		{"disk timeout", (*int64)(&c.DiskTimeout), int64(5 * time.Second)},
		{"history", (*int64)(&c.History), int64(5 * time.Minute)},
	} {
		if *d.v < 0 {
			return c, fmt.Errorf("%s is negative", d.name)
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if c.HistoryRevisions == 0 {
		c.HistoryRevisions = 100_000
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if err := checkPeers(c.InitialCluster); err != nil {
		return c, err
	}
	if c.Join != nil && len(c.InitialCluster) > 0 {
		return c, errors.New("a member either joins a cluster or is one of the first of a new one, not both")
	}
	return c, nil
}

// settings are what the leader's configuration contributes to the replicated
// state, carried by its term's marker.
func (c Config) settings() *trivetpb.Settings {
	return &trivetpb.Settings{
		HistoryMs:        uint64(c.History.Milliseconds()),
		HistoryRevisions: c.HistoryRevisions,
		QuotaBytes:       c.Quota,
	}
}
