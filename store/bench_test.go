package store

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"trivet/trivetpb"
)

// benchKey is a 32-byte key.
func benchKey(i int) []byte { return fmt.Appendf(nil, "bench/key/%022d", i) }

func putCommand(key, value []byte) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Put{
		Put: &trivetpb.PutOp{Key: key, Value: value}}}}}
}

// benchStore holds keys items of valueBytes.
func benchStore(b testing.TB, keys, valueBytes int) *Store {
	b.Helper()
	s := New()
	for i := 0; i < keys; {
		e := &trivetpb.Entry{}
		for ; len(e.Commands) < 1024 && i < keys; i++ {
			// A prime step: keys do not arrive in order.
			e.Commands = append(e.Commands, putCommand(benchKey(i*7_919%keys), bytes.Repeat([]byte{byte(i)}, valueBytes)))
		}
		if _, err := s.Apply(s.Index()+1, e); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func benchEntry(commands, keys, valueBytes int) *trivetpb.Entry {
	e := &trivetpb.Entry{}
	for range commands {
		e.Commands = append(e.Commands, putCommand(benchKey(rand.IntN(keys)), make([]byte, valueBytes)))
	}
	return e
}

// BenchmarkApplyPut applies entries of puts to a store of 100,000 keys; ns/put
// is the figure to look at.
func BenchmarkApplyPut(b *testing.B) {
	for _, commands := range []int{1, 64, 1024} {
		for _, valueBytes := range []int{64, 256, 4096} {
			b.Run(fmt.Sprintf("commands=%d/value=%d", commands, valueBytes), func(b *testing.B) {
				const keys = 100_000
				s := benchStore(b, keys, valueBytes)
				entries := make([]*trivetpb.Entry, 16)
				for i := range entries {
					entries[i] = benchEntry(commands, keys, valueBytes)
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
}

// BenchmarkApplyTxn applies entries of txns, of a compare and two puts each, to a
// store of 100,000 keys: as the member that proposed them does, whose callers have the
// results, and as the others.
func BenchmarkApplyTxn(b *testing.B) {
	for _, commands := range []int{1, 64} {
		for _, reuse := range []bool{false, true} {
			b.Run(fmt.Sprintf("commands=%d/reuse=%v", commands, reuse), func(b *testing.B) { benchmarkApplyTxn(b, commands, reuse) })
		}
	}
}

func benchmarkApplyTxn(b *testing.B, commands int, reuse bool) {
	const keys = 100_000
	s := benchStore(b, keys, 256)
	entries := make([]*trivetpb.Entry, 256)
	for i := range entries {
		puts := benchEntry(2*commands, keys, 256).Commands
		entries[i] = &trivetpb.Entry{}
		for n := range commands {
			entries[i].Commands = append(entries[i].Commands, txnCommand(puts[2*n].GetOp(), puts[2*n+1].GetOp()))
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := s.Apply(s.Index()+1, entries[i%len(entries)]); err != nil {
			b.Fatal(err)
		}
		if reuse {
			s.Reuse()
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*commands), "ns/txn")
}

// txnCommand is a txn that does ops where the key of the first is there.
func txnCommand(ops ...*trivetpb.Op) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{
		If:   []*trivetpb.Compare{{Key: ops[0].GetPut().Key, Target: trivetpb.Compare_VERSION, Relation: trivetpb.Compare_GREATER}},
		Then: ops,
	}}}}}
}

func BenchmarkGet(b *testing.B) {
	const keys = 100_000
	s := benchStore(b, keys, 256)
	key := benchKey(4_711)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, _ := s.Get(key); !ok {
			b.Fatal("missing")
		}
	}
}

func BenchmarkRange1000(b *testing.B) {
	s := benchStore(b, 100_000, 256)
	v, err := s.View(0)
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	r := &trivetpb.KeyRange{Start: benchKey(50_000), End: benchKey(51_000)}
	for b.Loop() {
		n := 0
		for range v.Range(r, RangeOptions{}) {
			n++
		}
		if n != 1000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkRange100 reads 100 items from a random key on, and copies them, as who
// writes an answer does: what is far apart in memory counts.
func BenchmarkRange100(b *testing.B) {
	const keys, count = 100_000, 100
	s := benchStore(b, keys, 256)
	v, err := s.View(0)
	if err != nil {
		b.Fatal(err)
	}
	defer v.Close()
	var answer []byte
	r := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		answer = answer[:0]
		start := r.IntN(keys - count)
		for it := range v.Range(&trivetpb.KeyRange{Start: benchKey(start), End: benchKey(start + count)}, RangeOptions{}) {
			answer = append(append(answer, it.Key...), it.Value...)
		}
		if len(answer) != count*(32+256) {
			b.Fatal(len(answer))
		}
	}
}

// BenchmarkCount counts almost all keys, at the present and 10,000 revisions ago.
func BenchmarkCount(b *testing.B) {
	s := benchStore(b, 1_000_000, 8)
	r := &trivetpb.KeyRange{Start: benchKey(5)}
	for _, back := range []uint64{0, 10_000} {
		b.Run(fmt.Sprintf("back=%d", back), func(b *testing.B) {
			v, err := s.View(s.Revision() - back)
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			for b.Loop() {
				v.Count(r)
			}
		})
	}
}

// BenchmarkViewAndWrite opens a View for each entry of one put: the cost of
// copying the nodes that are written to.
func BenchmarkViewAndWrite(b *testing.B) {
	const keys = 100_000
	s := benchStore(b, keys, 256)
	e := benchEntry(1, keys, 256)
	b.ReportAllocs()
	for b.Loop() {
		v, err := s.View(0)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Apply(s.Index()+1, e); err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
}

func BenchmarkSnapshot(b *testing.B) {
	s := benchStore(b, 100_000, 256)
	b.SetBytes(int64(s.Stats().Bytes))
	for b.Loop() {
		v, err := s.View(0)
		if err != nil {
			b.Fatal(err)
		}
		if err := v.WriteSnapshot(io.Discard); err != nil {
			b.Fatal(err)
		}
		v.Close()
	}
}

// BenchmarkRestore restores what a start does. That the history holds every key is
// the state soon after they were loaded.
func BenchmarkRestore(b *testing.B) {
	for _, c := range []struct {
		name             string
		keys, valueBytes int
	}{{"100k", 100_000, 256}, {"1M", 1_000_000, 64}} {
		b.Run(c.name, func(b *testing.B) {
			s := New()
			for i := 0; i < c.keys; {
				ops := make([]*trivetpb.Op, 500)
				for j := range ops {
					ops[j] = putCommand(benchKey(i*7_919%c.keys), bytes.Repeat([]byte{byte(i)}, c.valueBytes)).GetOp()
					i++
				}
				txn := &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{Then: ops}}}}}
				if _, err := s.Apply(s.Index()+1, &trivetpb.Entry{Commands: []*trivetpb.Command{txn}}); err != nil {
					b.Fatal(err)
				}
			}
			v, err := s.View(0)
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			var file bytes.Buffer
			if err := v.WriteSnapshot(&file); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(s.Stats().Bytes))
			for b.Loop() {
				if err := New().Restore(bytes.NewReader(file.Bytes())); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMemory reports the heap for each of a million keys of 32 bytes with
// values of 64 (96 bytes of data), the history of 100,000 revisions included.
func BenchmarkMemory(b *testing.B) {
	const keys = 1_000_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := benchStore(b, keys, 64)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/keys, "B/key")
		runtime.KeepAlive(s)
	}
}
