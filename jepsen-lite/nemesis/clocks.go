package nemesis

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

var clockKinds = []Kind{
	{Name: "clock-jump", Lane: "clock", Does: "the wall clock of one member jumps by seconds to an hour, and back later", begin: jump(one)},
	{Name: "clocks-apart", Lane: "clock", Does: "all wall clocks jump, each elsewhere", begin: jump(all)},
	{Name: "clock-strobe", Lane: "clock", Does: "the wall clock of one member jumps to and fro, twenty times a second", begin: strobe},
}

// shift is three seconds to an hour, ahead or behind.
func shift(rnd *rand.Rand) time.Duration {
	const least = 3 * time.Second
	most := []time.Duration{10 * time.Second, time.Minute, time.Hour}[rnd.IntN(3)]
	d := (least + time.Duration(rnd.Int64N(int64(most-least)))).Truncate(time.Second)
	if rnd.IntN(2) == 0 {
		return -d
	}
	return d
}

func jump(pick picker) func(context.Context, *Environment, *rand.Rand) (any, func(context.Context) error, error) {
	return func(_ context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
		by := map[string]time.Duration{}
		var errs []error
		for _, id := range pick(env, rnd) {
			by[id] = shift(rnd)
			errs = append(errs, env.Clocks.Jump(id, by[id]))
		}
		return by, func(context.Context) error {
			var errs []error
			for id := range by {
				errs = append(errs, env.Clocks.Jump(id, 0))
			}
			return errors.Join(errs...)
		}, errors.Join(errs...)
	}
}

func strobe(ctx context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
	id, by := one(env, rnd)[0], shift(rnd)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		var err error
		for there := true; err == nil && ctx.Err() == nil; there = !there {
			d := by
			if !there {
				d = 0
			}
			err = env.Clocks.Jump(id, d)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
		done <- err
	}()
	return map[string]time.Duration{id: by}, func(context.Context) error {
		cancel()
		return errors.Join(<-done, env.Clocks.Jump(id, 0))
	}, nil
}
