package check

import (
	"slices"
	"sort"
	"time"

	"trivet/jepsen-lite/history"
)

// FreshRead is what a read of f session, bounded or stale asks for.
type FreshRead struct {
	Key          string        `json:"key"`
	MinRevision  uint64        `json:"min_revision,omitempty"`
	MaxStaleness time.Duration `json:"max_staleness,omitempty"` // ns
}

// FreshSeen is what it returned. A write of the same history, of f write, has a
// FreshSeen too, with the revision that it made.
type FreshSeen struct {
	Key string `json:"key"`
	// ModRevision is the key's, 0 where it is not there; Revision the state's.
	ModRevision uint64 `json:"mod_revision"`
	Revision    uint64 `json:"revision"`
	// Staleness is the bound that the answer gives itself; below zero where it
	// gives none.
	Staleness time.Duration `json:"staleness"` // ns
}

// Fresh checks reads that need not see the newest state against what they were
// promised:
//
//   - any: the key is as it was at the revision that the answer names;
//   - session: that revision is the asked one or a later one;
//   - bounded: every write is seen that was acknowledged that long before the read
//     began; and so for the bound that an answer of any kind gives itself;
//   - stale: no node goes back, from one read to the next, but over a restart.
func Fresh(calls []history.Call, restarts map[string][]int64) *Result {
	r := NewResult("fresh: as fresh as promised")
	type write struct {
		revision uint64
		returned int64
	}
	byKey := map[string][]write{}
	var reads []*history.Call
	counts := map[string]int{}
	for i := range calls {
		c := &calls[i]
		if c.Type != history.OK {
			continue
		}
		if c.F == "write" {
			out := c.Out.(FreshSeen)
			byKey[out.Key] = append(byKey[out.Key], write{out.Revision, c.Returned})
			continue
		}
		counts[c.F]++
		reads = append(reads, c)
	}
	// newest is the greatest revision of a write to the key that was returned by
	// a time.
	newest := map[string][]write{}
	for key, ws := range byKey {
		slices.SortFunc(ws, func(a, b write) int { return int(a.returned - b.returned) })
		var top uint64
		for _, w := range ws {
			top = max(top, w.revision)
			newest[key] = append(newest[key], write{top, w.returned})
		}
		slices.SortFunc(ws, func(a, b write) int { return int(a.revision) - int(b.revision) })
	}
	by := func(key string, t int64) uint64 {
		ws := newest[key]
		if i := sort.Search(len(ws), func(i int) bool { return ws[i].returned > t }); i > 0 {
			return ws[i-1].revision
		}
		return 0
	}
	slices.SortFunc(reads, func(a, b *history.Call) int { return int(a.Returned - b.Returned) })
	for _, c := range reads {
		in, out := c.In.(FreshRead), c.Out.(FreshSeen)
		ws := byKey[in.Key]
		var there uint64
		if i := sort.Search(len(ws), func(i int) bool { return ws[i].revision > out.Revision }); i > 0 {
			there = ws[i-1].revision
		}
		if out.ModRevision < there || out.ModRevision > out.Revision {
			r.violated("%s at %s on %s: %s was at revision %d in a state of revision %d, and had been written at %d", c.F, at(c.Invoked), c.Node, in.Key, out.ModRevision, out.Revision, there)
		}
		if out.Revision < in.MinRevision {
			r.violated("%s at %s on %s: a state of revision %d, asked for %d", c.F, at(c.Invoked), c.Node, out.Revision, in.MinRevision)
		}
		for _, bound := range []struct {
			d    time.Duration
			name string
			on   bool
		}{{in.MaxStaleness, "asked for", in.MaxStaleness > 0}, {out.Staleness, "proven by the node", out.Staleness >= 0}} {
			if want := by(in.Key, c.Invoked-int64(bound.d)); bound.on && out.ModRevision < want {
				r.violated("%s at %s on %s: %s at revision %d, but revision %d had been acknowledged more than %v before (%s)", c.F, at(c.Invoked), c.Node, in.Key, out.ModRevision, want, bound.d, bound.name)
			}
		}
	}
	// A node's reads in real time, each against the highest that had returned
	// when it began, since the last restart.
	byNode := map[string][]*history.Call{}
	for _, c := range reads {
		byNode[c.Node] = append(byNode[c.Node], c)
	}
	for node, returned := range byNode {
		invoked := slices.Clone(returned)
		slices.SortFunc(invoked, func(a, b *history.Call) int { return int(a.Invoked - b.Invoked) })
		times := slices.Clone(restarts[node])
		slices.Sort(times)
		// The times come in pairs: odd lives are those in which it was killed and
		// started, of which nobody knows when exactly.
		life := func(t int64) int { n, _ := slices.BinarySearch(times, t); return n }
		highest := map[int]*history.Call{} // by the node's life
		next := 0
		for _, c := range invoked {
			for ; next < len(returned) && returned[next].Returned < c.Invoked; next++ {
				// A call over a restart belongs to no life.
				l := life(returned[next].Invoked)
				if l%2 == 0 && l == life(returned[next].Returned) && (highest[l] == nil || returned[next].Out.(FreshSeen).Revision > highest[l].Out.(FreshSeen).Revision) {
					highest[l] = returned[next]
				}
			}
			l := life(c.Invoked)
			if h := highest[l]; h != nil && l == life(c.Returned) && c.Out.(FreshSeen).Revision < h.Out.(FreshSeen).Revision {
				r.violated("%s at %s on %s: a state of revision %d, and the same node had shown %d at %s", c.F, at(c.Invoked), node, c.Out.(FreshSeen).Revision, h.Out.(FreshSeen).Revision, at(h.Returned))
			}
		}
	}
	for _, f := range []string{"session", "bounded", "stale"} {
		r.figure(f, counts[f])
	}
	return r
}
