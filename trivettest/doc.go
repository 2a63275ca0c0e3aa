// Package trivettest runs a whole cluster inside a test, for services that use
// Trivet: real members with real disks and sockets on loopback, each with its HTTP
// API.
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
//
// Nothing is left behind: the members, their connections and their files go with
// the test (goleak finds nothing).
//
// # Reading order
//
// cluster.go (what a test holds in its hand), member.go (one member's life),
// network.go (who reaches whom), conn.go and deadline.go (a connection that can be
// stalled).
package trivettest
