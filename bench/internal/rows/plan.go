package rows

import (
	"regexp"
	"time"
)

// Plan is how much is measured.
type Plan struct {
	// Keys and ValueBytes are those of the rows that do not say otherwise.
	Keys       int `json:"keys"`
	ValueBytes int `json:"value_bytes"`
	// SmallBytes is the length of the values of the rows with many keys.
	SmallBytes int `json:"small_bytes"`
	// Warmup and Measure are of each closed loop; Rounds is how often each is run.
	Warmup  time.Duration `json:"warmup_ns"`
	Measure time.Duration `json:"measure_ns"`
	Rounds  int           `json:"rounds"`
	// Failovers is how often a leader is killed, for each way.
	Failovers int `json:"failovers"`
	// Settle is how long nothing is done before memory is read.
	Settle time.Duration `json:"settle_ns"`
	// Million is how many keys there are for memory, restart and snapshot.
	Million int `json:"million"`
	// Sizes are the numbers of keys, growing, of the rows that compare sizes.
	Sizes []int `json:"sizes"`
	// Rows are those whose ID matches; nil: all.
	Rows *regexp.Regexp `json:"-"`
}

// Full returns the plan of the published figures.
func Full() Plan {
	return Plan{
		Keys: 100_000, ValueBytes: 256, SmallBytes: 64, Warmup: 3 * time.Second, Measure: 10 * time.Second, Rounds: 3, Failovers: 10,
		Settle: 10 * time.Second, Million: 1_000_000, Sizes: []int{100_000, 1_000_000, 10_000_000},
	}
}

// Quick returns a plan that takes minutes, to see that everything works, and roughly
// where it stands.
func Quick() Plan {
	return Plan{
		Keys: 20_000, ValueBytes: 256, SmallBytes: 64, Warmup: 500 * time.Millisecond, Measure: 2 * time.Second, Rounds: 1, Failovers: 3,
		Settle: 2 * time.Second, Million: 100_000, Sizes: []int{20_000, 100_000},
	}
}
