package raftnode

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// What is known of hashicorp/raft and guarded against, each in the place where
// it would show.

// A leader that was deposed without noticing, because its main goroutine hangs
// in a write, must not answer a read with what it has.
func TestSimDeposedLeaderConfirmsNoRead(t *testing.T) {
	runSim(t, 3, func(c *Config) { c.DiskTimeout = time.Hour }, func(s *sim) {
		old := s.leader()
		require.Nil(t, simPut(old, "k", "old", time.Second))
		hang := make(chan struct{})
		d := s.members[old.ID()].disk
		d.mu.Lock()
		d.hang = hang
		d.mu.Unlock()
		go simPut(old, "other", "x", time.Second) // raft's main goroutine now hangs
		time.Sleep(50 * time.Millisecond)         // virtual
		s.isolate(old.ID())

		var next *Node
		for next == nil || next == old {
			time.Sleep(50 * time.Millisecond) // virtual
			next = s.leader()
		}
		require.Nil(t, simPut(next, "k", "new", time.Second))
		require.Equal(t, raft.Leader, old.raft.State(), "the scenario: it does not know yet")
		v, err := simGet(old, "k", time.Second)
		if err == nil {
			t.Errorf("the deposed leader confirmed a read of %q", v)
		}
		s.heal()
		d.mu.Lock()
		d.hang = nil
		d.mu.Unlock()
		close(hang)
		v, err = simGet(old, "k", 5*time.Second)
		require.NoError(t, err)
		require.Equal(t, "new", v)
		s.converge()
	})
}

// The newly elected leader knows what earlier leaders committed only once
// something of its own term is committed: until then it confirms no read.
func TestSimNoReadBeforeTheTermsMarker(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		n := s.leader()
		q := n.proposer
		lead := q.leading()
		require.NotNil(t, lead)
		q.mu.Lock()
		q.lead = nil // as between winning and the marker
		q.mu.Unlock()
		_, err := n.confirmRounds.join(n.ctx)
		require.ErrorIs(t, err, errNotLeading)
		q.serve(lead)
		ri, err := n.confirmRounds.join(n.ctx)
		require.NoError(t, err)
		require.GreaterOrEqual(t, ri.index, lead.start)
		require.GreaterOrEqual(t, n.store.Index(), lead.start, "the marker is applied")
	})
}

// A write that was acknowledged just before its leader died is seen by the very
// first read of the next one, which holds it without knowing that it is
// committed.
func TestSimFirstReadOfANewLeader(t *testing.T) {
	runSim(t, 5, nil, func(s *sim) {
		for round := range 5 {
			old := s.leader()
			s.converge()
			time.Sleep(time.Second) // virtual
			value := strconv.Itoa(round)
			require.Nil(t, simPut(old, "k", value, time.Second))
			s.crash(old.ID())
			var next *Node
			for next == nil {
				time.Sleep(20 * time.Microsecond) // virtual
				for _, n := range s.up() {
					if n.raft.State() == raft.Leader {
						next = n
					}
				}
			}
			v, err := simGet(next, "k", 5*time.Second)
			require.NoError(t, err)
			require.Equal(t, value, v)
			s.start(old.ID())
		}
	})
}

// The answers of nonvoters prove nothing.
func TestSimNonvotersConfirmNothing(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		n := s.leader()
		for _, f := range s.followers() {
			require.NoError(t, n.raft.DemoteVoter(raft.ServerID(f.ID()), 0, time.Second).Error())
			break
		}
		// Two voters: this one and one that is cut off; the nonvoter answers.
		for _, f := range s.followers() {
			if f.role() == "follower" {
				s.isolate(f.ID())
			}
		}
		ctx, cancel := within(100 * time.Millisecond)
		defer cancel()
		_, err := n.confirmRounds.join(ctx)
		require.Error(t, err)
	})
}

// A leader whose disk hangs is replaced, although its heartbeats go on.
func TestSimDiskThatHangsLosesTheLeadership(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		old := s.leader()
		d := s.members[old.ID()].disk
		d.mu.Lock()
		d.hang = make(chan struct{})
		d.mu.Unlock()
		p := simPut(old, "k", "v", 20*time.Second)
		require.NotNil(t, p)
		<-old.Failed()
		require.ErrorContains(t, old.Err(), "takes longer than 5s")
		next := s.leader()
		for next == old {
			time.Sleep(50 * time.Millisecond) // virtual
			next = s.leader()
		}
		require.Nil(t, simPut(next, "k", "w", 5*time.Second))
		require.NotEmpty(t, old.Ready(0))
		require.NotNil(t, simPut(old, "k", "v", time.Second))
		_, err := simGet(old, "k", time.Second)
		require.Error(t, err)
		d.mu.Lock()
		close(d.hang)
		d.hang = nil
		d.mu.Unlock()
	})
}

