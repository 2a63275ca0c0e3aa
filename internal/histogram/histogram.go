// Package histogram counts durations and tells their quantiles: for load
// generators, whose callers have one each.
package histogram

import (
	"math/bits"
	"time"
)

// Histogram counts durations in a fixed amount of memory. Its buckets are linear
// within each power of two, subBuckets of them, so that what it says of a
// duration is at most 1/subBuckets too much, from nanoseconds to hours. (That
// is the layout of HdrHistogram.) The zero value is empty. It is for one
// goroutine; several have one each and merge them.
type Histogram struct {
	buckets [(64 - subBits + 1) << subBits]uint64
	// Count is how many were counted, Max the longest of them. Who reads them
	// leaves them as they are.
	Count uint64
	Max   time.Duration
	sum   time.Duration
}

const (
	subBits    = 6
	subBuckets = 1 << subBits
)

// bucketOf returns the bucket of a duration: below subBuckets each nanosecond
// has its own, above each bucket is as wide as 2^shift nanoseconds.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < subBuckets {
		return int(n)
	}
	shift := bits.Len64(n) - subBits - 1
	return (shift+1)<<subBits + int(n>>shift) - subBuckets
}

// bucketMost returns the longest duration of a bucket.
func bucketMost(bucket int) time.Duration {
	if bucket < subBuckets {
		return time.Duration(bucket)
	}
	shift := bucket>>subBits - 1
	low := uint64(bucket&(subBuckets-1)+subBuckets) << shift
	return time.Duration(low + 1<<shift - 1)
}

// Add counts a duration; one below 0 as 0.
func (h *Histogram) Add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.Count++
	h.sum += d
	h.Max = max(h.Max, d)
}

// Merge adds what other has counted; other stays as it is.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.Count += other.Count
	h.sum += other.sum
	h.Max = max(h.Max, other.Max)
}

// Mean is 0 where nothing was counted.
func (h *Histogram) Mean() time.Duration {
	if h.Count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.Count)
}

// Quantile returns the duration that the given part of all, from 0 to 1, did not
// exceed; 0 where nothing was counted.
func (h *Histogram) Quantile(part float64) time.Duration {
	// The rank of the one that is asked for, from 1.
	rank := max(uint64(part*float64(h.Count)+0.5), 1)
	seen := uint64(0)
	for i, n := range h.buckets {
		if seen += n; n > 0 && seen >= rank {
			return min(bucketMost(i), h.Max)
		}
	}
	return h.Max
}
