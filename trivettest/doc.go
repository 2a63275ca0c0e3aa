// Package trivettest runs a whole cluster inside a test, for services that use
// Trivet: real members with real disks, each with its HTTP API, over sockets on loopback
// or connections in memory.
//
//	func TestOrders(t *testing.T) {
//		cluster := trivettest.Start(t)
//		orders := NewOrders(cluster.Client())
//		…
//		cluster.Kill(cluster.Leader())
//		…
//	}
//
// The members run the very code of the server, so what a test sees is what
// production does. What a test can do to them:
//
//   - Kill stops a member as kill -9 would, Restart brings it back with its data.
//   - Pause stalls everything that a member sends and is sent, to members and to
//     clients, as where its machine hangs: connections stay open and say nothing.
//     Resume lets it flow again, what was held back included.
//   - Partition stalls what two groups of members send each other; clients still
//     reach all of them. Heal ends it, and every Pause.
//   - Fail has the next requests to a member fail in a way of choice: not sent, lost on
//     the way, applied with the answer lost, half an answer, a status, a delay.
//
// # Virtual time
//
// With InMemory there are no sockets, and so the cluster and all that uses it run in a
// bubble of testing/synctest, where time passes only while everybody waits:
//
//	func TestExpiry(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			cluster := trivettest.Start(t, trivettest.InMemory())
//			…
//			time.Sleep(time.Minute) // takes no minute
//		})
//	}
//
// Timeouts, ttls and backoff are as long as in production, and the test is not slow for
// it nor does it fail on a machine that is. What costs time is what happens meanwhile,
// heartbeats above all: some hundredths of a second for each minute, and a tenth of
// that with WithTiming(raftnode.TimingWAN). The rules are those of synctest: the cluster
// is started and used inside one bubble, and what does not wait for channels, conditions
// or timers, a socket above all, holds the time.
//
// Nothing is left behind: the members, their connections and their files go with
// the test (goleak finds nothing).
//
// # Reading order
//
// cluster.go (what a test holds in its hand), member.go (one member's life), dial.go (how
// clients get there), faults.go and faultyconn.go (requests that fail), network.go (who
// reaches whom), pipe.go (connections in memory), conn.go and deadline.go (a connection
// that can be stalled).
package trivettest
