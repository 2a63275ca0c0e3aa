package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// Interleavings in which members would come to differ, a write would be applied
// twice, or its caller would be told something untrue. Each needs several rare
// things at once; here they are arranged.

// another waits until somebody else leads.
func (s *sim) another(not *Node) *Node {
	n := s.leader()
	for n == not {
		time.Sleep(20 * time.Millisecond) // virtual
		n = s.leader()
	}
	return n
}

// makeLead has a member stand for election until it leads.
func (s *sim) makeLead(n *Node) {
	s.t.Helper()
	for range 100 {
		l := s.leader()
		if l == n {
			return
		}
		n.servePromote(context.Background(), l.ID(), &trivetpb.PromoteRequest{Term: l.raft.CurrentTerm(), LastIndex: l.raft.LastIndex()})
		time.Sleep(300 * time.Millisecond) // virtual
	}
	s.t.Fatalf("%s does not come to lead", n.ID())
}

// lose makes the leader store entries that nobody else will ever have.
func (s *sim) lose(leader *Node) {
	s.t.Helper()
	s.isolate(leader.ID())
	for range maxInFlightFar {
		require.True(s.t, simPut(leader, "lost", "x", 5*time.Millisecond).GetUnknown())
	}
}

// A message commits nothing beyond the entries that it covers, though the
// follower's log goes on behind them with those of a deposed leader.
func TestSimNoCommitBeyondTheMessage(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		old := s.leader()
		require.Nil(t, simPut(old, "k", "v", time.Second))
		s.converge()
		// The next leader's first write is slow, so that its replication to the
		// one that is away sleeps a backoff while its commit index moves on.
		for _, n := range s.followers() {
			d, slow := s.members[n.ID()].disk, true
			d.mu.Lock()
			d.delay = func() time.Duration {
				if slow && n.raft.State() == raft.Leader {
					slow = false
					return 3500 * time.Millisecond
				}
				return 300 * time.Microsecond
			}
			d.mu.Unlock()
		}
		s.lose(old)
		s.crash(old.ID())
		s.heal()
		next := s.another(old)
		require.Nil(t, simPut(next, "a", "yes", time.Second))
		require.Nil(t, simPut(next, "b", "yes", time.Second))
		n := s.start(old.ID())
		time.Sleep(3 * time.Second) // virtual
		v, err := simGet(n, "a", time.Second)
		require.NoError(t, err)
		require.Equal(t, "yes", v)
		s.converge()
	})
}

// What a member's log has of a deposed leader below the end of a snapshot that
// it was sent, it does not send to others when it comes to lead.
func TestSimNoStaleEntriesBelowASnapshot(t *testing.T) {
	// The snapshot ends before the stale entries do, with them, and after them.
	for more := range maxInFlightFar + 3 {
		t.Run(fmt.Sprint("more=", more), func(t *testing.T) { testNoStaleEntries(t, more) })
	}
}

func testNoStaleEntries(t *testing.T, more int) {
	runSim(t, 5, nil, func(s *sim) {
		old := s.leader()
		require.Nil(t, simPut(old, "k", "v", time.Second))
		s.converge()
		away := s.followers()[0]
		s.crash(away.ID()) // for a while: it will need what lies below the snapshot
		s.lose(old)
		next := s.another(old)
		require.Nil(t, simPut(next, "acked", "yes", time.Second))
		for range more {
			require.Nil(t, simPut(next, "acked", "yes", time.Second))
		}
		next.cfg.SnapshotBytes = 4 // keeps no log behind it
		require.NoError(t, next.snapshot())
		s.heal()
		time.Sleep(2 * time.Second) // virtual
		require.Nil(t, simPut(next, "more", "1", time.Second))
		v, err := simGet(old, "acked", time.Second)
		require.NoError(t, err)
		require.Equal(t, "yes", v)

		s.crash(next.ID())
		s.makeLead(old)
		n := s.start(away.ID())
		time.Sleep(2 * time.Second) // virtual
		v, err = simGet(n, "acked", time.Second)
		require.NoError(t, err)
		require.Equal(t, "yes", v)
		s.converge()
	})
}

// keepsAndFails is a log whose sync fails although the entries reach the disk.
type keepsAndFails struct{ *simDisk }

