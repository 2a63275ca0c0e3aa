package cluster

import (
	"errors"
	"net"
	"sync"

	"trivet/jepsen-lite/nemesis"
)

// links is the forwarders between members, and the rules of every directed pair.
type links struct {
	members map[string]string // address of a forwarder → id of the member behind it
	behind  map[string]string // the same → address of the member
	wg      sync.WaitGroup

	mu sync.Mutex
	// rules is replaced as a whole, changed is closed with each change.
	rules   func(from, to string) nemesis.Rule
	changed chan struct{}
	// ln are the listeners by the id of the member behind, conns the open
	// connections with the id of the member that they were opened to.
	ln     map[string]net.Listener
	conns  map[net.Conn]string
	closed bool
}

// openLinks listens on each of the addresses and forwards to the one behind it.
func openLinks(behind, members map[string]string) (*links, error) {
	l := &links{
		members: members,
		behind:  behind,
		rules:   func(string, string) nemesis.Rule { return nemesis.Rule{} },
		changed: make(chan struct{}),
		ln:      map[string]net.Listener{},
		conns:   map[net.Conn]string{},
	}
	for public := range behind {
		if err := l.listen(public); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

// listen accepts connections to the member behind an address.
func (l *links) listen(public string) error {
	ln, err := net.Listen("tcp", public)
	if err != nil {
		return err
	}
	to, peer := l.members[public], l.behind[public]
	l.mu.Lock()
	l.ln[to] = ln
	l.mu.Unlock()
	l.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // of one connection, or out of files: the dialler notices
			}
			if !l.track(c, to) {
				c.Close()
				continue
			}
			l.wg.Go(func() { l.forward(c, to, peer) })
		}
	})
	return nil
}

// Refuse is that of nemesis.Links.
func (l *links) Refuse(to string, refuse bool) error {
	l.mu.Lock()
	ln := l.ln[to]
	l.mu.Unlock()
	switch {
	case refuse == (ln == nil):
		return nil
	case !refuse:
		for public, id := range l.members {
			if id == to {
				return l.listen(public)
			}
		}
	}
	ln.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ln, to)
	for c, id := range l.conns {
		if id == to {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // as the kernel does for a process that is gone
			}
			c.Close()
		}
	}
	return nil
}

// Set is that of nemesis.Links.
func (l *links) Set(rule func(from, to string) nemesis.Rule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rules = rule
	close(l.changed)
	l.changed = make(chan struct{})
}

// rule returns what holds for a pair now, and what is closed when that may have
// changed.
func (l *links) rule(from, to string) (nemesis.Rule, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rules(from, to), l.changed
}

// track notes a connection that was opened to a member; false where there are to
// be none.
func (l *links) track(c net.Conn, to string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.ln[to] == nil {
		return false
	}
	l.conns[c] = to
	return true
}

func (l *links) release(c net.Conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	c.Close()
}

func (l *links) close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	close(l.changed)
	l.changed = make(chan struct{})
	for c := range l.conns {
		c.Close()
	}
	for _, ln := range l.ln {
		ln.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}
