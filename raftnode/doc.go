// Package raftnode is one member of a Trivet cluster: hashicorp/raft with the
// stores under it, group commit, forwarding, the read index, snapshots and the
// peer port.
//
// # What the package promises
//
//  1. A command whose result was returned is in the synced log of a majority.
//  2. A command that failed says whether it was certainly not applied
//     (Problem.Unknown is false) or may have been. It never claims the former
//     without proof; outcome.go argues it case by case.
//  3. A read that AwaitRead let through as linearizable sees every write that
//     was acknowledged anywhere before AwaitRead was called.
//  4. A command is applied once at most, and goes out again until it has an
//     answer or its caller gives up: identity.go.
//  5. What ends by itself ends by the replicated clock, never early: clock.go.
//  6. A member whose data folder is not the one that it had acknowledges nothing
//     and votes for nobody, until the cluster has let it in anew: folder.go,
//     formation.go.
//  7. A member whose disk fails, hangs or hands back something else than was
//     written stops, naming the file. It never goes on with less.
//
// # The way of a write
//
// propose.go queues it; its dispatcher stamps what waits with the node's session
// (identity.go), groups it into one log entry and gives it to raft (on the leader) or into one request to the leader
// (forward.go). logstore.go sends the entry to the followers (early.go), and writes
// and syncs it while they do; raft commits; apply.go hands it to store.Apply and its
// results back to those who wait in propose.go.
//
// # The way of a read
//
// readindex.go proves freshness: on the leader by asking every voter whether
// the term is still current, on a follower by asking the leader; then it waits
// for the local state to have applied that index.
//
// # Who the members are
//
// membership.go takes a change to the leader, memberchange.go makes it,
// configuration.go knows which one is committed; admission.go says who may talk to
// this member and whose answers count, folder.go which data folder is whose; settle.go has the cluster know
// this member as it is; formation.go tells how a new cluster begins, recover.go how an
// old one ends.
//
// # Versions
//
// level.go raises what the state machine may do, once all members know it.
//
// # Reading order
//
// node.go (what a Node is made of, its start and its end), propose.go, groups.go,
// outcome.go, identity.go, leader.go, clock.go, forward.go, apply.go,
// readindex.go, rounds.go, yield.go, crowded.go, returning.go, commits.go; below them peerport.go,
// handshakes.go and peerrpc.go (members talk), transport.go (what raft is not allowed to do
// directly), appendstream.go, early.go and sendroom.go (how entries go to the followers),
// logstore.go, entrycache.go, stablestore.go and snapshots.go (what raft writes),
// liveness.go and deadleader.go (a leader whose process is dead), handover.go
// (one that is to go), compare.go (whether the states are the same), datadir.go,
// storage.go, wal.go, walencode.go, walfiles.go, directio.go, walscan.go and waltail.go
// (the data folder), entrymeta.go (what travels beside each entry), stats.go (what is counted).
package raftnode