func (k keepsAndFails) StoreLogs(l []*raft.Log) error {
	_ = k.simDisk.StoreLogs(l)
	return errors.New("input/output error")
}

// slowListener makes the node's end take a moment longer than raft's.
type slowListener struct{ net.Listener }

func (l slowListener) Close() error {
	time.Sleep(time.Millisecond) // virtual
	return l.Listener.Close()
}

// A write whose sync failed may be on disk all the same.
func TestSimFailedSyncIsNoProof(t *testing.T) {
	runSim(t, 1, func(c *Config) { c.PeerListener = slowListener{c.PeerListener} }, func(s *sim) {
		n := s.leader()
		require.Nil(t, simPut(n, "k", "before", time.Second))
		n.logs.inner = keepsAndFails{s.members[n.ID()].disk}
		p := simPut(n, "k", "v", 5*time.Second)
		require.True(t, p.GetUnknown())
		<-n.Failed()
		s.crash(n.ID())
		n = s.start(n.ID())
		s.leader()
		v, err := simGet(n, "k", 5*time.Second)
		require.NoError(t, err)
		require.Equal(t, "v", v, "the scenario: it is")
	})
}

// stallingLog is a log whose sink stalls on one message.
type stallingLog struct {
	slog.Handler
	message string
	stall   *atomic.Int64 // nanoseconds
}

func (h stallingLog) Enabled(context.Context, slog.Level) bool { return true }
func (h stallingLog) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h stallingLog) WithGroup(string) slog.Handler            { return h }
func (h stallingLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		time.Sleep(time.Duration(h.stall.Load())) // virtual
	}
	return nil
}

// The end of an earlier term, noticed late, puts no entry of the present one
// back: it would be applied twice.
func TestSimLateNoticeAppliesNothingTwice(t *testing.T) {
	var stall atomic.Int64
	runSim(t, 3, func(c *Config) {
		c.Logger = slog.New(stallingLog{message: "leadership ended", stall: &stall})
	}, func(s *sim) {
		a, b := s.leader(), s.followers()[0]
		take := func(n, from *Node) {
			for range 400 {
				r := n.servePromote(context.Background(), from.ID(), &trivetpb.PromoteRequest{
					Term: from.raft.CurrentTerm(), LastIndex: from.raft.LastIndex()})
				if r.Refused == "" {
					break
				}
				time.Sleep(5 * time.Millisecond) // virtual
			}
			for n.raft.State() != raft.Leader {
				time.Sleep(time.Millisecond) // virtual
			}
			time.Sleep(20 * time.Millisecond) // virtual
		}
		s.add(a)
		stall.Store(int64(2 * time.Second))
		take(b, a)
		take(a, b)
		take(b, a)
		take(a, b)
		time.Sleep(2 * time.Second) // virtual: it works through its notices
		for a.proposer.leading() == nil {
			time.Sleep(5 * time.Millisecond) // virtual
		}
		d := s.members[a.ID()].disk
		d.mu.Lock()
		d.delay = func() time.Duration { return 40 * time.Millisecond }
		d.mu.Unlock()
		for range 60 {
			s.add(a)
		}
		require.EqualValues(t, 61, s.added)
		s.converge()
		item, _, _ := a.store.Get([]byte("counter"))
		require.Equal(t, "61", string(item.Value))
	})
}

// A term that is over before its marker's application was noticed is not served.
func TestSimNoServiceOfATermThatIsOver(t *testing.T) {
	var once atomic.Bool
	var cluster atomic.Pointer[sim]
	runSim(t, 3, func(c *Config) {
		id, led := c.ID, c.onLeading
		c.onLeading = func(term uint64) { // between the look and the service
			led(term)
			if once.CompareAndSwap(false, true) {
				cluster.Load().isolate(id)
				time.Sleep(time.Second) // virtual: the lease ends
				cluster.Load().heal()
			}
		}
	}, func(s *sim) {
		cluster.Store(s)
		time.Sleep(3 * time.Second) // virtual
		s.leader()
		for _, n := range s.up() {
			for range maxInFlightFar + 2 {
				simPut(n, "x", "y", 500*time.Millisecond)
			}
			require.Nil(t, simPut(n, "k", "v", 10*time.Second))
		}
	})
}

