package raftnode

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/store"
	"trivet/trivetpb"
)

// Node is one member of a cluster. Its methods may be called by any number of
// goroutines at once.
//
// Goroutines, all ended by Close: raft's own; the transport's pump; the peer
// port's accept loop with one for each connection; the proposer's dispatcher;
// one that follows leadership; one that tells raft of commits; one that takes
// snapshots; one that keeps the replicated clock; one that raises the level; one that
// compares its state with the leader's; one that meets the other first members, until
// a new cluster begins; one that has the cluster know this member as it is; one that
// keeps the liveness streams, and one for each of those; one that replaces a dead
// leader; and short ones for forwards, confirmations and other questions (spawn).
type Node struct {
	cfg     Config
	cluster string
	log     *slog.Logger
	started time.Time
	// advertise is where the others are to look for this member.
	advertise string

	storage   *storage
	logs      *guardedLog
	stable    *guardedStable
	snaps     *snapshotStore
	port      *peerPort
	peers     *peers
	transport *transport
	raft      *raft.Raft
	store     *store.Store
	counters  *counters
	compare   comparison
	proposer  *proposer
	snapshots *snapshotter
	commits   *commits
	confs     *configurations
	formation *formation
	changing  chan struct{} // holds a place for each change of the membership that waits
	formed    atomic.Bool
	liveness  *liveness
	crowd     crowd

	silence silence
	// concededUntil is until when this voter leaves an election to one that is
	// ahead of it, in nanoseconds from when it was started (deadleader.go).
	concededUntil atomic.Int64

	confirmRounds, askRounds      rounds
	poll                          poll
	appliedIndex, appliedRevision waiters

	ctx         context.Context // ends when the node stops
	cancel      context.CancelFunc
	raftStopped chan struct{} // closed when raft has ended
	raftRuns    atomic.Bool
	raftQuiet   atomic.Bool

	transferring chan struct{} // taken by the transfer of leadership under way

	signalMu sync.Mutex
	signal   chan struct{} // closed at the next change of leader

	clockWake chan struct{} // has room for one: look at the next deadline again

	proofMu    sync.Mutex
	provenAsOf time.Time

	contactMu sync.Mutex
	contacts  map[string]contact

	// spawn's goroutines; the mutex orders Add before Wait.
	spawnMu  sync.Mutex
	spawning bool
	wg       sync.WaitGroup

	failMu   sync.Mutex
	failErr  error         // why the node took itself out of service
	failed   chan struct{} // closed with failErr
	resigned bool          // Resign was called
	stopping bool          // Close was called
	closed   chan struct{} // closed when Close has done its work
	closeErr error
}

// errStopped is the end of what was waiting when the node stopped.
var errStopped = errors.New("raftnode: the node has stopped")

