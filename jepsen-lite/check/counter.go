package check

import (
	"slices"

	"trivet/jepsen-lite/history"
)

// Count is an operation on a counter: add, which adds one; repeat, which sends an
// add again that has an identity, and has been answered; or read.
type Count struct {
	Key string `json:"key"`
	// Identity is the add's; empty where it has none.
	Identity string `json:"identity,omitempty"`
	// Value is the sum that was returned.
	Value int64 `json:"value,omitempty"`
}

// Counters checks counters that are only added to, by one each time. once says
// that every add has an identity and was sent again until it was answered: then
// the sum is exactly the number of adds. Without, it is at least those that were
// acknowledged and at most those and the unknown ones.
func Counters(calls []history.Call, once bool) *Result {
	r := NewResult("counter: at most once")
	if once {
		r.Checker = "counter: exactly once"
	}
	byKey := map[string][]*history.Call{}
	for i := range calls {
		key := calls[i].In.(Count).Key
		byKey[key] = append(byKey[key], &calls[i])
	}
	adds, unknown, repeats := 0, 0, 0
	for key, calls := range byKey {
		var ok, open, reads []*history.Call
		answers := map[string]*history.Call{}
		sums := map[int64]*history.Call{}
		for _, c := range calls {
			switch {
			case c.F == "add" && c.Type == history.OK:
				ok = append(ok, c)
				in, sum := c.In.(Count), c.Out.(Count).Value
				if other := sums[sum]; other != nil {
					r.violated("two adds to %s returned %d: at %s on %s and at %s on %s", key, sum, at(other.Invoked), other.Node, at(c.Invoked), c.Node)
				}
				sums[sum] = c
				answers[in.Identity] = c
			case c.F == "add" && c.Type == history.Info:
				open = append(open, c)
			case c.F == "read" && c.Type == history.OK:
				reads = append(reads, c)
			}
		}
		adds, unknown = adds+len(ok), unknown+len(open)
		if once && len(open) > 0 {
			r.inconclusive("%d adds to %s with an identity were never answered", len(open), key)
		}
		for _, c := range calls {
			if c.F != "repeat" || c.Type != history.OK {
				continue
			}
			repeats++
			in, out := c.In.(Count), c.Out.(Count)
			if first := answers[in.Identity]; first != nil && first.Out.(Count).Value != out.Value {
				r.violated("the add %s to %s returned %d at %s, and sent again on %s at %s it returned %d",
					in.Identity, key, first.Out.(Count).Value, at(first.Returned), c.Node, at(c.Invoked), out.Value)
			}
		}
		// What returned a sum, or read one, saw at least all adds that were over
		// when it began, and at most all that had begun when it was over.
		began, over := []int64{}, []int64{}
		for _, c := range ok {
			began, over = append(began, c.Invoked), append(over, c.Returned)
		}
		for _, c := range open {
			began = append(began, c.Invoked)
		}
		slices.Sort(began)
		slices.Sort(over)
		before := func(times []int64, t int64) int64 {
			n, _ := slices.BinarySearch(times, t)
			return int64(n)
		}
		for _, c := range append(slices.Clone(ok), reads...) {
			value := c.Out.(Count).Value
			least, most := before(over, c.Invoked), before(began, c.Returned)
			if value < least || value > most {
				r.violated("%s at %s on %s returned %d for %s; %d adds were over when it began, and %d had begun when it was over",
					c.F, at(c.Invoked), c.Node, value, key, least, most)
			}
		}
	}
	r.figure("adds", adds)
	r.figure("unknown", unknown)
	if once {
		r.figure("repeats", repeats)
	}
	return r
}