// A read from a store that is poisoned ends raft's goroutine; an error would be
// a panic of the process.
func TestLogEndsItsReaderOncePoisoned(t *testing.T) {
	g := newGuardedLog(newSimDisk(), "the log", time.Second, func(error) {}, nil)
	require.NoError(t, g.StoreLogs([]*raft.Log{entryOf(1, 1, 1, "a"), entryOf(2, 1, 1, "b")}))
	g.start()
	g.cache.clear()
	g.poison(errors.New("sync failed"))
	returned, done := false, make(chan struct{})
	go func() {
		defer close(done)
		g.GetLog(1, new(raft.Log))
		returned = true
	}()
	<-done
	require.False(t, returned)
}

// A voter that is farther than a majority is reached all the same, once.
func TestSimFarVoterIsDialledOnce(t *testing.T) {
	var far atomic.Pointer[string]
	var dials atomic.Int64
	runSim(t, 3, func(c *Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			if id := far.Load(); id != nil && address == simAddr(*id) {
				dials.Add(1)
				select {
				case <-time.After(5 * time.Millisecond): // virtual
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			return dial(ctx, address)
		}
	}, func(s *sim) {
		l := s.leader()
		id := s.followers()[0].ID()
		time.Sleep(time.Second) // virtual
		far.Store(&id)
		for range 500 {
			_, err := simGet(l, "k", time.Second)
			require.NoError(t, err)
		}
		require.Less(t, dials.Load(), int64(5))
	})
}

// A round ends when no majority can come together any more.
func TestSimConfirmEndsWithTheLastAnswer(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		l := s.leader()
		_, err := l.confirm(l.ctx)
		require.NoError(t, err)
		for _, f := range s.followers() {
			s.crash(f.ID())
		}
		start := time.Now()
		_, err = l.confirm(l.ctx)
		require.Error(t, err)
		require.Less(t, time.Since(start), 50*time.Millisecond) // virtual
	})
}

// Results that do not fit into one answer between members are unknown to the
// caller at once, and hold nothing up.
func TestSimAnswerTooLargeToForward(t *testing.T) {
	runSim(t, 3, func(c *Config) { c.QueueBytes = 1 << 30 }, func(s *sim) {
		l, f := s.leader(), s.followers()[0]
		for i := range 7 {
			require.Nil(t, simPut(l, "big"+strconv.Itoa(i), string(make([]byte, 1<<20)), 5*time.Second))
		}
		txn := &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{Then: []*trivetpb.Op{
			{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{Range: &trivetpb.KeyRange{Start: []byte("big"), End: []byte("bih")}}}},
		}}}}}}
		commands := make([]*trivetpb.Command, 8)
		for i := range commands {
			commands[i] = txn
		}
		ctx, cancel := within(10 * time.Minute)
		defer cancel()
		start := time.Now()
		rs, err := f.Propose(ctx, commands)
		require.NoError(t, err)
		require.Less(t, time.Since(start), 5*time.Second) // virtual
		require.Nil(t, rs[0].Problem)
		require.True(t, rs[7].Problem.GetUnknown(), fmt.Sprint(rs[7].Problem))
	})
}

// A forwarded command that the leader does not know is refused there, before it
// can stop every member; those beside it are not.
func TestSimUnknownForwardedCommandIsRefused(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		l, f := s.leader(), s.followers()[0]
		good, err := put("k", "v").MarshalVT()
		require.NoError(t, err)
		marker, err := (&trivetpb.Command{Command: &trivetpb.Command_Marker{Marker: &trivetpb.Marker{Term: 1}}}).MarshalVT()
		require.NoError(t, err)
		r := l.serveForward(context.Background(), f.ID(), &trivetpb.ForwardRequest{Commands: [][]byte{
			{0xff}, good, {0xfa, 0x3f, 1, 0}, marker, {},
		}})
		require.Nil(t, r.Problem)
		for i, res := range r.Results {
			require.Equal(t, i == 1, res.Problem == nil, "%d: %v", i, res.Problem)
		}
		require.Empty(t, l.serveForward(context.Background(), f.ID(), &trivetpb.ForwardRequest{}).Results)
		s.converge()
	})
}