// A failed sync stops the member, nothing else, and is never tried again.
func TestSimFailedSyncStopsTheMember(t *testing.T) {
	for _, who := range []string{"leader", "follower"} {
		t.Run(who, func(t *testing.T) {
			runSim(t, 3, nil, func(s *sim) {
				n := s.leader()
				if who == "follower" {
					n = s.followers()[0]
				}
				require.Nil(t, simPut(n, "a", "1", time.Second))
				d := s.members[n.ID()].disk
				d.mu.Lock()
				d.failing = errors.New("input/output error")
				d.mu.Unlock()
				p := simPut(s.leader(), "k", "v", 5*time.Second)
				if who == "follower" {
					require.Nil(t, p, "two of three are enough")
				}
				<-n.Failed()
				<-n.Done()
				require.ErrorContains(t, n.Err(), "simulated log: input/output error")
				for _, other := range s.up() {
					if other != n {
						require.Nil(t, simPut(other, "k", "w", 10*time.Second))
					}
				}
				s.crash(n.ID())
				d.mu.Lock()
				d.failing = nil
				d.mu.Unlock()
				s.start(n.ID())
				s.converge()
			})
		})
	}
}

// An entry that reads back otherwise stops the member while it runs; the
// process goes on, and Close leaves nothing behind.
func TestSimDamagedEntryStopsARunningMember(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		f := s.followers()[0]
		require.Nil(t, simPut(f, "k", "v", time.Second))
		s.crash(f.ID())
		for i := range 20 {
			require.Nil(t, simPut(s.leader(), "k", strconv.Itoa(i), time.Second))
		}
		leader := s.leader()
		ld := s.members[leader.ID()].disk
		ld.mu.Lock()
		victim := ld.last - 5
		l := *ld.entries[victim]
		l.Data = append([]byte(nil), l.Data...)
		l.Data[len(l.Data)-1] ^= 1
		ld.entries[victim] = &l
		ld.mu.Unlock()
		leader.logs.mu.Lock()
		leader.logs.cache.clear()
		leader.logs.mu.Unlock()
		s.start(f.ID()) // needs what the leader cannot read
		<-leader.Failed()
		require.ErrorContains(t, leader.Err(), fmt.Sprintf("log entry %d in simulated log: does not match its checksum", victim))
		for s.leader() == leader {
			time.Sleep(50 * time.Millisecond) // virtual
		}
		s.crash(leader.ID())
		require.Nil(t, simPut(s.leader(), "k", "after", 10*time.Second))
		// A damaged log is refused at the start, by name.
		_, err := Open(Config{
			ID: leader.ID(), storage: ld.storage("sim", s.peers()), PeerListener: s.net.listen(leader.ID()),
			Logger: testLog(t), InitialCluster: s.peers(),
		})
		require.ErrorContains(t, err, fmt.Sprintf("log entry %d in simulated log", victim))
	})
}

// A read on a follower of an idle cluster does not wait for the next
// AppendEntries to learn of the commit that the follower already holds.
func TestSimFollowerLearnsOfACommitByAsking(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader, f := s.leader(), s.followers()[0]
		time.Sleep(time.Second) // virtual: idle
		for i := range 20 {
			require.Nil(t, simPut(leader, "k", strconv.Itoa(i), time.Second))
			start := time.Now()
			v, err := simGet(f, "k", time.Second)
			require.NoError(t, err)
			require.Equal(t, strconv.Itoa(i), v)
			// Virtual time: two round trips of 0.2 ms, and nothing that waits.
			require.Less(t, time.Since(start), 2*time.Millisecond)
			time.Sleep(200 * time.Millisecond) // virtual
		}
	})
}

// A burst's last entries are replicated at once: with a pipeline they would
// wait for CommitTimeout.
func TestSimBurstEndsWithoutWaiting(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader := s.leader()
		_, err := leader.transport.AppendEntriesPipeline("n2", "n2")
		require.ErrorIs(t, err, raft.ErrPipelineReplicationNotSupported)
		for range 20 {
			start := time.Now()
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					if p := simPut(leader, strconv.Itoa(i), "v", time.Second); p != nil {
						t.Error(p)
					}
				})
			}
			wg.Wait()
			require.Less(t, time.Since(start), 20*time.Millisecond) // virtual
		}
	})
}

