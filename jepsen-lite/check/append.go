package check

import (
	"encoding/json"
	"fmt"
	"time"

	"trivet/jepsen-lite/history"
)

// Mop is a micro-operation of a transaction over lists: it appends a value to
// the list at a key, or reads the list. Each value is appended to a key once at
// most.
type Mop struct {
	F     string // append or r
	Key   string
	Value int64   // appended
	List  []int64 // read; nil where nobody knows
}

// MarshalJSON writes it as Elle reads it: ["append", key, value] or
// ["r", key, list].
func (m Mop) MarshalJSON() ([]byte, error) {
	if m.F == "append" {
		return json.Marshal([]any{m.F, m.Key, m.Value})
	}
	return json.Marshal([]any{m.F, m.Key, m.List})
}

// txn is a transaction that may have been committed.
type txn struct {
	call *history.Call
	// known says that it was; else some of what it wrote was seen, or nothing.
	known bool
	mops  []Mop
}

func (t *txn) String() string {
	text := ""
	for _, m := range t.mops {
		switch {
		case m.F == "append":
			text += fmt.Sprintf(" append %s %d", m.Key, m.Value)
		case t.known:
			text += fmt.Sprintf(" r %s %v", m.Key, m.List)
		}
	}
	return fmt.Sprintf("T(process %d, %s to %s:%s)", t.call.Process, at(t.call.Invoked), at(t.call.Returned), text)
}

// element names an appended value.
type element struct {
	key   string
	value int64
}

// appends is the analysis of a history of transactions over lists.
//
// The idea is Elle's (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies
// from Experimental Observations", VLDB 2020): since a list tells all of its
// versions, the order of the versions of a key can be read off what was read,
// and with it who depends on whom. A cycle of dependencies is then a proof, and
// the kinds of its edges name the anomaly.
type appends struct {
	r *Result
	// txns are those that are known to have been committed, and those of unknown
	// outcome, of which something was seen.
	txns     []*txn
	writer   map[element]*txn
	failed   map[element]*history.Call
	longest  map[string][]int64
	position map[element]int // in the longest read of its key
}

// Appends checks that the transactions are strictly serializable.
func Appends(calls []history.Call, limit time.Duration) *Result {
	begin := time.Now()
	a := &appends{
		r: NewResult("append: strictly serializable"), writer: map[element]*txn{}, failed: map[element]*history.Call{},
		longest: map[string][]int64{}, position: map[element]int{},
	}
	a.collect(calls)
	a.checkReads()
	a.orderVersions()
	edges := a.checkCycles(begin.Add(limit))
	a.r.figure("transactions", len(a.txns))
	a.r.figure("lists", len(a.longest))
	a.r.figure("dependencies", edges)
	a.r.figure("time", time.Since(begin).Round(time.Millisecond))
	return a.r
}

// collect finds who wrote what.
func (a *appends) collect(calls []history.Call) {
	for i := range calls {
		c := &calls[i]
		mops := c.In.([]Mop)
		if c.Type == history.OK {
			mops = c.Out.([]Mop)
		}
		t := &txn{call: c, known: c.Type == history.OK, mops: mops}
		for _, m := range mops {
			if m.F != "append" {
				continue
			}
			e := element{m.Key, m.Value}
			switch {
			case a.writer[e] != nil || a.failed[e] != nil:
				a.r.inconclusive("the workload appended %d to %s twice", m.Value, m.Key)
			case c.Type == history.Fail:
				a.failed[e] = c
			default:
				a.writer[e] = t
			}
		}
		if c.Type != history.Fail {
			a.txns = append(a.txns, t)
		}
	}
}

// checkReads looks at each list by itself: what it holds, and whether it is what
// its own transaction must see.
func (a *appends) checkReads() {
	for _, t := range a.txns {
		if !t.known {
			continue
		}
		// own is what the transaction knows of a list, from what it read and
		// appended before: a whole list, or only its end.
		type view struct {
			list  []int64
			whole bool
		}
		own := map[string]view{}
		for _, m := range t.mops {
			v := own[m.Key]
			if m.F == "append" {
				own[m.Key] = view{append(v.list[:len(v.list):len(v.list)], m.Value), v.whole}
				continue
			}
			if (v.whole && !equal(v.list, m.List)) || !endsWith(m.List, v.list) {
				a.r.violated("internal: %v read %s otherwise than it had read or written it before", t, m.Key)
			}
			own[m.Key] = view{m.List, true}
			a.checkList(t, m)
		}
	}
}

// checkList looks at one list that was read.
func (a *appends) checkList(t *txn, m Mop) {
	at := map[int64]int{}
	for i, v := range m.List {
		e := element{m.Key, v}
		if _, twice := at[v]; twice {
			a.r.violated("duplicate: %v read %d twice in %s", t, v, m.Key)
		}
		at[v] = i
		if c := a.failed[e]; c != nil {
			a.r.violated("G1a, aborted read: %v read %d in %s, whose append by process %d at %s failed", t, v, m.Key, c.Process, time.Duration(c.Invoked))
		} else if a.writer[e] == nil {
			a.r.violated("garbage: %v read %d in %s, which nobody appended", t, v, m.Key)
		}
	}
	// A list that another transaction's appends are in, it holds all of them up
	// to the last of that key. One that ends between them is of a state that was
	// never committed; and so is one that holds some and not those in between.
	for _, v := range m.List {
		w := a.writer[element{m.Key, v}]
		if w == nil || w == t {
			continue
		}
		for _, other := range w.mops {
			if other.F != "append" || other.Key != m.Key {
				continue
			}
			if _, seen := at[other.Value]; !seen {
				a.r.violated("G1b, intermediate read: %v read %d in %s without %d, of the same %v", t, v, m.Key, other.Value, w)
			}
		}
	}
}

// orderVersions takes the longest read of each key for the order of its versions,
// of which all other reads must be prefixes.
func (a *appends) orderVersions() {
	by := map[string]*txn{}
	each := func(f func(*txn, Mop)) {
		for _, t := range a.txns {
			if !t.known {
				continue
			}
			for _, m := range t.mops {
				if m.F == "r" {
					f(t, m)
				}
			}
		}
	}
	each(func(t *txn, m Mop) {
		if len(m.List) > len(a.longest[m.Key]) || by[m.Key] == nil {
			a.longest[m.Key], by[m.Key] = m.List, t
		}
	})
	each(func(t *txn, m Mop) {
		if !equal(m.List, a.longest[m.Key][:len(m.List)]) {
			a.r.violated("incompatible orders of %s: %v and %v", m.Key, t, by[m.Key])
		}
	})
	for key, list := range a.longest {
		for i, v := range list {
			a.position[element{key, v}] = i
		}
	}
}

func equal(a, b []int64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func endsWith(list, end []int64) bool {
	return len(end) <= len(list) && equal(list[len(list)-len(end):], end)
}
