package rows

import (
	"fmt"
	"slices"

	"trivet/bench/internal/load"
)

// Row is one line of the comparison.
type Row struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	// Unit is of Result.Value.
	Unit string `json:"unit"`
	// Lower says that less is better.
	Lower bool `json:"lower,omitempty"`
	// Targets are what Trivet is to reach, by its ways: a ratio to the base, at least
	// that or, where less is better, at most. The base is etcd through its Go client
	// in the same row unless Own or Base say otherwise.
	Targets map[string]float64 `json:"targets,omitempty"`
	// Base is the row that the ratio is to, of the same system and way.
	Base string `json:"base,omitempty"`
	// Own says that the value is a ratio itself, and is compared with the target as
	// it is.
	Own bool `json:"own,omitempty"`
}

// Base is what ratios are to.
const (
	BaseSystem = "etcd"
	BaseWay    = "go"
)

// Result is one measurement of a row.
type Result struct {
	System string `json:"system"`
	Way    string `json:"way"`
	Row    string `json:"row"`
	// Round counts from 1; a row that is measured once has one.
	Round int `json:"round"`
	// Value is what the row compares, in its unit; 0 where it failed.
	Value float64 `json:"value"`
	// Load is the closed loop of it, where there is one.
	Load *load.Summary `json:"load,omitempty"`
	// Samples are the single measurements that Value is the median of.
	Samples []float64 `json:"samples,omitempty"`
	// Details are further figures by their names, which have the unit.
	Details map[string]float64 `json:"details,omitempty"`
	// Unsupported: the system has nothing of the same meaning.
	Unsupported bool `json:"unsupported,omitempty"`
	// Error is why there is no value.
	Error string `json:"error,omitempty"`
}

func both(http, client float64) map[string]float64 {
	return map[string]float64{"http": http, "go": client}
}

// List returns the rows of a plan, in the order of the report.
func List(p Plan) []Row {
	rows := []Row{
		{ID: "put-1", Title: "put, 1 caller", Unit: "ms (p50)", Lower: true, Targets: both(0.6, 0.6)},
		{ID: "put-64", Title: "put, 64 callers", Unit: "ops/s", Targets: both(2.5, 8)},
		{ID: "put-256", Title: "put, 256 callers", Unit: "ops/s", Targets: both(2.5, 8)},
		{ID: "get-1", Title: "linearizable get, 1 caller", Unit: "ms (p50)", Lower: true},
		{ID: "get-64", Title: "linearizable get, 64 callers", Unit: "ops/s", Targets: both(2.5, 8)},
		{ID: "get-256", Title: "linearizable get, 256 callers", Unit: "ops/s", Targets: both(2.5, 8)},
		{ID: "stale-256", Title: "stale get, 256 callers", Unit: "ops/s", Targets: both(2, 8)},
		{ID: "mix-64", Title: "90 gets to 10 puts, 64 callers", Unit: "ops/s", Targets: both(2.5, 8)},
		{ID: "scan-16", Title: "scan of 100 keys, 16 callers", Unit: "ops/s", Targets: both(4, 5)},
		{ID: "txn-64", Title: "txn of a compare and two puts, 64 callers", Unit: "ops/s", Targets: both(3, 8)},
		{ID: "watch", Title: "watch, 100 watches of one client, 16 writers", Unit: "events/s", Targets: both(3, 5)},
		{ID: "watch-each", Title: "watch, 100 clients with a watch each, 16 writers", Unit: "events/s", Targets: both(3, 5)},
		{ID: "failover", Title: "gap after kill -9 of the leader", Unit: "ms", Lower: true, Targets: both(0.05, 0.05)},
		{ID: "memory", Title: "memory per node, " + Count(p.Million) + " keys", Unit: "MiB", Lower: true, Targets: map[string]float64{"http": 0.5}},
		{ID: "restart", Title: "restart to the first linearizable read, " + Count(p.Million) + " keys", Unit: "s", Lower: true, Targets: map[string]float64{"http": 0.25}},
		{ID: "snapshot", Title: "put p99 while a backup of " + Count(p.Million) + " keys is taken, to p99 without, 16 callers", Unit: "times", Lower: true,
			Targets: both(1.5, 1.5), Own: true},
	}
	for i, n := range p.Sizes {
		for _, kind := range []string{"put", "get"} {
			r := Row{ID: sizeID(kind, n), Title: fmt.Sprintf("%s, 64 callers, %s keys of 32 + %d bytes", kind, Count(n), p.SmallBytes), Unit: "ops/s"}
			if i > 0 && i == len(p.Sizes)-1 {
				r.Base, r.Targets = sizeID(kind, p.Sizes[0]), both(0.8, 0.8)
			}
			rows = append(rows, r)
		}
	}
	if p.Rows != nil {
		rows = slices.DeleteFunc(rows, func(r Row) bool { return !p.Rows.MatchString(r.ID) })
	}
	return rows
}

// sizeID names the row of a kind of request at n keys.
func sizeID(kind string, n int) string { return fmt.Sprintf("%s-at-%d", kind, n) }

// Count says a number of keys shortly.
func Count(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%d million", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%d thousand", n/1000)
	}
	return fmt.Sprint(n)
}
