package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"trivet/httpapi"
	"trivet/raftnode"
	"trivet/store"
)

const (
	// stopTime is how long a node that stops lets the requests under way finish,
	// and again how long it may take to close.
	stopTime = 5 * time.Second
	// resignTime is how much of the first is for handing leadership over, and
	// leaveTime how much for callers to leave.
	resignTime = 2 * time.Second
	leaveTime  = 250 * time.Millisecond
)

// serveFlags is the command line of serve.
type serveFlags struct {
	id, data                    string
	api, peer                   string
	advertiseAPI, advertisePeer string
	initialCluster              string
	clusterToken                string
	join                        []string
	role                        *choice
	timing, logStore            *choice
	quota, maxValue             size
	snapshotBytes, maxRestore   size
	maxLockWaits                int
	history                     time.Duration
	logLevel, logFormat         *choice
	insecure                    bool
}

func newServe() *cobra.Command {
	f := &serveFlags{quota: 8 << 30, maxValue: 1 << 20, snapshotBytes: 256 << 20, maxRestore: httpapi.HardMaxRestoreBytes}
	cmd := &cobra.Command{
		Use:   "serve --id ID --data DIR",
		Short: "Run one node",
		Long: `Run one node of a cluster in the foreground: its HTTP API on --api, and the port
that the members reach each other by on --peer.

The first members of a new cluster are started with the same --initial-cluster,
each with its own --id, --data and --peer. From then on the data folder knows
the cluster, and --initial-cluster is ignored.

A further member is started with --join and the URL of any member's API. It asks
to be let in, again and again while no member answers, catches up and then votes
or, with --role replica, never does. The same command goes on from wherever it
was ended; --join is ignored once the data folder knows its cluster. A member
that was removed stops with exit status 1.

Nothing is encrypted and nobody is asked who they are, so an address beyond
loopback is refused unless --insecure is given.

On SIGTERM or SIGINT the node says on /readyz that it is draining, hands its
leadership over, closes each connection behind its next answer, then takes no more
requests, finishes those under way and exits with status 0; a second signal ends
it at once. Where it cannot start, it exits with status
1 and one line that names the file, address or flag at fault. The log goes to
standard error; the line "listening" says that the node takes requests.`,
		Example: `  trivet serve --id n1 --data /var/lib/trivet \
    --api 127.0.0.1:7071 --peer 127.0.0.1:7171 \
    --initial-cluster n1=127.0.0.1:7171,n2=127.0.0.1:7172,n3=127.0.0.1:7173

  trivet serve --id n1 --data /var/lib/trivet    # later

  trivet serve --id n4 --data /var/lib/trivet \
    --api 127.0.0.1:7074 --peer 127.0.0.1:7174 --join http://127.0.0.1:7071`,
		Args: takes(0, 0),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&f.id, "id", "", "this member's name in the cluster, for good: 1 to 64 of a-z, A-Z, 0-9, '.', '-', '_'")
	flags.StringVar(&f.data, "data", "", "folder of everything that the node keeps; made where it is missing")
	flags.StringVar(&f.api, "api", "127.0.0.1:7071", "address of the HTTP API")
	flags.StringVar(&f.peer, "peer", "127.0.0.1:7171", "address of the port for other members")
	flags.StringVar(&f.initialCluster, "initial-cluster", "", "first members of a new cluster, as ID=HOST:PORT,…, the same on each of them")
	flags.StringVar(&f.clusterToken, "cluster-token", "", "any text, tells new clusters apart whose --initial-cluster is the same")
	flags.StringSliceVar(&f.join, "join", nil, "URLs of members of a running cluster to join; any of them will do")
	f.role = choiceFlag(cmd, "role", "what becomes of a member that joins", "voter", "replica")
	flags.StringVar(&f.advertiseAPI, "advertise-api", "", "URL under which clients reach the API (default: that of --api)")
	flags.StringVar(&f.advertisePeer, "advertise-peer", "", "HOST:PORT under which members reach --peer (default: --peer)")
	f.timing = choiceFlag(cmd, "timing", "how far the members are from each other", "lan", "wan")
	f.logStore = choiceFlag(cmd, "log-store", "what keeps the log; by default what the data folder has, wal in a new one", raftnode.LogStoreWAL, raftnode.LogStoreBoltDB)
	f.logStore.value = "" // the folder's own
	flags.Var(&f.quota, "quota", "most live data, keys and values; the leader's holds for all; 0 for no bound")
	flags.Var(&f.maxValue, "max-value", "longest value")
	flags.DurationVar(&f.history, "history", 5*time.Minute, "how long old revisions can be read; the leader's holds for all")
	flags.Var(&f.snapshotBytes, "snapshot-bytes", "log written between two snapshots")
	flags.Var(&f.maxRestore, "max-restore", "largest backup that is restored; it is in every node's memory meanwhile")
	flags.IntVar(&f.maxLockWaits, "max-lock-waits", 4096, "most requests that wait for a lock here at one time")
	f.logLevel = choiceFlag(cmd, "log-level", "least level to log", "info", "debug", "warn", "error")
	f.logFormat = choiceFlag(cmd, "log-format", "form of the log", "text", "json")
	flags.BoolVar(&f.insecure, "insecure", false, "listen beyond loopback without encryption or authentication")
	for _, name := range []string{"id", "data"} {
		// They fail only for a flag that is not there.
		_ = cmd.MarkFlagRequired(name)
	}
	_ = cmd.MarkFlagDirname("data")
	cmd.RunE = action(exitNo, func(cmd *cobra.Command, _ []string) error {
		return f.serve(cmd.Context(), cmd.ErrOrStderr())
	})
	return cmd
}