// Open starts a member: it opens or makes its data folder, checks what is in
// it, and takes part in its cluster. It returns before the member knows a
// leader. The error names the folder, file or address at fault.
func Open(cfg Config) (_ *Node, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	level := uint64(store.Level)
	if cfg.knownLevel != nil {
		level = *cfg.knownLevel
	}
	n := &Node{
		cfg:         cfg,
		log:         cfg.Logger.With("node", cfg.ID),
		started:     time.Now(),
		store:       store.NewOfLevel(level),
		counters:    newCounters(),
		crowd:       crowd{tasks: selfTasks},
		compare:     comparison{peers: map[string]peerReport{}},
		snapshots:   newSnapshotter(cfg.SnapshotBytes),
		commits:     &commits{wake: make(chan struct{}, 1)},
		raftStopped: make(chan struct{}),
		signal:      make(chan struct{}),
		clockWake:   make(chan struct{}, 1),

		transferring: make(chan struct{}, 1),
		contacts:     map[string]contact{},
		spawning:     true,
		failed:       make(chan struct{}),
		changing:     make(chan struct{}, maxChanging),
		closed:       make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.confirmRounds = rounds{f: n.confirm, ctx: n.ctx, spawn: n.spawn, done: &n.counters.confirms, failed: &n.counters.confirmsFailed}
	n.askRounds = rounds{f: n.ask, ctx: n.ctx, spawn: n.spawn, done: &n.counters.asks, failed: &n.counters.asksFailed}

	ln := cfg.PeerListener
	defer func() {
		if err == nil {
			return
		}
		n.cancel()
		if n.transport != nil {
			n.port.cut()
			n.transport.close()
			n.port.close()
		} else if ln != nil {
			ln.Close()
		}
		if n.storage != nil {
			n.storage.close()
		}
	}()
	if ln == nil {
		// Before the folder is touched: a port in use is the usual sign of a
		// second start.
		if ln, err = net.Listen("tcp", cfg.PeerAddr); err != nil {
			return nil, fmt.Errorf("peer port: %w", err)
		}
	}
	// One that listens on every address goes by the one that the cluster knows.
	if tcp, ok := ln.Addr().(*net.TCPAddr); n.cfg.AdvertisePeer == "" && (!ok || !tcp.IP.IsUnspecified()) {
		n.cfg.AdvertisePeer = ln.Addr().String()
	}
	if n.storage, err = openStorage(&n.cfg, newRaftLog(n.log, &n.raftQuiet)); err != nil {
		return nil, err
	}
	n.cluster = n.storage.cluster
	n.confs = newConfigurations(cfg.ID, n.storage.incarnation, n.storage.joinedAt)
	n.formation = newFormation(cfg.ID, n.storage)
	if err := n.openRaft(ln); err != nil {
		return nil, err
	}
	n.advertise = n.cfg.AdvertisePeer
	if n.advertise == "" {
		n.advertise = n.knownAt()
	}

	for _, loop := range []func(){
		func() { n.proposer.dispatch(n.ctx.Done()) },
		n.tellCommits,
		n.takeSnapshots,
		n.keepTime,
		n.keepLevel,
		n.compareStates,
		n.form,
		n.settle,
		n.keepLiveness,
		n.replaceDeadLeader,
	} {
		n.spawn(loop)
	}
	if n.proposer.crowded != nil {
		n.spawn(func() { n.crowd.keep(n.served, n.ctx.Done()) })
	}
	n.port.start()
	n.log.Info("member started", "cluster", n.cluster, "peer", ln.Addr().String(), "term", n.raft.CurrentTerm(),
		"applied", n.store.Index(), "last", n.raft.LastIndex())
	return n, nil
}

// openRaft puts the guards around the stores, checks what they hold, and starts
// raft over them.
func (n *Node) openRaft(ln net.Listener) error {
	cfg, s := n.cfg, n.storage
	n.logs = newGuardedLog(s.log, s.logWhere, cfg.DiskTimeout, n.fail, func(logs []*raft.Log) {
		n.commits.stored(logs[len(logs)-1].Index)
	})
	n.logs.applied = n.store.Index
	n.logs.counted = n.counters.appended
	n.logs.configured = func(l *raft.Log) {
		n.confs.store(l.Index, l.Data)
		n.reconfigured()
	}
	n.logs.truncated = func(from uint64) {
		n.confs.cut(from)
		n.reconfigured()
	}
	n.logs.storing = func(logs []*raft.Log) {
		if n.proposer != nil { // the initial configuration comes before it
			n.proposer.storing(logs)
		}
	}
	var err error
	if n.stable, err = newGuardedStable(s.stable, s.where, n.fail); err != nil {
		return err
	}

	n.snaps = &snapshotStore{SnapshotStore: s.snapshots, where: s.snapWhere, stopped: n.ctx.Done(), taken: n.logs.snapshot}

	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(cfg.ID)
	rc.HeartbeatTimeout = cfg.Timing.Heartbeat
	rc.ElectionTimeout = cfg.Timing.Election
	rc.LeaderLeaseTimeout = cfg.Timing.Lease
	rc.NoLegacyTelemetry = true
	rc.ShutdownOnRemove = false
	rc.Logger = newRaftLog(n.log, &n.raftQuiet)
	// Snapshots are taken by bytes (snapshots.go), never by raft's count.
	rc.SnapshotInterval = 24 * time.Hour
	rc.SnapshotThreshold = math.MaxUint64
	// raft blocks in its main loop where this is full; followLeadership reads
	// it as long as the node lives.
	notices := make(chan bool, 16)
	rc.NotifyCh = notices

	n.port = newPeerPort(ln, n.cluster, cfg.ID, n.log)
	n.port.dialTo = cfg.Dial
	n.port.address = n.peerAddress
	n.port.silence = cfg.Timing.Election
	n.port.members = n
	n.port.serve = func(from caller, c net.Conn) { servePeer(n.ctx, n, from, c) }
	n.peers = newPeers(n.port)
	n.liveness = newLiveness(n.port, cfg.Timing.Heartbeat)
	n.port.seen = n.liveness.seen
	nt := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  raftStreams{n.port},
		MaxPool: 3,
		// No pipelining: it can wedge on a follower's log error (raft issues
		// 611, 612), and leaves the end of a burst waiting for CommitTimeout.
		MaxRPCsInFlight:         rpcsInFlight(),
		Timeout:                 cfg.Timing.RPC,
		Logger:                  newRaftLog(n.log, &n.raftQuiet),
		MsgpackUseNewTimeFormat: true,
	})
	n.transport = newTransport(nt, n.port, cfg.Timing.RPC, n.stable, n.logs.snapshotEnd)
	n.logs.sending = n.transport.sendEarly

	if err := n.stable.claim(cfg.ID, s.fresh); err != nil {
		return err
	}
	if s.fresh && s.joins {
		if err := s.joined(); err != nil {
			return err
		}
	}
	if err := n.bootstrap(rc); err != nil {
		return err
	}
	if err := n.checkLog(); err != nil {
		return err
	}

	var drawn [16]byte
	rand.Read(drawn[:]) // never fails
	n.proposer = &proposer{
		boot:     binary.BigEndian.Uint64(drawn[:8]),
		seed:     binary.BigEndian.Uint64(drawn[8:]),
		ctx:      n.ctx,
		maxBytes: cfg.QueueBytes,
		inFlight: cfg.inFlight,
		counters: n.counters,
		self:     cfg.ID,
		leader:   func() string { return n.leaderID() },
		forward:  n.forward,
		apply:    func(l raft.Log) { n.raft.ApplyLog(l, 0) },
		wake:     make(chan struct{}, 1),
		entries:  map[uint64]*group{},
	}
	if cfg.inFlight == maxInFlight && cfg.storage == nil { // a test in virtual time has no use for real threads
		n.proposer.crowded = n.crowd.crowded.Load
	}
	if err := n.checkSnapshot(); err != nil {
		return err
	}
	n.raft, err = newRaft(rc, &fsm{n: n}, n.logs, n.stable, n.snaps, n.transport)
	if err != nil {
		// raft has logged the reason and returns none.
		switch {
		case n.snaps.lastError() != nil:
			return n.snaps.lastError()
		case n.snapshots.lastError() != nil:
			return fmt.Errorf("snapshots in %s: %w", s.snapWhere, n.snapshots.lastError())
		}
		return fmt.Errorf("%s: %w", s.logWhere, err)
	}
	n.logs.start()
	n.stable.start()
	n.raftRuns.Store(true)
	n.raft.RegisterObserver(raft.NewObserver(nil, false, n.observe))
	configuration, commitIndex := n.configuration, n.raft.CommitIndex
	n.transport.configuration.Store(&configuration)
	n.transport.commitIndex.Store(&commitIndex)
	n.transport.setState(n.raft.State, n.leads)
	n.spawn(func() { n.followLeadership(notices) })
	return nil
}

