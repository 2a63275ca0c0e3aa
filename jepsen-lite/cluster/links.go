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
	ln      []net.Listener
	wg      sync.WaitGroup

	mu sync.Mutex
	// rules is replaced as a whole, changed is closed with each change.
	rules   func(from, to string) nemesis.Rule
	changed chan struct{}
	conns   map[net.Conn]struct{}
	closed  bool
}

// openLinks listens on each of the addresses and forwards to the one behind it.
func openLinks(behind, members map[string]string) (*links, error) {
	l := &links{
		members: members,
		rules:   func(string, string) nemesis.Rule { return nemesis.Rule{} },
		changed: make(chan struct{}),
		conns:   map[net.Conn]struct{}{},
	}
	for public, peer := range behind {
		ln, err := net.Listen("tcp", public)
		if err != nil {
			l.close()
			return nil, err
		}
		l.ln = append(l.ln, ln)
		to := members[public]
		l.wg.Go(func() {
			for {
				c, err := ln.Accept()
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					continue // of one connection, or out of files: the dialler notices
				}
				if !l.track(c) {
					c.Close()
					return
				}
				l.wg.Go(func() { l.forward(c, to, peer) })
			}
		})
	}
	return l, nil
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

func (l *links) track(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.conns[c] = struct{}{}
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
	l.mu.Unlock()
	for _, ln := range l.ln {
		ln.Close()
	}
	l.wg.Wait()
}
