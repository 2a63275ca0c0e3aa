package raftnode

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// Where it is crowded the next group waits for the callers of the last, whether groups are
// entries or forwards; and for nobody where it is not, nor where a group had one caller,
// nor once the node takes nothing more.
func TestCallersAreWaitedForUntilTheyAreBack(t *testing.T) {
	for _, leads := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := newDesk()
			d.leaderIs = "n2"
			if leads {
				d.lead(3)
			}
			crowded := true
			d.crowded = func() bool { return crowded }
			submit := func(callers int) (left time.Duration) {
				for range callers {
					_, problem := d.submit(commandsOf(2, 10), false)
					require.Nil(t, problem)
					left = d.dispatchAll()
				}
				return left
			}
			groups := func() (sizes []int) {
				for _, g := range d.sent {
					sizes = append(sizes, g.count/2)
				}
				for i := range d.entries {
					var e trivetpb.Entry
					require.NoError(t, e.UnmarshalVT(d.entries[i].Data))
					sizes = append(sizes, len(e.Commands)/2)
				}
				return sizes
			}
			land := func() time.Duration {
				i := len(d.entries) + len(d.sent) - 1
				if leads {
					d.commit(t, i, uint64(10+i), 2*groups()[i])
				} else {
					d.forwarded(d.sent[i], okResults(d.sent[i].count), nil, nil)
				}
				return d.dispatchAll()
			}

			submit(1 + 4)
			require.Zero(t, land())
			require.Equal(t, []int{1, 4}, groups(), "one alone is not waited for")
			submit(2)
			time.Sleep(time.Millisecond)
			require.Equal(t, time.Millisecond, land(), "as long as the group took")
			require.Equal(t, time.Millisecond, submit(1))
			time.Sleep(time.Millisecond - 1)
			require.Equal(t, time.Millisecond/2+1, submit(2), "one more has come, and it has an end")
			require.Equal(t, []int{1, 4}, groups())
			require.Zero(t, submit(1))
			require.Equal(t, []int{1, 4, 6}, groups(), "all four are back, and two waited")

			submit(1)
			time.Sleep(time.Millisecond)
			require.NotZero(t, land(), "the six are waited for")
			crowded = false
			require.Zero(t, d.dispatchAll())
			require.Equal(t, []int{1, 4, 6, 1}, groups())
			require.EqualValues(t, 2, d.stats.Held)
			crowded = true
			submit(6)
			land()
			require.Equal(t, []int{1, 4, 6, 1, 6}, groups())
			submit(1)
			time.Sleep(time.Millisecond)
			require.NotZero(t, land())
			<-d.wake
			d.close(&trivetpb.Problem{})
			<-d.wake
			require.Zero(t, d.dispatchAll(), "nobody can come")
			require.Equal(t, []int{1, 4, 6, 1, 6, 1}, groups())
		})
	}
}

// A proposal whose caller has given up is not waited for, nor is one of the node's own.
func TestWhoCannotReturnIsNotWaitedFor(t *testing.T) {
	for _, set := range []func(*proposal){
		func(p *proposal) { p.gaveUp = true },
		func(p *proposal) { p.then = func(*trivetpb.Result) {} },
	} {
		d := newHeldDesk(t, 0)
		for range 3 {
			p, problem := d.submit(commandsOf(1, 10), false)
			require.Nil(t, problem)
			set(p)
		}
		d.dispatchAll()
		d.submit(commandsOf(1, 10), false)
		d.proposer.entries[1].sentAt = time.Now().Add(-time.Minute)
		d.commit(t, 0, 10, 3)
		require.Zero(t, d.dispatchAll())
		require.Len(t, d.entries, 2)
	}
}

// newHeldDesk returns a desk with one write in its queue, held for that many callers of an
// entry; with none where there are none.
func newHeldDesk(t *testing.T, callers int) *desk {
	d := newDesk()
	d.lead(3)
	d.inFlight = 1
	d.crowded = func() bool { return true }
	for range callers {
		d.submit(commandsOf(1, 10), false)
	}
	d.dispatchAll()
	if callers > 0 {
		d.submit(commandsOf(1, 10), false)
		d.proposer.entries[1].sentAt = time.Now().Add(-time.Minute)
		d.commit(t, 0, 10, callers)
		require.Positive(t, d.dispatchAll())
		require.Len(t, d.entries, 1)
	}
	return d
}

