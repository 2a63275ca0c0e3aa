package raftnode

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
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
	require.False(t, c.look(), "there are no threads")
	f.run("1", time.Hour, time.Hour)
	crowded := func() bool {
		require.True(t, c.look())
		return c.crowded.Load()
	}
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
	f.run("1", 100*time.Millisecond, 10*time.Millisecond)
	require.False(t, crowded())

	// A thread that has ended, one under its id, and what is no such file.
	require.NoError(t, os.RemoveAll(filepath.Join(f.dir, "2")))
	f.write("3", "many few\n")
	f.write("4", "")
	f.write("1", "1000 1000000000 1\n")
	require.False(t, crowded())
}

// The kernel of whoever runs this says it, or there is nothing to find.
func TestThisProcessIsLookedAt(t *testing.T) {
	c := &crowd{tasks: selfTasks}
	if _, err := os.Stat(filepath.Join(selfTasks, fmt.Sprint(os.Getpid()), "schedstat")); err != nil {
		require.False(t, c.look())
		return
	}
	require.True(t, c.look())
	require.NotZero(t, len(c.seen))
	require.Positive(t, c.seen[fmt.Sprint(os.Getpid())].ran)
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
