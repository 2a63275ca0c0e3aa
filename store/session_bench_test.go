package store

import (
	"fmt"
	"testing"

	"trivet/trivetpb"
)

// BenchmarkPutInSession is BenchmarkApplyPut as a node writes: every put is in
// the node's session, seqs come in order, and the ack runs some thousand behind.
// "session=false" is the same without, to be compared in one run. With views, a
// View is opened before each entry, which freezes the session.
func BenchmarkPutInSession(b *testing.B) {
	for _, commands := range []int{1, 64, 1024} {
		for _, session := range []bool{false, true} {
			for _, views := range []bool{false, true} {
				if views && commands == 64 {
					continue
				}
				b.Run(fmt.Sprintf("commands=%d/session=%v/views=%v", commands, session, views), func(b *testing.B) {
					const keys, behind = 100_000, 2000
					s := benchStore(b, keys, 256)
					id := benchApply(b, s, 0, openSession(60_000, true)).GetSession().Session
					entries := make([]*trivetpb.Entry, 16)
					for i := range entries {
						entries[i] = benchEntry(commands, keys, 256)
					}
					var seq, clockMS uint64
					b.ReportAllocs()
					b.ResetTimer()
					for i := range b.N {
						e := entries[i%len(entries)]
						if session {
							for _, c := range e.Commands {
								seq++
								c.Session, c.Seq, c.Ack = id, seq, max(seq, behind)-behind
							}
						}
						clockMS++
						e.ClockMs = clockMS
						if views {
							v, err := s.View(0)
							if err != nil {
								b.Fatal(err)
							}
							v.Close()
						}
						results, err := s.Apply(s.Index()+1, e)
						if err != nil || results[0].Problem != nil || results[0].Replayed {
							b.Fatal(err, results[0])
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*commands), "ns/put")
				})
			}
		}
	}
}

func benchApply(b *testing.B, s *Store, clockMS uint64, commands ...*trivetpb.Command) *trivetpb.Result {
	b.Helper()
	results, err := s.Apply(s.Index()+1, &trivetpb.Entry{ClockMs: clockMS, Commands: commands})
	if err != nil {
		b.Fatal(err)
	}
	last := results[len(results)-1]
	if last.Problem != nil {
		b.Fatal(last.Problem)
	}
	return last
}

// BenchmarkKeepAlive renews one of 100,000 leases with a key each, in entries of
// 256, the clock a millisecond on with each: what as many services cost that say
// every few seconds that they live.
func BenchmarkKeepAlive(b *testing.B) {
	const leases, commands = 100_000, 256
	s := New()
	ids := make([]uint64, leases)
	for i := range ids {
		ids[i] = benchApply(b, s, 0, grant(30_000)).GetLease().Lease
		benchApply(b, s, 0, opCommand(leasePut(fmt.Sprintf("service/%06d", i), "", ids[i])))
	}
	e := &trivetpb.Entry{}
	for range commands {
		e.Commands = append(e.Commands, keepAlive(0))
	}
	at := 0
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		e.ClockMs++
		for _, c := range e.Commands {
			at = (at + 7919) % leases
			c.GetLeaseKeepAlive().Lease = ids[at]
		}
		if _, err := s.Apply(s.Index()+1, e); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*commands), "ns/keepalive")
}

// BenchmarkExpire ends leases with a key each.
func BenchmarkExpire(b *testing.B) {
	s := New()
	for i := range b.N {
		id := benchApply(b, s, 0, grant(30_000)).GetLease().Lease
		benchApply(b, s, 0, opCommand(leasePut(fmt.Sprintf("service/%06d", i), "", id)))
	}
	b.ResetTimer()
	for {
		next, _ := s.NextDeadline()
		if s.Stats().Leases == 0 {
			return
		}
		benchApply(b, s, next, expire())
	}
}
