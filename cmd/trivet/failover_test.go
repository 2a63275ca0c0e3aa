package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A leader that is told to stop fails no request, neither of those sent to it
// nor of those sent elsewhere, as long as callers leave when they are told to.
func TestStopOfTheLeaderFailsNoRequest(t *testing.T) {
	c := startBenchCluster(t)
	for range 2 {
		gap, acked, failed := c.run("term")
		require.Zero(t, failed, "requests that were not acknowledged")
		t.Logf("%d acknowledged, none for %v", acked, gap)
	}
}
