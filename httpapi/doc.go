// Package httpapi is the HTTP door of a node: it decodes requests, hands writes
// to the node and reads from its store, and writes the answers and the problems.
//
// # Rules
//
//  1. Nothing is decided here that the state machine decides. The package turns
//     bytes into operations and results into bytes; what an operation means is
//     in store/, how it is replicated and how a read is made fresh in raftnode/.
//  2. Nothing is guessed. An unknown or repeated parameter or field, a number
//     out of range, text that is no UTF-8: each is a 400 that names it. What is
//     not understood is never passed over, in protobuf neither.
//  3. A key is bytes. The path is percent-decoded once and never cleaned; `//`,
//     `.`, `..` and `%2F` inside a key are the key's own.
//  4. One writer of errors. Everything that fails ends in a *trivetpb.Problem
//     and goes out through problem.go, its status taken from the one table in
//     trivetpb/codes.go. An outcome that is not proven is unknown.
//  5. Every response, those to requests that never reached a handler included,
//     carries Trivet-Revision, Trivet-Node and Trivet-Cluster.
//  6. What a caller relies on is kept or refused: an identity, a guard or a
//     condition that a call does not take is a 400, never passed over.
//  7. Every door has a limit (limits.go): headers, bodies, all bodies together,
//     operations, connections, requests under way, and the time for each step.
//
// # The way of a request
//
// The listener admits the connection (conn.go). As long as its requests are simple
// ones, calls for keys with plain heads over TCP, it is served by simpleconn.go; with
// the first other one it becomes net/http's. From there on both are one:
// call.serve (server.go) finds the resource (routes.go), checks the query
// against what the call knows (query.go), admits the request or refuses it as
// draining or overloaded, and calls the handler with a call (call.go).
//
// A write (kv.go, txn.go, batch.go, leases.go, locks.go, sessions.go) reads its
// body, becomes a trivetpb.Command with the identity and the guards that came
// with it (identity.go, guard.go), and waits in Node.Propose. A read (kv.go,
// range.go) waits in Node.AwaitRead until the local store is as fresh as asked
// (read.go), then answers from one view of the store, so that all of an answer
// belongs to one revision. A txn or batch splits into those two.
//
// A request for a lock that is held waits beside the requests under way, by what
// the local store says of its token (lockwait.go). A snapshot goes out from a
// view (snapshot.go) and comes in through the log in parts (restore.go).
//
// A watch (watch.go) opens a store.Watcher, and then writes frames in the
// goroutine of its request for as long as the caller reads (watchstream.go). It
// has a limit of its own, and no time limit but that for taking bytes.
//
// The handler either writes its answer (respond.go) or returns a problem.
//
// # Reading order
//
// limits.go (Config and every bound), server.go (the pipeline), routes.go (what
// there is), call.go (one request), query.go, precondition.go, media.go and
// read.go (what a request says beside its body), identity.go and guard.go (what a
// write relies on), kv.go, range.go, cursor.go and stream.go (keys), ops.go
// (operations as JSON), txn.go, batchdoc.go, batch.go and wire.go (many at once),
// documents.go and durations.go (small documents), leases.go, locks.go,
// lockwait.go and sessions.go, snapshot.go and restore.go, watch.go,
// watchstream.go and watchframe.go (watches), jsonin.go and
// jsonout.go (strict decoding, hand-placed encoding), problem.go (errors),
// status.go, openapi.go, conn.go; simplehead.go, simpleconn.go and simpleanswer.go (how
// simple requests are read and answered); metrics.go, metricshttp.go and metricsnode.go
// (what is counted).
package httpapi