// Whatever is under way when a node closes, every caller gets an answer.
func TestSimCloseAnswersEveryCaller(t *testing.T) {
	for round := range 10 {
		runSim(t, 3, nil, func(s *sim) {
			n := s.up()[round%3]
			s.leader()
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					for j := range 20 {
						time.Sleep(time.Duration(i*j) * 10 * time.Microsecond) // virtual
						simPut(n, strconv.Itoa(i), "v", time.Minute)
						simGet(n, "k", time.Minute)
					}
				})
			}
			time.Sleep(time.Duration(round) * 300 * time.Microsecond) // virtual
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			start := time.Now()
			n.Close(ctx)
			wg.Wait()
			require.Less(t, time.Since(start), 10*time.Second, "nobody waits for the end of the minute")
		})
	}
}

// A graceful stop of the leader hands leadership to a member that has
// everything, though another is dead, and fails no write that goes elsewhere.
func TestSimLeaderHandsOver(t *testing.T) {
	for _, dead := range []bool{false, true} {
		t.Run(fmt.Sprint("dead=", dead), func(t *testing.T) {
			runSim(t, 5, nil, func(s *sim) {
				old := s.leader()
				survivors := s.followers()
				if dead {
					s.crash(survivors[0].ID())
					survivors = survivors[1:]
				}
				require.Nil(t, simPut(old, "k", "before", 5*time.Second))
				ctx, cancel := within(2 * time.Second)
				defer cancel()
				var wg sync.WaitGroup
				for i := range 16 {
					wg.Go(func() {
						n := survivors[i%len(survivors)]
						for ctx.Err() == nil {
							if p := simPut(n, fmt.Sprint("w", i), "v", 10*time.Second); p != nil {
								t.Errorf("a write through a survivor failed: %v", p)
								return
							}
						}
					})
				}
				time.Sleep(100 * time.Millisecond) // virtual
				closing, done := within(5 * time.Second)
				defer done()
				start := time.Now()
				require.NoError(t, old.Close(closing))
				took := time.Since(start)
				require.Less(t, took, 200*time.Millisecond, "less than an election timeout: virtual time")
				s.members[old.ID()].node = nil
				wg.Wait()
				require.NotEqual(t, old, s.leader())
			})
		})
	}
}

// A member promotes itself for nobody but its leader, and not while it lacks
// entries.
func TestSimPromoteIsRefused(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader := s.leader()
		f, g := s.followers()[0], s.followers()[1]
		term, last := leader.raft.CurrentTerm(), leader.raft.LastIndex()
		ask := func(n *Node, from string, term, last uint64) string {
			return n.servePromote(context.Background(), from, &trivetpb.PromoteRequest{Term: term, LastIndex: last}).Refused
		}
		require.Contains(t, ask(f, g.ID(), term, last), "does not follow")
		require.Contains(t, ask(f, leader.ID(), term-1, last), "does not follow")
		require.Contains(t, ask(f, leader.ID(), term, last+1), "its log ends at")
		require.Contains(t, ask(leader, f.ID(), term, last), "does not follow")
		require.Error(t, leader.raft.LeadershipTransfer().Error(), "raft's own way is closed")
	})
}

// The log is kept short by bytes, and a member that was away for longer is
// brought up by a snapshot.
func TestSimSnapshotByBytes(t *testing.T) {
	runSim(t, 3, func(c *Config) { c.SnapshotBytes = 64 << 10 }, func(s *sim) {
		leader, away := s.leader(), s.followers()[0]
		s.crash(away.ID())
		value := string(make([]byte, 4<<10))
		for i := range 200 {
			require.Nil(t, simPut(leader, strconv.Itoa(i%50), value+strconv.Itoa(i), time.Second))
		}
		time.Sleep(time.Second) // virtual
		d := s.members[leader.ID()].disk
		d.mu.Lock()
		first, snaps := d.first, len(d.snaps)
		var bytes int
		for _, e := range d.entries {
			bytes += len(e.Data)
		}
		d.mu.Unlock()
		if first != 0 { // 0: a snapshot of the last entry left nothing of the log
			require.Greater(t, first, uint64(100))
		}
		require.GreaterOrEqual(t, snaps, 5)
		require.Less(t, bytes, 600<<10, "of 800 KiB written")
		s.start(away.ID())
		s.converge()
		require.NotEmpty(t, s.members[away.ID()].disk.snaps)
		for _, id := range s.ids { // and everything comes back from the disks
			s.crash(id)
		}
		for _, id := range s.ids {
			s.start(id)
		}
		s.converge()
		v, err := simGet(s.leader(), "49", time.Second)
		require.NoError(t, err)
		require.Equal(t, value+"199", v)
	})
}

