package trivettest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"trivet/client"
	"trivet/raftnode"
)

// Cluster is the members of one cluster, numbered from 0. Its methods may be called
// by several goroutines. What goes wrong with the cluster itself fails the test; of
// one that was opened by Open it is the error of Close.
type Cluster struct {
	t       testing.TB // nil after Open
	dir     string
	net     *network
	faults  faults
	members []*member
	// transport is Transport's.
	transport *http.Transport

	mu     sync.Mutex
	err    error // of what has failed
	client *client.Client
	closed bool
}

// Option is Nodes, InMemory, History, WithTiming or WithLogger.
type Option func(*options)

type options struct {
	nodes  int
	timing raftnode.Timing
	logger *slog.Logger
	// history is how many revisions are kept; 0 for raftnode's default.
	history uint64
	// inMemory: no sockets.
	inMemory bool
}

// Nodes is how many members the cluster has: 1 to 9. Default 3.
func Nodes(n int) Option { return func(o *options) { o.nodes = n } }

// InMemory has members and clients talk over connections in memory in place of sockets.
// Such a cluster may be started inside a bubble of testing/synctest, and then lives in
// virtual time: an hour's ttl passes as fast as its renewals can be made. What the
// members write is on disk all the same.
//
// Nobody outside of the process reaches it, and within it only who dials by Client,
// Config, Transport or DialContext: the hosts of Endpoints do not exist.
func InMemory() Option { return func(o *options) { o.inMemory = true } }

// History is how many old revisions the cluster keeps, for tests of what comes when they
// are gone (client.ErrCompacted). Default 100,000.
func History(revisions uint64) Option { return func(o *options) { o.history = revisions } }

// WithTiming is how long the members wait for each other. The default is short (see
// Timing): a test waits for elections, and not for long.
func WithTiming(t raftnode.Timing) Option { return func(o *options) { o.timing = t } }

// WithLogger takes the log of all members. Default: nobody.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.logger = l } }

// Timing is the default of WithTiming. It is short enough that a leader which is
// paused is replaced within half a second or so, and long enough for a machine that
// is busy with other tests: an election too many is no error, but costs time.
var Timing = raftnode.Timing{
	Heartbeat: 150 * time.Millisecond,
	Election:  150 * time.Millisecond,
	Lease:     150 * time.Millisecond,
	RPC:       2 * time.Second,
}

// patience is how long the cluster may take for what it is waited for, on a machine
// that is overloaded.
const patience = 30 * time.Second

