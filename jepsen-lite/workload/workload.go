package workload

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// Workload is one kind of work. A Workload serves one Run.
type Workload interface {
	// Workers is how many there are.
	Workers() int
	// Work is one step of a worker; it is called again until the run is over. It
	// returns soon after w.Stopping is closed.
	Work(ctx context.Context, w *Worker)
	// Final is called once, by one worker, when all work is done and the cluster
	// is whole again: the last reads, without which nothing is known to be lost.
	Final(ctx context.Context, w *Worker)
	// Check judges the calls.
	Check(calls []history.Call, limits Limits) []*check.Result
}

// Limits is what a Check has and knows.
type Limits struct {
	// Checker bounds the time of one that may need long.
	Checker time.Duration
	// Restarts are, by node, pairs of times between which it was killed and
	// started: what a node promises for itself alone starts anew there.
	Restarts map[string][]int64
}

// Run is what the workloads of a run share.
type Run struct {
	Recorder *history.Recorder
	Nodes    []api.Node
	// Prefix is before every key and every name, and ends in a slash.
	Prefix string
	Seed   int64
	// Pace is how long a worker rests between two operations, on average.
	Pace time.Duration
	// Timeout is how long a node has for an answer.
	Timeout time.Duration

	mu        sync.Mutex
	processes int
}

// Kind is a workload that can be chosen.
type Kind struct {
	Name string
	Does string
	// Checks says what is checked of it.
	Checks string
	New    func(*Run) Workload
}

// Kinds are all workloads.
var Kinds = []Kind{
	{"register", "reads, writes and compare-and-sets of keys, on all nodes, linearizably", "each key is linearizable (porcupine); revisions follow real time", newRegister},
	{"append", "transactions that append to lists and read them", "strictly serializable: no cycle of dependencies and real time (as Elle)", newAppend},
	{"bank", "transfers between accounts, and reads of all of them, fresh and old", "every read sees the same total", newBank},
	{"set", "additions to sets, each a new key", "nothing acknowledged or seen is ever missing, nothing failed is there", newSet},
	{"counter", "additions without an identity, each sent once", "acknowledged ≤ sum ≤ acknowledged and unknown, at every read", newCounter},
	{"once", "additions with an identity, sent again until answered, and then again", "the sum is the number of additions; a repeat has the first answer", newOnce},
	{"watch", "writes, and watchers that move from node to node", "every revision, once, in order, whole, never before it is written or readable", newWatch},
	{"lock", "locks that are taken, kept, outlived and released, and writes under their guard", "one holder at a time; tokens grow, and fence by revision and in real time", newLock},
	{"lease", "keys with leases that are kept for a while", "never gone before the ttl is over; gone soon after, by the time that the cluster serves", newLease},
	{"fresh", "session, bounded and stale reads on all nodes", "as fresh as each was promised, and as the answer says", newFresh},
}

// Choose returns the workloads that are named, or all.
func Choose(names []string) ([]Kind, error) {
	if len(names) == 0 {
		return Kinds, nil
	}
	var chosen []Kind
	for _, name := range names {
		found := false
		for _, k := range Kinds {
			if k.Name == name {
				chosen, found = append(chosen, k), true
			}
		}
		if !found {
			var all []string
			for _, k := range Kinds {
				all = append(all, k.Name)
			}
			return nil, fmt.Errorf("no workload is called %q; there are %s", name, strings.Join(all, ", "))
		}
	}
	return chosen, nil
}