// The dispatcher is woken by who comes last.
func TestTheLastWhoReturnsWakes(t *testing.T) {
	d := newHeldDesk(t, 3)
	for len(d.wake) > 0 {
		<-d.wake
	}
	d.submit(commandsOf(1, 10), false)
	d.submit(commandsOf(1, 10), false)
	require.Empty(t, d.wake)
	d.submit(commandsOf(1, 10), false)
	require.NotEmpty(t, d.wake)
	require.Zero(t, d.dispatchAll())
	require.Len(t, d.entries, 2)
	<-d.wake
	d.submit(commandsOf(1, 10), false)
	require.NotEmpty(t, d.wake, "nobody is waited for")
}

// A tick of the clock that lands is nobody's, and changes nothing.
func TestATickDoesNotEndTheWait(t *testing.T) {
	d := newHeldDesk(t, 3)
	d.apply(d.note(&group{}, 3, nil))
	d.commit(t, 1, 11, 0)
	require.Positive(t, d.dispatchAll())
}

// With a leader of another term, nobody is waited for any more.
func TestANewLeaderHoldsNothing(t *testing.T) {
	d := newHeldDesk(t, 3)
	d.leaderIs = ""
	d.stepDown(0)
	require.Zero(t, d.dispatchAll())
	d.lead(4)
	require.Zero(t, d.dispatchAll())
	require.Len(t, d.entries, 2)

	d = newHeldDesk(t, 0)
	d.leaderIs = "n2"
	d.stepDown(0)
	for range 3 {
		d.submit(commandsOf(1, 10), false)
	}
	d.dispatchAll()
	d.submit(commandsOf(1, 10), false)
	d.sent[0].sentAt = time.Now().Add(-time.Minute)
	d.forwarded(d.sent[0], okResults(3), nil, nil)
	require.Positive(t, d.dispatchAll())
	d.leaderIs = "n3"
	require.Zero(t, d.dispatchAll())
	require.Equal(t, []string{"n2", "n3"}, d.sentTo)
}

// It ends where nobody comes for a while, in any case after some time; who comes later does
// not count.
func TestReturningHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := 2 * time.Millisecond
		var r returning
		r.landed(8, 0, true, took, time.Now())
		require.Equal(t, took, r.hold(time.Now()))
		for range 5 {
			time.Sleep(took / 4)
			r.asked()
			require.Positive(t, r.hold(time.Now()))
		}
		time.Sleep(took / 4)
		r.asked()
		require.Equal(t, 5, r.came)
		require.Zero(t, r.hold(time.Now()))
		r.asked()
		require.Zero(t, r.hold(time.Now()))

		r = returning{}
		r.landed(4, 0, true, time.Minute, time.Now())
		require.Equal(t, returnPause, r.hold(time.Now()))
		r.last = time.Now().Add(time.Hour)
		require.Equal(t, returnMost, r.hold(time.Now()))
	})
}

