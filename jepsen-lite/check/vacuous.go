package check

import (
	"fmt"
	"time"
)

// Done is what a run did, for the judgement whether it shows anything.
type Done struct {
	Length time.Duration
	// Operations and OK are counts by workload.
	Operations, OK map[string]int
	// ByF are the same by workload and f.
	ByF map[string]Share
	// Unfinished are the workloads whose last reads were not over in time.
	Unfinished []string
	// Faults are how many were done, DuringFaults how many operations began
	// while one was in force; FaultsWanted says that there were to be any.
	FaultsWanted         bool
	Faults, DuringFaults int
	// LeaderFaults is how many of them take leadership from who has it, and
	// LeaderChanges how often another member was seen to lead.
	LeaderFaults, LeaderChanges int
}

// Share is how many operations there were, and how many of them were OK.
type Share struct{ All, OK int }

// Least that a workload must have done: operations a second, however long the
// run, and the share of them that must be OK.
const (
	leastPerSecond = 0.5
	leastOK        = 0.1
	// enough is of how many operations of one f one at least has to be OK: where
	// all writes fail, the reads have nothing to show.
	enough = 20
)

// Vacuous checks that a run was one: a cluster that answers nothing breaks no
// promise, and one that nothing happened to proves little. Such a run is
// inconclusive.
func Vacuous(d Done) *Result {
	r := NewResult("the run: not vacuous")
	for name, n := range d.Operations {
		ok := d.OK[name]
		switch {
		case float64(n) < leastPerSecond*d.Length.Seconds() || n == 0:
			r.inconclusive("%s did %d operations in %v", name, n, d.Length)
		case float64(ok) < leastOK*float64(n):
			r.inconclusive("of %d operations of %s %d were OK", n, name, ok)
		}
	}
	for name, n := range d.ByF {
		if n.All >= enough && n.OK == 0 {
			r.inconclusive("of %d operations %s none was OK", n.All, name)
		}
	}
	for _, name := range d.Unfinished {
		r.inconclusive("the last reads of %s were not over in time: what is lost may not have been seen", name)
	}
	if len(d.Operations) == 0 {
		r.inconclusive("nothing was done")
	}
	if d.FaultsWanted {
		switch {
		case d.Faults == 0:
			r.inconclusive("no fault was done")
		case d.DuringFaults == 0:
			r.inconclusive("no operation began during a fault")
		}
		if d.LeaderFaults > 0 && d.LeaderChanges == 0 {
			r.inconclusive("%d faults were meant for the leader, and no other one was seen", d.LeaderFaults)
		}
	}
	r.figure("operations during faults", d.DuringFaults)
	return r
}

// RecoveryBound is how long after the end of a fault all nodes may take to serve
// writes and linearizable reads again, if none other is in force.
const RecoveryBound = 10 * time.Second

// stalledShare is the share of a recovery for which the machine may have run
// nothing here: of one that had less of the machine nobody knows what it took.
const stalledShare = 0.1

// Recovery judges how long the last recovery took; recovered is false where it
// was not over when it was given up. stalled is for how long of it the machine ran
// nothing of this program, and so most likely little of the nodes.
func Recovery(took time.Duration, recovered bool, others []time.Duration, stalled time.Duration) *Result {
	r := NewResult(fmt.Sprintf("recovery: within %v of the last fault", RecoveryBound))
	late := !recovered || took > RecoveryBound
	switch {
	case late && float64(stalled) > stalledShare*float64(took):
		r.inconclusive("it took %v or more, but the machine had no time for this program for %v of them: it is too busy", took.Round(time.Millisecond), stalled.Round(time.Millisecond))
	case !recovered:
		r.violated("%v after the last fault some node had not served a write and a linearizable read", took.Round(time.Millisecond))
	case took > RecoveryBound:
		r.violated("it took %v", took.Round(time.Millisecond))
	}
	r.figure("the last", took.Round(time.Millisecond))
	var longest time.Duration
	for _, d := range others {
		longest = max(longest, d)
	}
	r.figure("longest of all faults", longest.Round(time.Millisecond))
	r.figure("of the last the machine stalled for", stalled.Round(time.Millisecond))
	return r
}

// Deaths judges processes that ended by themselves.
func Deaths(deaths []string) *Result {
	r := NewResult("processes: none ends by itself")
	for _, d := range deaths {
		r.violated("%s", d)
	}
	return r
}
