package check

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/jepsen-lite/history"
)

// mops makes micro-operations of a text: "ax1" appends 1 to x, "rx12" reads x as
// [1 2], "rx" as empty.
func mops(text string) []Mop {
	var out []Mop
	for _, w := range strings.Fields(text) {
		m := Mop{F: "append", Key: w[1:2]}
		if w[0] == 'r' {
			m.F, m.List = "r", []int64{}
			for _, d := range w[2:] {
				m.List = append(m.List, int64(d-'0'))
			}
		} else {
			m.Value = int64(w[2] - '0')
		}
		out = append(out, m)
	}
	return out
}

// atTimes makes a transaction that took place from one time to another.
func atTimes(from, to int64, t history.Type, text string) history.Call {
	c := history.Call{Process: int(from), F: "txn", Invoked: from, Returned: to, Type: t, In: mops(text)}
	if t == history.OK {
		c.Out = mops(text)
	}
	return c
}

// beside makes transactions that are all under way at once, so that real time
// says nothing.
func beside(texts ...string) []history.Call {
	var out []history.Call
	for i, text := range texts {
		out = append(out, atTimes(int64(i), int64(1000+i), history.OK, text))
	}
	return out
}

func TestAppends(t *testing.T) {
	for _, c := range []struct {
		name  string
		want  string // what a finding begins with; empty where it is valid
		calls []history.Call
	}{
		{"nothing", "", nil},
		{"one after the other", "", []history.Call{
			atTimes(0, 1, ok, "ax1 ay1"), atTimes(2, 3, ok, "rx1 ax2"), atTimes(4, 5, ok, "rx12 ry1")}},
		{"beside each other, in some order", "", beside("ax1 ry", "rx1 ay1", "rx1 ry1", "rx")},

		// What one transaction shows alone.
		{"it does not see its own append", "internal", beside("ax1 rx")},
		{"it sees something behind its own append", "internal", beside("ax1 rx12", "ax2")},
		{"it reads a list twice, differently", "internal", beside("rx rx1", "ax1")},
		{"it reads, appends and reads", "", beside("rx ax1 rx1")},
		{"it appends twice, blindly", "", beside("ax1 ax2 rx12")},
		{"a value twice in a list", "duplicate", beside("ax1", "rx11")},
		{"a value that nobody appended", "garbage", beside("rx7")},

		// Adya's phenomena, as the Elle paper gives them for lists.
		{"G1a: of an aborted transaction", "G1a", []history.Call{atTimes(0, 1, fail, "ax1"), atTimes(2, 3, ok, "rx1")}},
		{"G1a is none where nobody knows", "", []history.Call{atTimes(0, 1, info, "ax1"), atTimes(2, 3, ok, "rx1")}},
		{"G1b: between two appends of one transaction", "G1b", beside("ax1 ax2", "rx1")},
		{"G1b: of one whose outcome is unknown", "G1b", []history.Call{atTimes(0, 9, info, "ax1 ax2"), atTimes(2, 3, ok, "rx1")}},
		{"lists that are no prefixes of each other", "incompatible orders", beside("ax1", "ax2", "rx12", "rx21")},
		{"G0: two transactions each write first", "G0", beside("ax1 ay1", "ax2 ay2", "rx12", "ry21")},
		{"G1c: each sees the other's", "G1c", beside("ax1 ry1", "ay1 rx1")},
		{"G1c over three", "G1c", beside("ax1 rz1", "rx1 ay1", "ry1 az1")},
		{"G-single: half of another's writes", "G-single,", beside("ax1 ay1", "rx1 ry", "ry1")},
		{"G-single: a lost update", "G-single,", beside("rx ax1", "rx ax2", "rx12")},
		{"G2: write skew", "G2,", beside("rx ay1", "ry ax1", "rx1 ry1")},
		{"G2: two readers that saw two independent writes in different orders", "G2,", beside("ax1", "ay1", "rx1 ry", "rx ry1")},

		// What only real time shows.
		{"a stale read", "G-single with real time", []history.Call{
			atTimes(0, 1, ok, "ax1"), atTimes(2, 3, ok, "rx"), atTimes(4, 5, ok, "rx1")}},
		{"a lost write: nobody ever reads it", "G-single with real time", []history.Call{
			atTimes(0, 1, ok, "ax1"), atTimes(2, 3, ok, "ax2"), atTimes(4, 5, ok, "rx1"), atTimes(6, 7, ok, "rx1")}},
		{"the very first write is lost", "G-single with real time", []history.Call{
			atTimes(0, 1, ok, "ax1"), atTimes(2, 3, ok, "rx")}},
		{"a write of unknown outcome that nobody ever reads", "", []history.Call{
			atTimes(0, 1, info, "ax1"), atTimes(2, 3, ok, "rx")}},
		{"one of unknown outcome that takes effect late", "", []history.Call{
			atTimes(0, 1, info, "ax1"), atTimes(2, 3, ok, "rx"), atTimes(4, 5, ok, "rx1")}},
		{"and goes away again", "G-single with real time", []history.Call{
			atTimes(0, 1, info, "ax1"), atTimes(2, 3, ok, "rx1"), atTimes(4, 5, ok, "rx")}},
		{"read before it began", "G1c with real time", []history.Call{
			atTimes(0, 1, ok, "rx1"), atTimes(2, 3, ok, "ax1")}},
		{"writes in the order opposite to time", "G0 with real time", []history.Call{
			atTimes(0, 1, ok, "ax1"), atTimes(2, 3, ok, "ax2"), atTimes(0, 9, ok, "rx21")}},
		{"a read that ends as the write begins is beside it", "", []history.Call{
			atTimes(0, 2, ok, "rx1"), atTimes(2, 3, ok, "ax1")}},
		{"write skew that real time orders", "G2,", []history.Call{
			atTimes(0, 1, ok, "rx ay1"), atTimes(2, 3, ok, "ry ax1"), atTimes(4, 5, ok, "rx1 ry1")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Appends(c.calls, time.Minute)
			if c.want == "" {
				require.Equal(t, Valid, r.Verdict, r.Findings)
				return
			}
			require.Equal(t, Violated, r.Verdict)
			for _, f := range r.Findings {
				if strings.HasPrefix(f, c.want) {
					return
				}
			}
			t.Errorf("no finding is %s: %q", c.want, r.Findings)
		})
	}
}

