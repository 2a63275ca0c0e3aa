package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// TestRollingRestart restarts all members, one after the other, under load, and
// asserts that no request fails and none is done twice or lost. `make rolling`
// does it in rounds; `make rolling BINARY_OLD=… BINARY_NEW=…` upgrades the members
// from one program to another in the first of them.
func TestRollingRestart(t *testing.T) {
	rounds, err := strconv.Atoi(cmp.Or(os.Getenv("ROUNDS"), "1"))
	require.NoError(t, err, "ROUNDS")
	before, after := os.Getenv("BINARY_OLD"), os.Getenv("BINARY_NEW")
	c := newBenchCluster(t)
	c.program = before
	c.startAll()
	load := startRollingLoad(t, c.urls())
	load.enough(t, 500)
	for round := range rounds {
		c.program = after
		for i := range c.nodes {
			wasLeader := c.leader() == i
			began := time.Now()
			c.nodes[i].signal(syscall.SIGTERM)
			status, err := c.nodes[i].ended()
			require.NoError(t, err)
			require.Zero(t, status, c.nodes[i].output())
			c.start(i)
			c.await(i)
			load.enough(t, 500)
			t.Logf("round %d: n%d (leader: %v) is back after %v, at level %s; %d requests so far", round+1, i+1, wasLeader,
				time.Since(began).Round(time.Millisecond), c.metric(i, "trivet_state_level"), load.acked.Load())
		}
	}
	load.stop(t)

	// Each addition once, each register as it was last written, on every node.
	for i := range c.nodes {
		node := openAt(t, c.url(i))
		for k := range load.counters {
			item, err := node.Get(t.Context(), fmt.Sprint("rolling/count/", k))
			require.NoError(t, err)
			require.Equal(t, strconv.FormatInt(load.counters[k].Load(), 10), string(item.Value), "counter %d at n%d", k, i+1)
		}
		for w, last := range load.last {
			item, err := node.Get(t.Context(), fmt.Sprint("rolling/last/", w))
			require.NoError(t, err)
			require.Equal(t, last, string(item.Value), "writer %d at n%d", w, i+1)
		}
	}
	t.Logf("%d requests, none failed, none lost or doubled; the longest time without an answer to anybody was %v, the longest request took %v",
		load.acked.Load(), load.gap().Round(10*time.Microsecond), time.Duration(load.slowest.Load()).Round(10*time.Microsecond))
}

// rollingLoad is sixteen writers over four clients, each a loop of an addition to
// one of four counters and a write of a key of its own. Each write has an
// identity, so that the client tries it again whatever became of it.
type rollingLoad struct {
	counters [4]atomic.Int64
	last     [16]string // what each writer wrote last
	acks     [16][]time.Time
	acked    atomic.Int64
	slowest  atomic.Int64 // ns
	errs     chan error
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

// rollingPause is between two requests of a writer: identities are remembered for
// ten minutes, and there is a bound on how many.
const rollingPause = 5 * time.Millisecond

func startRollingLoad(t *testing.T, urls []string) *rollingLoad {
	l := &rollingLoad{errs: make(chan error, 16)}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	t.Cleanup(func() { cancel(); l.wg.Wait() })
	run := fmt.Sprint(time.Now().UnixNano(), "/")
	var clients [4]*client.Client
	for i := range clients {
		c, err := client.Open(t.Context(), client.Config{Endpoints: urls})
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		clients[i] = c
	}
	for w := range l.last {
		c, k := clients[w%len(clients)], w%len(l.counters)
		l.wg.Go(func() {
			tick := time.NewTicker(rollingPause)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				// Not that context: what is under way is finished.
				each, done := context.WithTimeout(context.Background(), deadline)
				key := client.WithIdempotencyKey(fmt.Sprint(run, w, "/", i))
				start := time.Now()
				var err error
				if i%2 == 0 {
					if _, err = c.Add(each, fmt.Sprint("rolling/count/", k), 1, key); err == nil {
						l.counters[k].Add(1)
					}
				} else {
					value := fmt.Sprint(w, " ", i)
					if _, err = c.Put(each, fmt.Sprint("rolling/last/", w), []byte(value), key); err == nil {
						l.last[w] = value
					}
				}
				done()
				if err != nil {
					l.errs <- fmt.Errorf("request %d of writer %d, after %v: %w", i, w, time.Since(start), err)
					return
				}
				now := time.Now()
				l.acks[w] = append(l.acks[w], now)
				for took := int64(now.Sub(start)); ; {
					slowest := l.slowest.Load()
					if took <= slowest || l.slowest.CompareAndSwap(slowest, took) {
						break
					}
				}
				l.acked.Add(1)
			}
		})
	}
	return l
}

// enough waits for so many more answers.
func (l *rollingLoad) enough(t *testing.T, n int64) {
	t.Helper()
	target := l.acked.Load() + n
	require.NoError(t, poll(func() bool { return l.acked.Load() >= target || len(l.errs) > 0 }))
	l.check(t)
}

func (l *rollingLoad) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	l.check(t)
}

func (l *rollingLoad) check(t *testing.T) {
	t.Helper()
	select {
	case err := <-l.errs:
		t.Fatalf("a request failed: %v", err)
	default:
	}
}

// gap is the longest time between two answers to anybody.
func (l *rollingLoad) gap() (longest time.Duration) {
	all := slices.Concat(l.acks[:]...)
	slices.SortFunc(all, time.Time.Compare)
	for i := 1; i < len(all); i++ {
		longest = max(longest, all[i].Sub(all[i-1]))
	}
	return longest
}

// metric returns what a node's /metrics says, "" where it has no such metric: one
// of an older version.
func (c *benchCluster) metric(i int, name string) string {
	for line := range strings.Lines(c.get(i, "/metrics")) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// get returns the body of an answer, whatever its status.
func (c *benchCluster) get(i int, path string) string {
	resp, err := http.Get(c.url(i) + path)
	if err != nil {
		c.b.Fatalf("node %d: %v", i+1, err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if err := resp.Write(&b); err != nil {
		c.b.Fatalf("node %d: %v", i+1, err)
	}
	return b.String()
}
