package histogram

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHistogramBuckets: the buckets follow each other without gap or overlap, up
// to the longest duration there is.
func TestHistogramBuckets(t *testing.T) {
	last := bucketOf(math.MaxInt64)
	require.Less(t, last, len(Histogram{}.buckets))
	for b := 0; b < last; b++ {
		most := bucketMost(b)
		require.Equal(t, b, bucketOf(most))
		require.Equal(t, b+1, bucketOf(most+1))
	}
	require.Equal(t, time.Duration(math.MaxInt64), bucketMost(last))
	require.Equal(t, 0, bucketOf(-1))
}

// TestHistogramQuantiles holds the quantiles against those of the sorted values:
// never less, and no more than one part in subBuckets too much.
func TestHistogramQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var a, b Histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(math.Exp(r.NormFloat64()*2+14)) * time.Nanosecond
		all = append(all, d)
		if i%2 == 0 {
			a.Add(d)
		} else {
			b.Add(d)
		}
	}
	a.Merge(&b)
	slices.Sort(all)
	for _, part := range []float64{0, 0.01, 0.5, 0.95, 0.99, 0.999, 1} {
		want := all[max(int(part*float64(len(all))+0.5), 1)-1]
		got := a.Quantile(part)
		require.GreaterOrEqual(t, got, want, part)
		require.LessOrEqual(t, got, want+want/subBuckets+1, part)
	}
	require.Equal(t, all[len(all)-1], a.Max)
	require.Equal(t, a.Max, a.Quantile(1))
	require.EqualValues(t, len(all), a.Count)

	var none Histogram
	require.Zero(t, none.Quantile(0.99))
	require.Zero(t, none.Mean())
}
