package trivettest

import (
	"context"
	"net"
	"net/http"

	"trivet/client"
)

// Config is how a client of the cluster is opened, for tests that want one of their own:
// all endpoints, connections by DialContext, and the defaults for the rest.
func (c *Cluster) Config() client.Config {
	return client.Config{Endpoints: c.Endpoints(), DialContext: c.DialContext}
}

// DialContext connects to a member's HTTP API, whose address is the host and port of one
// of Endpoints, over a socket or in memory. Requests over such a connection are those
// that Fail is about. Other addresses are dialled as ever, but for a cluster in memory,
// which has no way out.
func (c *Cluster) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	for _, m := range c.members {
		if m.url[len("http://"):] == address {
			return c.faults.dial(ctx, m.i, func() (net.Conn, error) { return c.net.connect(ctx, address) })
		}
	}
	if c.net.memory != nil {
		return c.net.connect(ctx, address) // nobody is there
	}
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

// Transport returns what carries requests to the members' HTTP API by DialContext, the
// same each time: for an http.Client of the test's own. It ends with the cluster.
func (c *Cluster) Transport() http.RoundTripper { return c.transport }
