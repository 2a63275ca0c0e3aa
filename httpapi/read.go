package httpapi

import (
	"strconv"
	"time"

	"trivet/raftnode"
	"trivet/store"
	"trivet/trivetpb"
)

// readParams are the parameters that every read takes.
var readParams = []string{"consistency", "max_staleness", "min_revision"}

// consistencies are the names of API.md, "Reads: how fresh".
var consistencies = map[raftnode.Consistency]string{
	raftnode.Linearizable: "linearizable",
	raftnode.Bounded:      "bounded",
	raftnode.Session:      "session",
	raftnode.Stale:        "stale",
}

// parseRead parses how fresh the read must be. What contradicts itself is
// refused: max_staleness with linearizable (which is fresher than any bound) or
// stale (which has none), min_revision with stale.
func parseRead(q *query) (raftnode.ReadOptions, *trivetpb.Problem) {
	o := raftnode.ReadOptions{Consistency: raftnode.Linearizable}
	name, named := q.get("consistency")
	if named {
		known := false
		for c, n := range consistencies {
			if n == name {
				o.Consistency, known = c, true
			}
		}
		if !known {
			return o, badRequest("parameter consistency must be linearizable, bounded, session or stale")
		}
	}
	staleness, hasStaleness, p := q.duration("max_staleness")
	if p != nil {
		return o, p
	}
	revision, hasRevision, p := q.uint("min_revision", 0, maxNumber)
	if p != nil {
		return o, p
	}
	o.MaxStaleness, o.MinRevision = staleness, revision
	switch {
	case o.Consistency == raftnode.Bounded && !hasStaleness:
		return o, badRequest("consistency=bounded needs max_staleness")
	case o.Consistency == raftnode.Session && !hasRevision:
		return o, badRequest("consistency=session needs min_revision")
	case hasStaleness && (o.Consistency == raftnode.Linearizable || o.Consistency == raftnode.Stale):
		return o, badRequest("max_staleness goes with consistency=bounded or session")
	case hasRevision && o.Consistency == raftnode.Stale:
		return o, badRequest("min_revision does not go with consistency=stale, ask for session")
	case hasStaleness:
		// A session with a bound is a bounded read that also waits for the
		// revision, which every read does that names one.
		o.Consistency = raftnode.Bounded
	}
	return o, nil
}

// parseRevision parses ?revision=; 0 where it is not given.
func parseRevision(q *query) (uint64, *trivetpb.Problem) {
	n, _, p := q.uint("revision", 1, maxNumber)
	return n, p
}

// setFreshness says what the read was served as, and how old the state was at
// most. It is called as the answer is written, after everything in it was read:
// the state grows older between the proof and the answer, and what is told is an
// upper bound.
func (c *call) setFreshness() {
	proof := &c.proof
	c.set("Trivet-Consistency", consistencies[proof.Consistency])
	staleness := "unknown"
	switch {
	case proof.Consistency == raftnode.Linearizable:
		staleness = "0"
	case proof.Proven:
		// Rounded up, as a bound.
		ms := (time.Since(proof.AsOf) + time.Millisecond - 1) / time.Millisecond
		staleness = strconv.FormatInt(int64(ms), 10)
	}
	c.set("Trivet-Staleness", staleness)
}

// view waits until the store is as fresh as asked and takes a view of it, at an
// old revision where one is given. The caller closes it.
func (c *call) view(o raftnode.ReadOptions, revision uint64) (*store.View, *trivetpb.Problem) {
	if p := c.awaitRead(o); p != nil {
		return nil, p
	}
	v, err := c.srv.node.Store().View(revision)
	if err != nil {
		return nil, c.srv.problemOf(err, false)
	}
	c.revision = v.Revision()
	return v, nil
}
