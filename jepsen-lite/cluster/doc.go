// Package cluster runs a cluster of real processes and does faults to it: on
// loopback, without root, SIGKILL, SIGSTOP, and whatever can be done to bytes
// between members; with root, whatever can be done to packets and disks as well.
//
// Root. Each member is started by a thread that lives in a network namespace and
// a mount namespace of its own. The namespace has a TUN device that leads to the
// switch of package network, and over the data folder a disk of package disk is
// mounted. Namespaces, devices and mounts have no name outside and go with this
// process and its children, however it ends: there is nothing to clean up, nor
// after a crash. In the network of the machine there is one device, jepsenX, by
// which clients reach the members; it goes as well.
//
// Links without root. A member is told, as its peers' addresses, those of forwarders of this
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
// Reading order: cluster.go, process.go, links.go, forward.go; root_linux.go,
// namespace_linux.go; wallclock.go.
package cluster
