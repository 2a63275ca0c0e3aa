package raftnode

import (
	"sync/atomic"
	"time"
)

// Histogram is a distribution as it was counted up to a moment.
type Histogram struct {
	// Bounds are the upper bounds of the buckets, ascending; Counts has how many
	// values were at most the bound of the same place (so they ascend as well).
	Bounds []float64
	Counts []uint64
	// Count is how many values there were, Sum their sum.
	Count uint64
	Sum   float64
}

// histogram counts whole numbers by size. observe takes two atomic additions and
// a look at some twenty numbers; any number of goroutines may call it.
type histogram struct {
	bounds []uint64
	counts []atomic.Uint64 // by bound; one more for what is beyond
	sum    atomic.Uint64
}

func newHistogram(bounds ...uint64) histogram {
	return histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// newDurations is a histogram of durations.
func newDurations() histogram {
	const µs, ms, s = uint64(time.Microsecond), uint64(time.Millisecond), uint64(time.Second)
	return newHistogram(10*µs, 25*µs, 50*µs, 100*µs, 250*µs, 500*µs, ms, 5*ms/2, 5*ms, 10*ms, 25*ms, 50*ms, 100*ms,
		250*ms, 500*ms, s, 5*s/2, 5*s, 10*s)
}

func (h *histogram) observe(v uint64) {
	i := 0
	for i < len(h.bounds) && v > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(v)
}

// took observes the time since start.
func (h *histogram) took(start time.Time) { h.observe(uint64(max(0, time.Since(start)))) }

// read returns what was counted, each value times unit.
func (h *histogram) read(unit float64) Histogram {
	r := Histogram{Bounds: make([]float64, len(h.bounds)), Counts: make([]uint64, len(h.bounds))}
	for i := range h.counts {
		r.Count += h.counts[i].Load()
		if i < len(h.bounds) {
			r.Bounds[i], r.Counts[i] = float64(h.bounds[i])*unit, r.Count
		}
	}
	r.Sum = float64(h.sum.Load()) * unit
	return r
}

// seconds is read of a histogram of durations.
func (h *histogram) seconds() Histogram {
	r := h.read(1)
	for i := range r.Bounds {
		r.Bounds[i] = time.Duration(h.bounds[i]).Seconds()
	}
	r.Sum = time.Duration(h.sum.Load()).Seconds()
	return r
}
