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
// that it was given once the call has returned, and none to one that it returned.
//
// # What a call does about failures
//
// The client learns the members and the leader from the cluster, sends writes to
// the leader (any other node would pass them on) and spreads reads over all
// nodes. Where a node fails it goes to the next, with growing, jittered pauses
// between the rounds, until the call's context ends (or Config.Timeout is over,
// where the context has no deadline). That it may do so follows from what is
// known of the attempt before:
//
//   - A read changes nothing. It is tried elsewhere after any failure but one
//     that lies in the request itself (no such key, a malformed range).
//   - A write is tried again only where the attempt before was certainly not
//     applied and never will be: no connection came about, not one byte was
//     sent, or a node said so (outcome not_applied: no leader, draining,
//     overloaded, in which case its Retry-After is waited for).
//   - A write with an idempotency key (WithIdempotencyKey) is tried again as a read
//     is, because the cluster applies it once however often it comes. So are
//     renewals of leases and locks, which do no harm twice.
//   - After any other failure a write is never sent again: its connection broke,
//     its time ran out, a proxy answered in place of a node. The error matches
//     ErrUnknown, and it is for the caller to find out, by a read that tells, or
//     by a write with a condition (IfRevision, IfAbsent, Txn) that cannot apply
//     twice.
//
// So errors.Is(err, ErrUnknown) holds exactly if the write may have been
// applied, or may yet be. Any other error of a write proves that it was not. A
// context that ends before the first byte went out is such a proof; one that
// ends while an answer is awaited is not.
//
// net/http repeats some requests behind its callers' backs. What it may repeat
// here has not had a byte sent, or only reads.
//
// # Freshness
//
// Reads are linearizable by default, on every node: they see every write that
// was acknowledged anywhere before they began. Weaker reads are asked for call
// by call: MaxStaleness, MinRevision, Stale. AtRevision reads the past.
//
// # What lasts
//
// Leases (LeaseGrant, KeepAlive) and locks (Lock) are kept alive by goroutines of
// the Client, until they are given back, are lost, or the Client is closed. Their
// holder learns of a loss without the cluster, by the monotonic clock of its own
// machine: a ttl after the last renewal that succeeded was sent, which is never
// after the cluster could have given the lock to another. What no clock can tell,
// because the process stood still, a guard on the write does (Lock.Guard).
//
// A Watch and a snapshot last as long as their context; see there what becomes of
// them when their node does not.
//
// # Reading order
//
// config.go and client.go (a Client's life), kv.go, list.go, txn.go, lease.go,
// lockinfo.go, snapshot.go and cluster.go (the calls), options.go, keyrange.go,
// compare.go and op.go (what goes into them), promise.go (guards, idempotency keys
// and bounds), errors.go (what comes out of the failed ones). What lasts:
// keepalive.go (a lease, and the clock of both), lock.go and acquire.go (a lock,
// and the way to it), watch.go and watchrun.go. Below them retry.go (the rule
// above, in one loop), attempt.go (one request to one node), stream.go and
// upload.go (bodies that are not held in memory), wire.go (was a byte sent?),
// members.go and discover.go (who there is and who leads), path.go and json.go
// (bytes in URLs and documents).
package client
