package nemesis

import (
	"context"
	"errors"
	"math/rand/v2"
)

type picker func(*Environment, *rand.Rand) []string

func one(env *Environment, rnd *rand.Rand) []string  { return some(env, rnd, 1) }
func most(env *Environment, rnd *rand.Rand) []string { return some(env, rnd, majority(env)) }
func all(env *Environment, rnd *rand.Rand) []string  { return some(env, rnd, len(env.Nodes)) }

var processKinds = []Kind{
	{Name: "kill-one", Lane: "process", Does: "SIGKILL of a member, and its start later", begin: kill(one)},
	{Name: "kill-leader", Lane: "process", Leader: true, Does: "the same, of the leader", begin: kill(leaderOr)},
	{Name: "kill-majority", Lane: "process", Leader: true, Does: "the same, of more than half of them", begin: kill(most)},
	{Name: "kill-all", Lane: "process", Leader: true, Does: "the same, of all at once", begin: kill(all)},
	{Name: "pause-one", Lane: "process", Does: "SIGSTOP of a member, and SIGCONT later", begin: pause(one)},
	{Name: "pause-leader", Lane: "process", Leader: true, Does: "the same, of the leader: it comes back believing that it leads", begin: pause(leaderOr)},
	{Name: "pause-majority", Lane: "process", Does: "the same, of more than half of them", begin: pause(most)},
}

func kill(pick picker) func(context.Context, *Environment, *rand.Rand) (any, func(context.Context) error, error) {
	return func(_ context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
		whom := pick(env, rnd)
		err := each(whom, env.Processes.Kill)
		return whom, func(ctx context.Context) error {
			return each(whom, func(id string) error { return env.Processes.Start(ctx, id) })
		}, err
	}
}

func pause(pick picker) func(context.Context, *Environment, *rand.Rand) (any, func(context.Context) error, error) {
	return func(_ context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
		whom := pick(env, rnd)
		err := each(whom, env.Processes.Pause)
		return whom, func(context.Context) error { return each(whom, env.Processes.Resume) }, err
	}
}

// each does f to all at once.
func each(whom []string, f func(string) error) error {
	errs := make(chan error, len(whom))
	for _, id := range whom {
		go func() { errs <- f(id) }()
	}
	var all []error
	for range whom {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
