//go:build !unix

package client

import "net"

// stale cannot tell here: see batchConns.
func stale(net.Conn) bool { return false }