// serve runs the node until a signal or the context ends it.
func (f *serveFlags) serve(ctx context.Context, stderr io.Writer) error {
	// Two fit: the one that stops the node, and the one that ends it at once.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)

	held := &holdBack{out: stderr}
	log := newLogger(held, f.logLevel.value, f.logFormat.value)
	if f.logLevel.value == "debug" {
		held.release() // who looks for the reason wants it all
	}
	cfg, err := f.config()
	if err != nil {
		return err
	}
	if len(f.join) > 0 {
		if cfg.Join, err = joinThrough(ctx, f.join, func(why string) {
			held.release() // it may take long, and somebody wants to know
			log.Warn("not let in yet; trying again", "node", f.id, "why", why)
		}); err != nil {
			return err
		}
	}
	// Both addresses before the data folder: one in use is the usual sign of a
	// second start, and of a wrong folder for this command line.
	api, err := listen(ctx, "api", f.api, f.insecure)
	if err != nil {
		return err
	}
	defer api.Close()
	paused, err := pause(api, f.api)
	if err != nil {
		return err
	}
	peer, err := listen(ctx, "peer", f.peer, f.insecure)
	if err != nil {
		return err
	}
	if err := f.advertise(&cfg, api, peer); err != nil {
		peer.Close()
		return err
	}
	cfg.PeerListener = peer
	cfg.Logger = log
	if f.insecure {
		log.Warn("--insecure: anyone who reaches these addresses can read and write everything", "api", api.Addr().String(), "peer", peer.Addr().String())
	}

	var serving atomic.Pointer[raftnode.Node]
	var restoring atomic.Bool
	boundGarbage(ctx, restoring.Load, func() bool {
		node := serving.Load()
		return node != nil && len(node.Ready(0)) == 0
	})
	cfg.Restoring = func(bytes int64) (done func()) {
		restoring.Store(true)
		enough := hugePages(bytes)
		return func() {
			enough()
			restoring.Store(false)
		}
	}
	boundProcessors(ctx)

	// Opening reads and checks all that is on disk, which may take its time. A
	// signal meanwhile just ends it: nothing is served yet, and what is on disk
	// is as safe as in any crash.
	type opened struct {
		node *raftnode.Node
		err  error
	}
	opening := make(chan opened, 1)
	go func() {
		node, err := raftnode.Open(cfg)
		opening <- opened{node, err}
	}()
	var node *raftnode.Node
	select {
	case o := <-opening:
		if node, err = o.node, o.err; err != nil {
			return err
		}
		held.release()
		serving.Store(node)
	case <-signals:
		return nil
	case <-ctx.Done():
		return nil
	}

	server, err := httpapi.New(node, httpapi.Config{
		MaxValueBytes:   int(f.maxValue),
		MaxRestoreBytes: int64(f.maxRestore),
		MaxLockWaits:    f.maxLockWaits,
		MaxConns:        maxConns(),
		Logger:          log.With("node", f.id),
	})
	if err != nil {
		return errors.Join(err, node.Close(context.Background()))
	}
	if err := paused.resume(); err != nil {
		return errors.Join(err, node.Close(context.Background()))
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(api) }()
	log.Info("listening", "node", f.id, "api", cfg.AdvertiseAPI, "peer", cfg.AdvertisePeer,
		"cluster", node.ClusterID(), "version", cfg.Version)

	select {
	case s := <-signals:
		log.Info("stopping", "node", f.id, "signal", s.String())
	case <-ctx.Done():
		log.Info("stopping", "node", f.id)
	case <-node.Failed():
		if errors.Is(node.Err(), raftnode.ErrRemoved) {
			// Whoever removed it may have asked this very node.
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = server.Shutdown(ctx)
			cancel()
		}
		// Nothing else is closed: the reason may be a disk that hangs, and a process
		// that waits for it would look alive.
		return fmt.Errorf("node %s took itself out of service: %w", f.id, node.Err())
	case err := <-served:
		return errors.Join(err, node.Close(context.Background()))
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		f.stop(log, server, node)
	}()
	select {
	case <-stopped:
	case <-signals:
		return fmt.Errorf("node %s was ended by a second signal before it had stopped", f.id)
	case <-node.Failed():
		return fmt.Errorf("node %s failed while it was stopping: %w", f.id, node.Err())
	}
	log.Info("stopped", "node", f.id)
	return nil
}

