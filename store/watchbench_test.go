package store

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"trivet/trivetpb"
)

// BenchmarkPutBesideWatchers applies entries of 16 puts beside watchers of other
// keys, which lie among those that are written; ns/put is the figure.
func BenchmarkPutBesideWatchers(b *testing.B) {
	for _, watchers := range []int{0, 10_000} {
		b.Run(fmt.Sprint(watchers), func(b *testing.B) {
			const keys, commands = 100_000, 16
			s := benchStore(b, keys, 256)
			for i := range watchers {
				w, err := s.Watch(keyAlone(string(benchKey(keys+i))), 0)
				if err != nil {
					b.Fatal(err)
				}
				defer w.Close()
			}
			entries := make([]*trivetpb.Entry, 64)
			for i := range entries {
				entries[i] = benchEntry(commands, keys, 256)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if _, err := s.Apply(s.Index()+1, entries[i%len(entries)]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*commands), "ns/put")
		})
	}
}

// BenchmarkFanOut has 100 watchers of one prefix, each in a goroutine that copies
// the encoded frames into a buffer, as a connection's handler would; events/s is
// the figure.
func BenchmarkFanOut(b *testing.B) {
	const watchers, keys, commands = 100, 1000, 16
	s := benchStore(b, keys, 256)
	last := s.Revision() + uint64(b.N*commands)
	var wg sync.WaitGroup
	for range watchers {
		w, err := s.Watch(PrefixRange([]byte("bench/")), 0)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer w.Close()
			buf := make([]byte, 0, 64<<10)
			for w.Through() < last {
				f, err := w.Next()
				if err != nil {
					b.Error(err)
					return
				}
				if f == nil {
					<-w.Ready()
					continue
				}
				if buf = append(buf, f.Encoded(0, encodeForBench)...); len(buf) > 60<<10 {
					buf = buf[:0]
				}
			}
		})
	}
	entries := make([]*trivetpb.Entry, 64)
	for i := range entries {
		entries[i] = benchEntry(commands, keys, 256)
	}
	b.ResetTimer()
	start := time.Now()
	for i := range b.N {
		if _, err := s.Apply(s.Index()+1, entries[i%len(entries)]); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
	b.ReportMetric(float64(b.N*commands*watchers)/time.Since(start).Seconds(), "events/s")
}

func encodeForBench(f *Frame) []byte { return f.Events[0].Item().Value }
