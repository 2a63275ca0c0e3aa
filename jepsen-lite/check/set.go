package check

import (
	"slices"

	"trivet/jepsen-lite/history"
)

// Element is what an add adds to a set.
type Element struct {
	Set   int   `json:"set"`
	Value int64 `json:"value"`
}

// Elements is what a read of a set returned.
type Elements struct {
	Set    int     `json:"set"`
	Values []int64 `json:"values"`
}

// Sets checks sets that are only added to, and read linearizably: an element
// that was acknowledged, or seen, is in every read that begins after that; what
// failed is in none, nor what had not been asked for when the read was over.
func Sets(calls []history.Call) *Result {
	r := NewResult("set: nothing is lost, nothing is made up")
	type fate struct {
		add *history.Call
		// seen is when somebody knew that it is there: the earliest return of an
		// add that is OK or of a read that has it.
		seen  int64
		known bool
	}
	fates := map[Element]*fate{}
	var reads []*history.Call
	acknowledged := 0
	for i := range calls {
		c := &calls[i]
		if c.F == "read" {
			if c.Type == history.OK {
				reads = append(reads, c)
			}
			continue
		}
		f := &fate{add: c}
		if c.Type == history.OK {
			f.seen, f.known = c.Returned, true
			acknowledged++
		}
		fates[c.In.(Element)] = f
	}
	slices.SortFunc(reads, func(a, b *history.Call) int { return int(a.Returned - b.Returned) })
	for _, c := range reads {
		out := c.Out.(Elements)
		for _, v := range out.Values {
			f := fates[Element{out.Set, v}]
			switch {
			case f == nil:
				r.violated("the read at %s on %s has %d in set %d, which nobody added", at(c.Invoked), c.Node, v, out.Set)
			case f.add.Type == history.Fail:
				r.violated("the read at %s on %s has %d in set %d, whose add at %s failed: %s", at(c.Invoked), c.Node, v, out.Set, at(f.add.Invoked), f.add.Error)
			case f.add.Invoked > c.Returned:
				r.violated("the read at %s on %s has %d in set %d, which was added at %s", at(c.Invoked), c.Node, v, out.Set, at(f.add.Invoked))
			case !f.known || c.Returned < f.seen:
				f.seen, f.known = c.Returned, true
			}
		}
	}
	bySet := map[int][]Element{}
	for e := range fates {
		bySet[e.Set] = append(bySet[e.Set], e)
	}
	lost := map[Element]bool{}
	for _, c := range reads {
		out := c.Out.(Elements)
		has := map[int64]bool{}
		for _, v := range out.Values {
			has[v] = true
		}
		for _, e := range bySet[out.Set] {
			if f := fates[e]; f.known && f.seen < c.Invoked && !has[e.Value] && !lost[e] {
				lost[e] = true // once each
				r.violated("the read at %s on %s does not have %d in set %d, which was there at %s", at(c.Invoked), c.Node, e.Value, e.Set, at(f.seen))
			}
		}
	}
	r.figure("acknowledged", acknowledged)
	r.figure("reads", len(reads))
	return r
}
