package raftnode

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"
)

// Whether the processors are crowded: what of this process can run waits for them for a
// good part of the time that it runs, behind members and services on the same machine, or
// for a container's limit.
//
// Two entries under way beside each other keep a disk and the network busy in turn
// (maxInFlight). Where it is processors that everything waits for, they only take them
// from each other: fewer callers share an entry, and an entry costs more than what is in
// it. So there is one then, but for lone writes. With three members and their callers on two
// cores, 16 callers of plain HTTP did 1.1 to 1.3 times the puts that way, 64 1.04 to 1.3 times.
//
// It is the kernel that knows it, for each thread (Documentation/scheduler/sched-stats.rst,
// "schedstat"). Where there is no such file, nothing is taken for crowded.
type crowd struct {
	tasks   string // the folder with one for each thread
	crowded atomic.Bool

	seen map[string]threadTimes
	// since is what is not judged yet.
	since threadTimes
}

// threadTimes is how long a thread ran, and how long it could have and did not.
type threadTimes struct{ ran, waited time.Duration }

const (
	crowdEvery = 500 * time.Millisecond
	// crowdLeast is what a process ran at least for that to tell anything.
	crowdLeast = 10 * time.Millisecond
	// crowdThreads is how many threads are looked at at most, each for some microseconds:
	// a member has a dozen, a process that it is embedded in may have thousands.
	crowdThreads = 64
	// It is crowded where it waited for more than this part of the time that it ran, and
	// not any more where for less than that. On a machine with two cores for three members
	// and their load each waited for about as long as it ran.
	crowdedFrom, crowdedUntil = 0.4, 0.2

	selfTasks = "/proc/self/task"
)

// keep looks until the node ends, where it has done something since the last look.
func (c *crowd) keep(served func() uint64, done <-chan struct{}) {
	tick := time.NewTicker(crowdEvery)
	defer tick.Stop()
	c.look()
	was := served()
	for {
		select {
		case <-tick.C:
			if now := served(); now != was {
				was = now
				c.look()
			}
		case <-done:
			return
		}
	}
}

// look finds out how it was since the last look, or since there was enough to tell.
func (c *crowd) look() {
	now := c.read()
	for id, t := range now {
		if was, ok := c.seen[id]; ok && t.ran >= was.ran && t.waited >= was.waited { // else the id is another's now
			c.since.ran += t.ran - was.ran
			c.since.waited += t.waited - was.waited
		}
	}
	c.seen = now
	if len(now) == 0 {
		c.crowded.Store(false)
	}
	if c.since.ran < crowdLeast {
		return
	}
	switch part := float64(c.since.waited) / float64(c.since.ran); {
	case part > crowdedFrom:
		c.crowded.Store(true)
	case part < crowdedUntil:
		c.crowded.Store(false)
	}
	c.since = threadTimes{}
}

// read is what the threads have by now; nil where that cannot be known.
func (c *crowd) read() map[string]threadTimes {
	dir, err := os.Open(c.tasks)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(crowdThreads)
	times := make(map[string]threadTimes, len(names))
	for _, name := range names {
		if t, ok := readThread(filepath.Join(c.tasks, name, "schedstat")); ok {
			times[name] = t
		} // else it has ended
	}
	return times
}

// readThread reads nanoseconds on a processor, nanoseconds in the queue for one, and a
// count.
func readThread(path string) (t threadTimes, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return t, false
	}
	defer f.Close()
	var buf [64]byte
	n, _ := f.Read(buf[:])
	ran, rest, _ := bytes.Cut(buf[:n], []byte(" "))
	waited, _, ok := bytes.Cut(rest, []byte(" "))
	a, err := strconv.ParseInt(string(ran), 10, 64)
	b, err2 := strconv.ParseInt(string(waited), 10, 64)
	return threadTimes{time.Duration(a), time.Duration(b)}, ok && err == nil && err2 == nil
}
