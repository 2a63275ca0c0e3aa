package client

import (
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// node is one address to send requests to.
type node struct {
	base *url.URL
	url  string // base as text
	// avoidUntil is when the node is worth asking again before others, in
	// nanoseconds since members.start; 0 where nothing speaks against it. failures
	// counts those since it last answered.
	avoidUntil atomic.Int64
	failures   atomic.Int32
	// shared is what is known of HTTP/2 there: see streams.go.
	shared atomic.Int64
	// route.go: how busy we keep it and how long it takes.
	load
}

// members is who there is to ask.
type members struct {
	start time.Time
	// turn spreads reads over the nodes.
	turn atomic.Uint32

	mu sync.Mutex
	// endpoints are the configured ones; known are the members that discovery
	// found, nil before it has.
	endpoints, known []*node
	// leader is the one of known that led when last asked; nil for none.
	leader *node
	// learned is when known was learned; zero for never.
	learned time.Time
	// pinned is the id of the cluster; nil before any node has told.
	pinned atomic.Pointer[string]
	// near is how many nodes reads are spread over; see route.go.
	near atomic.Int32
}

func newMembers(endpoints []*url.URL) *members {
	m := &members{start: time.Now()}
	for _, u := range endpoints {
		m.endpoints = append(m.endpoints, &node{base: u, url: u.String()})
	}
	return m
}

// avoidFor is how long a node that failed stands behind the others; twice as long
// after each further failure, up to maxAvoidFor.
const (
	avoidFor    = time.Second
	maxAvoidFor = 30 * time.Second
)

func (m *members) avoid(n *node) {
	span := min(avoidFor<<min(n.failures.Add(1)-1, 10), maxAvoidFor)
	n.avoidUntil.Store(int64(time.Since(m.start) + span))
	m.mu.Lock()
	if m.leader == n {
		// Whether it still leads is to be learned again; until then writes go to
		// nodes that find out for themselves.
		m.leader = nil
	}
	m.mu.Unlock()
}

func (m *members) trust(n *node) {
	if n.avoidUntil.Load() != 0 {
		n.avoidUntil.Store(0)
		n.failures.Store(0)
	}
}

// silent says that every node failed when it was last asked.
func (m *members) silent() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	nodes := m.known
	if len(nodes) == 0 {
		nodes = m.endpoints
	}
	for _, n := range nodes {
		if n.failures.Load() == 0 {
			return false
		}
	}
	return true
}

// order returns every node, in the order to ask them: for a write the leader
// first, for a read the one that pick says; then the members in turn, then the
// endpoints that are none of them, and at the end those that failed a short while
// ago.
func (m *members) order(write bool) []*node {
	turn := int(m.turn.Add(1) - 1)
	now := int64(time.Since(m.start))
	m.mu.Lock()
	defer m.mu.Unlock()
	order := make([]*node, 0, len(m.known)+len(m.endpoints))
	var avoided []*node
	add := func(n *node) {
		if n.avoidUntil.Load() > now {
			avoided = append(avoided, n)
		} else {
			order = append(order, n)
		}
	}
	first := m.leader
	if !write {
		first = m.pick(turn, now)
	}
	if first != nil {
		add(first)
	}
	for i := range m.known {
		if n := m.known[(turn+i)%len(m.known)]; n != first {
			add(n)
		}
	}
	for i := range m.endpoints {
		if n := m.endpoints[(turn+i)%len(m.endpoints)]; n != first && find(m.known, n.url) == nil {
			add(n)
		}
	}
	return append(order, avoided...)
}

// replace takes over what a node told of the cluster. Addresses that were known
// before keep what is known about them.
func (m *members) replace(cluster string, addresses []*url.URL, healthy []bool, leader int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := make([]*node, 0, len(addresses))
	m.leader = nil
	for i, u := range addresses {
		n := find(m.known, u.String())
		if n == nil {
			n = find(m.endpoints, u.String())
		}
		if n == nil {
			n = &node{base: u, url: u.String()}
		}
		if !healthy[i] {
			n.avoidUntil.Store(int64(time.Since(m.start) + avoidFor))
		}
		known = append(known, n)
		if i == leader {
			m.leader = n
		}
	}
	m.belongTo(cluster)
	m.known, m.learned = known, time.Now()
}

// age is how long ago the members were learned, and whether a leader is among
// them.
func (m *members) age() (age time.Duration, led bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.learned), m.leader != nil
}

// ofCluster is the id of the cluster that the client belongs to; empty before any
// node has told.
func (m *members) ofCluster() string {
	if own := m.pinned.Load(); own != nil {
		return *own
	}
	return ""
}

// belongTo returns the id of the cluster that the client belongs to: told, where
// it did not know of any.
func (m *members) belongTo(told string) string {
	if own := m.pinned.Load(); own != nil {
		return *own
	}
	m.pinned.CompareAndSwap(nil, &told)
	return *m.pinned.Load()
}

// at returns the node of an address, a new one where it is not known.
func (m *members) at(u *url.URL) *node {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, list := range [][]*node{m.known, m.endpoints} {
		if n := find(list, u.String()); n != nil {
			return n
		}
	}
	return &node{base: u, url: u.String()}
}

func find(nodes []*node, url string) *node {
	for _, n := range nodes {
		if n.url == url {
			return n
		}
	}
	return nil
}
