package nemesis

import (
	"context"
	"math/rand/v2"
	"slices"
)

// Kind is a kind of fault.
type Kind struct {
	Name string
	// Lane is what it is done to: process, link, client, member, clock or disk.
	Lane string
	// Leader says that it takes leadership from the member that has it, sooner
	// or later: a run in which such faults change no leader has not shown much.
	Leader bool
	// Disk says that it takes disks of this run's own, though its lane is another's:
	// it ends and starts processes.
	Disk bool
	// Does says for people what happens.
	Does string
	// begin does it and returns whom it was done to, for the record, and what ends
	// it. An error of errNotAvailable says that the cluster has no such thing.
	begin func(ctx context.Context, env *Environment, rnd *rand.Rand) (whom any, end func(context.Context) error, err error)
}

// Kinds are all kinds of faults, in the order of their lanes.
var Kinds = slices.Concat(processKinds, linkKinds, memberKinds, clockKinds, diskKinds, clientKinds)

// possible says what the environment is missing for it; "" for nothing.
func (k Kind) possible(env *Environment) string {
	switch {
	case k.Lane == "process" && env.Processes == nil:
		return "the processes are not this run's own"
	case k.Lane == "link" && env.Links == nil:
		return "the links are not this run's own"
	case (k.Disk || k.Lane == "disk") && env.Disks == nil:
		return "the disks are not this run's own (it takes root)"
	case k.Lane == "client" && env.ClientLinks == nil:
		return "the clients' ways are not this run's own (it takes root)"
	case k.Lane == "clock" && env.Clocks == nil:
		return "the wall clocks are not this run's own (see --wall-clocks)"
	case k.Lane == "link" && len(env.Nodes) < 2:
		return "there is one node"
	}
	return ""
}

func ids(env *Environment) []string {
	var out []string
	for _, n := range env.Nodes {
		out = append(out, n.ID)
	}
	return out
}

// some returns n of the members, at random.
func some(env *Environment, rnd *rand.Rand, n int) []string {
	all := ids(env)
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:n]
}

// leaderOr returns the leader, or anybody where there is none.
func leaderOr(env *Environment, rnd *rand.Rand) []string {
	if l := env.Leader(); l != "" {
		return []string{l}
	}
	return some(env, rnd, 1)
}

func majority(env *Environment) int { return len(env.Nodes)/2 + 1 }
