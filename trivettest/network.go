package trivettest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// network is who reaches whom. Members dial each other through it, and take the
// connections of clients through it; each such connection asks it, whenever
// something has come or is to go, whether it flows.
type network struct {
	state atomic.Pointer[reach]
	// memory carries the connections; nil where sockets do.
	memory *memory

	mu sync.Mutex // of changes
	// peerPorts is where each member listens for the others, since it last started.
	peerPorts []string
}

// reach is a state of the network. It does not change once it is the network's; over
// is closed when the next one is.
type reach struct {
	paused []bool
	cut    [][]bool
	over   chan struct{}
}

func newReach(n int) reach {
	r := reach{paused: make([]bool, n), cut: make([][]bool, n)}
	for i := range r.cut {
		r.cut[i] = make([]bool, n)
	}
	return r
}

func newNetwork(n int, inMemory bool) *network {
	s := &network{peerPorts: make([]string, n)}
	if inMemory {
		s.memory = &memory{listeners: map[string]*memoryListener{}}
	}
	first := newReach(n)
	first.over = make(chan struct{})
	s.state.Store(&first)
	return s
}

// change makes the next state out of the present one.
func (n *network) change(f func(*reach)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old := n.state.Load()
	next := newReach(len(old.paused))
	copy(next.paused, old.paused)
	for i := range next.cut {
		copy(next.cut[i], old.cut[i])
	}
	f(&next)
	next.over = make(chan struct{})
	n.state.Store(&next)
	close(old.over)
}

// outside stands for everybody outside of the cluster.
const outside = -1

// stalled returns nil where what a and b send each other flows, else what is closed
// when that may have changed.
func (n *network) stalled(a, b int) <-chan struct{} {
	s := n.state.Load()
	switch {
	case a != outside && s.paused[a], b != outside && s.paused[b]:
	case a != outside && b != outside && s.cut[a][b]:
	default:
		return nil
	}
	return s.over
}

// peerName is the address that a member has for the others.
func peerName(i int) string { return fmt.Sprintf("n%d.trivettest:1", i+1) }

// listen listens on an address of HOST:PORT, a socket of loopback's on port 0.
func (n *network) listen(address string) (net.Listener, error) {
	if n.memory != nil {
		return n.memory.listen(address)
	}
	return net.Listen("tcp", address)
}

// connect dials what listens on an address.
func (n *network) connect(ctx context.Context, address string) (net.Conn, error) {
	if n.memory != nil {
		return n.memory.dial(ctx, address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// listenAPI is where a member takes its clients for the first time.
func (n *network) listenAPI(i int) (net.Listener, error) {
	if n.memory != nil {
		return n.listen(fmt.Sprintf("n%d.trivettest:7071", i+1))
	}
	return n.listen("127.0.0.1:0")
}

// listenPeer is where a member takes the others, from now on.
func (n *network) listenPeer(i int) (net.Listener, error) {
	address := "127.0.0.1:0"
	if n.memory != nil {
		address = peerName(i)
	}
	l, err := n.listen(address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.peerPorts[i] = l.Addr().String()
	return l, nil
}

// dial connects a member to another. Where they do not reach each other it waits
// until they do, as one does whose packets are lost.
func (n *network) dial(ctx context.Context, from int, name string) (net.Conn, error) {
	to := -1
	for i := range n.peerPorts {
		if peerName(i) == name {
			to = i
		}
	}
	if to < 0 {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("%s is no member's address", name)}
	}
	for {
		over := n.stalled(from, to)
		if over == nil {
			break
		}
		select {
		case <-over:
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
		}
	}
	n.mu.Lock()
	address := n.peerPorts[to]
	n.mu.Unlock()
	if address == "" {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED} // it has not started yet
	}
	nc, err := n.connect(ctx, address)
	if err != nil {
		return nil, err
	}
	// One end is enough to stall both ways.
	return newConn(nc, func() <-chan struct{} { return n.stalled(from, to) }), nil
}

// listener takes the connections of clients to a member.
type listener struct {
	net.Listener
	net *network
	i   int
}

func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(nc, func() <-chan struct{} { return l.net.stalled(outside, l.i) }), nil
}
