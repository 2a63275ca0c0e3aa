package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivettest"
)

// viewCalls are what a view can do, each with what it is to come to: round is how often
// it has been called, from 1 on.
var viewCalls = []struct {
	name  string
	write bool
	call  func(ctx context.Context, v client.View[user], round int) error
}{
	{"get", false, func(ctx context.Context, v client.View[user], _ int) error {
		doc, err := v.Get(ctx, "there")
		if err == nil && doc.Value.Name != "Ada" {
			return fmt.Errorf("it is %+v", doc)
		}
		return err
	}},
	{"put", true, func(ctx context.Context, v client.View[user], round int) error {
		res, err := v.Put(ctx, "put", user{Visits: round})
		if err == nil && res.Version != uint64(round) {
			return fmt.Errorf("version %d of round %d: it was not written once", res.Version, round)
		}
		return err
	}},
	{"delete", true, func(ctx context.Context, v client.View[user], round int) error {
		key := fmt.Sprint("deleted/", round)
		res, err := v.Delete(ctx, key)
		if err == nil && res.Deleted != 1 {
			return fmt.Errorf("%s: %d were deleted", key, res.Deleted)
		}
		return err
	}},
	{"update", true, func(ctx context.Context, v client.View[user], round int) error {
		u, err := v.Update(ctx, "updated", func(u *user, _ bool) error { u.Visits++; return nil })
		if err == nil && u.Visits != round {
			return fmt.Errorf("%d visits in round %d", u.Visits, round)
		}
		return err
	}},
	{"list", false, func(ctx context.Context, v client.View[user], _ int) error {
		good, bad := 0, 0
		for doc, err := range v.List(ctx) {
			switch {
			case errors.Is(err, client.ErrDocument):
				bad++
				if doc.Key != "bad" {
					return fmt.Errorf("the error is that of %q", doc.Key)
				}
			case err != nil:
				return err
			default:
				good++
			}
		}
		return exactly(good, bad)
	}},
	{"watch", false, func(ctx context.Context, v client.View[user], _ int) error {
		good, bad := 0, 0
		for e, err := range v.Watch(ctx) {
			switch {
			case errors.Is(err, client.ErrDocument):
				bad++
			case err != nil:
				return err
			case e.Synced:
				return exactly(good, bad)
			default:
				good++
			}
		}
		return errors.New("the watch ended")
	}},
}

// exactly: whatever was gone through anew, each document came once.
func exactly(good, bad int) error {
	if good < 2 || bad != 1 {
		return fmt.Errorf("%d documents and %d that are none", good, bad)
	}
	return nil
}

// viewed has what the calls are about.
func viewed(t *testing.T, c *client.Client) client.View[user] {
	t.Helper()
	v := client.JSON[user](c, "users/")
	txn := c.Txn().Then(client.OpPut("users/there", []byte(`{"name":"Ada"}`)), client.OpPut("users/bad", []byte("<html>")))
	for i := range 40 {
		txn.Then(client.OpPut(fmt.Sprint("users/deleted/", i+1), []byte("{}")))
	}
	_, err := txn.Commit(t.Context())
	require.NoError(t, err)
	return v
}

// A view gets over what its calls get over, and each write is applied once.
func TestViewsGetOverFaults(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, cluster *trivettest.Cluster) {
		v := viewed(t, cluster.Client())
		for _, tt := range viewCalls {
			round := 0
			for _, fault := range everyFault {
				for _, times := range []int{1, 3} {
					if fault.how == trivettest.Respond(200) && times == 3 {
						continue // see everyFault
					}
					round++
					happened := cluster.Fail(trivettest.AnyMember, fault.how, trivettest.Times(times))
					require.NoError(t, tt.call(t.Context(), v, round), "%s: %s", tt.name, fault.name)
					if times == 1 {
						<-happened
					}
					cluster.Heal()
				}
			}
			for what, happens := range map[string]func(){
				"the leader is killed": func() { cluster.Kill(cluster.Leader()) },
				"the leader hangs":     func() { cluster.Pause(cluster.Leader()) },
			} {
				round++
				happens()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				require.NoError(t, tt.call(ctx, v, round), "%s: %s", tt.name, what)
				cancel()
				cluster.Heal()
				for i := range cluster.Endpoints() {
					if what == "the leader is killed" {
						cluster.Restart(i)
					}
				}
			}
		}
	})
}

// Where no node can be reached, and where there is no time, the errors say so and name
// the key; a session that ran out while the process slept is replaced.
func TestViewsWithoutAClusterOrTime(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, cluster *trivettest.Cluster) {
		c, g := gated(t, cluster)
		v := viewed(t, c)
		for _, tt := range viewCalls {
			err := tt.call(canceled(), v, 1)
			require.ErrorIs(t, err, context.Canceled, tt.name)
			requireError(t, err, client.NotApplied)
			require.ErrorContains(t, err, "users/", tt.name)

			g.close()
			err = tt.call(shortly(t), v, 1)
			require.ErrorIs(t, err, context.DeadlineExceeded, tt.name)
			requireError(t, err, client.NotApplied, client.ErrUnavailable)
			require.ErrorContains(t, err, "users/", tt.name)
			time.Sleep(2 * time.Minute) // virtual; the session has a ttl of one
			g.open()
			require.NoError(t, tt.call(t.Context(), v, 1), tt.name)

			// The context ends when the request is out.
			cluster.Fail(trivettest.AnyMember, trivettest.Delay(2*time.Second), trivettest.Times(3))
			err = tt.call(shortly(t), v, 2)
			require.ErrorIs(t, err, context.DeadlineExceeded, tt.name)
			outcome := client.NotApplied
			if tt.write && tt.name != "update" { // which has not written yet
				outcome = client.Unknown
			}
			requireError(t, err, outcome)
			cluster.Heal()
		}
	})
}
