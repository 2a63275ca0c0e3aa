package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much garbage a node lets gather before the runtime collects it, as a share
// of what lives in the heap. The runtime's own share, 100 %, is twice the memory
// for a node that holds a gigabyte of keys, whether it is busy or not; a small one
// has a busy node collect all the time. So a node that does little has the small
// one, and where collecting takes more than a few percent of the processors, the
// share grows up to the runtime's own: no more processor time goes there than
// did. The share is a matter of this process alone; no answer depends on it.
//
// Where GOGC or GOMEMLIMIT is set, the runtime does as it says, and nothing here.
const (
	// leastGarbage is the share of a node that does little, mostGarbage that of a
	// busy one, in percent.
	leastGarbage, mostGarbage = 25, 100
	// freeGarbage is a number of bytes that may always gather: a small heap is
	// collected by it, not by its share. Nobody misses it, and a heap that grows
	// from nothing, as when a node starts, is marked a few times less.
	freeGarbage = 24 << 20
	// startGarbage is the share until the heap is first looked at.
	startGarbage = 400
	// busyCollecting and idleCollecting are the parts of the processors' time that
	// collecting took, above which the share grows, and below which it shrinks.
	busyCollecting, idleCollecting = 0.04, 0.01
	garbageEvery                   = time.Second
)

// boundGarbage sets the share until the context ends.
func boundGarbage(ctx context.Context) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	share := garbageShare{percent: leastGarbage}
	set := startGarbage
	debug.SetGCPercent(set)
	go func() {
		tick := time.NewTicker(garbageEvery)
		defer tick.Stop()
		last, at := readHeap(), time.Now()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			heap, now := readHeap(), time.Now()
			available := now.Sub(at).Seconds() * float64(runtime.GOMAXPROCS(0))
			percent := share.next(heap.live, (heap.collecting-last.collecting)/available)
			// To set it stops the world for an instant.
			if percent != set {
				debug.SetGCPercent(percent)
				set = percent
			}
			if share.idle(heap, heap.collections == last.collections) {
				debug.FreeOSMemory()
				heap = readHeap()
			}
			last, at = heap, now
		}
	}()
}

// garbageShare finds the share.
type garbageShare struct {
	percent int
	quiet   int // looks in a row that saw no collection
}

// quietLooks is how many looks in a row make an idle node.
const quietLooks = 3

// idle says that the node has become idle, and holds more than it is to, in
// garbage and in free memory that the system does not have back. Nothing collects
// on an idle node, and the runtime gives back by and by what it has collected.
// Once that is done there is no more to do until as much has gathered again.
func (g *garbageShare) idle(heap heapState, quiet bool) bool {
	if g.quiet++; !quiet {
		g.quiet = 0
	}
	return g.quiet >= quietLooks && heap.held > heap.live+max(heap.live*leastGarbage/100, freeGarbage)
}

// next is the share to set, of live bytes, after a time of which collecting took a
// part. It grows at once and shrinks by a quarter at a time.
func (g *garbageShare) next(live uint64, collecting float64) int {
	switch {
	case collecting > busyCollecting:
		g.percent = min(2*g.percent, mostGarbage)
	case collecting < idleCollecting:
		g.percent = max(3*g.percent/4, leastGarbage)
	}
	// Steps of 5, so that a heap that breathes does not set it each second.
	free := min(startGarbage, int(100*freeGarbage/max(live, 1<<20)))
	return max(g.percent, free-free%5)
}

type heapState struct {
	live       uint64  // bytes that the last collection found
	held       uint64  // bytes of objects, dead or alive, and of what is free and not given back
	collecting float64 // seconds of processor time so far
	// collections counts them.
	collections uint64
}

func readHeap() heapState {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/gc/mark/idle:cpu-seconds"},
		{Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(s)
	return heapState{
		live: s[0].Value.Uint64(),
		held: s[1].Value.Uint64() + s[2].Value.Uint64(),
		// What marks while nothing else wants the processor takes it from nobody.
		collecting:  s[3].Value.Float64() - s[4].Value.Float64(),
		collections: s[5].Value.Uint64(),
	}
}
