package raftnode

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// No false alarm: under full load, with every message delayed by up to 100 ms,
// nobody stands for election, and the leader never ceases to lead. A message and
// its answer then take up to 200 ms, heartbeats go out up to 50 ms after the
// answer to the last: up to 250 ms pass between two, at either end.
//
// `make calm` runs an hour of it (TRIVET_SIM_CALM), `make test` some minutes.
func TestSimSlowNetworkElectsNobody(t *testing.T) {
	last := 5 * time.Minute
	if env := os.Getenv("TRIVET_SIM_CALM"); env != "" {
		var err error
		last, err = time.ParseDuration(env)
		require.NoError(t, err)
	}
	runSim(t, 3, nil, func(s *sim) {
		s.leader()
		s.converge()
		rnd := newRandom(1)
		s.net.mu.Lock()
		s.net.latency = func() time.Duration { return time.Duration(rnd.Intn(int(100 * time.Millisecond))) }
		s.net.mu.Unlock()
		time.Sleep(time.Second) // virtual
		var done atomic.Int64
		s.still(func() {
			ctx, cancel := context.WithTimeout(context.Background(), last)
			defer cancel()
			var wg sync.WaitGroup
			// Enough that each entry's successor waits for it: all slots for
			// entries are taken all the time, on the leader and at the others.
			for i := range 24 {
				n := s.up()[i%3]
				wg.Go(func() {
					for ctx.Err() == nil {
						if p := simPut(n, fmt.Sprint("k", i), "v", 10*time.Second); p != nil {
							t.Errorf("a write failed: %v", p)
							return
						}
						done.Add(1)
					}
				})
			}
			wg.Wait()
		})
		t.Logf("%d writes in %v", done.Load(), last)
		s.net.mu.Lock()
		s.net.latency = func() time.Duration { return time.Millisecond }
		s.net.mu.Unlock()
		s.converge()
	})
}
