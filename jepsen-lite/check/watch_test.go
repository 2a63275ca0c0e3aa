package check

import (
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/jepsen-lite/history"
)

// writes and frames in short: a value names its write, "-" deletes.
func changes(texts ...string) []Change {
	var out []Change
	for _, t := range texts {
		c := Change{Key: t[:1], Value: t[1:]}
		if c.Value == "-" {
			c.Value, c.Deleted = "", true
		}
		out = append(out, c)
	}
	return out
}

func write(from, to int64, t history.Type, revision uint64, texts ...string) history.Call {
	return call(0, "write", from, to, t, Changed{Changes: changes(texts...)}, Changed{changes(texts...), revision})
}

func frame(at int64, watcher int, kind string, revision uint64, texts ...string) history.Call {
	f := Frame{Watcher: watcher, Type: kind, Revision: revision, Changes: changes(texts...)}
	if kind == "opened" {
		f.From, f.Revision = revision, 0
	}
	return call(9, "frame", at, at, ok, nil, f)
}

func TestWatches(t *testing.T) {
	for _, c := range []struct {
		name     string
		want     Verdict
		sentinel uint64
		calls    []history.Call
	}{
		{"heard", Valid, 3, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1", "b1"), write(3, 4, ok, 3, "a-"),
			frame(5, 1, "change", 2, "a1", "b1"), frame(6, 1, "change", 3, "a-")}},
		{"one is left out", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), write(3, 4, ok, 3, "a2"), frame(6, 1, "change", 3, "a2")}},
		{"one is left out, and progress says otherwise", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), frame(6, 1, "progress", 2)}},
		{"it has not come that far", Valid, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), write(3, 4, ok, 3, "a2"), frame(6, 1, "change", 2, "a1")}},
		{"but in the end it must have", Violated, 3, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), write(3, 4, ok, 3, "a2"), frame(6, 1, "change", 2, "a1")}},
		{"twice", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), frame(5, 1, "change", 2, "a1"), frame(6, 1, "change", 2, "a1")}},
		{"out of order", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), write(3, 4, ok, 3, "a2"), frame(5, 1, "change", 3, "a2"), frame(6, 1, "change", 2, "a1")}},
		{"half of a txn", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1", "b1"), frame(5, 1, "change", 2, "a1")}},
		{"half of a txn of unknown outcome", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, info, 0, "a1", "b1"), frame(5, 1, "change", 2, "a1")}},
		{"of unknown outcome, with a delete of nothing", Valid, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, info, 0, "a1", "b-"), frame(5, 1, "change", 2, "a1")}},
		{"early", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), frame(1, 1, "change", 2, "a1"), write(2, 3, ok, 2, "a1")}},
		{"a failed write", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, fail, 0, "a1"), frame(5, 1, "change", 2, "a1")}},
		{"nobody's write", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), frame(5, 1, "change", 2, "a1")}},
		{"two watchers differ", Violated, 0, []history.Call{
			write(0, 1, info, 0, "a1"), write(0, 1, info, 0, "a2"), frame(2, 1, "opened", 2), frame(2, 2, "opened", 2),
			frame(5, 1, "change", 2, "a1"), frame(5, 2, "change", 2, "a2")}},
		{"one hears of what the other does not", Violated, 0, []history.Call{
			write(0, 1, info, 0, "a1"), write(0, 1, ok, 3, "a2"), frame(2, 1, "opened", 2), frame(2, 2, "opened", 2),
			frame(5, 1, "change", 2, "a1"), frame(5, 1, "change", 3, "a2"), frame(5, 2, "change", 3, "a2")}},
		{"goes on elsewhere", Valid, 3, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), write(3, 4, ok, 3, "a2"),
			frame(5, 1, "change", 2, "a1"), frame(6, 1, "opened", 3), frame(7, 1, "change", 3, "a2")}},
		{"goes on elsewhere with a repeat", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), frame(5, 1, "change", 2, "a1"),
			frame(6, 1, "opened", 3), frame(7, 1, "change", 2, "a1")}},
		{"goes on elsewhere with a gap", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), write(3, 4, ok, 3, "a2"), write(3, 4, ok, 4, "a3"),
			frame(5, 1, "change", 2, "a1"), frame(6, 1, "opened", 3), frame(7, 1, "change", 4, "a3")}},
		{"told that it lost something", Valid, 5, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), write(3, 4, ok, 3, "a2"), write(3, 4, ok, 5, "a3"),
			frame(5, 1, "change", 2, "a1"), frame(6, 1, "lost", 0), frame(6, 1, "opened", 0), frame(7, 1, "synced", 4), frame(8, 1, "change", 5, "a3")}},
		{"taken back to an older revision", Violated, 0, []history.Call{
			frame(0, 1, "opened", 2), write(1, 2, ok, 2, "a1"), write(1, 2, ok, 3, "a2"),
			frame(3, 1, "change", 2, "a1"), frame(3, 1, "change", 3, "a2"), frame(5, 1, "progress", 2)}},
		{"nobody watched", Inconclusive, 0, []history.Call{write(1, 2, ok, 2, "a1")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Watches(c.calls, c.sentinel)
			require.Equal(t, c.want, r.Verdict, r.Findings)
		})
	}
}
