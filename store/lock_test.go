package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

func TestALockIsFirstComeFirstServed(t *testing.T) {
	s := New()
	a := fine(t, s, 1000, acquire("lock", "a", 5000, 0)).GetLock()
	require.False(t, a.Waiting)
	require.EqualValues(t, 1, a.Holder.Token)
	require.Equal(t, "a", a.Holder.Owner)
	require.EqualValues(t, 5000, a.Holder.TtlMs)
	lease, ok := s.Lease(a.Holder.Lease)
	require.True(t, ok)
	require.Equal(t, LeaseInfo{ID: a.Holder.Lease, TTLMS: 5000, RemainingMS: 5000, Lock: "lock"}, lease)

	p := refused(t, s, 1000, trivetpb.Code_LOCKED, acquire("lock", "b", 1000, 0))
	require.Equal(t, a.Holder.Token, p.Holder.Token)
	require.Equal(t, "a", p.Holder.Owner)
	b := fine(t, s, 1000, acquire("lock", "b", 2000, 60_000)).GetLock()
	require.True(t, b.Waiting)
	require.Zero(t, b.Holder.Lease, "he holds nothing yet")
	other := fine(t, s, 1000, acquire("other", "b", 2000, 60_000)).GetLock()
	require.False(t, other.Waiting, "nobody holds that one")
	c := fine(t, s, 1000, acquire("lock", "c", 3000, 60_000)).GetLock()
	require.Greater(t, c.Holder.Token, b.Holder.Token)

	info, ok := s.Lock("lock", 1)
	require.True(t, ok)
	require.Equal(t, []LockHolder{{Token: b.Holder.Token, Owner: "b", TTLMS: 2000, RemainingMS: 60_000}}, info.Queue, "as many as were asked for")
	require.Equal(t, 2, info.Waiting)
	revision := s.Revision()
	fine(t, s, 4000, keepLock("lock", a.Holder.Token))
	fine(t, s, 8999, expire())
	info, _ = restored(t, s).Lock("lock", 10)
	require.Equal(t, "a", info.Holder.Owner)
	require.Len(t, info.Queue, 2)

	require.Nil(t, fine(t, s, 8999, release("lock", a.Holder.Token)).GetLock().Holder)
	info, _ = s.Lock("lock", 10)
	require.Equal(t, LockHolder{Token: b.Holder.Token, Lease: info.Holder.Lease, Owner: "b", TTLMS: 2000, RemainingMS: 2000}, *info.Holder)
	fine(t, s, 8999, revoke(info.Holder.Lease))
	info, _ = s.Lock("lock", 10)
	require.Equal(t, "c", info.Holder.Owner, "to revoke a lock's lease releases it")
	fine(t, s, 20_000, expire())
	_, ok = s.Lock("lock", 10)
	require.False(t, ok)
	require.Equal(t, revision, s.Revision(), "locks make no revision")
	d := fine(t, s, 20_000, acquire("lock", "d", 1000, 0)).GetLock()
	require.Greater(t, d.Holder.Token, c.Holder.Token, "a later holder's token is greater")
}

func TestTheKeysOfALocksLease(t *testing.T) {
	s := New()
	h := fine(t, s, 0, acquire("lock", "", 5000, 0)).GetLock().Holder
	fine(t, s, 0, opCommand(leasePut("b", "", h.Lease)), opCommand(leasePut("a", "", h.Lease)))
	revision := s.Revision()
	require.Equal(t, revision+1, fine(t, s, 0, release("lock", h.Token)).Revision)
	require.Zero(t, s.Stats().Keys)
	require.False(t, lastChange(s).expired())
}