func rpcsInFlight() int {
	if mutant.On("pipeline") {
		return 2
	}
	return 1
}

// newRaft is raft.NewRaft, with the panics that it answers bad stores with made
// errors.
func newRaft(c *raft.Config, f raft.FSM, logs raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore, t raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("raft: %v", p)
		}
	}()
	return raft.NewRaft(c, f, logs, stable, snaps, t)
}

// checkLog verifies every entry of the log, and that log and snapshot together
// have no gap. A member that is ready has at least the initial configuration:
// one that has nothing has lost it.
func (n *Node) checkLog() error {
	first, last, err := n.logs.verify()
	if err != nil {
		return err
	}
	n.commits.held = last
	metas, err := n.snaps.List()
	if err != nil {
		return err
	}
	snapshot := uint64(0)
	if len(metas) > 0 {
		snapshot = metas[0].Index
		n.logs.snapshot(metas[0].Index, metas[0].Term)
	}
	switch {
	case last == 0 && snapshot == 0 && n.storage.waits.Load(): // for its first entry
	case last == 0 && snapshot == 0:
		return fmt.Errorf("log in %s is empty and there is no snapshot: this member's data is lost", n.logs.where)
	case last != 0 && first > snapshot+1:
		return fmt.Errorf("log in %s begins at entry %d, but the newest snapshot ends at %d: entries are missing", n.logs.where, first, snapshot)
	}
	return nil
}