// maxConns is how many connections the API may take: what the process may have
// open, less what the node needs for its log and its peers, which must not go
// without because callers keep idle connections. 0 is the API's own default.
func maxConns() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	const reserve, least, most = 256, 32, 16384
	if limit.Cur > 2*most {
		return 0
	}
	// The API takes an eighth more, to tell them that there are too many.
	return min(max((int(limit.Cur)-reserve)*8/9, least), most)
}

// stop ends a node gracefully, as far as its time allows.
func (f *serveFlags) stop(log *slog.Logger, server *httpapi.Server, node *raftnode.Node) {
	// In this order. Leadership goes first, while everything is served: what
	// waits to be written goes to the next leader, and nobody is refused. Callers
	// leave meanwhile, between their requests. Then the API closes, and requests
	// that wait for the cluster are finished by a node that still takes part in
	// it. The node closes last.
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	left := make(chan struct{})
	go func() {
		defer close(left)
		server.Leave(ctx, leaveTime)
	}()
	resign, done := context.WithTimeout(ctx, resignTime)
	err := node.Resign(resign)
	done()
	if err != nil {
		log.Warn("leadership was not handed over", "node", f.id, "error", err)
	}
	<-left
	if err := server.Shutdown(ctx); err != nil {
		log.Warn("requests under way were cut off", "node", f.id, "error", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := node.Close(ctx); err != nil {
		log.Warn("not stopped gracefully", "node", f.id, "error", err)
	}
}

// config is the node's configuration, as far as the command line tells it.
func (f *serveFlags) config() (raftnode.Config, error) {
	cfg := raftnode.Config{
		ID:            f.id,
		DataDir:       f.data,
		ClusterToken:  f.clusterToken,
		Timing:        raftnode.TimingLAN,
		LogStore:      f.logStore.value,
		SnapshotBytes: int64(f.snapshotBytes),
		History:       f.history,
		Quota:         uint64(f.quota),
		Version:       version(),
	}
	if f.timing.value == "wan" {
		cfg.Timing = raftnode.TimingWAN
	}
	cfg.Replica = f.role.value == "replica"
	switch {
	case f.data == "":
		return cfg, errors.New("--data is empty")
	case len(f.join) > 0 && f.initialCluster != "":
		return cfg, errors.New("--join and --initial-cluster: a member joins a cluster or is one of the first of a new one")
	case cfg.Replica && f.initialCluster != "":
		return cfg, errors.New("--role: the first members of a cluster are voters")
	case f.maxValue < 1 || f.maxValue > store.HardMaxValueBytes:
		return cfg, fmt.Errorf("--max-value: %v is not from 1B to %v", f.maxValue, size(store.HardMaxValueBytes))
	case f.snapshotBytes < 1:
		return cfg, errors.New("--snapshot-bytes must be more than zero")
	case f.maxRestore < 1 || f.maxRestore > httpapi.HardMaxRestoreBytes:
		return cfg, fmt.Errorf("--max-restore: %v is not from 1B to %v", f.maxRestore, size(httpapi.HardMaxRestoreBytes))
	case f.maxLockWaits < 1:
		return cfg, errors.New("--max-lock-waits must be more than zero")
	case f.history <= 0:
		return cfg, errors.New("--history must be more than zero")
	}
	if f.initialCluster != "" {
		var err error
		if cfg.InitialCluster, err = raftnode.ParseInitialCluster(f.initialCluster); err != nil {
			return cfg, fmt.Errorf("--initial-cluster: %s", strings.TrimPrefix(err.Error(), "initial cluster: "))
		}
	}
	// A folder that knows no cluster is to be made. What is wrong about that is
	// said here, by the names of the flags, and before a folder is made for
	// nothing.
	if _, err := os.Stat(filepath.Join(f.data, "member.json")); errors.Is(err, fs.ErrNotExist) && len(f.join) == 0 {
		listed := slices.ContainsFunc(cfg.InitialCluster, func(p raftnode.Peer) bool { return p.ID == f.id })
		switch {
		case f.initialCluster == "":
			return cfg, fmt.Errorf("--initial-cluster or --join is missing, and data folder %s knows no cluster yet", f.data)
		case !listed:
			return cfg, fmt.Errorf("--initial-cluster: this member, %s, is not in the list", f.id)
		}
	}
	return cfg, nil
}

// advertise fills in the addresses that others are told.
func (f *serveFlags) advertise(cfg *raftnode.Config, api, peer net.Listener) error {
	cfg.AdvertisePeer = f.advertisePeer
	if cfg.AdvertisePeer == "" {
		cfg.AdvertisePeer = reachable(f.peer, peer)
	}
	if cfg.AdvertisePeer == "" {
		// It listens everywhere; where the others look for it is in the list. A
		// data folder that knows its cluster knows that too.
		for _, p := range cfg.InitialCluster {
			if p.ID == f.id {
				cfg.AdvertisePeer = p.Addr
			}
		}
	}
	peerHost, _, err := net.SplitHostPort(cfg.AdvertisePeer)
	if cfg.AdvertisePeer != "" && (err != nil || peerHost == "") {
		return fmt.Errorf("--advertise-peer: %q is not HOST:PORT", cfg.AdvertisePeer)
	}

	cfg.AdvertiseAPI = f.advertiseAPI
	if cfg.AdvertiseAPI != "" {
		u, err := url.Parse(cfg.AdvertiseAPI)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return fmt.Errorf("--advertise-api: %q is no URL such as http://10.0.0.1:7071", cfg.AdvertiseAPI)
		}
		return nil
	}
	address := reachable(f.api, api)
	switch {
	case address != "":
	case peerHost != "":
		// It listens everywhere, so on the host of the peer port too.
		address = net.JoinHostPort(peerHost, portOf(api))
	default:
		return fmt.Errorf("--advertise-api is missing: nobody can reach the API at %s", f.api)
	}
	cfg.AdvertiseAPI = "http://" + address
	return nil
}
