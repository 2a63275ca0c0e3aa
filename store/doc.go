// Package store is Trivet's state machine: keys with revisions, transactions,
// counters, retained history, snapshots and the state hash.
//
// # Rules
//
//  1. Pure. The package imports no raft and no net, reads no clock, no
//     environment and no randomness, and never lets the order of a Go map into
//     the state. The state is a function of the entries applied, in order: two
//     stores that applied the same entries have the same revision, answers and
//     hash.
//  2. One writer. Apply, Advance and Restore are called by one goroutine at a
//     time (the FSM of raftnode); everything else may be called by any number
//     of goroutines at any time.
//  3. Nobody waits for a reader. Point reads take a short read lock. Ranges,
//     snapshots, read-only transactions and reads of old revisions work on a
//     View, a copy-on-write copy of the tree that costs O(1) to take, so they
//     hold up neither the writer nor point reads.
//  4. Bytes. What is stored was copied when its entry was decoded and is never
//     changed again; what is returned aliases it and must not be changed.
//
// # Reading order
//
// store.go (the state and its locks), apply.go (a command at a time), txn.go
// (compare, do, undo), view.go (reads of the present and of old revisions),
// history.go (what is retained, and compaction), hash.go (the state hash),
// snapshot.go (the file format), check.go (what is refused before it is
// proposed).
package store
