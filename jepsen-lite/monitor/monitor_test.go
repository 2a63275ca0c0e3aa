package monitor

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/history"
)

// node is a node that says what the test wants.
type node struct {
	api.Node
	role        string
	term, index int
	down        bool
}

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case n.down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == "/v1/status":
		fmt.Fprintf(w, `{"role":%q,"term":%d,"applied_index":%d,"state_hash":"h%d"}`, n.role, n.term, n.index, n.index)
	default:
		fmt.Fprint(w, `{"revision":1,"value":"1"}`)
	}
}

// monitored returns two nodes and a monitor that looks when it is told to.
func monitored(t *testing.T) (*Monitor, []*node) {
	m := &Monitor{rec: history.NewRecorder(nil, time.Now()), served: map[string][]Served{}}
	var nodes []*node
	for i := range 2 {
		n := &node{role: "follower", term: 1}
		s := httptest.NewServer(n)
		t.Cleanup(s.Close)
		n.Node = api.Node{ID: fmt.Sprint("n", i+1), URL: s.URL}
		nodes = append(nodes, n)
		m.nodes = append(m.nodes, n.Node)
	}
	return m, nodes
}

func each(t *testing.T, m *Monitor, f func(context.Context, *api.Caller, api.Node)) {
	c := api.NewCaller(time.Minute)
	t.Cleanup(c.Close)
	for _, n := range m.nodes {
		f(t.Context(), c, n)
	}
}

func TestLeaders(t *testing.T) {
	m, nodes := monitored(t)
	look := func() { each(t, m, m.look) }
	look()
	require.Equal(t, "", m.Leader())
	nodes[0].role = "leader"
	look()
	require.Equal(t, "n1", m.Leader())
	require.Zero(t, m.Changes(), "the first one is no change")
	// The next one leads, and the last one does not know yet.
	nodes[1].role, nodes[1].term = "leader", 2
	look()
	require.Equal(t, "n2", m.Leader())
	require.Equal(t, 1, m.Changes())
	look()
	require.Equal(t, 1, m.Changes())
	// Again, in a later term.
	nodes[1].term = 3
	look()
	require.Equal(t, 1, m.Changes())
}

func TestRecovered(t *testing.T) {
	m, nodes := monitored(t)
	probe := func() { each(t, m, m.probe) }
	require.False(t, m.Served())
	probe()
	require.True(t, m.Served())
	_, ok := m.Recovered(0)
	require.True(t, ok)
	fault := m.rec.Now()
	_, ok = m.Recovered(fault)
	require.False(t, ok, "what was asked before says nothing")
	nodes[1].down = true
	probe()
	_, ok = m.Recovered(fault)
	require.False(t, ok, "one of them is down")
	nodes[1].down = false
	probe()
	at, ok := m.Recovered(fault)
	require.True(t, ok)
	require.Greater(t, at, fault)
}

func TestSettled(t *testing.T) {
	m, nodes := monitored(t)
	look := func() { each(t, m, m.look) }
	look()
	require.False(t, m.settled(0), "one look is not enough")
	nodes[0].index, nodes[1].index = 7, 6
	look()
	require.False(t, m.settled(0))
	nodes[1].index = 7
	look()
	require.False(t, m.settled(0))
	look()
	require.True(t, m.settled(0))
	require.False(t, m.settled(m.rec.Now()), "that was before the end")
	require.Len(t, m.Hashes(), 8)
}

// Only what is late by much counts, and only what lies between the two times.
func TestPulse(t *testing.T) {
	var p pulse
	second := int64(time.Second)
	p.took(second, second+int64(lateBeat)-1)
	require.Zero(t, p.between(0, 10*second))
	p.took(2*second, 3*second)
	p.took(5*second, 7*second)
	require.Equal(t, 3*time.Second, p.between(0, 10*second))
	require.Equal(t, 1500*time.Millisecond, p.between(2*second+second/2, 6*second))
	require.Zero(t, p.between(3*second, 5*second))
}
