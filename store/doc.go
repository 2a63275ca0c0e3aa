// Package store is Trivet's state machine: keys with revisions, transactions,
// counters, leases, locks, sessions that make a write happen exactly once,
// retained history, snapshots and the state hash.
//
// # Rules
//
//  1. Pure. The package imports no raft and no net, reads no clock and no
//     environment, and lets neither chance nor the order of a map into the
//     state: what is seeded by chance (table.go) is never iterated. The state
//     is a function of the entries applied, in order: two stores that applied
//     the same entries have the same revision, answers and hash.
//
//  2. One writer. Apply, Advance and Restore are called by one goroutine at a
//     time (the FSM of raftnode); everything else may be called by any number
//     of goroutines at any time.
//
//  3. Nobody waits for a reader, nor for a watcher. Point reads take a short
//     read lock. Ranges,
//     snapshots, read-only transactions and reads of old revisions work on a
//     View, a copy-on-write copy of the tree that costs O(1) to take, so they
//     hold up neither the writer nor point reads. It shares the chains of
//     versions with the writer, and passes by what is newer than its revision.
//
//  4. Bytes. What is stored was copied when its entry was decoded and is never
//     changed again; what is returned aliases it and must not be changed.
//
//  5. Time is what entries say. The replicated clock comes with each entry and
//     never goes back; nothing here has another. And only commands change state:
//     what is past its deadline lives until an Expire command ends it, so it ends
//     at one place in the log, the same on every node. NextDeadline tells the
//     leader when to propose one.
//
//  6. All or nothing. An operation on keys is executed and, where it fails,
//     undone, with the leases that its puts made or left. Every other command
//     finds out whether it fails before it changes anything.
//
//  7. Bounds on everything, refused and never made room for: what was promised to
//     one caller is not forgotten for the sake of another.
//
// # Reading order
//
// store.go (the state and its locks), item.go and version.go (a version of a key),
// chain.go (the versions of a key, and why Views read them without a lock),
// record.go (how both are one allocation each), table.go and warm.go (how a key is
// found), tree.go (the order of keys), apply.go (a command at a time), results.go
// (what answers are made of), put.go, delete.go, add.go, txn.go and marker.go (one
// replicated command each), read.go and view.go (reads of the present and of old
// revisions), count.go, history.go (what is retained, and compaction), changes.go
// (the list of it) and pins.go (what open Views hold on to).
//
// Time and identity: ids.go (how ids are drawn), lease.go, attach.go (which keys
// a lease has), lock.go and guard.go, session.go, answers.go (what a session
// remembers) and identity.go (how a repeat is told from another command),
// deadlines.go (what is due next) and expire.go; cow.go (how Views hold what is
// beside the keys); leaseread.go, lockread.go (AwaitLock too) and sessionread.go
// for readers.
//
// Change: watch.go (a watcher), watchhub.go (how changes come to watchers),
// watchindex.go and watchranges.go (to which), watchframe.go and watchring.go
// (what they share), watchread.go (how one catches up).
//
// Files: hash.go (the state hash), snapshot.go and snapshotrest.go (the file
// format, and writing it), restore.go, keyorder.go, restorerest.go and tail.go
// (reading and verifying it), upload.go and restorecommit.go (replacing the state
// through the log), check.go and checkcommand.go (what is refused before it is
// proposed) and known.go (what makes a node stop).
//
// # Tests
//
// TestStoreIsTheModel (model_test.go, model_rest_test.go, model_gen_test.go,
// model_run_test.go) runs random entries, Views, snapshots and restores against
// a naive model and is where a new command starts: TestEveryCommand and
// TestSnapshotHoldsEveryField fail until a command and a field are known
// everywhere. requireSound (sound_test.go) computes all that is derived anew,
// after each step. Variants broken on purpose, and what fails:
// a hash that a delete does not take off the sum (TestStoreIsTheModel,
// TestGoldenEntry, FuzzApply's seeds), a txn that is not undone
// (TestStoreIsTheModel, TestOpsThatFailWithoutEffect), a cut that ignores open
// Views (TestStoreIsTheModel, TestViewsOutliveCompaction, and
// TestReadersWhileApplying under the race detector), Views without a copy of
// the tree (TestStoreIsTheModel, TestViewsOutliveCompaction), Views and
// snapshots that do not pass by newer versions, heads that undo does not put
// back, a table or a tree that keeps a chain which compaction dropped
// (TestStoreIsTheModel and the tests of chain_test.go), a version published
// before its prev is set and Views that look into the table (both under the
// race detector only), a copy of the trees that outlives a change
// (TestStoreIsTheModel). Five more are kept in the source and run by
// scripts/mutants: answers that a snapshot loses, tokens that a restore takes
// back, what ends before it is due, guards that nobody looks at, and a watcher
// that skips what was compacted.
//
// TestWatchersAreGivenTheLog and TestWatchersBesideAWriter (watchlog_test.go)
// hold watchers to everything that was ever changed.
package store
