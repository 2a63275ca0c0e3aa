package raftnode

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Whether the processors are crowded: what of this process can run waits for them about as
// long as it runs, behind members and services on the same machine, or a container's limit.
//
// Two entries under way beside each other keep a disk and the network busy in turn
// (maxInFlight). Where it is processors that everything waits for, they only take them
// from each other: fewer callers share an entry, and an entry costs more than what is in
// it. So there is one then, but for lone writes. With three members and their callers on two
// cores, 16 callers of plain HTTP did 1.2 times the puts that way, 64 1.2 to 1.3 times.
//
// It is the kernel that knows it, for each thread (Documentation/scheduler/sched-stats.rst,
// "schedstat"). Where there is no such file, nothing is taken for crowded.
type crowd struct {
	tasks   string // the folder with one for each thread
	crowded atomic.Bool
	seen    map[string]threadTimes
}

// threadTimes is how long a thread ran, and how long it could have and did not.
type threadTimes struct{ ran, waited time.Duration }

const (
	crowdEvery = 500 * time.Millisecond
	// crowdLeast is what a process runs between two looks at least for them to tell
	// anything: a fiftieth of a processor.
	crowdLeast = crowdEvery / 50
	// It is crowded where it waited for more than this part of the time that it ran, and
	// not any more where for less than that. A process that has its processors for itself
	// waits for a hundredth or so.
	crowdedFrom, crowdedUntil = 0.4, 0.2

	selfTasks = "/proc/self/task"
)

// keep looks until the node ends.
func (c *crowd) keep(done <-chan struct{}) {
	if !c.look() {
		return
	}
	tick := time.NewTicker(crowdEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.look()
		case <-done:
			return
		}
	}
}

// look finds out how it is since the last look; false where that cannot be known.
func (c *crowd) look() bool {
	now := c.read()
	if len(now) == 0 {
		return false
	}
	var since threadTimes
	for id, t := range now {
		if was, ok := c.seen[id]; ok && t.ran >= was.ran && t.waited >= was.waited { // else the id is another's now
			since.ran += t.ran - was.ran
			since.waited += t.waited - was.waited
		}
	}
	c.seen = now
	if since.ran < crowdLeast {
		return true
	}
	switch part := float64(since.waited) / float64(since.ran); {
	case part > crowdedFrom:
		c.crowded.Store(true)
	case part < crowdedUntil:
		c.crowded.Store(false)
	}
	return true
}

func (c *crowd) read() map[string]threadTimes {
	tasks, err := os.ReadDir(c.tasks)
	if err != nil {
		return nil
	}
	times := map[string]threadTimes{}
	for _, task := range tasks {
		b, err := os.ReadFile(filepath.Join(c.tasks, task.Name(), "schedstat"))
		if err != nil {
			continue // it has ended, or there are none
		}
		// Nanoseconds on a processor, nanoseconds in the queue for one, and a count.
		fields := strings.Fields(string(b))
		if len(fields) < 2 {
			continue
		}
		ran, err := strconv.ParseInt(fields[0], 10, 64)
		waited, err2 := strconv.ParseInt(fields[1], 10, 64)
		if err == nil && err2 == nil {
			times[task.Name()] = threadTimes{time.Duration(ran), time.Duration(waited)}
		}
	}
	return times
}
