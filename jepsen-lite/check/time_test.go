package check

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/jepsen-lite/history"
)

func TestLocks(t *testing.T) {
	const ttl = 100
	do := func(f string, from, to int64, t history.Type, token uint64) history.Call {
		return call(0, f, from, to, t, Lock{Name: "l", Token: token}, nil)
	}
	acquire := func(from, to int64, token uint64) history.Call {
		return call(0, "acquire", from, to, ok, Lock{Name: "l"}, Lock{Name: "l", Token: token})
	}
	guarded := func(from, to int64, token, revision uint64) history.Call {
		return call(0, "guarded", from, to, ok, Lock{Name: "l", Token: token}, Lock{Name: "l", Token: token, Revision: revision})
	}
	for _, c := range []struct {
		name  string
		want  Verdict
		calls []history.Call
	}{
		{"one after the other", Valid, []history.Call{acquire(0, 1, 1), do("release", 5, 6, ok, 1), acquire(7, 8, 2)}},
		{"after the ttl", Valid, []history.Call{acquire(0, 1, 1), acquire(50, 101, 2)}},
		{"before the ttl is over", Violated, []history.Call{acquire(0, 1, 1), acquire(50, 60, 2)}},
		{"kept, and lost before its time", Violated, []history.Call{acquire(0, 1, 1), do("keep", 50, 55, ok, 1), acquire(110, 120, 2)}},
		{"a client that believes it still has it", Violated, []history.Call{acquire(0, 1, 1), do("held", 250, 251, ok, 1), acquire(199, 201, 2)}},
		{"a client that knows that it has lost it", Valid, []history.Call{acquire(0, 1, 1), do("held", 250, 251, fail, 1), acquire(199, 201, 2)}},
		{"kept in vain", Valid, []history.Call{acquire(0, 1, 1), do("keep", 50, 55, info, 1), acquire(110, 120, 2)}},
		{"released by a call of unknown outcome", Valid, []history.Call{acquire(0, 1, 1), do("release", 5, 90, info, 1), acquire(6, 8, 2)}},
		{"had after a long wait", Valid, []history.Call{acquire(0, 150, 1), acquire(1, 160, 2)}},
		{"the same token twice", Violated, []history.Call{acquire(0, 1, 1), acquire(200, 201, 1)}},
		{"a token that is not greater", Violated, []history.Call{acquire(0, 1, 2), acquire(200, 201, 1)}},
		{"asked at once, tokens in any order", Valid, []history.Call{acquire(0, 250, 2), acquire(10, 20, 1)}},
		{"guarded writes in order", Valid, []history.Call{acquire(0, 1, 1), guarded(2, 3, 1, 10), acquire(200, 201, 2), guarded(202, 203, 2, 11)}},
		{"a late guarded write goes through", Violated, []history.Call{acquire(0, 1, 1), acquire(200, 201, 2), guarded(202, 203, 1, 11)}},
		{"behind the next one's, by its revision", Violated, []history.Call{acquire(0, 1, 1), guarded(100, 300, 1, 12), acquire(199, 201, 2), guarded(202, 203, 2, 11)}},
		{"beside the next one, before it by its revision", Valid, []history.Call{acquire(0, 1, 1), guarded(100, 300, 1, 10), acquire(199, 201, 2), guarded(202, 203, 2, 11)}},
		{"a late guarded write is refused", Valid, []history.Call{acquire(0, 1, 1), acquire(200, 201, 2), do("guarded", 202, 203, fail, 1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Locks(c.calls, ttl)
			require.Equal(t, c.want, r.Verdict, r.Findings)
		})
	}
}

func TestLeases(t *testing.T) {
	const ttl = 100 * time.Millisecond
	ms := func(n int64) int64 { return n * int64(time.Millisecond) }
	do := func(f string, from, to int64, t history.Type) history.Call {
		return call(0, f, ms(from), ms(to), t, Lease{Key: "k"}, Lease{})
	}
	read := func(from, to int64, present bool) history.Call {
		return call(0, "read", ms(from), ms(to), ok, Lease{Key: "k"}, Lease{Present: present})
	}
	notFound := func(from, to int64) history.Call {
		c := do("keep", from, to, fail)
		c.Error = "404 lease_not_found"
		return c
	}
	late := LeaseLate.Milliseconds()
	// serving is answers to others, all the time.
	serving := func(from, to int64) (out []history.Call) {
		for t := from; t <= to; t += 100 {
			c := read(t, t, true)
			c.In = Lease{Key: "other"}
			out = append(out, c)
		}
		return out
	}
	for _, c := range []struct {
		name  string
		want  Verdict
		calls []history.Call
	}{
		{"ends", Valid, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), read(50, 51, true), read(110, 111, false)}},
		{"ends early", Violated, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), read(98, 99, false)}},
		{"could have ended by then", Valid, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), read(98, 101, false)}},
		{"never attached", Valid, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, fail), read(20, 21, false)}},
		{"kept, and ends early", Violated, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), do("keep", 90, 95, ok), read(150, 151, false)}},
		{"kept in vain", Valid, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), do("keep", 90, 95, info), read(150, 151, false)}},
		{"cannot be kept, too early", Violated, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), notFound(50, 60)}},
		{"cannot be kept, too late", Valid, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), notFound(90, 101)}},
		{"comes back", Violated, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), read(110, 111, false), read(112, 113, true)}},
		{"renewed after its end", Violated, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), read(110, 111, false), do("keep", 112, 113, ok)}},
		{"revoked", Valid, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), do("revoke", 10, 11, ok), read(20, 21, false)}},
		{"revoked, and there", Violated, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), do("revoke", 10, 11, ok), read(20, 21, true)}},
		{"perhaps revoked", Valid, []history.Call{do("grant", 0, 5, ok), do("attach", 6, 7, ok), do("revoke", 10, 11, info), read(20, 21, true), read(22, 23, false)}},
		{"does not end", Violated, append(serving(0, late+200), do("grant", 0, 5, ok), do("attach", 6, 7, ok), read(late+206, late+207, true))},
		{"does not end while nobody is served", Valid, append(serving(0, late), do("grant", 0, 5, ok), do("attach", 6, 7, ok), read(9*late, 9*late+1, true))},
		{"does not end, but a keep may come yet", Valid, append(serving(0, late+200), do("grant", 0, 5, ok), do("attach", 6, 7, ok), do("keep", 8, 9, info), read(late+206, late+207, true))},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Leases(c.calls, ttl)
			require.Equal(t, c.want, r.Verdict, r.Findings)
		})
	}
}

