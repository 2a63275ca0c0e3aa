package raftnode

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// What was answered stays its caller's, whatever is applied behind it: commands of others,
// and a change of the configuration, which has no results of its own.
func TestSimResultsStayTheirCallers(t *testing.T) {
	runSimWith(t, 3, 1, nil, func(s *sim) {
		leader := s.leader()
		ctx, cancel := within(time.Second)
		defer cancel()
		answered := func() (*trivetpb.Result, uint64) {
			results, err := leader.Propose(ctx, []*trivetpb.Command{put("k", "v")})
			require.NoError(t, err)
			require.NotZero(t, results[0].Revision)
			return results[0], results[0].Revision
		}
		one, was := answered()
		s.join("n4", leader, true)
		s.awaitRole("n4", "replica")
		other, otherWas := answered()
		if one.Revision != was || other.Revision != otherWas || was == otherWas {
			t.Errorf("%d and %d are %v and %v", was, otherWas, one, other)
		}
	})
}