// A member whose log ends in entries of a deposed leader gets a snapshot that
// ends before they do, and goes on from there.
func TestSimSnapshotInTheMiddleOfALog(t *testing.T) {
	// Snapshots after every entry, and no log kept behind them.
	runSim(t, 3, func(c *Config) { c.SnapshotBytes = 4 }, func(s *sim) {
		old := s.leader()
		require.Nil(t, simPut(old, "k", "v", time.Second))
		s.converge()
		s.isolate(old.ID())
		for range maxInFlightFar { // entries that nobody else will ever have
			require.True(t, simPut(old, "lost", "x", 5*time.Millisecond).GetUnknown())
		}
		last := old.raft.LastIndex()
		for s.leader() == old {
			time.Sleep(20 * time.Millisecond) // virtual
		}
		next := s.leader()
		time.Sleep(time.Second)    // virtual: for a snapshot of its no-op and marker
		for _, n := range s.up() { // from here on, entries must do
			n.snapshots.mu.Lock()
			n.snapshots.next = 1 << 40
			n.snapshots.mu.Unlock()
		}
		d := s.members[next.ID()].disk
		d.mu.Lock()
		snapshot := d.snaps[len(d.snaps)-1].meta.Index
		kept := d.last - d.first + 1
		d.mu.Unlock()
		require.Less(t, snapshot, last, "the scenario: it ends within the log")
		require.LessOrEqual(t, kept, uint64(2), "the scenario: only a snapshot can help")
		s.heal()
		time.Sleep(2 * time.Second) // virtual
		require.NoError(t, old.Err())
		require.Nil(t, simPut(next, "k", "w", 5*time.Second))
		v, err := simGet(old, "k", 5*time.Second)
		require.NoError(t, err)
		require.Equal(t, "w", v)
		for i := range 40 { // past where the old entries were
			require.Nil(t, simPut(old, "k", strconv.Itoa(i), 5*time.Second))
		}
		s.converge()
		_, found, _ := old.store.Get([]byte("lost"))
		require.False(t, found)
		s.crash(old.ID())
		s.start(old.ID())
		s.converge()
	})
}

// What a snapshot takes the place of in the log are configurations as well: one of a
// deposed leader, that nobody else has ever heard of, is none any more.
func TestSimSnapshotOverAConfiguration(t *testing.T) {
	// Snapshots after every entry, and no log kept behind them.
	runSimWith(t, 3, 1, func(c *Config) { c.SnapshotBytes = 4 }, func(s *sim) {
		old := s.leader()
		require.Nil(t, simPut(old, "k", "v", time.Second))
		s.converge()
		s.isolate(old.ID())
		ctx, cancel := within(10 * time.Millisecond)
		defer cancel()
		require.Error(t, s.letIn(ctx, "n4", old, true))
		for range maxInFlightFar {
			require.True(t, simPut(old, "lost", "x", 5*time.Millisecond).GetUnknown())
		}
		stale, last := old.confs.known().newest, old.raft.LastIndex()
		require.True(t, hasServer(stale, "n4"), "the scenario: it is in the log")
		for s.leader() == old {
			time.Sleep(20 * time.Millisecond) // virtual
		}
		time.Sleep(time.Second) // virtual: for a snapshot of its no-op and marker
		s.heal()
		time.Sleep(2 * time.Second) // virtual
		require.Positive(t, old.Stats().SnapshotsRestored, "the scenario: it came by a snapshot")
		index, _ := old.logs.snapshotEnd()
		require.Less(t, index, last, "the scenario: that ended within the log")
		require.False(t, hasServer(old.configuration(), "n4"))
		require.Equal(t, old.configuration(), old.confs.known().newest)
		s.converge()
	})
}

// A member that was away for long is served as soon as it is back.
func TestSimReturnOfALongLostMember(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		away := s.followers()[0].ID()
		s.crash(away)
		for range 60 {
			require.Nil(t, simPut(s.leader(), "k", "v", time.Second))
			time.Sleep(time.Second) // virtual
		}
		n := s.start(away)
		start := time.Now()
		v, err := simGet(n, "k", 5*time.Second)
		require.NoError(t, err)
		require.Equal(t, "v", v)
		require.Less(t, time.Since(start), time.Second) // virtual
	})
}

