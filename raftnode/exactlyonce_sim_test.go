package raftnode

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

func addOne(key string) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Add{
		Add: &trivetpb.AddOp{Key: []byte(key), Delta: 1},
	}}}}
}

// simDo proposes one command, which must have an answer without a problem.
func simDo(t *testing.T, n *Node, c *trivetpb.Command, d time.Duration) *trivetpb.Result {
	t.Helper()
	ctx, cancel := within(d)
	defer cancel()
	rs, err := n.Propose(ctx, []*trivetpb.Command{c})
	require.NoError(t, err)
	require.Nil(t, rs[0].Problem, "%v", rs[0].Problem)
	return rs[0]
}

// counterIs waits for a node to know all, and compares a counter there.
func counterIs(t *testing.T, n *Node, key string, want int) {
	t.Helper()
	v, err := simGet(n, key, 10*time.Second)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(want), v)
}

// One message after the other is lost, or is the last of its connection, or the
// last of its leader: through a node that stays up every write has an answer,
// and was done once.
func TestSimExactlyOnceWhateverMessageIsLost(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 17
	}
	for _, how := range []string{"lost", "last", "the leader dies"} {
		t.Run(how, func(t *testing.T) {
			for at, more := 1, true; more; at += step {
				runSim(t, 3, nil, func(s *sim) {
					leader := s.leader()
					follower := s.followers()[0]
					var mu sync.Mutex
					writes := 0
					s.net.mu.Lock()
					s.net.onWrite = func(c *simConn) writeFate {
						mu.Lock()
						defer mu.Unlock()
						if writes++; writes != at {
							return delivered
						}
						switch how {
						case "lost":
							return lost
						case "last":
							return last
						}
						go func() {
							s.crash(leader.ID())
							time.Sleep(time.Second) // virtual
							s.start(leader.ID())
						}()
						return delivered
					}
					s.net.mu.Unlock()
					from := []*Node{follower, leader}
					if how == "the leader dies" {
						from = []*Node{follower, s.followers()[1]}
					}
					var wg sync.WaitGroup
					for i, n := range from {
						wg.Go(func() {
							for range 3 {
								simDo(t, n, addOne("n"), 20*time.Second)
							}
							if i == 0 {
								simDo(t, n, &trivetpb.Command{Command: &trivetpb.Command_LeaseGrant{
									LeaseGrant: &trivetpb.LeaseGrant{TtlMs: 3_600_000},
								}}, 20*time.Second)
							}
						})
					}
					wg.Wait()
					mu.Lock()
					more = writes >= at
					mu.Unlock()
					s.net.mu.Lock()
					s.net.onWrite = nil
					s.net.mu.Unlock()
					counterIs(t, follower, "n", 6)
					require.EqualValues(t, 1, follower.store.Stats().Leases)
					time.Sleep(2 * time.Second) // virtual: the leader is back
					s.converge()
				})
				if t.Failed() {
					t.Fatalf("message %d", at)
				}
			}
		})
	}
}

// A leader that is cut off holds forwards that it cannot commit. They go out
// again, are applied under the next leader, and what the old one still has in
// its log is not applied when it comes back.
func TestSimWritesOutliveTheirLeader(t *testing.T) {
	runSim(t, 5, nil, func(s *sim) {
		old := s.leader()
		follower := s.followers()[0]
		simDo(t, follower, addOne("n"), time.Second)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { simDo(t, follower, addOne("n"), 30*time.Second) })
			wg.Go(func() { simDo(t, old, addOne("n"), 30*time.Second) })
		}
		time.Sleep(150 * time.Microsecond) // virtual: the first are under way
		s.isolate(old.ID())
		s.another(old)
		time.Sleep(3 * time.Second) // virtual
		s.heal()
		wg.Wait()
		counterIs(t, follower, "n", 41)
		s.converge()
	})
}

