package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"trivet/jepsen-lite/api"
)

// Changes of membership go through the API, at any member. Where the cluster
// has no such call the fault is not available, which is no fault of the run.

var memberKinds = []Kind{
	{Name: "transfer", Lane: "member", Leader: true, Does: "leadership is handed to another member", begin: transfer},
	{Name: "replace", Lane: "process", Does: "a member is removed, loses all it has and joins again", begin: replace},
	{Name: "demote", Lane: "member", Does: "a follower loses its vote, and gets it back later", begin: demote},
}

// errNotAvailable is a call that the cluster does not have.
var errNotAvailable = errors.New("the cluster has no such call")

// memberTimeout bounds a change of the membership.
const memberTimeout = 5 * time.Second

// change asks any member until one has done it or the time is over. A refusal
// that says that nothing was changed is tried elsewhere.
func change(ctx context.Context, env *Environment, rnd *rand.Rand, method, path string, in any) error {
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	c := api.NewCaller(2 * time.Second)
	defer c.Close()
	var a api.Answer
	for ctx.Err() == nil {
		a = c.JSON(ctx, env.Nodes[rnd.IntN(len(env.Nodes))], method, path, in, nil, nil)
		switch {
		case a.Status >= 200 && a.Status < 300:
			return nil
		case a.Status == 405, a.Status == 404 && strings.Contains(a.Why, "no such path"): // not: no such member
			return errNotAvailable
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s %s: %s", method, path, a.Why)
}

func nothing(context.Context) error { return nil }

func transfer(ctx context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
	leader := env.Leader()
	to := one(env, rnd)[0]
	for to == leader && len(env.Nodes) > 1 {
		to = one(env, rnd)[0]
	}
	err := change(ctx, env, rnd, "POST", "/v1/cluster/transfer", map[string]string{"to": to})
	return map[string]any{"from": leader, "to": to}, nothing, err
}

func demote(ctx context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
	leader := env.Leader()
	who := one(env, rnd)[0]
	for who == leader && len(env.Nodes) > 1 {
		who = one(env, rnd)[0]
	}
	err := change(ctx, env, rnd, "POST", "/v1/cluster/members/"+who+"/demote", nil)
	return []string{who}, func(ctx context.Context) (err error) {
		// Until it is done: less voters than the plan has would be fewer faults
		// that the cluster can bear.
		for ctx.Err() == nil {
			if err = change(ctx, env, rnd, "POST", "/v1/cluster/members/"+who+"/promote", nil); err == nil {
				break
			}
		}
		return err
	}, err
}

// replace removes a member and has it join again with nothing. A removal is asked
// for until it is certainly done: a voter must not forget while it counts. It is asked
// for once more when the process has ended: one that was still joining, since it was
// replaced or lost its power the last time, comes in behind the first removal.
func replace(ctx context.Context, env *Environment, rnd *rand.Rand) (any, func(context.Context) error, error) {
	who := one(env, rnd)
	path := "/v1/cluster/members/" + who[0]
	since := time.Now()
	err := change(ctx, env, rnd, "DELETE", path, nil)
	if errors.Is(err, errNotAvailable) {
		return who, nothing, err
	}
	return who, func(ctx context.Context) error {
		if err := env.Processes.Kill(who[0]); err != nil {
			return err
		}
		removed := false
		for !removed && ctx.Err() == nil {
			err = change(ctx, env, rnd, "DELETE", path, nil)
			removed = err == nil
		}
		if !removed {
			return err
		}
		if err := env.Processes.Forget(who[0], since); err != nil {
			return err
		}
		return env.Processes.Start(ctx, who[0])
	}, nil
}