// TestCancelling: rows are who cancels.
func TestCancelling(t *testing.T) {
	for name, c := range map[string]struct {
		token   uint64 // 1 holds, 2 and 3 wait, 4 holds another lock
		lock    string
		release bool
		want    string // the lock's holder and queue afterwards
		code    trivetpb.Code
		holds   bool
	}{
		"one who waits":                   {2, "lock", false, "1 3", 0, false},
		"one who waits, with release":     {3, "lock", true, "1 2", 0, false},
		"one who has it by now":           {1, "lock", false, "1 2 3", 0, true},
		"one who has it, with release":    {1, "lock", true, "2 3", 0, false},
		"one who never was":               {9, "lock", true, "1 2 3", trivetpb.Code_GUARD_FAILED, false},
		"one of another lock":             {4, "lock", true, "1 2 3", trivetpb.Code_GUARD_FAILED, false},
		"one who waits for another lock":  {2, "other", true, "1 2 3", trivetpb.Code_GUARD_FAILED, false},
		"for a lock that nobody holds":    {2, "free", false, "1 2 3", trivetpb.Code_GUARD_FAILED, false},
		"a lock that nobody holds, twice": {1, "free", true, "1 2 3", trivetpb.Code_GUARD_FAILED, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			fine(t, s, 0, acquire("lock", "", 5000, 0), acquire("lock", "", 5000, 5000), acquire("lock", "", 5000, 5000), acquire("other", "", 5000, 0))
			if c.code != 0 {
				refused(t, s, 0, c.code, cancel(c.lock, c.token, c.release))
			} else {
				r := fine(t, s, 0, cancel(c.lock, c.token, c.release)).GetLock()
				require.False(t, r.Waiting)
				require.Equal(t, c.holds, r.Holder != nil)
			}
			info, _ := s.Lock("lock", 10)
			got := fmt.Sprint(info.Holder.Token)
			for _, w := range info.Queue {
				got += fmt.Sprint(" ", w.Token)
			}
			require.Equal(t, c.want, got)
			restored(t, s)
		})
	}
}

func TestATokenThatDoesNotHoldTheLock(t *testing.T) {
	s := New()
	fine(t, s, 0, acquire("lock", "", 5000, 0), acquire("lock", "", 5000, 5000))
	for _, c := range []*trivetpb.Command{
		keepLock("lock", 2), keepLock("lock", 7), keepLock("free", 1), release("lock", 2), release("free", 1), release("lock", 0),
	} {
		p := refused(t, s, 0, trivetpb.Code_GUARD_FAILED, c)
		require.Regexp(t, `the lock "(lock|free)"`, p.Detail)
	}
}

func TestSoManyMayWait(t *testing.T) {
	s := New()
	fine(t, s, 0, acquire("lock", "", 5000, 0), acquire("other", "", 5000, 0))
	e := &trivetpb.Entry{}
	owner := strings.Repeat("o", MaxOwnerBytes)
	for i := range MaxWaiters {
		if i == 10*queueRecord {
			owner = ""
		}
		e.Commands = append(e.Commands, acquire("lock", owner, 5000, 5000))
	}
	apply(t, s, e)
	require.EqualValues(t, MaxWaiters, s.Stats().Waiters)
	one := func(c *trivetpb.Command) *trivetpb.Problem {
		return apply(t, s, &trivetpb.Entry{Commands: []*trivetpb.Command{c}})[0].Problem
	}
	p := one(acquire("other", "", 5000, 1))
	require.Equal(t, trivetpb.Code_OVERLOADED, p.GetCode())
	require.Contains(t, p.Detail, "100000 wait")
	again := New() // a queue of many megabytes, in records that are read
	require.NoError(t, again.Restore(snapshotOf(t, s)))
	require.Equal(t, s.Stats(), again.Stats())
	require.Nil(t, one(cancel("lock", 50_000, false)))
	require.Nil(t, one(acquire("other", "", 5000, 1)))
}