// The identities that callers bring are kept as the node's own are: a repeat
// through another node, after the death of the leader that applied the first and
// a restart of everybody, is told what the first was.
func TestSimRepeatsOfCallers(t *testing.T) {
	runSim(t, 3, func(c *Config) { c.SnapshotBytes = 4 << 10 }, func(s *sim) {
		opened := simDo(t, s.leader(), &trivetpb.Command{Command: &trivetpb.Command_SessionOpen{
			SessionOpen: &trivetpb.SessionOpen{TtlMs: 3_600_000},
		}}, time.Second)
		bySession := addOne("n")
		bySession.Session, bySession.Seq = opened.GetSession().Session, 1
		byKey := addOne("n")
		byKey.IdempotencyKey, byKey.Fingerprint = []byte("order-17"), make([]byte, 16)
		require.EqualValues(t, 1, simDo(t, s.followers()[0], bySession, time.Second).GetAdd().Value)
		require.EqualValues(t, 2, simDo(t, s.leader(), byKey, time.Second).GetAdd().Value)

		check := func(n *Node) {
			t.Helper()
			r := simDo(t, n, bySession, 20*time.Second)
			require.True(t, r.Replayed)
			require.EqualValues(t, 1, r.GetAdd().Value)
			r = simDo(t, n, byKey, 20*time.Second)
			require.True(t, r.Replayed)
			require.EqualValues(t, 2, r.GetAdd().Value)
		}
		old := s.leader()
		s.crash(old.ID())
		check(s.another(old))
		s.start(old.ID())
		for i := range 200 { // snapshots are taken, and the log before them dropped
			require.Nil(t, simPut(s.leader(), fmt.Sprint("k", i), "some value that takes room", time.Second))
		}
		for _, id := range s.ids {
			s.crash(id)
		}
		for _, id := range s.ids {
			s.start(id)
		}
		s.leader()
		for _, n := range s.up() {
			check(n)
		}
		// A member with an empty log catches up by a snapshot, and knows as much.
		late := s.followers()[0]
		s.crash(late.ID())
		for i := range 400 {
			require.Nil(t, simPut(s.leader(), fmt.Sprint("k", i), "some value that takes room", time.Second))
		}
		n := s.start(late.ID())
		check(n)
		counterIs(t, n, "n", 2)
		s.converge()
	})
}

// A node whose session ended while it was idle opens another; the write that
// finds out is none the worse.
func TestSimIdleNodeOpensAnotherSession(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		f := s.followers()[0]
		simDo(t, f, addOne("n"), time.Second)
		first := f.proposer.session.id
		time.Sleep(2 * sessionTTLMS * time.Millisecond) // virtual
		require.False(t, f.store.HasSession(first))
		simDo(t, f, addOne("n"), time.Second)
		require.NotEqual(t, first, f.proposer.session.id)
		counterIs(t, f, "n", 2)
	})
}

// A caller's session that is not there is no word about the node's own: the
// caller is told, and the node goes on with the session it has. (It once took
// another, and sent the command again, until the state had no room for sessions
// of nodes and nobody's plain writes were taken.)
func TestSimCallersSessionIsNotTheNodes(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		for _, n := range s.up() {
			simDo(t, n, addOne("n"), time.Second)
			own := n.proposer.session.id
			for _, c := range []*trivetpb.Command{
				{Command: &trivetpb.Command_SessionKeepAlive{SessionKeepAlive: &trivetpb.SessionKeepAlive{Session: 12345}}},
				{Command: &trivetpb.Command_SessionClose{SessionClose: &trivetpb.SessionClose{Session: 12345}}},
			} {
				ctx, cancel := within(time.Second)
				rs, err := n.Propose(ctx, []*trivetpb.Command{c})
				cancel()
				require.NoError(t, err)
				r := rs[0]
				require.Equal(t, trivetpb.Code_SESSION_EXPIRED, r.GetProblem().GetCode(), r.GetProblem())
				require.False(t, r.Problem.Unknown)
				require.Contains(t, r.Problem.Detail, "12345")
			}
			require.Equal(t, own, n.proposer.session.id)
			require.True(t, n.store.HasSession(own))
		}
	})
}

// The state is replaced by a backup while writes are under way: sessions end,
// and nobody is told anything untrue.
func TestSimWritesBesideARestore(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		leader, follower := s.leader(), s.followers()[0]
		simDo(t, follower, addOne("n"), time.Second)
		var file restoreFile
		view, err := leader.store.View(0)
		require.NoError(t, err)
		require.NoError(t, view.WriteSnapshot(&file))
		view.Close()
		before := leader.store.Revision()

		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for _, n := range s.up() {
			wg.Go(func() {
				for ctx.Err() == nil {
					simDo(t, n, addOne("n"), 10*time.Second)
				}
			})
		}
		time.Sleep(50 * time.Millisecond) // virtual
		simDo(t, follower, &trivetpb.Command{Command: &trivetpb.Command_RestoreChunk{
			RestoreChunk: &trivetpb.RestoreChunk{Upload: 9, Data: file},
		}}, time.Second)
		r := simDo(t, follower, &trivetpb.Command{Command: &trivetpb.Command_RestoreCommit{
			RestoreCommit: &trivetpb.RestoreCommit{Upload: 9, Size: uint64(len(file))},
		}}, time.Second)
		require.Greater(t, r.Revision, before)
		time.Sleep(50 * time.Millisecond) // virtual
		cancel()
		wg.Wait()
		s.converge()
	})
}

type restoreFile []byte

func (f *restoreFile) Write(b []byte) (int, error) {
	*f = append(*f, b...)
	return len(b), nil
}
