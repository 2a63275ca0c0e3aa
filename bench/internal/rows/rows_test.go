package rows

import (
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestEveryRowIsMeasuredByWhatItNames: a row that nothing measures would be missing
// from every report without a word.
func TestEveryRowIsMeasuredByWhatItNames(t *testing.T) {
	for _, p := range []Plan{Full(), Quick()} {
		measured := append(timedIDs(), "failover", "memory", "restart", "snapshot")
		for _, n := range p.Sizes {
			measured = append(measured, sizeID("put", n), sizeID("get", n))
		}
		var listed []string
		for _, row := range List(p) {
			require.NotContains(t, listed, row.ID)
			listed = append(listed, row.ID)
			if row.Base != "" {
				require.Contains(t, measured, row.Base)
			}
		}
		slices.Sort(measured)
		slices.Sort(listed)
		require.Equal(t, measured, listed)
	}
}

func TestRowsOfAPlan(t *testing.T) {
	p := Full()
	p.Rows = regexp.MustCompile("^(?:put-.*)$")
	for _, row := range List(p) {
		require.Regexp(t, "^put-", row.ID)
	}
	require.Len(t, List(p), 3+len(p.Sizes))
}

func TestMedian(t *testing.T) {
	require.Zero(t, Median(nil))
	require.Equal(t, 2.0, Median([]float64{3, 1, 2}))
	values := []float64{4, 1, 3, 2}
	require.Equal(t, 2.0, Median(values))
	require.Equal(t, []float64{4, 1, 3, 2}, values, "they are left as they were")
}

// TestAcks: the gap is the longest time between two acknowledgements that ends after
// the mark, also where it began before, and the one that goes on.
func TestAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAcks()
		a.add()
		time.Sleep(time.Second) // before the mark: does not count
		a.add()
		time.Sleep(10 * time.Millisecond)
		a.mark()
		time.Sleep(20 * time.Millisecond)
		a.add()
		gap, quiet := a.gap()
		require.Equal(t, 30*time.Millisecond, gap)
		require.Zero(t, quiet)
		time.Sleep(50 * time.Millisecond)
		gap, quiet = a.gap()
		require.Equal(t, 50*time.Millisecond, gap)
		require.Equal(t, 50*time.Millisecond, quiet)
	})
}

func TestParseSmaps(t *testing.T) {
	pss, anonymous, err := parseSmaps([]byte("55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss: 4096 kB\nPss:                3072 kB\nPss_Anon: 1024 kB\nPss_File: 1024 kB\nPss_Shmem: 1024 kB\n"))
	require.NoError(t, err)
	require.Equal(t, 3.0, pss)
	require.Equal(t, 2.0, anonymous)
	_, _, err = parseSmaps([]byte("Rss: 1 kB\n"))
	require.Error(t, err)
}

func TestCount(t *testing.T) {
	require.Equal(t, "100 thousand", Count(100_000))
	require.Equal(t, "10 million", Count(10_000_000))
	require.Equal(t, "1234", Count(1234))
}