// What is expected of the next group is learned from how many came, how fast, and from how
// many others were about.
func TestWhoReturnsIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, took = 8, 4 * time.Millisecond
		var r returning
		others := 0
		// group lands, has some come back, each after a while, and says for how long it
		// was held.
		slowly := func(back int, after time.Duration) time.Duration {
			at := time.Now()
			r.landed(callers, others, true, took, at)
			for range back {
				if r.hold(time.Now()) > 0 {
					time.Sleep(after)
				}
				r.asked()
			}
			for left := r.hold(time.Now()); left > 0; left = r.hold(time.Now()) {
				time.Sleep(left)
			}
			return time.Since(at)
		}
		group := func(back int) time.Duration { return slowly(back, 0) }
		// rests says that so many groups are not held, but the one after them.
		rests := func(groups int) {
			t.Helper()
			for i := range groups {
				require.Zero(t, slowly(8, 1), i)
			}
			require.EqualValues(t, 8, slowly(8, 1))
		}
		require.Zero(t, group(8))
		for range 3 {
			require.Equal(t, took, group(6), "more came before, or it is tried whether they do")
			for range returnMet {
				require.Zero(t, group(6), "as many as the last time")
			}
		}
		require.Equal(t, took, group(5))
		for range returnMet {
			require.Zero(t, group(5))
		}

		require.Equal(t, took, group(4))
		rests(returnMet)
		require.Equal(t, took, group(4))
		rests(returnMet)
		require.Equal(t, took, group(7), "all are tried again")
		for range returnMet - 1 {
			require.Zero(t, group(7))
		}
		require.Equal(t, took+took/2, slowly(8, took/4), "too slow")
		for n := returnMet; n < 4*returnRest; n *= 2 {
			for range min(n, returnRest) {
				require.Zero(t, slowly(8, 1))
			}
			require.Equal(t, took, group(0), "in vain again")
		}
		rests(returnRest)

		others = 2
		require.EqualValues(t, 8, slowly(8, 1))
		others = 3
		rests(1 + returnMet)
		others = 0
		require.Equal(t, took, group(6))
		others = 4
		require.Equal(t, 6*time.Nanosecond, slowly(6, 1), "two of the four were absent")
		others = 5
		rests(1 + returnMet)
	})
}

// The callers of many commands are not waited for, and it is looked again after some groups.
func TestOnlyAFewAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r returning
		now := time.Now()
		r.landed(1, 5, true, time.Millisecond, now)
		require.Zero(t, r.hold(now), "one caller")
		r.landed(4, 2, false, time.Millisecond, now)
		require.Zero(t, r.hold(now))
		for range returnMet {
			r.landed(4, 2, true, time.Millisecond, now)
			require.Zero(t, r.hold(now))
		}
		r.landed(2, 5, true, time.Millisecond, now)
		require.NotZero(t, r.hold(now))
		r.asked()
		r.asked()
		require.Zero(t, r.hold(now))
		r.landed(2, 1, true, time.Millisecond, now)
		require.NotZero(t, r.hold(now), "one more is no crowd")
	})
	for _, c := range []struct {
		landed, waiting, commands, size int
		waits                           bool
	}{
		{4, 2, 1, 10, true},
		{10, 10, 1, 10, true},
		{10, 11, 1, 10, false},
		{2, 1, 7, 10, false},
		{2, 1, 6, 10, true},
		{2, 1, 1, maxGroupBytes / 4, true},
		{2, 1, 1, maxGroupBytes / 3, false},
	} {
		d := newHeldDesk(t, 0)
		submit := func(callers int) {
			for range callers {
				_, problem := d.submit(commandsOf(c.commands, c.size), false)
				require.Nil(t, problem)
			}
		}
		submit(c.landed)
		d.dispatchAll()
		require.Len(t, d.entries, 1)
		submit(c.waiting)
		d.proposer.entries[1].sentAt = time.Now().Add(-time.Minute)
		d.commit(t, 0, 10, c.landed*c.commands)
		require.Equal(t, c.waits, d.dispatchAll() > 0, c)
	}
}

// What arrives in its own time is not gathered into larger and larger groups.
func TestWhoArrivesInTheirOwnTimeIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newHeldDesk(t, 0)
		const took, groups = 10 * time.Millisecond, 1000
		stop := make(chan struct{})
		committed := 0
		d.apply = func(l raft.Log) {
			d.entries = append(d.entries, l)
			time.AfterFunc(took, func() {
				var e trivetpb.Entry
				require.NoError(t, e.UnmarshalVT(l.Data))
				committed++
				d.commit(t, len(d.entries)-1, uint64(10+committed), len(e.Commands))
			})
		}
		go d.dispatch(stop)
		for range 5 * groups {
			_, problem := d.submit(commandsOf(1, 10), false)
			require.Nil(t, problem)
			time.Sleep(took / 5)
		}
		synctest.Wait()
		require.Less(t, d.stats.Held, uint64(groups/20))
		require.Greater(t, committed, groups*9/10)
		close(stop)
		time.Sleep(time.Minute)
	})
}
