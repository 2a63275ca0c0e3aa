package client_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivettest"
)

// Three candidates lead one after the other, over the death of the cluster's leader;
// an observer sees each of them, and nobody in between.
func TestElection(t *testing.T) {
	cluster, ctx := trivettest.Start(t), within(t)
	observer := open(t, client.Config{Endpoints: cluster.Endpoints()}).Election("jobs/leader")
	_, err := observer.Leader(ctx)
	requireError(t, err, client.NotApplied, client.ErrNotFound)

	seen := make(chan string, 100)
	watching, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		for leader, err := range observer.Observe(watching) {
			switch {
			case err != nil:
				ended <- err
				return
			case leader == nil:
				seen <- "nobody"
			default:
				seen <- string(leader.Value)
			}
		}
	}()
	require.Equal(t, "nobody", <-seen)

	won := make(chan *client.Leadership)
	campaign := func(name string) {
		e := open(t, client.Config{Endpoints: cluster.Endpoints()}).Election("jobs/leader")
		go func() {
			l, err := e.Campaign(ctx, []byte(name))
			if err != nil {
				t.Error(name, err)
			}
			won <- l
		}()
	}
	campaign("a")
	a := <-won
	require.Equal(t, "a", <-seen)
	require.NoError(t, a.Proclaim(ctx, []byte("a, ready")))
	require.Equal(t, "a, ready", <-seen)
	campaign("b")
	cluster.Kill(cluster.Leader())
	require.NoError(t, a.Err())
	_, err = cluster.Client().Put(ctx, "work", nil, a.Guard())
	require.NoError(t, err, "the leader leads on")
	require.NoError(t, a.Resign(ctx))
	require.Error(t, a.Context().Err())
	require.Equal(t, "nobody", <-seen)
	b := <-won
	require.Equal(t, "b", <-seen)
	require.Greater(t, b.Token(), a.Token())
	_, err = cluster.Client().Put(ctx, "work", nil, a.Guard())
	requireError(t, err, client.NotApplied, client.ErrGuardFailed)
	err = a.Proclaim(ctx, []byte("still me"))
	requireError(t, err, client.NotApplied, client.ErrGuardFailed)
	leader, err := observer.Leader(ctx)
	require.NoError(t, err)
	require.Equal(t, "b", string(leader.Value))
	require.NoError(t, b.Resign(ctx))
	require.Equal(t, "nobody", <-seen)
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// A candidate whose value is refused does not lead: it gives the lock back.
func TestACandidateWhoseValueIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		released := make(chan string, 1)
		s := &script{answer: func(r *http.Request, _ int) (*http.Response, error) {
			switch {
			case r.URL.Path == "/v1/locks/e" && r.Method == "POST":
				return response(r, 200, "application/json", `{"name":"e","token":3,"lease":9,"ttl":"10s"}`), nil
			case r.Method == "DELETE":
				released <- r.URL.Query().Get("token")
				return response(r, 200, "application/json", `{"released":true}`), nil
			}
			return refusal(r, 403, "permission_denied", "")
		}}
		c := s.open(t, "n1")
		defer c.Close()
		_, err := c.Election("e").Campaign(within(t), nil)
		requireError(t, err, client.NotApplied, client.ErrDenied)
		require.Equal(t, "3", <-released)
	})
}

func TestElectionRefusals(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	l, err := c.Election("e").Campaign(ctx, nil)
	require.NoError(t, err)
	_, err = c.Election("e").Campaign(ctx, nil, client.WithWait(0))
	requireError(t, err, client.NotApplied, client.ErrLocked)
	require.NoError(t, l.Resign(ctx))
	_, err = c.Election("").Campaign(ctx, nil)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	for _, err := range c.Election("").Observe(ctx) {
		requireError(t, err, client.NotApplied, client.ErrBadRequest)
	}
}
