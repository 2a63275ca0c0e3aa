package client

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// Reads go to the nearest nodes. Near is who answers within a factor of the fastest,
// as measured: reads that are spread over several nodes cost each of them less. Among
// those it is the one that has fewer of our requests under way, of two that come in
// turn: a node that slows down has more of them, and so gets less.

const (
	// nearFactor and nearSlack say what is near: up to that many times as long as the
	// fastest, or that much longer. Nodes of one data centre are, whatever noise
	// there is between them; another region is not.
	nearFactor = 3
	nearSlack  = 2 * time.Millisecond
	// measureEvery is how long a measurement of a node counts: it is taken for near
	// then, until it has answered once more.
	measureEvery = time.Minute

	// minPatience and patienceFactor are what a node gets to answer a read in, when
	// there is another to ask: as many times what it usually takes. A node that
	// hangs holds up what it was given for no longer.
	minPatience    = 250 * time.Millisecond
	patienceFactor = 20
)

// load is how a node does.
type load struct {
	// underWay is how many batches of ours it has.
	underWay atomic.Int32
	// latency is a moving average of how long it takes over a batch of reads, in
	// nanoseconds; measured is when it was, since the start of the process. 0 for
	// never.
	latency, measured atomic.Int64
}

var processStart = time.Now()

// took notes how long the node took over a batch of reads. Notes at the same time
// may get lost; it is an average.
func (l *load) took(d time.Duration) {
	now := int64(time.Since(processStart)) + 1
	average := l.latency.Load()
	if average == 0 || now-l.measured.Load() > int64(measureEvery) {
		average = int64(d)
	} else {
		average += (int64(d) - average) / 8
	}
	l.latency.Store(max(average, 1))
	l.measured.Store(now)
}

// estimate is how long the node is likely to take; 0 where that is not known.
func (l *load) estimate() time.Duration {
	if int64(time.Since(processStart))-l.measured.Load() > int64(measureEvery) {
		return 0
	}
	return time.Duration(l.latency.Load())
}

// pick returns the node for a read; nil where every node has failed of late. It is
// called under the lock.
func (m *members) pick(turn int, now int64) *node {
	nodes := m.known
	if len(nodes) == 0 {
		nodes = m.endpoints
	}
	var well [maxPicked]*node
	var estimates [maxPicked]time.Duration
	n, best := 0, time.Duration(0)
	for _, candidate := range nodes {
		if candidate.avoidUntil.Load() > now || n == maxPicked {
			continue
		}
		e := candidate.estimate()
		well[n], estimates[n] = candidate, e
		n++
		if e > 0 && (best == 0 || e < best) {
			best = e
		}
	}
	limit := max(nearFactor*best, best+nearSlack)
	near := 0
	for i, candidate := range well[:n] {
		if estimates[i] <= limit {
			well[near] = candidate
			near++
		}
	}
	m.near.Store(int32(near))
	if near == 0 {
		return nil
	}
	first, second := well[turn%near], well[(turn+1)%near]
	if second.underWay.Load() < first.underWay.Load() {
		return second
	}
	return first
}

// maxPicked is how many nodes are looked at; members are five or so.
const maxPicked = 16

// takers is how many nodes take the batches of a lane: the leader, or those near.
func (m *members) takers(write bool) int {
	if write {
		return 1
	}
	return max(1, int(m.near.Load()))
}

// patience is how long a node gets for a batch that may be asked for elsewhere. In
// the first round a read does not wait for one node as long as it might while there
// is another: most likely that one hangs.
func (m *members) patience(n *node, write bool, patience time.Duration) time.Duration {
	if write || patience > batchPatience || m.near.Load() < 2 {
		return patience
	}
	if e := n.estimate(); e > 0 {
		return min(patience, max(minPatience, patienceFactor*e))
	}
	return patience
}

// stranger refuses an answer of a node of another cluster than the one that the
// client belongs to: that of the members that it has learned, or of the first node
// that it heard of. What a write did there is another matter; one with a session did
// nothing, as ids of sessions mean nothing elsewhere.
func (c *Client) stranger(r *request, n *node, resp *http.Response) *Error {
	told := resp.Header.Get("Trivet-Cluster")
	if told == "" {
		return nil
	}
	own := c.members.belongTo(told)
	if own == told {
		return nil
	}
	e := r.failed(r.sessioned)
	e.Code, e.Status, e.Retryable = codeStranger, resp.StatusCode, true
	if e.Node = resp.Header.Get("Trivet-Node"); e.Node == "" {
		e.Node = n.url
	}
	e.Detail = fmt.Sprintf("the node at %s belongs to the cluster %s, not to %s", n.url, shown(told), shown(own))
	return e
}
