package nemesis

import (
	"context"
	"math/rand/v2"
	"time"
)

// What happens between clients and members makes outcomes that nobody knows:
// requests that were done and never answered.
var clientKinds = []Kind{
	{Name: "answers-lost", Lane: "client", Does: "what some members answer to clients does not arrive, what they are asked does", begin: clients(func(*rand.Rand) (asked, answered Rule) {
		return Rule{}, Rule{Cut: true}
	})},
	{Name: "clients-loss", Lane: "client", Does: "5 to 30 % of the packets between clients and some members are lost", begin: clients(func(rnd *rand.Rand) (asked, answered Rule) {
		r := Rule{Loss: 0.05 + 0.25*rnd.Float64()}
		return r, r
	})},
	{Name: "clients-delay", Lane: "client", Does: "they take up to a third of a second longer", begin: clients(func(rnd *rand.Rand) (asked, answered Rule) {
		d := time.Duration(10+rnd.IntN(150)) * time.Millisecond
		r := Rule{Delay: d, Jitter: d}
		return r, r
	})},
}

func clients(make func(*rand.Rand) (asked, answered Rule)) func(context.Context, *Environment, *rand.Rand) (any, func(context.Context) error, error) {
	return func(_ context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
		in, out := make(rnd)
		whom := map[string]bool{}
		for _, id := range some(env, rnd, 1+rnd.IntN(len(env.Nodes))) {
			whom[id] = true
		}
		env.ClientLinks.SetClients(func(member string, asked bool) Rule {
			switch {
			case !whom[member]:
				return Rule{}
			case asked:
				return in
			}
			return out
		})
		return whom, func(context.Context) error {
			env.ClientLinks.SetClients(func(string, bool) Rule { return Rule{} })
			return nil
		}, nil
	}
}
