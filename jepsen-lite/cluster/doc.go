// Package cluster runs a cluster of real processes on loopback, without root,
// and does faults to it: SIGKILL, SIGSTOP, and whatever can be done to bytes
// between members.
//
// Links. A member is told, as its peers' addresses, those of forwarders of this
// process, one for each member, and listens on another port itself. A stream
// between members opens with a Hello that names who dials (raftnode/peerport.go);
// the forwarder reads it, passes it on, and from then on knows for each direction
// of the connection which pair of members it belongs to. Rules are looked up byte
// range by byte range, so that a cut that comes in the middle of a connection
// takes effect on it.
//
// A member can be made to look dead as well: its forwarder ends the connections
// that were opened to it and listens no more, while the member lives.
//
// What that is not: a cut here holds bytes back, it resets nothing and refuses no
// connection, as a network that drops packets; but a dial always succeeds, as the
// kernel answers it, and the silence begins with the answer to the Hello. Loss
// costs the time of sending again, since a stream with holes is no stream. The
// clients' way to the members is not touched.
//
// Reading order: cluster.go, process.go, links.go, forward.go, wallclock.go.
package cluster
