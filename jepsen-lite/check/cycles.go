package check

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// anomaly is a kind of cycle, from the worst to the mildest: each is looked for
// among edges that the ones before could not have made one of.
type anomaly struct {
	name string
	// first is the kind of the one edge that the rest leads back to, rest what
	// the others are of.
	first, rest edgeKind
}

// Adya's phenomena, and with real time those that strict serializability forbids
// beyond them.
var anomalies = []anomaly{
	{"G0, write cycle", ww, ww},
	{"G1c, circular information flow", wr, ww | wr},
	{"G-single, read skew", rw, ww | wr},
	{"G2, anti-dependency cycle", rw, ww | wr | rw},
	{"G0 with real time", realTime, ww | realTime},
	{"G1c with real time", wr, ww | wr | realTime},
	{"G-single with real time, a stale read or a lost write", rw, ww | wr | realTime},
	{"G2 with real time", rw, ww | wr | rw | realTime},
}

// checkCycles builds the dependencies and looks for cycles; it returns how many
// dependencies there are.
func (a *appends) checkCycles(deadline time.Time) int {
	g := a.dependencies()
	a.realTime(g)
	// One search for all edges first: without a cycle there, there is none.
	if of, sizes := g.components(ww | wr | rw | realTime); len(sizes) == len(of) {
		return g.count
	}
	reported := map[int]bool{} // transactions of cycles that have a name already
	for _, kind := range anomalies {
		of, sizes := g.components(kind.first | kind.rest)
		done := map[int]bool{} // components
		for from := range g.out {
			component := of[from]
			if sizes[component] < 2 || done[component] || reported[from] {
				continue
			}
			if time.Now().After(deadline) {
				a.r.inconclusive("the search for cycles was not over in time")
				return g.count
			}
			inside := func(n int) bool { return of[n] == component }
			for _, e := range g.out[from] {
				if e.kind != kind.first || !inside(e.to) {
					continue
				}
				way := g.path(e.to, from, kind.rest, inside)
				if way == nil {
					continue
				}
				cycle := append([]edge{e}, way...)
				// Milder names for what has a worse one say nothing new.
				if slices.ContainsFunc(cycle, func(e edge) bool { return reported[e.to] }) {
					continue
				}
				done[component] = true
				for _, e := range cycle {
					reported[e.to] = true
				}
				a.r.violated("%s: %s", kind.name, a.explain(from, cycle))
				break
			}
		}
	}
	return g.count
}

func (a *appends) explain(from int, cycle []edge) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n  %v", a.txns[from])
	for _, e := range cycle {
		fmt.Fprintf(&b, "\n    before, by %v", e.kind)
		if e.key != "" {
			fmt.Fprintf(&b, " on %s", e.key)
		}
		fmt.Fprintf(&b, "\n  %v", a.txns[e.to])
	}
	return b.String()
}

// dependencies makes the edges that follow from the order of versions.
func (a *appends) dependencies() *graph {
	g := newGraph(len(a.txns))
	number := map[*txn]int{}
	for i, t := range a.txns {
		number[t] = i
	}
	// writerAt is who wrote the version at a position of a key's longest read.
	writerAt := func(key string, i int) (int, bool) {
		list := a.longest[key]
		if i < 0 || i >= len(list) {
			return 0, false
		}
		w, ok := a.writer[element{key, list[i]}]
		return number[w], ok
	}
	for key, list := range a.longest {
		for i := range list {
			from, ok := writerAt(key, i-1)
			to, ok2 := writerAt(key, i)
			if ok && ok2 {
				g.add(from, to, ww, key)
			}
		}
	}
	// What is known to have been committed and is in no read comes, in whatever
	// order, behind all that was read: a list loses nothing.
	unread := map[string][]int{}
	for e, w := range a.writer {
		if _, seen := a.position[e]; w.known && !seen {
			unread[e.key] = append(unread[e.key], number[w])
			if last, ok := writerAt(e.key, len(a.longest[e.key])-1); ok {
				g.add(last, number[w], ww, e.key)
			}
		}
	}
	for reader, t := range a.txns {
		if !t.known {
			continue
		}
		wrote := map[string]bool{}
		for _, m := range t.mops {
			if m.F == "append" {
				wrote[m.Key] = true
				continue
			}
			if wrote[m.Key] {
				continue // it sees its own; what it saw of others, ww tells
			}
			n := len(m.List)
			if from, ok := writerAt(m.Key, n-1); ok {
				g.add(from, reader, wr, m.Key)
			}
			if to, ok := writerAt(m.Key, n); ok {
				g.add(reader, to, rw, m.Key)
			} else {
				for _, to := range unread[m.Key] {
					g.add(reader, to, rw, m.Key)
				}
			}
		}
	}
	return g
}

// realTime adds an edge wherever a transaction was over before another began,
// but none that follow from others: each one that begins is tied to those that
// are over and that nobody who is over began after.
func (a *appends) realTime(g *graph) {
	type event struct {
		at     int64
		begins bool
		txn    int
	}
	var events []event
	for i, t := range a.txns {
		events = append(events, event{t.call.Invoked, true, i})
		if t.known { // one of unknown outcome has no end
			events = append(events, event{t.call.Returned, false, i})
		}
	}
	slices.SortFunc(events, func(x, y event) int {
		if x.at != y.at {
			return int(x.at - y.at)
		}
		if x.begins != y.begins && x.begins {
			return -1 // at one instant they are beside each other
		}
		return 0
	})
	var front []int
	for _, e := range events {
		if e.begins {
			for _, f := range front {
				g.add(f, e.txn, realTime, "")
			}
			continue
		}
		invoked := a.txns[e.txn].call.Invoked
		front = slices.DeleteFunc(front, func(f int) bool { return a.txns[f].call.Returned < invoked })
		front = append(front, e.txn)
	}
}