// Start starts a cluster, of three members unless told otherwise, which ends with
// the test. It returns once all members serve, after a quarter of a second or so.
func Start(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	c, err := Open(opts...)
	if err != nil {
		t.Fatal(err)
	}
	c.t = t
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Open is Start where there is no test to end with: for a cluster that several tests
// share (TestMain) or an example. It is to be closed.
func Open(opts ...Option) (_ *Cluster, err error) {
	o := options{nodes: 3, timing: Timing, logger: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		opt(&o)
	}
	if o.nodes < 1 || o.nodes > 9 {
		return nil, fmt.Errorf("trivettest: %d nodes, it may be 1 to 9", o.nodes)
	}
	c := &Cluster{net: newNetwork(o.nodes, o.inMemory), faults: faults{conns: map[*faultyConn]bool{}}}
	c.transport = &http.Transport{DialContext: c.DialContext, DisableCompression: true}
	defer func() {
		if err != nil {
			err = fmt.Errorf("trivettest: %w", errors.Join(err, c.Close()))
		}
	}()
	if c.dir, err = os.MkdirTemp("", "trivettest-"); err != nil {
		return nil, err
	}
	// The members have the same ids and addresses in every cluster, and a client with
	// endpoints of two is to tell them apart.
	token := rand.Text()
	var peers []raftnode.Peer
	for i := range o.nodes {
		m := &member{i: i, id: fmt.Sprintf("n%d", i+1), token: token, net: c.net, options: o}
		m.dir = filepath.Join(c.dir, m.id)
		// Where members say that they are: the network finds the port that they listen
		// on, which is another one after a restart.
		peers = append(peers, raftnode.Peer{ID: m.id, Addr: peerName(i)})
		if m.api, err = c.net.listenAPI(i); err != nil {
			return nil, err
		}
		m.url = "http://" + m.api.Addr().String()
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		m.peers = peers
		if err := m.start(); err != nil {
			return nil, err
		}
	}
	return c, c.begun()
}

// begun waits until every member has taken up its part. The first members of a
// cluster begin once each has met all others: one that is killed before would keep
// the rest from it.
func (c *Cluster) begun() error {
	deadline := time.Now().Add(patience)
	for _, m := range c.members {
		for reasons := m.node.Ready(math.MaxUint64); len(reasons) > 0; reasons = m.node.Ready(math.MaxUint64) {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s is not ready: %s", m.id, strings.Join(reasons, ", "))
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// Endpoints returns the URLs of all members' HTTP APIs, in their order. They stay
// the same, whatever becomes of the members.
func (c *Cluster) Endpoints() []string {
	var urls []string
	for _, m := range c.members {
		urls = append(urls, m.url)
	}
	return urls
}

// Client returns a client of the cluster, the same each time, which is closed with
// it. A test that needs another one, or settings of its own, opens it with Config.
func (c *Cluster) Client() *client.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		cl, err := client.Open(context.Background(), c.Config())
		if err != nil {
			panic(err) // the endpoints are well formed
		}
		c.client = cl
		if c.closed {
			_ = cl.Close() // its calls fail with ErrClosed
		}
	}
	return c.client
}

// Handler returns the HTTP API of a member that runs, for callers in the process.
// Pause does not stall it.
func (c *Cluster) Handler(i int) http.Handler {
	m := c.members[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.server
}

// Leader returns the member that leads, by its own word; of several who say so, as
// after a partition, that of the newest term. Where there is none it waits for one.
// It is -1, and the test has failed, where none comes within half a minute: there is
// no majority.
func (c *Cluster) Leader() int {
	for deadline := time.Now().Add(patience); ; {
		leader, term := -1, uint64(0)
		for i, m := range c.members {
			if t := m.leads(); t > term {
				leader, term = i, t
			}
		}
		if leader >= 0 {
			return leader
		}
		if time.Now().After(deadline) {
			c.failed(errors.New("trivettest: there is no leader"))
			return -1
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Kill stops the member as a crash would: its connections are cut in the middle of
// what goes over them, and it hands nothing over. What it had synced stays. One that
// is down already stays down.
func (c *Cluster) Kill(i int) { c.failed(c.members[i].kill()) }

// Restart starts the member with the data that it has, at the address that it had; it
// is killed before, where it runs. It returns before it has caught up.
func (c *Cluster) Restart(i int) {
	m := c.members[i]
	c.failed(m.kill())
	c.failed(m.start())
}

// Pause stalls everything that the member sends and is sent, until Resume or Heal.
// The member itself goes on: it is the network that stands still.
func (c *Cluster) Pause(i int) { c.net.change(func(s *reach) { s.paused[i] = true }) }

// Resume ends Pause.
func (c *Cluster) Resume(i int) { c.net.change(func(s *reach) { s.paused[i] = false }) }

// Partition stalls what the members of a and those of b send each other, until Heal.
// A second Partition adds to the first.
func (c *Cluster) Partition(a, b []int) {
	c.net.change(func(s *reach) {
		for _, i := range a {
			for _, j := range b {
				if i != j {
					s.cut[i][j], s.cut[j][i] = true, true
				}
			}
		}
	})
}

// Heal ends every Partition and Pause, and takes back every Fail that has not happened.
func (c *Cluster) Heal() {
	c.faults.clear()
	c.net.change(func(s *reach) { *s = newReach(len(c.members)) })
}

// Close stops all members and removes what they wrote. After Start the test does it.
// The error is also that of what failed before.
func (c *Cluster) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	cl, err := c.client, c.err
	c.mu.Unlock()
	if cl != nil {
		err = errors.Join(err, cl.Close())
	}
	errs := make([]error, len(c.members))
	var wg sync.WaitGroup
	for i, m := range c.members {
		wg.Go(func() { errs[i] = m.close() })
	}
	wg.Wait()
	c.transport.CloseIdleConnections()
	return errors.Join(append(errs, err, os.RemoveAll(c.dir))...)
}

// failed takes note of an error, where it is one.
func (c *Cluster) failed(err error) {
	switch {
	case err == nil:
	case c.t != nil:
		c.t.Helper()
		c.t.Error(err)
	default:
		c.mu.Lock()
		c.err = errors.Join(c.err, err)
		c.mu.Unlock()
	}
}
