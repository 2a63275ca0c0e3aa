package raftnode

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// How fresh reads are, held against when writes were acknowledged.

// acks is the acknowledged writes: when, and at which revision.
type acks struct {
	mu       sync.Mutex
	at       []time.Time // ascending
	revision []uint64    // the newest by then
}

func (a *acks) add(revision uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.revision); n > 0 {
		revision = max(revision, a.revision[n-1])
	}
	a.at, a.revision = append(a.at, time.Now()), append(a.revision, revision)
}

// before returns the newest revision that was acknowledged before a moment.
func (a *acks) before(t time.Time) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	i, _ := slices.BinarySearchFunc(a.at, t, time.Time.Compare)
	if i == 0 {
		return 1
	}
	return a.revision[i-1]
}

// Members are cut off, one after the other, while others write: each read that is
// let through holds what it promises, and the age that is told of the state is
// never less than it is.
func TestSimReadsAreAsFreshAsTheySay(t *testing.T) {
	const bound = 300 * time.Millisecond
	runSim(t, 3, nil, func(s *sim) {
		rnd := newRandom(1)
		s.net.mu.Lock()
		s.net.latency = func() time.Duration { return time.Duration(1+rnd.Intn(30)) * time.Millisecond }
		s.net.mu.Unlock()
		s.leader()
		ctx, cancel := within(20 * time.Second)
		defer cancel()
		var written acks
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					n := s.up()[rnd.Intn(3)]
					wctx, cancel := within(time.Second)
					rs, err := n.Propose(wctx, []*trivetpb.Command{put("k", "v")})
					cancel()
					if err == nil && rs[0].Problem == nil {
						written.add(rs[0].Revision)
					}
				}
			})
		}
		var mu sync.Mutex
		served := map[Consistency]int{}
		refused := 0
		for _, n := range s.up() {
			for _, c := range []Consistency{Linearizable, Bounded, Stale} {
				wg.Go(func() {
					for ctx.Err() == nil {
						time.Sleep(time.Duration(1+rnd.Intn(20)) * time.Millisecond) // virtual
						if c == Linearizable {
							time.Sleep(200 * time.Millisecond) // virtual: proofs shall grow old
						}
						began := time.Now()
						rctx, cancel := within(400 * time.Millisecond)
						p, err := n.AwaitRead(rctx, ReadOptions{Consistency: c, MaxStaleness: bound})
						cancel()
						mu.Lock()
						if err != nil {
							refused++
						} else {
							served[p.Consistency]++
						}
						mu.Unlock()
						if err != nil {
							continue
						}
						have := n.store.Revision()
						if p.Proven && have < written.before(p.AsOf) {
							t.Errorf("a %v read on %s says that its state is as of %v ago, and has revision %d; %d was acknowledged before",
								p.Consistency, n.ID(), time.Since(p.AsOf), have, written.before(p.AsOf))
						}
						least := uint64(0)
						switch p.Consistency {
						case Linearizable:
							least = written.before(began)
						case Bounded:
							least = written.before(began.Add(-bound))
						}
						if have < least {
							t.Errorf("a %v read on %s has revision %d and had to have %d", p.Consistency, n.ID(), have, least)
						}
						if p.Consistency == Bounded && (!p.Proven || p.Staleness > bound) {
							t.Errorf("a bounded read was served of a state that is %v old", p.Staleness)
						}
						if c == Bounded && p.Consistency == Stale || c == Linearizable && p.Consistency != Linearizable {
							t.Errorf("a %v read was served as %v", c, p.Consistency)
						}
					}
				})
			}
		}
		for ctx.Err() == nil {
			time.Sleep(time.Duration(300+rnd.Intn(700)) * time.Millisecond) // virtual
			s.isolate(s.ids[rnd.Intn(3)])
			time.Sleep(time.Duration(200+rnd.Intn(1500)) * time.Millisecond) // virtual
			s.heal()
		}
		wg.Wait()
		require.Greater(t, len(written.at), 200)
		require.Greater(t, served[Linearizable], 100)
		require.Greater(t, served[Bounded], 500)
		require.Greater(t, served[Stale], 500)
		require.Greater(t, refused, 10, "who is cut off cannot prove anything")
	})
}

