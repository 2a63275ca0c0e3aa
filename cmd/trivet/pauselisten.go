package main

import "net"

// A node that starts reads and checks its disk first, for seconds where it holds much. Its
// address has to be its own from the beginning, as one that is in use is the usual sign of
// a second start. But what listens is let in by the kernel, and then waits for an answer: a
// balancer takes such a node for one that works, and callers that take any node gather
// there. So it does not listen meanwhile, and who connects is refused at once.

// pausedListener is a listener that does not listen until it is resumed.
type pausedListener struct {
	*net.TCPListener
	// asked is the address as it was given, for the error.
	asked string
}
