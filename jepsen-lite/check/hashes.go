package check

// Hash is what a node said of its state.
type Hash struct {
	Node  string
	At    int64
	Index uint64
	Hash  string
}

// Hashes checks that states of the same index have the same hash, on all nodes
// and at all times, and that in the end, which is all that was seen from a time
// on, all nodes were seen at one index.
func Hashes(seen []Hash, nodes []string, end int64) *Result {
	r := NewResult("state hashes: equal at the same index")
	first := map[uint64]Hash{}
	who := map[uint64]map[string]bool{}
	last := map[uint64]map[string]bool{} // who, in the end
	told := map[uint64]bool{}
	shared := 0
	for _, h := range seen {
		if h.Hash == "" {
			r.inconclusive("node %s showed no hash at index %d (at %s)", h.Node, h.Index, at(h.At))
			break
		}
		if h.At >= end {
			if last[h.Index] == nil {
				last[h.Index] = map[string]bool{}
			}
			last[h.Index][h.Node] = true
		}
		f, known := first[h.Index]
		if !known {
			first[h.Index] = h
			who[h.Index] = map[string]bool{h.Node: true}
			continue
		}
		if f.Hash != h.Hash && !told[h.Index] {
			told[h.Index] = true
			r.violated("at index %d node %s had the hash %s (at %s) and node %s %s (at %s)",
				h.Index, f.Node, f.Hash, at(f.At), h.Node, h.Hash, at(h.At))
		}
		if !who[h.Index][h.Node] {
			who[h.Index][h.Node] = true
			shared++
		}
	}
	all := false
	for _, w := range last {
		all = all || len(w) == len(nodes)
	}
	if !all {
		r.inconclusive("in the end, at no index all %d nodes were seen", len(nodes))
	}
	r.figure("hashes", len(seen))
	r.figure("compared", shared)
	return r
}
