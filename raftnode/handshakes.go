package raftnode

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// handshakes are the connections to the peer port of those that have not said
// who they are. There are so many places and no more; whoever comes when all are
// taken gets the place of another, and that one's connection is closed.
//
// To turn the newcomer away instead would give the port to whoever holds the
// places: a thousand connections that say nothing, opened again whenever they
// are closed, would keep a member that was restarted out for as long as they
// like, and a second one that dies then costs the cluster its majority. A member
// says who it is as soon as it is connected. So it needs its place for a moment,
// and who has had one the longest is the least likely to be one.
//
// The place comes from among those of the source that holds the most, the oldest
// of them. So a flood from one address costs members at other addresses nothing,
// and one from the address of a member (all of a cluster on one machine) has to
// open as many connections as there are places within the moment of a handshake.
type handshakes struct {
	mu sync.Mutex
	// waiting has them by age, the oldest first; from counts them by source.
	waiting list.List // of *handshake
	from    map[string]int
	// places has one token for each goroutine that answers one.
	places chan struct{}
}

// handshake is one connection that has a place.
type handshake struct {
	conn   net.Conn
	source string
	at     *list.Element // nil once it has lost or left its place; under handshakes.mu
}

func newHandshakes(places int) *handshakes {
	return &handshakes{from: map[string]int{}, places: make(chan struct{}, places)}
}

// begin gives a connection a place, and closes another one for it where there is
// none. It waits until that one's goroutine has left, which its closing makes
// it do at once: there are never more goroutines than places. false where stop
// was closed meanwhile.
func (h *handshakes) begin(c net.Conn, stop <-chan struct{}) (*handshake, bool) {
	select {
	case h.places <- struct{}{}:
	default:
		h.evict()
		select {
		case h.places <- struct{}{}:
		case <-stop:
			return nil, false
		}
	}
	s := &handshake{conn: c, source: source(c)}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.at = h.waiting.PushBack(s)
	h.from[s.source]++
	return s, true
}

// end gives a place back. The connection stays as it is; false where it has lost
// its place, and is closed.
func (h *handshakes) end(s *handshake) bool {
	h.mu.Lock()
	had := h.leave(s)
	h.mu.Unlock()
	<-h.places
	return had
}

// evict closes the oldest connection of the source that has the most. Where none
// waits, all are about to give their places back.
func (h *handshakes) evict() {
	h.mu.Lock()
	var oldest *handshake
	for e := h.waiting.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*handshake); oldest == nil || h.from[s.source] > h.from[oldest.source] {
			oldest = s
		}
	}
	if oldest != nil {
		h.leave(oldest)
	}
	h.mu.Unlock()
	if oldest != nil {
		oldest.conn.Close() // its goroutine does the rest
	}
}

// leave takes one from those that can lose their places; false where it was none
// of them any more. The caller holds the lock.
func (h *handshakes) leave(s *handshake) bool {
	if s.at == nil {
		return false
	}
	h.waiting.Remove(s.at)
	s.at = nil
	if h.from[s.source]--; h.from[s.source] == 0 {
		delete(h.from, s.source)
	}
	return true
}

// source is where a connection comes from, as far as one host can choose it
// freely: an IPv4 address, or the network of 64 bits of an IPv6 address.
func source(c net.Conn) string {
	remote := c.RemoteAddr().String()
	if a, err := netip.ParseAddrPort(remote); err == nil {
		ip := a.Addr().Unmap()
		if ip.Is4() {
			return ip.String()
		}
		p, _ := ip.WithZone("").Prefix(64) // of a valid address, and so many bits it has
		return p.String()
	}
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return remote
	}
	return host
}