// Real time is passed on: between what is over and what begins there is a way of
// edges, however many others there are.
func TestRealTimeIsTransitive(t *testing.T) {
	var calls []history.Call
	for i := range int64(80) {
		calls = append(calls, atTimes(i*10, i*10+int64(5+i*7%60), history.OK, ""))
	}
	a := &appends{r: NewResult(""), writer: map[element]*txn{}, failed: map[element]*history.Call{}}
	a.collect(calls)
	g := newGraph(len(calls))
	a.realTime(g)
	require.Less(t, g.count, 10*len(calls), "it is a reduction")
	for i := range calls {
		for j := range calls {
			reached := g.path(i, j, realTime, func(int) bool { return true }) != nil
			require.Equal(t, calls[i].Returned < calls[j].Invoked, reached, "%d %d", i, j)
		}
	}
}

func TestAppendsOutOfTime(t *testing.T) {
	r := Appends(beside("ax1 ry1", "ay1 rx1"), -time.Second)
	require.Equal(t, Inconclusive, r.Verdict)
}

func TestMopJSON(t *testing.T) {
	b, err := json.Marshal(append(mops("ax1 rx12"), Mop{F: "r", Key: "y"}))
	require.NoError(t, err)
	require.JSONEq(t, `[["append","x",1],["r","x",[1,2]],["r","y",null]]`, string(b))
}
