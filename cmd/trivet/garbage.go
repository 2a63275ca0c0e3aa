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
	// busy one with much in its heap, in percent.
	leastGarbage, mostGarbage = 25, 100
	// freeGarbage is a number of bytes that may always gather: a small heap is
	// collected by it, not by its share. Nobody misses it, and a heap that grows
	// from nothing is marked a few times less.
	freeGarbage = 24 << 20
	// busyGarbage is a number of bytes that may gather on a busy node, however small
	// its heap is: with 90 MB in it and a third of that as garbage, collecting took a
	// sixth of what three members and a client did.
	busyGarbage = 128 << 20
	// mostFreeGarbage bounds the share that comes of freeGarbage.
	mostFreeGarbage = 400
	// busyCollecting and idleCollecting are the parts of the processors' time that
	// collecting took, above which the share grows, and below which it shrinks. Up to
	// busyGarbage, which is not much, a quarter of each will do (frugal).
	busyCollecting, idleCollecting = 0.04, 0.01
	frugal                         = 4
	// idleAllocation is how many bytes a second a node allocates at most that does
	// nothing, and quietLooks how many looks in a row make it idle.
	idleAllocation = 1 << 20
	quietLooks     = 3
	garbageEvery   = time.Second

	// startGarbage is freeGarbage for a node that starts. What it allocates then, as
	// it applies the log, is mostly what it will hold, so there is little to collect. A
	// larger heap may double, as a busy node's. So a start takes about this much more
	// memory, or as much again as lives, until it is over. That is no hard bound: the
	// share is of what the last collection found, and a heap that has grown since has
	// its share lowered by the next look after its next collection (startEvery).
	//
	// While a snapshot is restored nothing is collected at all. A tenth of what that
	// takes is garbage (store, readState), so there is next to nothing to find, and to
	// look for it was a sixth of what a start with a million keys took, with all members
	// at it at once. So memory is bounded by what will be there, closer than by any
	// share.
	startGarbage = 128 << 20
	startEvery   = 50 * time.Millisecond
	// noCollection is the share that has nothing collected.
	noCollection = -1
	// leastHeap is what the runtime takes for the heap of a process that has none.
	leastHeap = 4 << 20
)

// boundGarbage sets the share until the context ends. restoring says whether the node
// restores a snapshot, started whether it has started; one that does nothing has, too.
func boundGarbage(ctx context.Context, restoring, started func() bool) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	share := garbageShare{percent: leastGarbage}
	debug.SetGCPercent(startShare(heapState{}, heapState{}))
	// The node may use fewer later on (processors.go): what collecting takes is
	// measured by those that there are.
	all := runtime.GOMAXPROCS(0)
	go func() {
		set := share.start(ctx, readHeap, restoring, started)
		if ctx.Err() != nil {
			return
		}
		tick := time.NewTicker(garbageEvery)
		defer tick.Stop()
		at := time.Now()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			now := time.Now()
			percent, giveBack := share.look(readHeap(), now.Sub(at).Seconds(), all)
			at = now
			// To set it stops the world for an instant.
			if percent != set {
				debug.SetGCPercent(percent)
				set = percent
			}
			if giveBack {
				debug.FreeOSMemory()
				share.saw(readHeap())
			}
		}
	}()
}

// startShare is the share of a node that starts, with a heap of a size. It is not known
// what lives of a snapshot that was restored, until the first collection after it: all
// that there was then is taken for it.
func startShare(heap, restored heapState) int {
	live := max(heap.live, leastHeap)
	if heap.collections > restored.collections {
		return max(mostGarbage, int(100*startGarbage/live))
	}
	goal := restored.objects + max(restored.objects, startGarbage)
	return int(100 * (max(goal, live) - live) / live)
}

