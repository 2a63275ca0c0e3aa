package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in a fixed amount of memory. Its buckets are linear
// within each power of two, histogramSub of them, so that what it says of a
// duration is at most 1/histogramSub too much, from nanoseconds to hours. (That
// is the layout of HdrHistogram.) The zero value is empty. It is for one
// goroutine; several have one each and merge them.
type histogram struct {
	buckets  [(64 - histogramBits + 1) << histogramBits]uint64
	count    uint64
	sum, max time.Duration
}

const (
	histogramBits = 6
	histogramSub  = 1 << histogramBits
)

// bucketOf returns the bucket of a duration: below histogramSub each nanosecond
// has its own, above each bucket is as wide as 2^shift nanoseconds.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < histogramSub {
		return int(n)
	}
	shift := bits.Len64(n) - histogramBits - 1
	return (shift+1)<<histogramBits + int(n>>shift) - histogramSub
}

// bucketMost returns the longest duration of a bucket.
func bucketMost(bucket int) time.Duration {
	if bucket < histogramSub {
		return time.Duration(bucket)
	}
	shift := bucket>>histogramBits - 1
	low := uint64(bucket&(histogramSub-1)+histogramSub) << shift
	return time.Duration(low + 1<<shift - 1)
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.count++
	h.sum += d
	h.max = max(h.max, d)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// mean is 0 where nothing was counted.
func (h *histogram) mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count)
}

// quantile returns the duration that the given part of all, from 0 to 1, did not
// exceed; 0 where nothing was counted.
func (h *histogram) quantile(part float64) time.Duration {
	// The rank of the one that is asked for, from 1.
	rank := max(uint64(part*float64(h.count)+0.5), 1)
	seen := uint64(0)
	for i, n := range h.buckets {
		if seen += n; n > 0 && seen >= rank {
			return min(bucketMost(i), h.max)
		}
	}
	return h.max
}
