package raftnode

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// threads is a folder as the kernel shows one.
type threads struct {
	t    *testing.T
	dir  string
	time map[string]threadTimes
}

func (f *threads) run(name string, ran, waited time.Duration) {
	total := f.time[name]
	total.ran += ran
	total.waited += waited
	f.time[name] = total
	f.write(name, fmt.Sprintf("%d %d 17\n", total.ran, total.waited))
}

func (f *threads) write(name, stat string) {
	require.NoError(f.t, os.MkdirAll(filepath.Join(f.dir, name), 0o700))
	require.NoError(f.t, os.WriteFile(filepath.Join(f.dir, name, "schedstat"), []byte(stat), 0o600))
}

func TestCrowded(t *testing.T) {
	f := &threads{t: t, dir: t.TempDir(), time: map[string]threadTimes{}}
	c := &crowd{tasks: f.dir}
	crowded := func() bool {
		c.look()
		return c.crowded.Load()
	}
	require.False(t, crowded(), "there are no threads")
	f.run("1", time.Hour, time.Hour)
	require.False(t, crowded(), "what was before the first look does not count")

	f.run("1", 100*time.Millisecond, 10*time.Millisecond)
	f.run("2", 0, time.Hour)
	require.False(t, crowded(), "nor what a new thread had waited by then")
	f.run("2", 100*time.Millisecond, 30*time.Millisecond)
	require.False(t, crowded())
	f.run("1", 100*time.Millisecond, 0)
	f.run("2", 100*time.Millisecond, 90*time.Millisecond)
	require.True(t, crowded(), "together they waited for nearly half")
	f.run("1", 100*time.Millisecond, 30*time.Millisecond)
	require.True(t, crowded(), "in between it stays as it is")
	f.run("1", crowdLeast/2, 0)
	require.True(t, crowded(), "as where there is too little to tell")
	f.run("1", crowdLeast/2, 0)
	require.False(t, crowded(), "until it comes to enough")

	// A thread that has ended, one under its id, and what is no such file.
	f.run("1", 100*time.Millisecond, 100*time.Millisecond)
	require.NoError(t, os.RemoveAll(filepath.Join(f.dir, "2")))
	f.write("3", "many few\n")
	f.write("4", "")
	f.write("5", "17")
	f.write("2", "1000 1000 1\n")
	require.True(t, crowded())
	require.NoError(t, os.RemoveAll(f.dir))
	require.False(t, crowded(), "it is not known any more")
}

// The kernel of whoever runs this says it, or there is nothing to find.
func TestThisProcessIsLookedAt(t *testing.T) {
	c := &crowd{tasks: selfTasks}
	c.look()
	self := fmt.Sprint(os.Getpid())
	if _, err := os.Stat(filepath.Join(selfTasks, self, "schedstat")); err == nil {
		require.Contains(t, c.seen, self)
	}
}

// It is looked where the member did something, as long as it lives.
func TestCrowdedIsLookedAtWhereThereIsWork(t *testing.T) {
	f := &threads{t: t, dir: t.TempDir(), time: map[string]threadTimes{}}
	f.run("1", time.Second, 0)
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{tasks: f.dir}
		done := make(chan struct{})
		var served atomic.Uint64
		go c.keep(served.Load, done)
		synctest.Wait()
		f.run("1", time.Second, time.Second)
		time.Sleep(10 * crowdEvery)
		synctest.Wait()
		require.False(t, c.crowded.Load())
		served.Add(1)
		time.Sleep(crowdEvery)
		synctest.Wait()
		require.True(t, c.crowded.Load())
		close(done)
	})
}

// A member whose others are near takes it into account, one whose others are far does not.
func TestWhoLooksWhetherItIsCrowded(t *testing.T) {
	for _, far := range []bool{false, true} {
		n, err := openAlone(t, filepath.Join(t.TempDir(), "data"), func(c *Config) {
			if far {
				c.Timing = TimingWAN
			}
		})
		require.NoError(t, err)
		if far {
			require.Nil(t, n.proposer.crowded)
		} else {
			n.crowd.crowded.Store(true)
			require.True(t, n.proposer.crowded())
			require.True(t, n.Stats().Crowded)
		}
		closeNode(t, n)
	}
}

// One group at a time where processors are what they would wait for, but for lone
// proposals.
func TestOneGroupAtATimeWhereItIsCrowded(t *testing.T) {
	d := newDesk()
	d.lead(3)
	crowded := true
	d.inFlight = maxInFlight
	d.crowded = func() bool { return crowded }
	submit := func() {
		_, problem := d.submit(commandsOf(1, 10), false)
		require.Nil(t, problem)
		d.dispatchAll()
	}
	submit()
	submit()
	require.Len(t, d.entries, 2, "each of one proposal")
	submit()
	submit()
	d.commit(t, 0, 10, 1)
	d.dispatchAll()
	require.Len(t, d.entries, 2, "two wait for the other")
	d.commit(t, 1, 11, 1)
	d.dispatchAll()
	require.Len(t, d.entries, 3)
	submit()
	submit()
	require.Len(t, d.entries, 3, "so do two beside two")
	crowded = false
	d.dispatchAll()
	require.Len(t, d.entries, 4)
}

// A proposal of many commands, a client's batch or another member's group, is no lone one.
func TestBatchesAreNotLone(t *testing.T) {
	d := newDesk()
	d.lead(3)
	d.inFlight = maxInFlight
	d.crowded = func() bool { return true }
	submit := func(commands int) {
		_, problem := d.submit(commandsOf(commands, 10), true)
		require.Nil(t, problem)
		d.dispatchAll()
	}
	submit(1)
	submit(2)
	require.Len(t, d.entries, 1, "many do not go beside one")
	d.commit(t, 0, 10, 1)
	d.dispatchAll()
	require.Len(t, d.entries, 2)
	submit(1)
	require.Len(t, d.entries, 2, "nor one beside many")
	d.commit(t, 1, 11, 2)
	d.dispatchAll()
	submit(1)
	require.Len(t, d.entries, 4)
}
