// Package client is the Go client of Trivet.
//
//	c, err := client.Open(ctx, client.Config{Endpoints: []string{"http://127.0.0.1:7071"}})
//	…
//	defer c.Close()
//	_, err = c.Put(ctx, "greeting", []byte("hello"))
//	item, err := c.Get(ctx, "greeting")
//
// One Client serves a whole program: all its methods may be called by any
// number of goroutines, connections are kept and shared.
//
// # Keys and values
//
// A key is a string of 1 to 4,096 bytes, which need not be UTF-8. A value is a
// []byte, by default of at most 1 MiB. The client keeps no reference to a value
// that it was given once the call has returned, and none to one that it returned. What
// a Watch tells is the exception: others may be told the same, so it is not to be changed.
//
// # Batches
//
// Calls that are made at the same time share requests (POST /v1/batch): a call goes
// out at once where none of its kind is under way, or one alone; else it waits with
// what comes until that is answered, and goes in the next request. So a busy program
// pays for a request once for dozens of calls. Where many wait (64, or eight lists)
// another node gets a request meanwhile, and a read waits for none that is late. Each
// call keeps its own result, error, condition, guards and context. What waits has a
// bound: past 65,536 calls or 64 MiB a call fails at once with ErrOverloaded.
//
// Get, Put, Delete, DeleteRange, Add, Count and Txn go that way, and the first part of
// a List. By themselves go calls with an idempotency key, values of more than a
// megabyte, reads with AtRevision, and all other calls.
//
// # What a call does about failures
//
// The client learns the members and the leader from the cluster, sends writes to the
// leader (any other node would pass them on) and spreads reads over the nodes that
// answer fastest. Where a node fails, or does not answer in its time while there are
// others, it goes to the next, with growing, jittered pauses between the rounds, until
// the call's context ends (or Config.Timeout is over, where the context has no
// deadline). It may do so because a repeat does no harm:
//
//   - A read changes nothing. It is tried elsewhere after any failure but one
//     that lies in the request itself (a malformed range).
//   - A write has an identity: a number in a session, which the client opens with its
//     first write and the cluster remembers answers by. However often the write
//     arrives, at whatever node, it is applied once, and answered as it was the first
//     time. So a failover, a lost answer or a node that hangs is a delay. Put, Delete,
//     DeleteRange, Add, Txn, Update, LeaseGrant and LeaseRevoke are such writes.
//   - A write with an idempotency key (WithIdempotencyKey) is repeated in the same way,
//     and under its key it may be by another process too.
//   - Renewals of leases and locks do no harm twice, and are repeated as reads are.
//   - Any other write (restoring a snapshot, every write where Config.DisableSessions
//     is set or the cluster had no session to give) is tried again only where the
//     attempt before was certainly not applied and never will be: no connection came
//     about, not one byte was sent, or a node said so (outcome not_applied: no leader,
//     draining, overloaded).
//
// A call whose context ends is given up wherever it is. One that was not sent is
// withdrawn, which is certain. Of a write that was sent, and not answered yet, the
// error matches ErrUnknown: it may have been applied, or may yet be. Resolve finds out,
// later and for as long as the session lasts, what became of it, and sees to it that
// it stays so: a write that Resolve calls unapplied never will be applied.
//
// So errors.Is(err, ErrUnknown) holds exactly if the write may have been applied, or
// may yet be. Any other error of a write proves that it was not.
//
// The cluster forgets a session that it has not heard of for a minute, for a process
// that was stopped that long, say, and when its state is replaced by a snapshot. A
// write that was under way then fails with ErrSessionExpired, which matches ErrUnknown
// for good; the next ones have a new session. Sessions are kept alive as long as a
// write under way or of unknown outcome needs them, and are closed when nothing has
// been written for half a minute.
//
// net/http repeats some requests behind its callers' backs. What it may repeat
// here has not had a byte sent, or only reads.
//
// # Freshness
//
// Reads are linearizable by default, on every node: they see every write that
// was acknowledged anywhere before they began. Weaker reads are asked for call
// by call: MaxStaleness, MinRevision, Stale. They are never behind what this Client has
// seen or written before, whatever node answers: it remembers the highest revision of
// all answers, and the node waits until it has that. Only AnyState does without.
// AtRevision reads the past.
//
// A Cache answers reads of a range from memory, and promises what MaxStaleness does, or
// asks.
//
// # What lasts
//
// Leases (LeaseGrant, KeepAlive) and locks (Lock) are kept alive by goroutines of
// the Client, until they are given back, are lost, or the Client is closed. Their
// holder learns of a loss without the cluster, by the monotonic clock of its own
// machine: a ttl after the last renewal that succeeded was sent, less a margin, which
// is before the cluster could have given the lock to another. What no clock can tell,
// because the process stood still, a guard on the write does (Lock.Guard).
//
// A Watch and a snapshot last as long as their context; see there what becomes of
// them when their node does not. All watches of a Client share a connection to each node
// (HTTP/2; one that is alone has one of HTTP/1.1), and those of the same keys a stream.
//
// # Reading order
//
// config.go and client.go (a Client's life), kv.go, list.go, txn.go, update.go,
// lease.go, lockinfo.go, snapshot.go and cluster.go (the calls), typed.go (values of a Go type), options.go,
// freshness.go, keyrange.go, compare.go and op.go (what goes into them), promise.go
// (guards, idempotency keys and bounds), errors.go (what comes out of the failed
// ones). What lasts: keepalive.go (a lease, and the clock of both), lock.go and
// acquire.go (a lock, and the way to it), election.go, watch.go, watchrun.go (on one node after
// the other), watchshare.go (what those of the same keys share) and watchframes.go; cache.go,
// cachesync.go (how it knows what it has) and cacheindex.go.
//
// Below them the way of a call: call.go (who may end it, and how), lane.go (where it
// waits), batch.go (the request that it shares), encode.go and results.go (both in
// protobuf), session.go and sessions.go (what makes a write known), resolve.go (what
// became of it).
// Then retry.go (the rule above, in one loop), attempt.go (one request to one node),
// stream.go and upload.go (bodies that are not held in memory), batchconns.go (the
// connections of batches), streams.go (those that watches share), wire.go (was a byte
// sent?), protoin.go (items and frames out of protobuf), page.go (a part of a list, kept as
// it came), members.go, route.go and
// discover.go (who there is, who is near and who leads), path.go and json.go (bytes in
// URLs and documents).
package client