// start sets the share of a node that starts until it has, and returns what it set
// last. The share is of what the last collection found, so it is set anew soon after
// each.
func (g *garbageShare) start(ctx context.Context, read func() heapState, restoring, started func() bool) int {
	tick := time.NewTicker(startEvery)
	defer tick.Stop()
	second := read() // the heap at the beginning of this one
	var restored heapState
	set, paused := 0, false
	for looks := 1; ; looks++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if set == noCollection {
				// It ends as it may, and what it still does is no restore.
				set = leastGarbage
				debug.SetGCPercent(set)
			}
			return set
		}
		heap := read()
		percent := noCollection
		if was := paused; !restoring() {
			if paused = false; was {
				restored = heap
			}
			percent = startShare(heap, restored)
		} else {
			paused = true
		}
		if percent != set {
			debug.SetGCPercent(percent)
			set = percent
		}
		quiet := false
		if looks%int(time.Second/startEvery) == 0 {
			quiet = heap.allocated-second.allocated < idleAllocation
			second = heap
		}
		if !paused && (quiet || started()) {
			g.saw(heap)
			return set
		}
	}
}

// garbageShare finds the share.
type garbageShare struct {
	percent int
	// seen is the heap at the last look, and since the seconds from the last look
	// that saw a collection, which atCollection is the heap of.
	seen, atCollection heapState
	since              float64
	quiet              int // looks in a row that saw next to nothing allocated
}

// look takes what the heap is some seconds after the last look. It returns the share
// to set, and whether the node is idle and holds more than it is to, in garbage
// and in free memory that the system does not have back: nothing collects on an idle
// node, and the runtime gives back by and by what it has collected.
//
// What collecting costs is known of whole collections: those of a large heap take
// seconds and are far apart, and to take the time between two of them for a time
// without any would have the share swing to and fro. For the same reason it
// is not the want of collections that makes a node idle.
func (g *garbageShare) look(heap heapState, seconds float64, processors int) (percent int, giveBack bool) {
	if g.quiet++; float64(heap.allocated-g.seen.allocated) > idleAllocation*seconds {
		g.quiet = 0
	}
	idle := g.quiet >= quietLooks
	g.since += seconds
	switch {
	case heap.collections != g.atCollection.collections:
		g.adjust((heap.collecting-g.atCollection.collecting)/(g.since*float64(processors)), heap.live)
		g.atCollection, g.since = heap, 0
	case idle:
		g.adjust(0, heap.live)
	}
	g.seen = heap
	// Steps of 5, so that a heap that breathes does not set it each second.
	free := min(mostFreeGarbage, int(100*freeGarbage/max(heap.live, 1<<20)))
	return max(g.percent, free-free%5), idle && heap.held > heap.live+max(heap.live*leastGarbage/100, freeGarbage)
}

// saw has the next collections count from this heap on.
func (g *garbageShare) saw(heap heapState) { g.seen, g.atCollection, g.since = heap, heap, 0 }

// adjust changes the share by the part of the processors' time that collecting took, in a
// heap where so much lives. It doubles at once and shrinks by a quarter at a time.
func (g *garbageShare) adjust(collecting float64, live uint64) {
	enough := int(100 * busyGarbage / max(live, leastHeap))
	most := max(mostGarbage, enough)
	g.percent = min(g.percent, most) // the heap has grown
	switch {
	case collecting > busyCollecting:
		g.percent = min(2*g.percent, most)
	case g.percent > enough && collecting < idleCollecting:
		g.percent = max(3*g.percent/4, enough, leastGarbage)
	case g.percent <= enough && frugal*collecting > busyCollecting:
		g.percent = min(2*g.percent, enough)
	case g.percent <= enough && frugal*collecting < idleCollecting:
		g.percent = max(3*g.percent/4, leastGarbage)
	}
}

type heapState struct {
	live       uint64  // bytes that the last collection found
	objects    uint64  // bytes of objects, dead or alive
	held       uint64  // objects, and the bytes of what is free and not given back
	collecting float64 // seconds of processor time so far
	// collections counts them, allocated the bytes that were ever allocated.
	collections, allocated uint64
}

func readHeap() heapState {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		// With what marks while nothing else in this process wants the processor: other
		// processes do, and who wants it next waits until the marking looks up.
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(s)
	return heapState{
		live:        s[0].Value.Uint64(),
		objects:     s[1].Value.Uint64(),
		held:        s[1].Value.Uint64() + s[2].Value.Uint64(),
		collecting:  s[3].Value.Float64(),
		collections: s[4].Value.Uint64(),
		allocated:   s[5].Value.Uint64(),
	}
}