// A proof is of the process that got it: a member that was started again has
// none, however much it has, until it has confirmed once.
func TestSimARestartedMemberProvesNothing(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		f := s.followers()[0]
		require.Nil(t, simPut(s.leader(), "k", "v", time.Second))
		_, err := simGet(f, "k", time.Second)
		require.NoError(t, err)
		require.True(t, f.Stats().Proven)
		s.crash(f.ID())
		f = s.start(f.ID())
		ctx, cancel := within(5 * time.Second)
		defer cancel()
		session, err := f.AwaitRead(ctx, ReadOptions{Consistency: Session, MinRevision: s.leader().store.Revision()})
		require.NoError(t, err)
		require.False(t, session.Proven, "it has all there is, and cannot know")
		stale, err := f.AwaitRead(ctx, ReadOptions{Consistency: Stale})
		require.NoError(t, err)
		require.False(t, stale.Proven)
		s.isolate(f.ID())
		short, cancel := within(time.Second)
		defer cancel()
		_, err = f.AwaitRead(short, ReadOptions{Consistency: Bounded, MaxStaleness: time.Hour})
		require.Error(t, err)
		s.heal()
		bounded, err := f.AwaitRead(ctx, ReadOptions{Consistency: Bounded, MaxStaleness: time.Hour})
		require.NoError(t, err)
		require.Equal(t, Linearizable, bounded.Consistency)
		bounded, err = f.AwaitRead(ctx, ReadOptions{Consistency: Bounded, MaxStaleness: time.Hour})
		require.NoError(t, err)
		require.Equal(t, Bounded, bounded.Consistency)
		require.True(t, bounded.Proven)
	})
}

// A proof grows older while a read waits for its revision.
func TestSimABoundIsCheckedOnceTheRevisionIsThere(t *testing.T) {
	for _, c := range []Consistency{Bounded, Session} {
		runSim(t, 3, nil, func(s *sim) {
			leader, f := s.leader(), s.followers()[0]
			s.converge()
			proof := time.Now()
			_, err := simGet(f, "end", time.Second)
			require.NoError(t, err)
			type answer struct {
				p   Proof
				err error
			}
			answers := make(chan answer)
			revision := leader.store.Revision() + 1
			ctx, cancel := within(5 * time.Second)
			defer cancel()
			go func() {
				p, err := f.AwaitRead(ctx, ReadOptions{Consistency: c, MaxStaleness: 200 * time.Millisecond, MinRevision: revision})
				answers <- answer{p, err}
			}()
			time.Sleep(500 * time.Millisecond) // virtual
			require.Nil(t, simPut(leader, "k", "v", time.Second))
			a := <-answers
			require.NoError(t, a.err)
			require.GreaterOrEqual(t, f.store.Revision(), revision)
			if c == Bounded {
				require.Equal(t, Linearizable, a.p.Consistency, "what was proven is too old by now")
			} else {
				require.GreaterOrEqual(t, a.p.Staleness, 500*time.Millisecond)
				require.False(t, a.p.AsOf.Before(proof))
			}
		})
	}
}

// What cannot be made as fresh as asked says which part of it could not.
func TestSimReadsThatCannotBeServed(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		f := s.followers()[0]
		require.Nil(t, simPut(f, "k", "v", time.Second))
		_, err := simGet(f, "k", time.Second)
		require.NoError(t, err)
		future := s.leader().store.Revision() + 100
		rows := []struct {
			o    ReadOptions
			want trivetpb.Code // with the leader
			cut  trivetpb.Code // cut off, for a while
		}{
			{ReadOptions{}, 0, trivetpb.Code_NO_LEADER},
			{ReadOptions{MinRevision: future}, trivetpb.Code_NOT_FRESH, trivetpb.Code_NO_LEADER},
			{ReadOptions{Consistency: Bounded, MaxStaleness: 100 * time.Millisecond}, 0, trivetpb.Code_NO_LEADER},
			{ReadOptions{Consistency: Bounded, MaxStaleness: time.Hour}, 0, 0},
			{ReadOptions{Consistency: Bounded, MaxStaleness: time.Hour, MinRevision: future}, trivetpb.Code_NOT_FRESH, trivetpb.Code_NOT_FRESH},
			{ReadOptions{Consistency: Session, MinRevision: 1}, 0, 0},
			{ReadOptions{Consistency: Session, MinRevision: future}, trivetpb.Code_NOT_FRESH, trivetpb.Code_NOT_FRESH},
			{ReadOptions{Consistency: Stale}, 0, 0},
		}
		check := func(o ReadOptions, want trivetpb.Code) {
			t.Helper()
			ctx, cancel := within(300 * time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := f.AwaitRead(ctx, o)
			var p *trivetpb.Problem
			if errors.As(err, &p); want == 0 {
				require.NoError(t, err, "%+v", o)
				return
			}
			require.Equal(t, want, p.GetCode(), "%+v: %v", o, err)
			require.False(t, p.Unknown)
			require.Less(t, time.Since(start), 310*time.Millisecond) // virtual
		}
		for _, row := range rows {
			check(row.o, row.want)
		}
		s.isolate(f.ID())
		time.Sleep(2 * time.Second) // virtual
		for _, row := range rows {
			check(row.o, row.cut)
		}
	})
}
