package check

import (
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/jepsen-lite/history"
)

const (
	ok   = history.OK
	fail = history.Fail
	info = history.Info
)

func TestBank(t *testing.T) {
	for _, c := range []struct {
		name string
		want Verdict
		call history.Call
	}{
		{"the total", Valid, call(0, "read", 0, 1, ok, nil, Balances{"a": 3, "b": 7})},
		{"half of a transfer", Violated, call(0, "read", 0, 1, ok, nil, Balances{"a": 3, "b": 9})},
		{"an account is missing, and the total is right", Violated, call(0, "read", 0, 1, ok, nil, Balances{"a": 10})},
		{"a read without an answer", Valid, call(0, "read", 0, 1, fail, nil, nil)},
		{"a transfer of unknown outcome", Valid, call(0, "transfer", 0, 1, info, Transfer{}, nil)},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, Bank([]history.Call{c.call}, []string{"a", "b"}, 10).Verdict)
		})
	}
}

func TestSets(t *testing.T) {
	add := func(from, to int64, t history.Type, v int64) history.Call {
		return call(0, "add", from, to, t, Element{1, v}, nil)
	}
	read := func(from, to int64, v ...int64) history.Call {
		return call(1, "read", from, to, ok, nil, Elements{1, v})
	}
	for _, c := range []struct {
		name  string
		want  Verdict
		calls []history.Call
	}{
		{"all there", Valid, []history.Call{add(0, 1, ok, 1), add(2, 3, ok, 2), read(4, 5, 1, 2)}},
		{"one is lost", Violated, []history.Call{add(0, 1, ok, 1), add(2, 3, ok, 2), read(4, 5, 2)}},
		{"one is lost for a while", Violated, []history.Call{add(0, 1, ok, 1), read(4, 5), read(6, 7, 1)}},
		{"beside the read it may be there or not", Valid, []history.Call{add(0, 10, ok, 1), read(4, 5), read(6, 7, 1)}},
		{"seen by one read and not by the next", Violated, []history.Call{add(0, 10, ok, 1), read(4, 5, 1), read(6, 7)}},
		{"an unknown one comes late", Valid, []history.Call{add(0, 1, info, 1), read(4, 5), read(6, 7, 1)}},
		{"comes never", Valid, []history.Call{add(0, 1, info, 1), read(4, 5)}},
		{"comes and goes", Violated, []history.Call{add(0, 1, info, 1), read(4, 5, 1), read(6, 7)}},
		{"a failed one is there", Violated, []history.Call{add(0, 1, fail, 1), read(4, 5, 1)}},
		{"one that nobody added", Violated, []history.Call{read(4, 5, 9)}},
		{"one from the future", Violated, []history.Call{read(4, 5, 1), add(6, 7, ok, 1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Sets(c.calls)
			require.Equal(t, c.want, r.Verdict, r.Findings)
		})
	}
}

func TestCounters(t *testing.T) {
	add := func(from, to int64, t history.Type, id string, v int64) history.Call {
		return call(0, "add", from, to, t, Count{Key: "c", Identity: id}, Count{Key: "c", Value: v})
	}
	repeat := func(from, to int64, id string, v int64) history.Call {
		return call(0, "repeat", from, to, ok, Count{Key: "c", Identity: id}, Count{Key: "c", Value: v})
	}
	read := func(from, to, v int64) history.Call {
		return call(1, "read", from, to, ok, Count{Key: "c"}, Count{Key: "c", Value: v})
	}
	for _, c := range []struct {
		name  string
		once  bool
		want  Verdict
		calls []history.Call
	}{
		{"counted", true, Valid, []history.Call{add(0, 1, ok, "a", 1), add(2, 3, ok, "b", 2), read(4, 5, 2)}},
		{"one is lost", true, Violated, []history.Call{add(0, 1, ok, "a", 1), add(2, 3, ok, "b", 2), read(4, 5, 1)}},
		{"one was done twice", true, Violated, []history.Call{add(0, 1, ok, "a", 1), add(2, 3, ok, "b", 2), read(4, 5, 3)}},
		{"one was done twice, and its second answer came", true, Violated, []history.Call{add(0, 3, ok, "a", 2), read(4, 5, 2)}},
		{"a repeat has the first answer", true, Valid, []history.Call{add(0, 1, ok, "a", 1), add(2, 3, ok, "b", 2), repeat(4, 5, "a", 1), read(6, 7, 2)}},
		{"a repeat was done again", true, Violated, []history.Call{add(0, 1, ok, "a", 1), repeat(4, 5, "a", 2)}},
		{"two adds with one answer", true, Violated, []history.Call{add(0, 5, ok, "a", 1), add(0, 6, ok, "b", 1)}},
		{"an identity that was never answered", true, Inconclusive, []history.Call{add(0, 1, info, "a", 0), read(4, 5, 0)}},
		{"unknown, and done", false, Valid, []history.Call{add(0, 1, info, "", 0), add(2, 3, ok, "", 2), read(4, 5, 2)}},
		{"unknown, and not done", false, Valid, []history.Call{add(0, 1, info, "", 0), add(2, 3, ok, "", 1), read(4, 5, 1)}},
		{"unknown, and done twice", false, Violated, []history.Call{add(0, 1, info, "", 0), add(2, 3, ok, "", 1), read(4, 5, 3)}},
		{"failed, and done", false, Violated, []history.Call{add(0, 1, fail, "", 0), read(4, 5, 1)}},
		{"beside a read, done or not", false, Valid, []history.Call{add(0, 9, ok, "", 1), read(4, 5, 0), read(4, 5, 1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Counters(c.calls, c.once)
			require.Equal(t, c.want, r.Verdict, r.Findings)
		})
	}
}

func TestHashes(t *testing.T) {
	nodes := []string{"n1", "n2"}
	same := []Hash{{"n1", 1, 7, "a"}, {"n2", 2, 7, "a"}, {"n2", 3, 8, "b"}}
	require.Equal(t, Valid, Hashes(same, nodes, 0).Verdict)
	require.Equal(t, Violated, Hashes(append(same, Hash{"n1", 4, 8, "c"}), nodes, 0).Verdict)
	require.Equal(t, Inconclusive, Hashes(same[:1], nodes, 0).Verdict, "nothing was compared")
	require.Equal(t, Inconclusive, Hashes(same, nodes, 2).Verdict, "they were at one index once, and not in the end")
	require.Equal(t, Valid, Hashes(append(same, Hash{"n1", 4, 8, "b"}), nodes, 2).Verdict)
	require.Equal(t, Inconclusive, Hashes([]Hash{{"n1", 1, 7, ""}, {"n2", 2, 7, ""}}, nodes, 0).Verdict, "no hash equals no hash")
}

// A node that restores another state after a restart is found by itself.
func TestHashesOfOneNode(t *testing.T) {
	seen := []Hash{{"n1", 1, 7, "a"}, {"n2", 2, 7, "a"}, {"n1", 3, 7, "b"}}
	require.Equal(t, Violated, Hashes(seen, []string{"n1", "n2"}, 0).Verdict)
}
