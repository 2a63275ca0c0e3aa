package raftnode

import (
	"testing"
	"testing/synctest"
	"time"

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
			require.Equal(t, time.Millisecond, submit(2), "one more has come")
			require.Equal(t, []int{1, 4}, groups())
			require.Zero(t, submit(1))
			require.Equal(t, []int{1, 4, 6}, groups(), "all four are back, and two waited")

			submit(1)
			time.Sleep(time.Millisecond)
			require.NotZero(t, land(), "the six are waited for")
			crowded = false
			require.Zero(t, d.dispatchAll())
			require.Equal(t, []int{1, 4, 6, 1}, groups())
			crowded = true
			submit(6)
			land()
			require.Equal(t, []int{1, 4, 6, 1, 6}, groups())
			submit(1)
			time.Sleep(time.Millisecond)
			require.NotZero(t, land())
			d.closed = &trivetpb.Problem{}
			require.Zero(t, d.dispatchAll(), "nobody can come")
			require.Equal(t, []int{1, 4, 6, 1, 6, 1}, groups())
		})
	}
}

// A proposal whose caller has given up is not waited for.
func TestWhoGaveUpIsNotWaitedFor(t *testing.T) {
	d := newDesk()
	d.lead(3)
	d.crowded = func() bool { return true }
	for range 3 {
		p, problem := d.submit(commandsOf(2, 10), false)
		require.Nil(t, problem)
		p.gaveUp = true
	}
	d.dispatchAll()
	d.submit(commandsOf(2, 10), false)
	d.proposer.entries[1].sentAt = time.Now().Add(-time.Minute)
	d.commit(t, 0, 10, 6)
	require.Zero(t, d.dispatchAll())
	require.Len(t, d.entries, 2)
}

// It ends where nobody comes for a while, in any case after some time, and begins with few
// enough.
func TestReturningHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := 2 * time.Millisecond
		var r returning
		r.landed(4, 0, took, time.Now())
		require.Equal(t, took, r.left(time.Now()))
		for range 2*returnTimes - 1 {
			time.Sleep(took / 2)
			require.Positive(t, r.left(time.Now()))
			r.last = time.Now() // of many who come, all of them slowly
		}
		time.Sleep(took / 2)
		require.Zero(t, r.left(time.Now()))

		r = returning{}
		r.landed(4, 0, time.Minute, time.Now())
		require.Equal(t, returnPause, r.left(time.Now()))
		r.last = time.Now().Add(time.Hour)
		require.Equal(t, returnMost, r.left(time.Now()))

		for _, c := range []struct {
			callers, waiting int
			waits            bool
		}{
			{0, 5, false},
			{1, 5, false},
			{2, 0, true},
			{2, returnFew - 2, true},
			{2, returnFew - 1, false},
			{returnFew, 0, true},
			{returnFew, 1, false},
		} {
			r = returning{}
			r.landed(c.callers, c.waiting, took, time.Now())
			require.Equal(t, c.waits, r.left(time.Now()) > 0, c)
		}
	})
}

// The part that comes back is learned: those who do not are waited for now and then.
func TestWhoDoesNotReturnIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, took = 8, time.Millisecond
		var r returning
		// group has some come back, and says whether more were waited for.
		group := func(back int) bool {
			r.landed(callers, 0, took, time.Now())
			for range back {
				r.asked()
			}
			if r.left(time.Now()) == 0 {
				return false
			}
			time.Sleep(took)
			require.Zero(t, r.left(time.Now()))
			return true
		}
		require.False(t, group(8))
		for range 3 {
			require.True(t, group(6), "more came before, or it is tried whether they do")
			for range returnMet {
				require.False(t, group(6), "as many as the last time")
			}
		}
		for range returnMet {
			require.False(t, group(7), "one more is waited for, and comes")
		}
		require.True(t, group(7), "then another")

		require.True(t, group(3))
		for range returnRest {
			require.False(t, group(3), "it is left alone for a while")
		}
		require.True(t, group(3), "all are tried again")
	})
}
