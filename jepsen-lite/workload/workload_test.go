package workload

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/history"
)

func testRun() *Run {
	return &Run{Recorder: history.NewRecorder(nil, time.Now()), Nodes: []api.Node{{ID: "n1"}}, Prefix: "p/", Seed: 1}
}

// After an operation of unknown outcome a worker is another process: the old one
// may never return.
func TestAnUnknownOutcomeEndsTheProcess(t *testing.T) {
	r := testRun()
	w, other := r.worker("w", 0, nil), r.worker("w", 1, nil)
	do := func(t history.Type) int {
		return w.end(w.begin("x", r.Nodes[0], nil), api.Answer{Type: t}, nil).Process
	}
	first := do(history.OK)
	require.Equal(t, first, do(history.Fail))
	require.Equal(t, first, do(history.Info))
	next := do(history.Info)
	require.NotEqual(t, first, next)
	require.NotEqual(t, next, do(history.OK))
	require.NotEqual(t, first, other.process)
	require.NotEqual(t, next, other.process)
}

// What an operation returned is recorded only where it is known to.
func TestOnlyOKReturnsSomething(t *testing.T) {
	r := testRun()
	w := r.worker("w", 0, nil)
	for _, kind := range []history.Type{history.OK, history.Fail, history.Info} {
		c := w.end(w.begin("x", r.Nodes[0], 1), api.Answer{Type: kind, Why: "why"}, 2)
		require.Equal(t, kind == history.OK, c.Out == 2)
	}
}

// What is no number is not taken for a key that is not there.
func TestNumbers(t *testing.T) {
	require.EqualValues(t, 7, numberOf(api.Item{Value: "7"}, true))
	require.EqualValues(t, 0, numberOf(api.Item{}, false))
	require.EqualValues(t, noNumber, numberOf(api.Item{}, true))
	require.EqualValues(t, noNumber, numberOf(api.Item{Value: "7x"}, true))
}

// A key has few enough operations, and few enough of unknown outcome, for the
// search for an order to end.
func TestRegisterKeysAreRotated(t *testing.T) {
	g := &registerGroup{}
	ops, values := map[int]int{}, map[int]map[int64]bool{}
	for i := range 3000 {
		key, value := g.take()
		if values[key] == nil {
			values[key] = map[int64]bool{}
		}
		require.False(t, values[key][value], "each value once")
		values[key][value] = true
		ops[key]++
		if key%2 == 1 && i%3 == 0 {
			g.unknown(key)
		}
	}
	for key, n := range ops {
		require.LessOrEqual(t, n, registerOps)
		if key%2 == 1 {
			require.LessOrEqual(t, n, 3*registerInfos+3)
		}
	}
	g.unknown(0) // one that comes late is not counted against another key
	require.LessOrEqual(t, g.infos, registerInfos)
}

// Values of a list are appended once each, and lists do not grow for ever.
func TestListsAreRotated(t *testing.T) {
	r := testRun()
	a := newAppend(r).(*appends)
	w := r.worker("append", 0, nil)
	seen := map[string]map[int64]bool{}
	for range 2000 {
		for _, m := range a.mops(w, 0) {
			if m.F != "append" {
				continue
			}
			if seen[m.Key] == nil {
				seen[m.Key] = map[int64]bool{}
			}
			require.False(t, seen[m.Key][m.Value])
			seen[m.Key][m.Value] = true
		}
	}
	require.Greater(t, len(seen), 10)
	for key, values := range seen {
		require.LessOrEqual(t, len(values), listLength+4, key)
	}
}

func TestChoose(t *testing.T) {
	all, err := Choose(nil)
	require.NoError(t, err)
	require.Equal(t, Kinds, all)
	some, err := Choose([]string{"bank", "register"})
	require.NoError(t, err)
	require.Equal(t, "bank", some[0].Name)
	_, err = Choose([]string{"banks"})
	require.ErrorContains(t, err, `"banks"`)
}

// An add that goes out twice at once, of which one way is refused, is what the
// other way made of it.
func TestTheTwinOfARefusedAdd(t *testing.T) {
	refused := api.Answer{Type: history.Fail, Status: 400, Why: "400"}
	for _, c := range []struct {
		name string
		twin api.Answer
		open bool
		want history.Type
	}{
		{"no twin", api.Answer{}, false, history.Fail},
		{"no twin, and a try before that nobody answered", api.Answer{}, true, history.Info},
		{"done by the twin", api.Answer{Type: history.OK}, true, history.OK},
		{"nobody knows of the twin", api.Answer{Type: history.Info}, false, history.Info},
		{"refused too", refused, false, history.Fail},
		{"refused too, after a try that nobody answered", refused, true, history.Info},
	} {
		require.Equal(t, c.want, together(refused, c.twin, c.open).Type, c.name)
	}
}

// The last reads are of every node that is there, whichever is not.
func TestEveryNodeIsAskedBesideOneThatIsDown(t *testing.T) {
	r := testRun()
	r.Nodes = []api.Node{{ID: "n1"}, {ID: "n2"}, {ID: "n3"}}
	w := r.worker("w", 0, nil)
	ctx, cancel := context.WithCancel(context.Background())
	asked := map[string]int{}
	done := w.everyNode(ctx, func(n api.Node) api.Answer {
		asked[n.ID]++
		if asked["n1"] == 3 {
			cancel()
		}
		if n.ID == "n1" {
			return api.Answer{Type: history.Fail}
		}
		return api.Answer{Type: history.OK}
	})
	require.False(t, done)
	require.Equal(t, map[string]int{"n1": 3, "n2": 1, "n3": 1}, asked)
	require.True(t, w.everyNode(context.Background(), func(api.Node) api.Answer { return api.Answer{Type: history.OK} }))
}
