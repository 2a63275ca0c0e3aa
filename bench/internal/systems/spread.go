package systems

import "context"

// spread says where the requests of a way without a library go.
type spread struct {
	write int
	reads []int
}

// newSpread finds the leader, if need be.
func newSpread(ctx context.Context, c Cluster, o Options) (spread, error) {
	if o.Nodes != nil {
		return spread{write: -1, reads: o.Nodes}, nil
	}
	leader, err := c.Leader(ctx)
	if err != nil {
		return spread{}, err
	}
	s := spread{write: leader}
	// From the leader on, so that the first caller's is one that leads: a lone
	// caller of a read asks the leader, as a lone caller of a write does.
	for i := range c.Nodes() {
		s.reads = append(s.reads, (leader+i)%c.Nodes())
	}
	return s, nil
}

// of returns the nodes of caller i.
func (s spread) of(i int) (write, read int) {
	read = s.reads[i%len(s.reads)]
	if write = s.write; write < 0 {
		write = read
	}
	return write, read
}

// httpConns is what a caller over plain HTTP has: a connection for reads and one
// for writes, which may be the same.
type httpConns struct {
	write, read *httpConn
}

func newHTTPConns(ports []int, s spread, i int) httpConns {
	write, read := s.of(i)
	c := httpConns{write: newHTTPConn(ports[write])}
	if c.read = c.write; read != write {
		c.read = newHTTPConn(ports[read])
	}
	return c
}

func (c httpConns) Close() error {
	c.write.Close()
	return c.read.Close()
}