// checkSnapshot looks whether what raft's meta.json says of the newest snapshot
// can be true: that file has no checksum. Its index is compared with the one in
// the state when that is restored (fsm.Restore).
func (n *Node) checkSnapshot() error {
	metas, err := n.snaps.List()
	if err != nil || len(metas) == 0 {
		return err
	}
	n.snaps.bytes.Store(metas[0].Size)
	meta, where := metas[0], filepath.Join(n.storage.snapWhere, metas[0].ID)
	switch {
	case meta.Term == 0 || meta.Term > n.stable.term:
		return fmt.Errorf("snapshot %s: its meta.json speaks of term %d, and the member has seen no later one than %d", where, meta.Term, n.stable.term)
	case meta.Version != raft.SnapshotVersionMax || len(meta.Configuration.Servers) == 0 || meta.ConfigurationIndex > meta.Index:
		return fmt.Errorf("snapshot %s: its meta.json makes no sense", where)
	}
	return nil
}

// peerAddress finds where a member's peer port is. A member that was let in and
// has no entry yet looks where the others were then.
func (n *Node) peerAddress(id string) (string, error) {
	conf := n.configuration()
	if s, ok := serverOf(conf, id); ok {
		return peerOf(s), nil
	}
	if at := n.storage.peers[id]; at != "" && len(conf.Servers) == 0 {
		return at, nil // let in, or to be one of the first, and no entry yet
	}
	return "", fmt.Errorf("%q is no member of the cluster", id)
}

// spawn runs f in a goroutine that Close waits for; false, and f is not run,
// where the node has stopped.
func (n *Node) spawn(f func()) bool {
	n.spawnMu.Lock()
	defer n.spawnMu.Unlock()
	if !n.spawning {
		return false
	}
	n.wg.Go(f)
	return true
}

// Propose writes commands and returns a result for each, in their order; they
// are applied in any order, each on its own. It takes them on any node: one
// that does not lead sends them to the leader. They go out again, to whoever
// leads by then, until they have an answer or the context ends, and are applied
// once at most: a command without a session or an idempotency key is given an
// identity of the node's (identity.go). Commands are not checked here
// (store.CheckCommand).
//
// A command that did not get through has a Result with a Problem: NO_LEADER,
// DRAINING or TIMEOUT with Unknown unset where it was certainly not applied,
// TIMEOUT with Unknown set where it may have been or may yet be: the context
// ended, or the node stopped, with the command under way. The error is a
// *trivetpb.Problem where none was taken: OVERLOADED, DRAINING, TOO_LARGE.
//
// Results must not be changed. Commands may be used again once Propose has
// returned.
func (n *Node) Propose(ctx context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
	encoded := make([]pending, len(commands))
	size := 0
	for _, c := range commands {
		bytes := c.SizeVT()
		if bytes > maxCommand {
			return nil, &trivetpb.Problem{Code: trivetpb.Code_TOO_LARGE, Limit: maxCommand,
				Detail: fmt.Sprintf("a command of %d bytes", bytes)}
		}
		size += bytes
	}
	if len(commands) == 0 {
		return nil, nil
	}
	// They wait together and mostly leave together, so they lie together.
	buffer := n.proposer.encodings.Get(size)
	all := buffer.B
	for i := len(commands) - 1; i >= 0; i-- { // each is written from its end
		c := commands[i]
		bytes, err := c.MarshalToSizedBufferVT(all)
		if err != nil {
			return nil, &trivetpb.Problem{Code: trivetpb.Code_BAD_REQUEST, Detail: err.Error()}
		}
		encoded[i].data = all[len(all)-bytes : len(all) : len(all)]
		all = all[:len(all)-bytes]
		if c.Session != 0 || len(c.IdempotencyKey) != 0 {
			encoded[i].kind = identified
		}
	}
	p, problem := n.proposer.submit(encoded, false)
	if problem != nil {
		n.proposer.encodings.Put(buffer) // nothing was taken
		return nil, problem
	}
	results := n.proposer.wait(ctx, p)
	select {
	case <-p.done:
		// Each command is concluded, and what is has left every queue and group for good:
		// its bytes were copied into the entry or the forward, and no attempt
		// follows (take, putBack). Where the caller gives up before, what became of
		// the commands may yet need them.
		n.proposer.encodings.Put(buffer)
	default:
	}
	return results, nil
}

// maxCommand bounds one encoded command: raft-wal takes no entry over 64 MiB.
const maxCommand = 32 << 20

// Store is the local state; AwaitRead says how fresh it is.
func (n *Node) Store() *store.Store { return n.store }

// ID is the member's id.
func (n *Node) ID() string { return n.cfg.ID }

// ClusterID is the id of the member's cluster.
func (n *Node) ClusterID() string { return n.cluster }