// TestGuards: rows are the guards of a put, where "lock" is held with token 1,
// token 2 waits for it, and token 3 holds "other".
func TestGuards(t *testing.T) {
	type guard struct {
		lock  string
		token uint64
	}
	for name, c := range map[string]struct {
		guards []guard
		detail string // empty: they hold
	}{
		"none":                     {nil, ""},
		"the holder's":             {[]guard{{"lock", 1}}, ""},
		"two that hold":            {[]guard{{"lock", 1}, {"other", 3}}, ""},
		"twice the same":           {[]guard{{"lock", 1}, {"lock", 1}}, ""},
		"of one who waits":         {[]guard{{"lock", 2}}, "guards[0]: "},
		"an old token":             {[]guard{{"other", 1}}, "guards[0]: "},
		"token 0":                  {[]guard{{"lock", 0}}, "guards[0]: "},
		"of a lock that is free":   {[]guard{{"free", 1}}, "guards[0]: "},
		"one of two does not hold": {[]guard{{"lock", 1}, {"other", 1}}, "guards[1]: "},
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			fine(t, s, 0, acquire("lock", "", 5000, 0), acquire("lock", "", 5000, 5000), acquire("other", "", 5000, 0))
			session := fine(t, s, 0, openSession(5000, false)).GetSession().Session
			with := func(c2 *trivetpb.Command) *trivetpb.Command {
				for _, g := range c.guards {
					guarded(c2, g.lock, g.token)
				}
				return c2
			}
			commands := []*trivetpb.Command{
				with(opCommand(putOp("a", "1"))), with(opCommand(txnOp(addOp("n", 1)))), with(grant(1000)), with(acquire("third", "", 1000, 0)),
				in(with(opCommand(deleteOp("a"))), session, 1, 0), with(keepLock("lock", 1)),
			}
			for _, command := range commands {
				if c.detail == "" {
					fine(t, s, 0, command)
					continue
				}
				p := refused(t, s, 0, trivetpb.Code_GUARD_FAILED, command)
				require.True(t, strings.HasPrefix(p.Detail, c.detail), p.Detail)
			}
		})
	}
}

// TestAGuardOutlivesNoLock: the write of a holder who slept too long is refused
// in the very step after the lock went on.
func TestAGuardOutlivesNoLock(t *testing.T) {
	s := New()
	fine(t, s, 0, acquire("lock", "slow", 1000, 0), acquire("lock", "next", 9000, 9000))
	fine(t, s, 5000, guarded(opCommand(putOp("a", "late, but nobody else has it")), "lock", 1))
	r := apply(t, s, &trivetpb.Entry{ClockMs: 5000, Commands: []*trivetpb.Command{
		expire(), guarded(opCommand(putOp("a", "too late")), "lock", 1), guarded(opCommand(putOp("b", "in time")), "lock", 2),
	}})
	require.Equal(t, trivetpb.Code_GUARD_FAILED, r[1].Problem.GetCode())
	require.Nil(t, r[2].Problem)
	require.Equal(t, map[string]string{"a": "late, but nobody else has it", "b": "in time"}, contents(view(t, s, 0)))
}

func TestAwaitLock(t *testing.T) {
	for name, c := range map[string]struct {
		then  []*trivetpb.Command
		clock uint64
		holds bool
		by    uint64 // who holds the lock instead
	}{
		"the holder releases":             {[]*trivetpb.Command{release("lock", 1)}, 0, true, 0},
		"the holder's lease expires":      {[]*trivetpb.Command{expire()}, 5000, true, 0},
		"the wait is over":                {[]*trivetpb.Command{keepLock("lock", 1), expire()}, 7000, false, 1},
		"it is cancelled":                 {[]*trivetpb.Command{cancel("lock", 2, false)}, 0, false, 1},
		"it held, and the lock went on":   {[]*trivetpb.Command{acquire("lock", "", 1000, 9000), release("lock", 1), release("lock", 2)}, 0, false, 3},
		"it held, and nobody holds it":    {[]*trivetpb.Command{release("lock", 1), release("lock", 2)}, 0, false, 0},
		"what does not concern it before": {[]*trivetpb.Command{acquire("x", "", 1000, 0), release("lock", 1)}, 0, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New()
				type answer struct {
					holder LockHolder
					err    error
				}
				answers := make(chan answer, 3)
				// One asks before the token was drawn, as of an answer that came by
				// another node; one while it waits; one with the wrong name.
				await := func() {
					h, err := s.AwaitLock(t.Context(), "lock", 2)
					answers <- answer{h, err}
				}
				go await()
				synctest.Wait()
				fine(t, s, 0, acquire("lock", "one", 5000, 0), acquire("lock", "two", 5000, 7000))
				go await()
				synctest.Wait()
				require.Empty(t, answers)
				_, err := s.AwaitLock(t.Context(), "another", 2)
				require.Equal(t, trivetpb.Code_LOCKED, err.(*trivetpb.Problem).Code)

				for _, command := range c.then {
					apply(t, s, &trivetpb.Entry{ClockMs: c.clock, Commands: []*trivetpb.Command{command}})
				}
				for range 2 {
					a := <-answers
					if c.holds {
						require.NoError(t, a.err)
						require.Equal(t, "two", a.holder.Owner)
						require.EqualValues(t, 5000, a.holder.RemainingMS)
						continue
					}
					if a.err == nil {
						continue // it was seen in between
					}
					p := a.err.(*trivetpb.Problem)
					require.Equal(t, trivetpb.Code_LOCKED, p.Code)
					require.Equal(t, c.by, p.Holder.GetToken())
				}
				require.Zero(t, s.awaiting.calls.Len())
			})
		})
	}
}

