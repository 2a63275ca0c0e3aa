package client

import (
	"fmt"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Reads are spread over the nodes that are near, and over those only; a node that has
// more of them under way than the next gets none.
func TestReadsGoToTheNearestNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var urls []*url.URL
		for i := range 4 {
			urls = append(urls, &url.URL{Scheme: "http", Host: fmt.Sprint("n", i)})
		}
		m := newMembers(urls)
		picked := func() map[string]int {
			counts := map[string]int{}
			for range 120 {
				counts[m.order(false)[0].base.Host]++
			}
			return counts
		}
		require.Len(t, picked(), 4, "of which nothing is known")
		for i, d := range []time.Duration{10, 12, 25, 80} {
			for range 20 {
				m.endpoints[i].took(d * time.Millisecond)
			}
		}
		require.Equal(t, map[string]int{"n0": 40, "n1": 40, "n2": 40}, picked())
		require.Equal(t, 3, m.takers(false))
		require.Equal(t, 1, m.takers(true))

		m.endpoints[1].underWay.Add(1)
		require.Zero(t, picked()["n1"])
		m.endpoints[1].underWay.Add(-1)

		// One that has failed is left, for longer each time.
		for _, span := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			m.avoid(m.endpoints[0])
			time.Sleep(span - time.Millisecond)
			require.Zero(t, picked()["n0"])
			time.Sleep(2 * time.Millisecond)
			require.NotZero(t, picked()["n0"])
		}
		m.trust(m.endpoints[0])

		// It is waited for as long as it mostly takes, many times over.
		require.Equal(t, minPatience, m.patience(m.endpoints[0], false, batchPatience))
		require.Equal(t, batchPatience, m.patience(m.endpoints[0], true, batchPatience), "a write")
		require.Equal(t, 500*time.Millisecond, m.patience(m.endpoints[2], false, batchPatience))
		require.Equal(t, 2*batchPatience, m.patience(m.endpoints[0], false, 2*batchPatience), "a later round")

		// After a while the far one is tried again.
		time.Sleep(measureEvery)
		for i, d := range []time.Duration{10, 12, 25} {
			m.endpoints[i].took(d * time.Millisecond)
		}
		require.NotZero(t, picked()["n3"])
		m.endpoints[3].took(80 * time.Millisecond)
		require.Zero(t, picked()["n3"])
	})
}
