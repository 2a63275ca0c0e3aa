package raftnode

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"time"
)

// liveness tells which members' processes are dead, long before a timeout does.
//
// A stream is kept open to every other member, on which nothing is ever said.
// Where the process at the other end dies, however it dies, its kernel ends the
// stream at once; and where that was no more than a stream that ended, a redial
// gets through. So a member is dead, to this one, when it cannot be dialled
// because its host says that nobody listens there (ECONNREFUSED).
//
// Nothing else is. A member that is stopped, a host that has lost its power, and
// a link that is cut, answer nothing: the stream stays as it is, or its redial
// waits. Those are found out by raft's timeouts.
//
// A member whose port is closed while its process lives (Node.fail) is dead too.
// It cannot lead, so that is as it should be. One whose host refuses for it (a
// firewall) is taken for dead, if the stream that it had is ended as well; what
// that may cost is argued in deadleader.go.
type liveness struct {
	port *peerPort
	// fresh is how long a refusal counts: a member may have come back since.
	fresh time.Duration

	mu      sync.Mutex
	peers   map[string]*livePeer
	changed chan struct{} // closed at each verdict
}

// livePeer is what is known of one member.
type livePeer struct {
	end  context.CancelFunc
	wake chan struct{} // has room for one: dial again now
	// Under liveness.mu.
	connected bool
	refused   time.Time // when the last dial was refused; zero where it was not
}

const (
	// A member that cannot be reached is dialled again after redialLeast, and less
	// often with time, down to once in redialMost.
	redialLeast = time.Millisecond
	redialMost  = time.Second
)

func newLiveness(port *peerPort, fresh time.Duration) *liveness {
	return &liveness{port: port, fresh: fresh, peers: map[string]*livePeer{}, changed: make(chan struct{})}
}

// keep makes streams to the members listed, and ends those to all others. Each
// is kept by one goroutine, which spawn starts and ctx ends.
func (l *liveness) keep(ctx context.Context, ids []string, spawn func(func()) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := map[string]bool{}
	for _, id := range ids {
		wanted[id] = true
		if l.peers[id] != nil {
			continue
		}
		ctx, end := context.WithCancel(ctx)
		p := &livePeer{end: end, wake: make(chan struct{}, 1)}
		if !spawn(func() { l.watch(ctx, id, p) }) {
			end()
			return
		}
		l.peers[id] = p
	}
	for id, p := range l.peers {
		if !wanted[id] {
			p.end()
			delete(l.peers, id)
		}
	}
}

// watch keeps a stream to one member until the context ends.
func (l *liveness) watch(ctx context.Context, id string, p *livePeer) {
	pause := redialLeast
	for ctx.Err() == nil {
		began := time.Now()
		err := l.follow(ctx, id, p)
		if err == nil && time.Since(began) >= redialLeast {
			// It was there, so this may be its end: look at once. One that ends
			// every stream as it begins is left alone for a while.
			pause = redialLeast
			continue
		}
		timer := time.NewTimer(pause)
		pause = min(2*pause, redialMost)
		select {
		case <-timer.C:
		case <-p.wake:
			pause = redialLeast
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// follow dials a member and waits until the stream ends; its error says why
// there was none.
func (l *liveness) follow(ctx context.Context, id string, p *livePeer) error {
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := l.port.dial(dial, streamPeer, id)
	cancel()
	l.verdict(p, err)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer l.port.release(conn)
	var b [1]byte
	conn.Read(b[:]) // nothing comes but the end
	l.mu.Lock()
	p.connected = false
	l.mu.Unlock()
	return nil
}

// verdict takes what became of a dial.
func (l *liveness) verdict(p *livePeer, err error) {
	refused := errors.Is(err, syscall.ECONNREFUSED)
	l.mu.Lock()
	defer l.mu.Unlock()
	p.connected = err == nil
	if !refused && p.refused.IsZero() {
		return // alive, or silent, as before
	}
	p.refused = time.Time{}
	if refused {
		p.refused = time.Now()
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// dead reports whether a member refused to be dialled a moment ago. Where it did
// so some time ago it is dialled again: changes tells of the outcome.
func (l *liveness) dead(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[id]
	switch {
	case p == nil || p.refused.IsZero():
		return false
	case time.Since(p.refused) <= l.fresh:
		return true
	}
	p.look()
	return false
}

// seen notes that a member has connected to this one: where it could not be
// dialled before, it can by now.
func (l *liveness) seen(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.peers[id]; p != nil && !p.connected {
		p.look()
	}
}

func (p *livePeer) look() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// changes returns a channel that is closed at the next verdict.
func (l *liveness) changes() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// membersEvery is how often it is looked whether there are other members than
// before; every change of leader has it looked too.
const membersEvery = time.Second

// keepLiveness keeps the streams until the node stops.
func (n *Node) keepLiveness() {
	for {
		signal := n.changes()
		var ids []string
		for _, s := range n.configuration().Servers {
			if string(s.ID) != n.cfg.ID {
				ids = append(ids, string(s.ID))
			}
		}
		n.liveness.keep(n.ctx, ids, n.spawn)
		timer := time.NewTimer(membersEvery)
		select {
		case <-signal:
		case <-timer.C:
		case <-n.ctx.Done():
		}
		timer.Stop()
		if n.ctx.Err() != nil {
			return
		}
	}
}