func TestAwaitLockEndsWithItsContext(t *testing.T) {
	s := New()
	fine(t, s, 0, acquire("lock", "", 5000, 0), acquire("lock", "", 5000, 5000))
	holder, err := s.AwaitLock(t.Context(), "lock", 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, holder.Token)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err = s.AwaitLock(ctx, "lock", 2)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Zero(t, s.awaiting.calls.Len())
}

// TestAwaitLockWhenTheStateIsReplaced: by a snapshot that knows the wait, it
// goes on; by one that does not, it ends.
func TestAwaitLockWhenTheStateIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		fine(t, s, 0, acquire("lock", "", 5000, 0))
		fine(t, s, 0, acquire("lock", "", 5000, 5000))
		now := snapshotOf(t, s)
		fine(t, s, 0, acquire("x", "", 5000, 0)) // token 3
		done := make(chan error, 1)
		go func() {
			_, err := s.AwaitLock(t.Context(), "lock", 2)
			done <- err
		}()
		synctest.Wait()
		require.NoError(t, s.Restore(now))
		synctest.Wait()
		require.Empty(t, done, "it still waits")
		empty := New()
		empty.state.nextToken = 5
		require.NoError(t, s.Restore(snapshotOf(t, empty)))
		err := <-done
		var p *trivetpb.Problem
		require.True(t, errors.As(err, &p))
		require.Equal(t, trivetpb.Code_LOCKED, p.Code)
		require.Nil(t, p.Holder)
	})
}

// TestAwaitLockWhileApplying is for the race detector: many wait in turn, each
// releases when it holds.
func TestAwaitLockWhileApplying(t *testing.T) {
	const callers = 20
	s := New()
	var mu sync.Mutex // of the one writer
	do := func(c *trivetpb.Command) *trivetpb.Result {
		mu.Lock()
		defer mu.Unlock()
		return apply(t, s, &trivetpb.Entry{Commands: []*trivetpb.Command{c}})[0]
	}
	var wg sync.WaitGroup
	inside := make(chan int, 1)
	for i := range callers {
		wg.Go(func() {
			r := do(acquire("lock", fmt.Sprint(i), 5000, 5000)).GetLock()
			h, err := s.AwaitLock(t.Context(), "lock", r.Holder.Token)
			if err != nil || h.Owner != fmt.Sprint(i) {
				t.Error(h, err)
			}
			select {
			case inside <- i:
			default:
				t.Error("two hold the lock")
			}
			s.Lock("lock", 3)
			s.Leases(0, 3)
			s.HasSession(1)
			<-inside
			do(release("lock", h.Token))
		})
	}
	wg.Wait()
	require.Zero(t, s.Stats().Locks+s.Stats().Leases+s.Stats().Waiters)
	requireSound(t, s, true)
}
