// Package network is a network of packets: a switch in this process between TUN
// devices, one in the network namespace of each member and one for the clients,
// with a rule for each directed pair.
//
// A packet that a rule drops is gone. What TCP makes of that is the kernels'
// business: they send again, later and later, and give up or not. So nothing that
// is built on it can tell it from a bad network.
//
// Addresses are 198.18.X.0/24 (RFC 2544, for tests of networks), X being free on
// this machine: clients have .1, members .11 and on. Nothing of it outlives the
// process: a TUN device goes with the last descriptor of it, a namespace that has
// no name with its last process.
//
// Reading order: switch.go, pair.go, connections.go, reset.go, tun_linux.go.
package network
