package raftnode

import (
	"runtime"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

func TestGroupsHaveBounds(t *testing.T) {
	for _, c := range []struct {
		name           string
		commands, size int
		groups         []int // commands in each
	}{
		{"one alone", 1, 10, []int{1}},
		{"what fits goes together", 1024, 10, []int{1024}},
		{"too many", 2500, 10, []int{1024, 1024, 452}},
		{"too large", 600, 1000, []int{253, 253, 94}},
		{"one larger than a group goes alone", 2, 300 << 10, []int{1, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk()
			d.lead(3)
			p, problem := d.submit(commandsOf(c.commands, c.size), false)
			require.Nil(t, problem)
			d.dispatchAll()
			require.Len(t, d.entries, len(c.groups))
			for i, n := range c.groups {
				var e trivetpb.Entry
				l := d.entries[i]
				l.Term = 3
				m, err := decodeEntryMeta(&l)
				require.NoError(t, err)
				require.Equal(t, entryMeta{term: 3, proposer: 7, seq: uint64(i + 1)}, m)
				require.NoError(t, e.UnmarshalVT(l.Data))
				require.Len(t, e.Commands, n)
				d.commit(t, i, uint64(10+i), n)
			}
			<-p.done
			require.True(t, d.idle())
			require.Zero(t, d.bytes)
		})
	}
}

func TestNoMoreThanSomeEntriesAreUnderWay(t *testing.T) {
	d := newDesk()
	d.lead(3)
	for range 10 {
		_, problem := d.submit(commandsOf(1, maxGroupBytes), false)
		require.Nil(t, problem, "bytes are not what is bounded here")
		d.dispatchAll()
		d.bytes = 0
	}
	require.Len(t, d.entries, maxInFlightFar)
	d.bytes = 1 << 30
	d.commit(t, 0, 10, 1)
	d.dispatchAll()
	require.Len(t, d.entries, maxInFlightFar+1)
}

// Few proposals do not take the slot beside a group of many, but wait for as many, or
// until that has landed. So it is with entries and with forwards.
func TestFewDoNotGoBesideMany(t *testing.T) {
	for _, leads := range []bool{true, false} {
		d := newDesk()
		d.leaderIs = "n2"
		if leads {
			d.lead(3)
		}
		submit := func(proposals int) {
			for range proposals {
				_, problem := d.submit(commandsOf(2, 10), false)
				require.Nil(t, problem)
			}
			d.dispatchAll()
		}
		groups := func() (sizes []int) {
			for i := range d.entries {
				var e trivetpb.Entry
				require.NoError(t, e.UnmarshalVT(d.entries[i].Data))
				sizes = append(sizes, len(e.Commands)/2)
			}
			for _, g := range d.sent {
				sizes = append(sizes, g.count/2)
			}
			return sizes
		}
		land := func(i int) {
			if leads {
				d.commit(t, i, uint64(10+i), 2*groups()[i])
			} else {
				d.forwarded(d.sent[i], okResults(d.sent[i].count), nil, nil)
			}
			d.dispatchAll()
		}
		for range 5 {
			d.submit(commandsOf(2, 10), false)
		}
		d.dispatchAll()
		submit(4)
		require.Equal(t, []int{5}, groups(), "fewer wait")
		submit(1)
		require.Equal(t, []int{5, 5}, groups(), "as many go")
		submit(1)
		submit(3)
		land(0)
		require.Equal(t, []int{5, 5}, groups(), "the other is under way")
		land(1)
		require.Equal(t, []int{5, 5, 4}, groups(), "nothing is under way")
		land(2)
		submit(1)
		submit(1)
		require.Equal(t, []int{5, 5, 4, 1, 1}, groups(), "one goes beside one")
	}
}

// A group is made behind all who can propose at once, where the last one was shared.
func TestGroupsWaitForWhoCanRun(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	// The scheduler has turns of its own now and then, and where one takes long nothing is
	// yielded for a while.
	const times, tries = 100, 10
	groups := 0
	for range tries {
		if groups = groupsOfEight(t, times); groups < times+times/2 {
			return
		}
	}
	t.Errorf("%d groups for %d times eight", groups, times)
}

// groupsOfEight has eight propose at once, so many times, and returns how many groups
// those were in.
func groupsOfEight(t *testing.T, times int) int {
	d := newDesk()
	d.lead(3)
	d.apply = func(l raft.Log) { // lands once all others have come
		runtime.Gosched()
		d.entries = append(d.entries, l)
		var e trivetpb.Entry
		require.NoError(t, e.UnmarshalVT(l.Data))
		d.commit(t, len(d.entries)-1, uint64(10+len(d.entries)), len(e.Commands))
	}
	stop := make(chan struct{})
	var running, wg sync.WaitGroup
	running.Go(func() { d.dispatch(stop) })
	for range times {
		for range 8 {
			wg.Go(func() {
				if p, problem := d.submit(commandsOf(1, 10), false); problem == nil {
					<-p.done
				}
			})
		}
		wg.Wait()
	}
	close(stop)
	running.Wait()
	return len(d.entries)
}
