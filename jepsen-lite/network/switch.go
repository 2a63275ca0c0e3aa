package network

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"time"

	"trivet/jepsen-lite/nemesis"
)

// Port is a device at the switch, a packet a Read and a Write.
type Port struct {
	// ID is a member's, or Clients.
	ID      string
	Address netip.Addr
	Device  io.ReadWriteCloser
}

// Clients is the id of the port of the clients.
const Clients = "clients"

// Switch carries IPv4 packets between ports. Its methods may be called by several
// goroutines.
type Switch struct {
	ports    map[netip.Addr]*Port
	peerPort uint16 // of every member; Refuse is about it
	closed   chan struct{}
	wg       sync.WaitGroup

	mu      sync.Mutex
	rules   map[[2]string]*lane
	refused map[string]bool
	open    connections
}

// lane is a pair with what is on its way.
type lane struct {
	pair
	queue chan packet
}

type packet struct {
	b  []byte
	at time.Time
}

// maxPacketBytes is the most that a device gives at once.
const maxPacketBytes = 64 << 10

// New starts a switch; Close ends it and closes the devices.
func New(ports []*Port, peerPort uint16) *Switch {
	s := &Switch{
		ports: map[netip.Addr]*Port{}, peerPort: peerPort, closed: make(chan struct{}),
		rules: map[[2]string]*lane{}, refused: map[string]bool{},
		open: connections{peerPort, map[connection]*ends{}},
	}
	for _, p := range ports {
		s.ports[p.Address] = p
	}
	for _, from := range ports {
		for _, to := range ports {
			if from == to {
				continue
			}
			l := &lane{queue: make(chan packet, queuePackets)}
			l.rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
			s.rules[[2]string{from.ID, to.ID}] = l
			s.wg.Go(func() { s.deliver(l, to) })
		}
		s.wg.Go(func() { s.read(from) })
	}
	return s
}

// Set is that of nemesis.Links.
func (s *Switch) Set(rule func(from, to string) nemesis.Rule) {
	s.set(rule, func(from, to string) bool { return from != Clients && to != Clients })
}

// SetClients is that of nemesis.ClientLinks.
func (s *Switch) SetClients(rule func(member string, asked bool) nemesis.Rule) {
	s.set(func(from, to string) nemesis.Rule {
		if from == Clients {
			return rule(to, true)
		}
		return rule(from, false)
	}, func(from, to string) bool { return from == Clients || to == Clients })
}

func (s *Switch) set(rule func(from, to string) nemesis.Rule, which func(from, to string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ids, l := range s.rules {
		if which(ids[0], ids[1]) {
			l.rule = rule(ids[0], ids[1])
		}
	}
}

// Refuse is that of nemesis.Links. The kernel of a process that is gone ends its
// connections at once, those too on which nothing is said, and by their end the
// others know: so it is here.
func (s *Switch) Refuse(to string, refuse bool) error {
	var resets [][]byte
	s.mu.Lock()
	s.refused[to] = refuse
	if refuse {
		for _, p := range s.ports {
			if p.ID == to {
				resets = s.open.end(p.Address)
			}
		}
	}
	s.mu.Unlock()
	for _, r := range resets {
		_, _ = s.ports[receiver(r)].Device.Write(r) // as good as a packet that is lost
	}
	return nil
}

// read takes what a port sends.
func (s *Switch) read(from *Port) {
	b := make([]byte, maxPacketBytes)
	for {
		n, err := from.Device.Read(b)
		if err != nil {
			if errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
				return
			}
			select {
			case <-s.closed:
				return
			case <-time.After(time.Millisecond): // a moment's lack of memory, say
				continue
			}
		}
		s.route(from, append([]byte(nil), b[:n]...))
	}
}

func (s *Switch) route(from *Port, b []byte) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return // IPv6 looks for neighbours
	}
	to := s.ports[receiver(b)]
	if to == nil || to == from {
		return
	}
	now := time.Now()
	s.mu.Lock()
	if s.refuses(from, to, b) {
		s.mu.Unlock()
		if answer := reset(b); answer != nil {
			_, _ = from.Device.Write(answer) // as good as a packet that is lost
		}
		return
	}
	if from.ID != Clients && to.ID != Clients {
		s.open.note(b)
	}
	l := s.rules[[2]string{from.ID, to.ID}]
	at, ok := l.admit(now, len(b))
	// Sent under the lock: two readers of a pair there are not, but what is let
	// in first has to be in the queue first.
	if ok {
		select {
		case l.queue <- packet{b, at}:
		default: // the queue is full
		}
	}
	s.mu.Unlock()
}

// refuses says that a packet belongs to a connection between members that was
// opened to one that looks dead.
func (s *Switch) refuses(from, to *Port, b []byte) bool {
	if from.ID == Clients || to.ID == Clients {
		return false
	}
	source, destination, ok := tcpPorts(b)
	return ok && (s.refused[to.ID] && destination == s.peerPort || s.refused[from.ID] && source == s.peerPort)
}

// deliver gives a port what arrives from another, at its time.
func (s *Switch) deliver(l *lane, to *Port) {
	for {
		var p packet
		select {
		case <-s.closed:
			return
		case p = <-l.queue:
		}
		if d := time.Until(p.at); d > 0 {
			select {
			case <-s.closed:
				return
			case <-time.After(d):
			}
		}
		s.mu.Lock()
		cut := l.rule.Cut
		s.mu.Unlock()
		if !cut { // a cut takes what is under way as well
			_, _ = to.Device.Write(p.b) // one that is lost is lost
		}
	}
}

// Close ends the switch.
func (s *Switch) Close() {
	close(s.closed)
	for _, p := range s.ports {
		p.Device.Close()
	}
	s.wg.Wait()
}
