package client_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivettest"
)

func TestMembership(t *testing.T) {
	cluster := trivettest.Start(t)
	c, ctx := open(t, client.Config{Endpoints: cluster.Endpoints()}), within(t)
	for _, want := range []bool{true, false} {
		added, err := c.AddMember(ctx, "r1", "127.0.0.1:1", "replica")
		require.NoError(t, err)
		require.Equal(t, client.AddedMember{Role: "replica", Changed: want}, added)
	}
	for { // the node that is asked may have yet to hear of it
		members, err := c.Cluster(ctx)
		require.NoError(t, err)
		if len(members.Members) == 4 {
			require.Equal(t, "replica", members.Members[3].Role)
			break
		}
	}

	_, err := c.AddMember(ctx, "r1", "127.0.0.1:2", "replica")
	requireError(t, err, client.NotApplied, client.ErrMemberConflict)
	_, err = c.AddMember(ctx, "r2", "nowhere", "replica")
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.AddMember(ctx, "r2", "127.0.0.1:2", "leader")
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.PromoteMember(ctx, "r2")
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.TransferLeadership(ctx, "r1")
	requireError(t, err, client.NotApplied, client.ErrMemberConflict)

	for _, want := range []bool{true, false} {
		removed, err := c.RemoveMember(ctx, "r1")
		require.NoError(t, err)
		require.Equal(t, want, removed)
	}
	for _, id := range []string{"n1", "n2", "n3"} {
		leader, err := c.TransferLeadership(ctx, id)
		require.NoError(t, err)
		require.Equal(t, id, leader)
		changed, err := c.DemoteMember(ctx, id) // it has to hand over first
		require.NoError(t, err)
		require.True(t, changed)
		changed, err = c.PromoteMember(ctx, id)
		require.NoError(t, err)
		require.True(t, changed)
	}
	leader, err := c.TransferLeadership(ctx, "")
	require.NoError(t, err)
	require.NotEmpty(t, leader)
}
