package nemesis

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

var linkKinds = []Kind{
	{Name: "isolate-one", Lane: "link", Does: "a member is cut off from all others", begin: cut(func(env *Environment, rnd *rand.Rand) (any, reach) {
		return apart(one(env, rnd))
	})},
	{Name: "isolate-leader", Lane: "link", Leader: true, Does: "the leader is", begin: cut(func(env *Environment, rnd *rand.Rand) (any, reach) {
		return apart(leaderOr(env, rnd))
	})},
	{Name: "halves", Lane: "link", Does: "the members fall apart, more than half and the rest", begin: cut(func(env *Environment, rnd *rand.Rand) (any, reach) {
		return apart(most(env, rnd))
	})},
	{Name: "ring", Lane: "link", Does: "a ring of majorities: each member reaches its neighbours alone, none of them all (with three: one pair is cut, the third reaches both)", begin: cut(ring)},
	{Name: "one-way", Lane: "link", Does: "a member hears the others, and none hears it; or the other way round", begin: cut(oneWay)},
	{Name: "leader-deaf", Lane: "link", Leader: true, Does: "the leader is heard and hears nobody", begin: cut(func(env *Environment, rnd *rand.Rand) (any, reach) {
		l := leaderOr(env, rnd)
		return map[string]any{"deaf": l}, func(_, to string) bool { return to != l[0] }
	})},
	{Name: "looks-dead", Lane: "link", Leader: true, Does: "connections to the leader end and are refused, as if its process had died; half of the time what it still sends is lost, and what it was answered comes late", begin: looksDead},
	{Name: "delay", Lane: "link", Does: "everything between some pairs takes up to a third of a second longer", begin: shape(func(rnd *rand.Rand) Rule {
		d := time.Duration(10+rnd.IntN(150)) * time.Millisecond
		return Rule{Delay: d, Jitter: d}
	})},
	{Name: "slow", Lane: "link", Does: "some pairs have 4 to 64 KiB a second", begin: shape(func(rnd *rand.Rand) Rule {
		return Rule{BytesPerSecond: 4 << (10 + rnd.IntN(5))}
	})},
	{Name: "loss", Lane: "link", Does: "between some pairs, 5 to 30 % is lost and sent again", begin: shape(func(rnd *rand.Rand) Rule {
		return Rule{Loss: 0.05 + 0.25*rnd.Float64()}
	})},
}

// reach says whether what one member sends reaches another.
type reach func(from, to string) bool

func cut(make func(*Environment, *rand.Rand) (any, reach)) func(context.Context, *Environment, *rand.Rand) (any, func(context.Context) error, error) {
	return func(_ context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
		whom, reaches := make(env, rnd)
		env.Links.Set(func(from, to string) Rule { return Rule{Cut: !reaches(from, to)} })
		return whom, heal(env), nil
	}
}

func heal(env *Environment) func(context.Context) error {
	return func(context.Context) error {
		env.Links.Set(func(string, string) Rule { return Rule{} })
		return nil
	}
}

// apart cuts some off from the rest, in both directions.
func apart(some []string) (any, reach) {
	return some, func(from, to string) bool {
		return slices.Contains(some, from) == slices.Contains(some, to)
	}
}

func ring(env *Environment, rnd *rand.Rand) (any, reach) {
	order := some(env, rnd, len(env.Nodes))
	at := map[string]int{}
	for i, id := range order {
		at[id] = i
	}
	n := len(order)
	// Each side of a member are half of those that it needs for a majority.
	side := majority(env) / 2
	return order, func(from, to string) bool {
		d := (at[from] - at[to] + n) % n
		if n == 3 {
			return at[from] == 1 || at[to] == 1 // a ring of three is whole
		}
		return d <= side || d >= n-side
	}
}

func oneWay(env *Environment, rnd *rand.Rand) (any, reach) {
	x := one(env, rnd)
	if rnd.IntN(2) == 0 {
		return map[string]any{"mute": x}, func(from, _ string) bool { return from != x[0] }
	}
	return map[string]any{"deaf": x}, func(_, to string) bool { return to != x[0] }
}

// shape gives half of the directed pairs, at least one, a rule.
func shape(make func(*rand.Rand) Rule) func(context.Context, *Environment, *rand.Rand) (any, func(context.Context) error, error) {
	return func(_ context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
		rules := map[string]Rule{}
		all := ids(env)
		first := rnd.IntN(len(all))
		for i, from := range all {
			for j, to := range all {
				if from != to && (rnd.IntN(2) == 0 || (i == first && j == (first+1)%len(all))) {
					rules[from+" to "+to] = make(rnd)
				}
			}
		}
		env.Links.Set(func(from, to string) Rule { return rules[from+" to "+to] })
		return rules, heal(env), nil
	}
}

// looksDead has the others take a leader for dead that is not, and knows nothing
// of it for as long as can be.
func looksDead(ctx context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
	l := leaderOr(env, rnd)[0]
	if rnd.IntN(2) == 0 {
		// Short enough that a leader remains one with it, and long enough for a
		// majority to agree and to elect meanwhile.
		late := Rule{Delay: 150 * time.Millisecond}
		env.Links.Set(func(_, to string) Rule {
			if to == l {
				return late
			}
			return Rule{}
		})
		sleepUntil(ctx, time.Now().Add(500*time.Millisecond))
		env.Links.Set(func(from, to string) Rule {
			switch {
			case from == l:
				return Rule{Cut: true}
			case to == l:
				return late
			}
			return Rule{}
		})
	}
	err := env.Links.Refuse(l, true)
	return []string{l}, func(ctx context.Context) error {
		return errors.Join(env.Links.Refuse(l, false), heal(env)(ctx))
	}, err
}
