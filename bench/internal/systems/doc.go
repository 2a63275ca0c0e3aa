// Package systems runs what is compared, and speaks to it: Trivet, etcd, and,
// where they are installed, PostgreSQL and Redis.
//
// A System starts a Cluster: processes of its own on loopback, with their data in a
// given folder and fsync on. A Cluster is spoken to in one or more ways (plain HTTP,
// a client library), each of which is a Client; a Client gives each caller of the
// load generator a Caller. What a system cannot do, or not with the same meaning,
// is ErrUnsupported, and is left out of the comparison.
//
// Where a request goes is the same for all: writes to the leader, which a client
// that does not find it by itself is told; reads to all nodes, the callers of plain
// HTTP spread over them. So nobody pays for a forwarded write.
//
// system.go has the interfaces, process.go what runs the servers, httpconn.go the
// HTTP client of the ways without a library, which sends prepared requests and
// looks at no more of an answer than it must. Then a file a system, or two:
// trivet.go, trivethttp.go, trivetgo.go, etcd.go, etcdnode.go, etcdhttp.go,
// etcdgo.go, postgres.go, redis.go.
package systems
