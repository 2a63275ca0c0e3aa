// Package history is the record of a run: what every client asked, of which
// node, when, what it was told, and what was done to the cluster meanwhile.
//
// A Recorder takes it from any number of goroutines, writes each line as it
// comes (record.jsonl), and keeps what the checkers need in memory, as Calls.
// Lines are Jepsen's: index, time, process, type, f, value, with the node and
// the workload beside them. EDN turns the file into what tools of Jepsen's world
// read.
//
// Times are nanoseconds since the start of the run, all from one monotonic
// clock: clients and cluster are on one machine, or at least all clients are.
//
// Reading order: op.go, recorder.go, edn.go.
package history