func TestFresh(t *testing.T) {
	write := func(from, to int64, revision uint64) history.Call {
		return call(0, "write", from, to, ok, nil, FreshSeen{Key: "k", ModRevision: revision, Revision: revision})
	}
	read := func(f string, from, to int64, in FreshRead, mod, revision uint64, staleness time.Duration) history.Call {
		in.Key = "k"
		return call(0, f, from, to, ok, in, FreshSeen{"k", mod, revision, staleness})
	}
	for _, c := range []struct {
		name     string
		want     Verdict
		restarts []int64
		calls    []history.Call
	}{
		{"a session sees what it asks for", Valid, nil, []history.Call{write(0, 1, 5), read("session", 2, 3, FreshRead{MinRevision: 5}, 5, 6, -1)}},
		{"a session does not", Violated, nil, []history.Call{write(0, 1, 5), read("session", 2, 3, FreshRead{MinRevision: 5}, 0, 4, -1)}},
		{"a state that lacks one of its writes", Violated, nil, []history.Call{write(0, 1, 5), read("session", 2, 3, FreshRead{MinRevision: 5}, 0, 6, -1)}},
		{"a state that has what comes later", Violated, nil, []history.Call{write(0, 1, 5), read("stale", 2, 3, FreshRead{}, 5, 4, -1)}},
		{"bounded, and in bounds", Valid, nil, []history.Call{write(0, 10, 5), read("bounded", 50, 51, FreshRead{MaxStaleness: 100}, 0, 4, -1)}},
		{"bounded, and out of bounds", Violated, nil, []history.Call{write(0, 10, 5), read("bounded", 150, 151, FreshRead{MaxStaleness: 100}, 0, 4, -1)}},
		{"out of its own bounds", Violated, nil, []history.Call{write(0, 10, 5), read("stale", 150, 151, FreshRead{}, 0, 4, 20)}},
		{"stale, and says so", Valid, nil, []history.Call{write(0, 10, 5), read("stale", 150, 151, FreshRead{}, 0, 4, 200)}},
		{"stale, and says nothing", Valid, nil, []history.Call{write(0, 10, 5), read("stale", 150, 151, FreshRead{}, 0, 4, -1)}},
		{"a node goes back", Violated, nil, []history.Call{read("stale", 0, 1, FreshRead{}, 0, 4, -1), read("stale", 2, 3, FreshRead{}, 0, 3, -1)}},
		{"over a restart it may", Valid, []int64{2, 3}, []history.Call{read("stale", 0, 1, FreshRead{}, 0, 4, -1), read("stale", 4, 5, FreshRead{}, 0, 3, -1)}},
		{"after a restart it may not either", Violated, []int64{2, 3}, []history.Call{
			read("stale", 0, 1, FreshRead{}, 0, 4, -1), read("stale", 4, 5, FreshRead{}, 0, 3, -1), read("stale", 6, 7, FreshRead{}, 0, 2, -1)}},
		{"reads beside each other", Valid, nil, []history.Call{read("stale", 0, 10, FreshRead{}, 0, 4, -1), read("stale", 2, 3, FreshRead{}, 0, 3, -1)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Fresh(c.calls, map[string][]int64{"n1": c.restarts})
			require.Equal(t, c.want, r.Verdict, r.Findings)
		})
	}
}