// PeerAddr is the address that the peer port listens on.
func (n *Node) PeerAddr() string { return n.port.ln.Addr().String() }

// Failed is closed when the node has taken itself out of service, for a reason
// that Err tells. It stays a Node: reads marked stale work, unless the reason is
// that its state differs from the others' (compare.go), and Close.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Done is closed when the node takes no part in its cluster any more, because it
// has failed or was closed: its Store stays as it is then.
func (n *Node) Done() <-chan struct{} { return n.ctx.Done() }

// Err is why the node took itself out of service, nil where it has not.
func (n *Node) Err() error { return n.failure() }

func (n *Node) failure() error {
	n.failMu.Lock()
	defer n.failMu.Unlock()
	return n.failErr
}

// running says whether raft's goroutines are at work: before, an error can be
// returned from Open.
func (n *Node) running() bool { return n.raftRuns.Load() }

// stopped says why the node takes nothing any more, nil where it does. It
// returns an error that is nil, not a nil *Problem.
func (n *Node) stopped() error {
	if err := n.failure(); err != nil {
		return &trivetpb.Problem{Code: trivetpb.Code_DRAINING, Detail: "the node has failed: " + err.Error()}
	}
	if n.ctx.Err() != nil {
		return &trivetpb.Problem{Code: trivetpb.Code_DRAINING, Detail: "the node has stopped"}
	}
	return nil
}

// fail takes the node out of service: nobody can reach it and it reaches
// nobody from here on, so that others take over at once, whatever raft's main
// goroutine hangs in. It returns without waiting for anything.
func (n *Node) fail(err error) {
	n.failMu.Lock()
	first := n.failErr == nil
	if first {
		n.failErr = err
	}
	n.failMu.Unlock()
	if !first {
		return
	}
	n.log.Error("the node takes itself out of service", "error", err)
	go func() {
		if n.port != nil {
			n.port.cut()
		}
		if n.proposer != nil {
			n.proposer.abandon(&trivetpb.Problem{Code: trivetpb.Code_DRAINING, Detail: "the node has failed: " + err.Error()})
		}
		n.cancel() // whoever waits for anything
		close(n.failed)
	}()
}

// Close stops the member. Until the context ends it first stops gracefully: a
// leader hands its leadership over (Resign), then new writes are refused
// (DRAINING), and those that wait or are under way are finished; then it takes a
// snapshot where that is worth it (snapshots.go). Then everything is closed;
// what was still under way ends with outcome unknown. Close waits until no
// goroutine and no file of the node is left, unless its disk hangs. It returns
// why the stop was not graceful, nil where it was. Only the first call counts;
// later ones wait for it.
func (n *Node) Close(ctx context.Context) error {
	n.failMu.Lock()
	again := n.stopping
	n.stopping = true
	n.failMu.Unlock()
	if again {
		<-n.closed
		return n.closeErr
	}
	defer close(n.closed)

	err := n.failure()
	if err == nil {
		// First leadership, while all is still taken: what waits goes to the next
		// leader, and so does what comes.
		err = n.Resign(ctx)
		n.proposer.close(&trivetpb.Problem{Code: trivetpb.Code_DRAINING, Detail: "the node is stopping"})
		if derr := n.drain(ctx); err == nil {
			err = derr
		}
		// Nobody else may have been able to lead meanwhile.
		if n.leads() != 0 && len(n.otherVoters()) > 0 {
			if herr := n.handOver(ctx); err == nil {
				err = herr
			}
		}
	}
	n.closeErr = err
	if n.failure() == nil {
		n.snapshotLast(ctx)
	}

	n.proposer.abandon(&trivetpb.Problem{Code: trivetpb.Code_DRAINING, Detail: "the node has stopped"})
	n.cancel()
	n.raftQuiet.Store(true)
	n.port.cut() // ends every request under way, raft's too
	shutdown := n.raft.Shutdown()
	stopped := make(chan struct{})
	go func() {
		shutdown.Error()
		close(n.raftStopped)
		n.transport.close()
		n.port.close()
		n.spawnMu.Lock()
		n.spawning = false
		n.spawnMu.Unlock()
		n.wg.Wait()
		n.storage.close()
		close(stopped)
	}()
	hung := time.NewTimer(n.cfg.DiskTimeout + n.cfg.Timing.RPC)
	defer hung.Stop()
	select {
	case <-stopped:
	case <-hung.C:
		n.closeErr = errors.Join(errors.New("raftnode: the node did not stop; its disk seems to hang"), n.closeErr)
	}
	return n.closeErr
}
