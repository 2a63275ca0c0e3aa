package raftnode

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Nothing is yielded by who has nothing to gain, nor for a while after it took long and
// few came.
func TestYielding(t *testing.T) {
	var y yielding
	require.False(t, y.due())
	y.before(func() int { t.Error("it yields"); return 0 })
	y.shared = 1
	require.False(t, y.due(), "a lone caller")
	y.shared = 2
	require.True(t, y.due())
	y.took(yieldEach, 0)
	require.True(t, y.due())
	y.took(100*yieldEach, 99)
	require.True(t, y.due(), "as long as those who came may take")
	y.took(10*time.Millisecond, 3)
	for range yieldRest {
		require.False(t, y.due(), "something else took long")
	}
	require.True(t, y.due())
	y.took(yieldEach+1, -1) // of a queue whose callers have given up
	require.False(t, y.due())
}