// Leadership that changes all the time blocks nobody.
func TestSimManyLeaderChanges(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		for i := range 40 {
			n := s.leader()
			require.Nil(t, simPut(n, "k", strconv.Itoa(i), 5*time.Second))
			ctx, cancel := within(5 * time.Second)
			require.NoError(t, n.handOver(ctx))
			cancel()
		}
		s.converge()
		v, err := simGet(s.up()[0], "k", time.Second)
		require.NoError(t, err)
		require.Equal(t, "39", v)
	})
}

// Reads that ask for less get what they asked for, and the proof says so.
func TestSimWeakerReads(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader, f := s.leader(), s.followers()[0]
		read := func(o ReadOptions) (Proof, *trivetpb.Problem) {
			ctx, cancel := within(500 * time.Millisecond)
			defer cancel()
			proof, err := f.AwaitRead(ctx, o)
			var p *trivetpb.Problem
			errors.As(err, &p)
			return proof, p
		}
		proof, p := read(ReadOptions{Consistency: Stale})
		require.Nil(t, p)
		require.False(t, proof.Proven, "nothing was confirmed since the start")
		proof, p = read(ReadOptions{Consistency: Bounded, MaxStaleness: time.Second})
		require.Nil(t, p)
		require.Equal(t, Linearizable, proof.Consistency, "it had to be confirmed")
		time.Sleep(100 * time.Millisecond) // virtual
		proof, p = read(ReadOptions{Consistency: Bounded, MaxStaleness: time.Second})
		require.Nil(t, p)
		require.Equal(t, Bounded, proof.Consistency)
		require.InDelta(t, 100, proof.Staleness.Milliseconds(), 5)

		require.Nil(t, simPut(leader, "k", "v", time.Second))
		rev := leader.store.Revision()
		_, p = read(ReadOptions{Consistency: Session, MinRevision: rev})
		require.Nil(t, p)
		require.GreaterOrEqual(t, f.store.Revision(), rev)
		_, p = read(ReadOptions{Consistency: Session, MinRevision: rev + 1})
		require.Equal(t, trivetpb.Code_NOT_FRESH, p.GetCode())

		s.isolate(f.ID())
		time.Sleep(2 * time.Second) // virtual
		proof, p = read(ReadOptions{Consistency: Stale})
		require.Nil(t, p)
		require.Greater(t, proof.Staleness, 2*time.Second)
		_, p = read(ReadOptions{Consistency: Bounded, MaxStaleness: time.Second})
		require.NotNil(t, p, "too old, and nobody to confirm it")
		_, p = read(ReadOptions{})
		require.Equal(t, trivetpb.Code_NO_LEADER, p.GetCode())
	})
}

// Without a leader, what waits is told that it certainly was not applied; and
// leaves nothing in the queue.
func TestSimNoLeaderIsCertain(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		s.leader()
		n := s.up()[0]
		s.isolate(n.ID())
		time.Sleep(time.Second) // virtual
		for range 300 {
			p := simPut(n, "k", "v", 10*time.Millisecond)
			require.Equal(t, trivetpb.Code_NO_LEADER, p.GetCode())
			require.False(t, p.Unknown)
		}
		n.proposer.mu.Lock()
		bytes, queued := n.proposer.bytes, len(n.proposer.queue)
		n.proposer.mu.Unlock()
		require.Zero(t, bytes)
		require.Less(t, queued, 200)
		s.heal()
		require.Nil(t, simPut(n, "k", "v", 5*time.Second))
	})
}

// A leader that loses its followers under a write does not claim to know.
func TestSimIsolatedLeaderDoesNotKnow(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		old := s.leader()
		require.Nil(t, simPut(old, "k", "u", time.Second))
		s.isolate(old.ID())
		p := simPut(old, "k", "v", 50*time.Millisecond)
		require.True(t, p.GetUnknown(), "it is in a log, and may yet be committed")
		// It was not: the write is put back once another entry is in its place,
		// and its caller, who waits long enough, gets through after all.
		done := make(chan *trivetpb.Problem)
		go func() { done <- simPut(old, "k", "w", 30*time.Second) }()
		time.Sleep(2 * time.Second) // virtual
		s.heal()
		require.Nil(t, <-done)
		synctest.Wait()
		s.converge()
	})
}
