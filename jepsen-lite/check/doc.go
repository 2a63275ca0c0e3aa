// Package check says of a history whether the cluster kept its promises. Each
// checker is a function of calls and touches nothing else; each has tests with
// histories that must be called violated and such that must not.
//
// What they all keep to: a call that is OK took place between its invocation and
// its return; one that is Fail never did, and what it would have written must
// never be seen; one that is Info may have taken place at any time after its
// invocation, however late, or not at all. A checker that runs out of time says
// inconclusive, never valid.
//
// Reading order: result.go; register.go (porcupine), revisions.go; append.go,
// graph.go, cycles.go (Elle's kind of checking); bank.go, set.go, counter.go,
// watch.go, lock.go, lease.go, fresh.go, hashes.go; vacuous.go and recovery.go,
// which judge the run itself.
package check
