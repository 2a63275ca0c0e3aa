// Package nemesis makes a schedule of faults from a seed and runs it against an
// Environment.
//
// A plan has lanes: what happens to processes, to links, to the membership, to
// clocks, to disks. Within a lane one fault follows the other, each over before the next
// begins; between lanes they overlap as the seed has it. A lane goes through a
// shuffled deck of its kinds before any comes again, so that even a short run
// meets them all.
//
// The seed decides what happens when, to how many and for how long. Who leads at
// that moment, and how goroutines and nodes interleave, it does not decide: two
// runs of a seed have the same plan and different histories.
//
// Reading order: environment.go (what faults need), plan.go, kinds.go,
// processes.go, links.go, members.go, clocks.go (the faults), run.go.
package nemesis
