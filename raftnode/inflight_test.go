package raftnode

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// How many entries are under way at one time follows from how far the members are
// from each other, and is kept.
func TestEntriesInFlight(t *testing.T) {
	for timing, most := range map[Timing]int{{}: 2, TimingLAN: 2, TimingWAN: 4} {
		cfg, err := Config{ID: "n1", DataDir: "d", Timing: timing, InitialCluster: []Peer{{"n1", "x:1"}}}.withDefaults()
		require.NoError(t, err)
		require.Equal(t, most, cfg.inFlight)
		d := newDesk()
		d.proposer.inFlight = cfg.inFlight
		d.lead(3)
		for range most + 3 {
			d.submit(commandsOf(1, 10), false)
			d.dispatchAll()
		}
		require.Len(t, d.entries, most)
		d.commit(t, 0, 10, 1)
		d.dispatchAll()
		require.Len(t, d.entries, most+1)
		require.Equal(t, 3, d.proposer.entries[d.lastSeq].count, "what waited goes together")
	}
}

// BenchmarkInFlight compares how many entries may be under way, by how many
// callers spread over three members each wait for the answer to their last put.
// What is to be weighed is puts/s and cpu-us/put.
func BenchmarkInFlight(b *testing.B) {
	for _, callers := range []int{1, 4, 16, 64, 256} {
		for _, most := range []int{2, 3, 4} {
			b.Run(fmt.Sprintf("callers=%d/inflight=%d", callers, most), func(b *testing.B) {
				nodes := realCluster(b, 3, func(c *Config) { c.inFlight = most })
				value := string(make([]byte, 256))
				var next atomic.Int64
				run := func(n int64) {
					next.Store(0)
					var wg sync.WaitGroup
					for c := range callers {
						node := nodes[c%len(nodes)]
						wg.Go(func() {
							for i := next.Add(1); i <= n; i = next.Add(1) {
								rs, err := node.Propose(context.Background(), []*trivetpb.Command{put(fmt.Sprintf("key-%06d", i%100000), value)})
								if err != nil || rs[0].Problem != nil {
									b.Error(err, rs)
									return
								}
							}
						})
					}
					wg.Wait()
				}
				run(int64(callers)) // there is a leader, and every node knows it
				b.ResetTimer()
				start, cpu := time.Now(), processTime()
				run(int64(b.N))
				b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "puts/s")
				b.ReportMetric(float64((processTime()-cpu).Nanoseconds())/1e3/float64(b.N), "cpu-us/put")
			})
		}
	}
}

// processTime is the processor time that this process has used.
func processTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
