package monitor

import (
	"context"
	"strconv"
	"sync"
	"time"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

// interval is between two looks at a node, patience how long it has for each.
const (
	interval = 100 * time.Millisecond
	patience = time.Second
)

// Monitor looks at the nodes until it is closed. Its methods may be called by
// several goroutines.
type Monitor struct {
	rec    *history.Recorder
	nodes  []api.Node
	prefix string
	cancel context.CancelFunc
	quiet  context.CancelFunc // ends the probes alone
	wg     sync.WaitGroup
	pulse  pulse

	mu      sync.Mutex
	leader  string
	term    uint64
	changes int // of the leader, after the first
	hashes  []check.Hash
	served  map[string][]Served // by node, in order
}

// Served is a write and a linearizable read that a node answered.
type Served struct{ Invoked, Returned int64 }

// Start begins to look.
func Start(rec *history.Recorder, nodes []api.Node, prefix string) *Monitor {
	ctx, cancel := context.WithCancel(context.Background())
	probing, quiet := context.WithCancel(ctx)
	m := &Monitor{rec: rec, nodes: nodes, prefix: prefix, cancel: cancel, quiet: quiet, served: map[string][]Served{}}
	m.wg.Go(func() { m.pulse.run(ctx, rec.Now) })
	for _, n := range nodes {
		m.wg.Go(func() { m.repeat(ctx, func(c *api.Caller) { m.look(ctx, c, n) }) })
		m.wg.Go(func() { m.repeat(probing, func(c *api.Caller) { m.probe(probing, c, n) }) })
	}
	return m
}

// Close stops looking and returns when nobody looks any more.
func (m *Monitor) Close() {
	m.cancel()
	m.wg.Wait()
}

func (m *Monitor) repeat(ctx context.Context, f func(*api.Caller)) {
	c := api.NewCaller(patience)
	defer c.Close()
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f(c)
		}
	}
}

// look asks a node about itself.
func (m *Monitor) look(ctx context.Context, c *api.Caller, n api.Node) {
	s, a := c.Status(ctx, n)
	if a.Type != history.OK {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hashes = append(m.hashes, check.Hash{Node: n.ID, At: m.rec.Now(), Index: s.AppliedIndex, Hash: s.StateHash})
	if s.Role == "leader" && s.Term > m.term {
		if m.leader != "" && m.leader != n.ID {
			m.changes++
			m.rec.Note("leader", map[string]any{"node": n.ID, "term": s.Term})
		}
		m.leader, m.term = n.ID, s.Term
	}
}

// probe writes and reads through a node.
func (m *Monitor) probe(ctx context.Context, c *api.Caller, n api.Node) {
	invoked := m.rec.Now()
	key := m.prefix + "probe/" + n.ID
	if _, a := c.Put(ctx, n, key, strconv.FormatInt(invoked, 10), nil, nil); a.Type != history.OK {
		return
	}
	if _, _, a := c.Get(ctx, n, key, nil); a.Type != history.OK {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.served[n.ID] = append(m.served[n.ID], Served{invoked, m.rec.Now()})
}

// Settle ends the probes and waits until all nodes show the same index twice in
// a row, or ctx ends: then their hashes at it can be compared. It returns from
// when on the looks are those of the end.
func (m *Monitor) Settle(ctx context.Context) (end int64) {
	m.quiet()
	end = m.rec.Now()
	for !m.settled(end) {
		select {
		case <-ctx.Done():
			return end
		case <-time.After(interval / 2):
		}
	}
	return end
}

// settled says that the last two looks at each node, all of them since a time,
// showed one index.
func (m *Monitor) settled(since int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.hashes) < 2*len(m.nodes) {
		return false
	}
	last := m.hashes[len(m.hashes)-2*len(m.nodes):]
	looks := map[string]int{}
	for _, h := range last {
		looks[h.Node]++
		if h.Index != last[0].Index || h.At < since {
			return false
		}
	}
	return len(looks) == len(m.nodes)
}

// Leader is who led last, as far as a node said so.
func (m *Monitor) Leader() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader
}

// Changes is how often another member than before was seen to lead.
func (m *Monitor) Changes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

// Hashes are the state hashes that were seen.
func (m *Monitor) Hashes() []check.Hash {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]check.Hash(nil), m.hashes...)
}

// Served says whether any node ever answered a request.
func (m *Monitor) Served() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.served) > 0
}

// Recovered returns when every node had served a request that began after a time
// of the record; false where one has not yet.
func (m *Monitor) Recovered(after int64) (int64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var last int64
	for _, n := range m.nodes {
		found := false
		for _, s := range m.served[n.ID] {
			if s.Invoked > after {
				last, found = max(last, s.Returned), true
				break
			}
		}
		if !found {
			return 0, false
		}
	}
	return last, true
}