func TestVacuous(t *testing.T) {
	good := Done{
		Length: time.Minute, Operations: map[string]int{"w": 1000}, OK: map[string]int{"w": 900},
		ByF:          map[string]Share{"w read": {800, 800}, "w write": {200, 100}, "w rare": {19, 0}},
		FaultsWanted: true, Faults: 5, DuringFaults: 100, LeaderFaults: 2, LeaderChanges: 1,
	}
	require.Equal(t, Valid, Vacuous(good).Verdict)
	for name, change := range map[string]func(*Done){
		"no workload":              func(d *Done) { d.Operations = nil },
		"nothing was done":         func(d *Done) { d.Operations = map[string]int{"w": 0} },
		"too few operations":       func(d *Done) { d.Operations = map[string]int{"w": 29} },
		"hardly any OK":            func(d *Done) { d.OK = map[string]int{"w": 99} },
		"all writes failed":        func(d *Done) { d.ByF = map[string]Share{"w write": {20, 0}} },
		"last reads are missing":   func(d *Done) { d.Unfinished = []string{"w"} },
		"no fault":                 func(d *Done) { d.Faults = 0 },
		"no operation in a fault":  func(d *Done) { d.DuringFaults = 0 },
		"no leader lost its place": func(d *Done) { d.LeaderChanges = 0 },
	} {
		d := good
		change(&d)
		require.Equal(t, Inconclusive, Vacuous(d).Verdict, name)
	}
}

func TestRecovery(t *testing.T) {
	require.Equal(t, Valid, Recovery(9*time.Second, true, nil, 0).Verdict)
	require.Equal(t, Valid, Recovery(9*time.Second, true, nil, 8*time.Second).Verdict)
	require.Equal(t, Violated, Recovery(11*time.Second, true, nil, time.Second).Verdict)
	require.Equal(t, Violated, Recovery(11*time.Second, false, nil, 0).Verdict)
	require.Equal(t, Inconclusive, Recovery(11*time.Second, true, nil, 2*time.Second).Verdict, "the machine was too busy")
	require.Equal(t, Inconclusive, Recovery(20*time.Second, false, nil, 5*time.Second).Verdict)
	require.Equal(t, Violated, Deaths([]string{"n1: panic"}).Verdict)
}
