package check

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/jepsen-lite/history"
)

// call makes a call by its times.
func call(process int, f string, invoked, returned int64, t history.Type, in, out any) history.Call {
	return history.Call{Process: process, F: f, Node: "n1", Invoked: invoked, Returned: returned, Type: t, In: in, Out: out}
}

func wrote(p int, from, to int64, t history.Type, v int64) history.Call {
	return call(p, "write", from, to, t, Register{Key: "x", Value: v}, Register{Key: "x", Value: v})
}

func read(p int, from, to, v int64) history.Call {
	return call(p, "read", from, to, history.OK, Register{Key: "x"}, Register{Key: "x", Value: v})
}

func swapped(p int, from, to int64, t history.Type, old, v int64, did bool) history.Call {
	return call(p, "cas", from, to, t, Register{Key: "x", Old: old, Value: v}, Register{Key: "x", Swapped: &did})
}

func TestRegisters(t *testing.T) {
	for _, c := range []struct {
		name  string
		want  Verdict
		calls []history.Call
	}{
		{"nothing", Valid, nil},
		{"a read sees the write before it", Valid, []history.Call{wrote(0, 0, 10, history.OK, 1), read(1, 20, 30, 1)}},
		{"a stale read", Violated, []history.Call{wrote(0, 0, 10, history.OK, 1), read(1, 20, 30, 0)}},
		{"a read beside a write sees either", Valid, []history.Call{wrote(0, 0, 100, history.OK, 1), read(1, 20, 30, 1), read(2, 40, 50, 1)}},
		{"but not the new one and then the old one", Violated, []history.Call{wrote(0, 0, 100, history.OK, 1), read(1, 20, 30, 1), read(2, 40, 50, 0)}},
		{"an unknown write takes effect late", Valid, []history.Call{wrote(0, 0, 10, history.Info, 1), read(1, 20, 30, 0), read(1, 40, 50, 1)}},
		{"or never", Valid, []history.Call{wrote(0, 0, 10, history.Info, 1), read(1, 20, 30, 0)}},
		{"but not before it was asked for", Violated, []history.Call{read(1, 0, 10, 1), wrote(0, 20, 30, history.Info, 1)}},
		{"nor twice", Violated, []history.Call{wrote(0, 0, 10, history.Info, 1), read(1, 20, 30, 1), wrote(2, 40, 50, history.OK, 2), read(1, 60, 70, 1)}},
		{"a failed write is seen", Violated, []history.Call{wrote(0, 0, 10, history.Fail, 1), read(1, 20, 30, 1)}},
		{"a lost write", Violated, []history.Call{wrote(0, 0, 10, history.OK, 1), wrote(0, 20, 30, history.OK, 2), read(1, 40, 50, 1)}},
		{"a cas that held", Valid, []history.Call{wrote(0, 0, 10, history.OK, 1), swapped(1, 20, 30, history.OK, 1, 2, true), read(0, 40, 50, 2)}},
		{"a cas that held twice", Violated, []history.Call{wrote(0, 0, 10, history.OK, 1), swapped(1, 20, 30, history.OK, 1, 2, true), swapped(2, 40, 50, history.OK, 1, 3, true)}},
		{"a cas that should have held", Violated, []history.Call{wrote(0, 0, 10, history.OK, 1), swapped(1, 20, 30, history.OK, 1, 2, false)}},
		{"a cas of unknown outcome may have met another value", Valid, []history.Call{swapped(1, 0, 10, history.Info, 7, 2, false), read(0, 40, 50, 0)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Registers(c.calls, time.Minute)
			require.Equal(t, c.want, r.Verdict, r.Findings)
			if c.want == Violated {
				require.Contains(t, string(r.Files["register-x.html"]), "<html")
			}
		})
	}
}

// A checker that has no time left cannot say that all is well.
func TestRegistersOutOfTime(t *testing.T) {
	r := Registers([]history.Call{wrote(0, 0, 10, history.OK, 1)}, 0)
	require.Equal(t, Inconclusive, r.Verdict)
}

func TestRegistersAreCheckedKeyByKey(t *testing.T) {
	var calls []history.Call
	for i := range int64(50) {
		key := fmt.Sprint("k", i)
		calls = append(calls,
			call(0, "write", i*10, i*10+5, history.OK, Register{Key: key, Value: 1}, Register{}),
			call(1, "read", i*10+6, i*10+8, history.OK, Register{Key: key}, Register{Value: 1}))
	}
	require.Equal(t, Valid, Registers(calls, time.Minute).Verdict)
	calls[61].Out = Register{Value: 2}
	r := Registers(calls, time.Minute)
	require.Equal(t, Violated, r.Verdict)
	require.Equal(t, 1, r.Found)
	require.Contains(t, r.Findings[0], "k30")
}

func TestRevisions(t *testing.T) {
	see := func(invoked, returned int64, revision uint64, write bool) Seen {
		c := call(0, "x", invoked, returned, history.OK, nil, nil)
		return Seen{Call: &c, Revision: revision, Write: write}
	}
	late := func(at int64, revision uint64) Seen {
		s := see(at, at, revision, false)
		s.Late = true
		return s
	}
	for _, c := range []struct {
		name string
		want Verdict
		seen []Seen
	}{
		{"a watch is late", Valid, []Seen{see(0, 10, 2, true), see(20, 30, 3, true), late(40, 2), see(50, 60, 3, false)}},
		{"a watch was early", Violated, []Seen{see(0, 100, 3, true), late(40, 3), see(50, 60, 2, false)}},
		{"in order", Valid, []Seen{see(0, 10, 2, true), see(20, 30, 2, false), see(40, 50, 3, true), see(60, 70, 3, false)}},
		{"beside each other, in any order", Valid, []Seen{see(0, 100, 3, true), see(10, 90, 2, true), see(20, 30, 1, false)}},
		{"a read of the past", Violated, []Seen{see(0, 10, 2, true), see(20, 30, 1, false)}},
		{"two reads, the second older", Violated, []Seen{see(0, 100, 3, true), see(10, 20, 3, false), see(30, 40, 2, false)}},
		{"a write that makes no revision of its own", Violated, []Seen{see(0, 10, 2, true), see(20, 30, 2, true)}},
		{"two writes beside each other that made the same", Violated, []Seen{see(0, 100, 2, true), see(10, 90, 2, true)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, Revisions(c.seen).Verdict)
		})
	}
}

// What is not there is null, as Jepsen has it.
func TestARegisterInTheRecord(t *testing.T) {
	did := true
	for want, r := range map[string]Register{
		`{"key":"x","value":null}`:                                  {Key: "x"},
		`{"key":"x","revision":7,"value":3}`:                        {Key: "x", Value: 3, Revision: 7},
		`{"key":"x","old":1,"swapped":true,"revision":7,"value":3}`: {Key: "x", Value: 3, Old: 1, Swapped: &did, Revision: 7},
	} {
		got, err := json.Marshal(r)
		require.NoError(t, err)
		require.JSONEq(t, want, string(got))
	}
}
