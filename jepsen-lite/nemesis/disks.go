package nemesis

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Those that end processes, or may, are of the lane that starts them.
var diskKinds = []Kind{
	{Name: "power-loss", Lane: "process", Disk: true, Leader: true, Does: "all members lose power, and with it all that was not synced", begin: losePower(all, false)},
	{Name: "power-torn", Lane: "process", Disk: true, Leader: true, Does: "the same, but chance has written some of it", begin: losePower(all, true)},
	{Name: "disk-full", Lane: "process", Disk: true, Does: "a member's disk has no room, and later has; the member may stop, and is started again", begin: spoilt(
		func(env *Environment, id string) error { return env.Disks.Fill(id) },
		func(env *Environment, id string) error { return env.Disks.Free(id) })},
	{Name: "disk-fails", Lane: "process", Disk: true, Does: "syncs of a member's disk fail, and then it loses power", begin: failing},
	{Name: "disk-slow", Lane: "disk", Does: "every sync of a member's disk takes 5 to 150 ms longer", begin: slowDisk},
}

func losePower(pick picker, torn bool) func(context.Context, *Environment, *rand.Rand) (any, func(context.Context) error, error) {
	return func(_ context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
		whom := pick(env, rnd)
		err := env.Disks.LosePower(whom, torn)
		return whom, startAll(env, whom), err
	}
}

func startAll(env *Environment, whom []string) func(context.Context) error {
	return func(ctx context.Context) error {
		return each(whom, func(id string) error { return env.Processes.Start(ctx, id) })
	}
}

func spoilt(spoil, mend func(*Environment, string) error) func(context.Context, *Environment, *rand.Rand) (any, func(context.Context) error, error) {
	return func(_ context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
		whom := one(env, rnd)
		err := spoil(env, whom[0])
		return whom, func(ctx context.Context) error {
			// Ended first: one that stops by itself a moment after its disk is
			// mended would be taken for one that stopped for nothing.
			return errors.Join(each(whom, env.Processes.Kill), mend(env, whom[0]), startAll(env, whom)(ctx))
		}, err
	}
}

// failing has a member that was told that its syncs failed lose what they were
// for: it must not have counted on it.
func failing(_ context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
	whom := one(env, rnd)
	err := env.Disks.Fail(whom[0], true)
	return whom, func(ctx context.Context) error {
		return errors.Join(env.Disks.LosePower(whom, false), env.Disks.Fail(whom[0], false), startAll(env, whom)(ctx))
	}, err
}

func slowDisk(_ context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
	id := one(env, rnd)[0]
	by := time.Duration(5+rnd.IntN(146)) * time.Millisecond
	return map[string]time.Duration{id: by}, func(context.Context) error {
		return env.Disks.Slow(id, 0)
	}, env.Disks.Slow(id, by)
}
