// Package workload is what clients do to the cluster while it is attacked, and
// which checkers judge what they saw. A workload has workers, each a process in
// Jepsen's sense: it does one thing at a time, and after an operation of unknown
// outcome it goes on as a new process, since the old one may never return.
//
// Workloads know nothing of faults, and of the cluster no more than the URLs of
// its nodes: they run against any. They keep to keys of their own, under
// Run.Prefix.
//
// Reading order: workload.go, worker.go; then one file for each.
package workload
