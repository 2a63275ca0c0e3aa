package store

import (
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"trivet/trivetpb"
)

// BenchmarkMillion measures the figures that the store is designed by, over a
// million keys of 32 + 256 bytes, chosen at random: puts and gets a second of
// one goroutine, the longest that a put waits while a snapshot is written, and
// the memory of a key beyond its own bytes and its value's.
func BenchmarkMillion(b *testing.B) {
	const keys, valueBytes = 1_000_000, 256
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := benchStore(b, keys, valueBytes)
	runtime.GC()
	runtime.ReadMemStats(&after)
	perKey := float64(after.HeapAlloc-before.HeapAlloc)/keys - 32 - valueBytes

	names := make([][]byte, 1<<16)
	for i := range names {
		names[i] = benchKey(rand.IntN(keys))
	}
	b.Run("get", func(b *testing.B) {
		b.ReportMetric(perKey, "overhead-B/key")
		for i := range b.N {
			if _, ok, _ := s.Get(names[i&(len(names)-1)]); !ok {
				b.Fatal("a key is missing")
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "gets/s")
	})

	// What a node applies: entries as raft hands them over, decoded here.
	encoded := make([][]byte, 64)
	for i := range encoded {
		data, err := benchEntry(256, keys, valueBytes).MarshalVT()
		if err != nil {
			b.Fatal(err)
		}
		encoded[i] = data
	}
	apply := func(i int, decode bool, entries []*trivetpb.Entry) {
		e := entries[i%len(entries)]
		if decode {
			e = new(trivetpb.Entry)
			if err := e.UnmarshalVT(encoded[i%len(encoded)]); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := s.Apply(s.Index()+1, e); err != nil {
			b.Fatal(err)
		}
	}
	entries := make([]*trivetpb.Entry, 64)
	for i := range entries {
		entries[i] = benchEntry(256, keys, valueBytes)
	}
	for _, decode := range []bool{false, true} {
		name := "put"
		if decode {
			name = "decode+put"
		}
		b.Run(name, func(b *testing.B) {
			for i := range b.N {
				apply(i, decode, entries)
			}
			b.ReportMetric(float64(b.N*256)/b.Elapsed().Seconds(), "puts/s")
		})
	}

	b.Run("put-during-snapshot", func(b *testing.B) {
		view, err := s.View(0)
		if err != nil {
			b.Fatal(err)
		}
		defer view.Close()
		done := make(chan error, 1)
		start := time.Now()
		go func() { done <- view.WriteSnapshot(io.Discard) }()
		var worst time.Duration
		puts := 0
		for {
			select {
			case err := <-done:
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(worst.Microseconds()), "worst-µs")
				b.ReportMetric(time.Since(start).Seconds(), "snapshot-s")
				b.ReportMetric(float64(puts), "puts")
				return
			default:
			}
			e := &trivetpb.Entry{Commands: entries[puts%64].Commands[:1]}
			at := time.Now()
			if _, err := s.Apply(s.Index()+1, e); err != nil {
				b.Fatal(err)
			}
			worst = max(worst, time.Since(at))
			puts++
		}
	})
}
