package nemesis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Step is one fault of a plan.
type Step struct {
	Lane string        `json:"lane"`
	Kind string        `json:"kind"`
	At   time.Duration `json:"at"`  // ns since the start of the plan
	For  time.Duration `json:"for"` // ns
	// Seed decides what the kind leaves open: which member, which pairs.
	Seed uint64 `json:"seed"`
}

// Gaps and lengths of faults. A leader is elected within a second or so: faults
// are long enough for that, some, and short enough, others, to end in the middle
// of it.
const (
	minGap, maxGap     = 500 * time.Millisecond, 3 * time.Second
	minFault, maxFault = 300 * time.Millisecond, 3500 * time.Millisecond
)

// Plan makes the schedule: faults of the given kinds that are all over by length.
func Plan(seed int64, length time.Duration, kinds []Kind) []Step {
	lanes := map[string][]Kind{}
	var names []string
	for _, k := range kinds {
		if lanes[k.Lane] == nil {
			names = append(names, k.Lane)
		}
		lanes[k.Lane] = append(lanes[k.Lane], k)
	}
	var steps []Step
	for _, lane := range names {
		// Each lane has its own randomness, so that leaving kinds out of one
		// does not change the others.
		rnd := rand.New(rand.NewPCG(uint64(seed), hash(lane)))
		between := func(a, b time.Duration) time.Duration {
			return a + time.Duration(rnd.Int64N(int64(b-a)))
		}
		var deck []Kind
		for at := between(minGap, maxGap); ; at += between(minGap, maxGap) {
			if len(deck) == 0 {
				deck = slices.Clone(lanes[lane])
				rnd.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			}
			step := Step{Lane: lane, Kind: deck[0].Name, At: at, For: between(minFault, maxFault), Seed: rnd.Uint64()}
			deck = deck[1:]
			if step.At+step.For > length {
				break
			}
			steps = append(steps, step)
			at += step.For
		}
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return int(a.At - b.At) })
	return steps
}

func hash(s string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, b := range []byte(s) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}

// Choose returns the kinds that are named, or all; each must be one that the
// environment has what it takes for. A name may be a lane's.
func Choose(names []string, env *Environment) ([]Kind, error) {
	var chosen []Kind
	for _, k := range Kinds {
		if len(names) == 0 && k.possible(env) == "" {
			chosen = append(chosen, k)
		}
	}
	for _, name := range names {
		found := false
		for _, k := range Kinds {
			if k.Name != name && k.Lane != name {
				continue
			}
			found = true
			if why := k.possible(env); why != "" {
				if k.Name == name {
					return nil, fmt.Errorf("fault %s: %s", name, why)
				}
				continue
			}
			if !slices.ContainsFunc(chosen, func(c Kind) bool { return c.Name == k.Name }) {
				chosen = append(chosen, k)
			}
		}
		if !found && name != "none" {
			var all []string
			for _, k := range Kinds {
				all = append(all, k.Name)
			}
			return nil, fmt.Errorf("no fault is called %q; there are none, %s, and the lanes process, link, client, member, clock, disk", name, strings.Join(all, ", "))
		}
	}
	return chosen, nil
}
