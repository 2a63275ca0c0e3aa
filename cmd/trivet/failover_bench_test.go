package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// How long nobody's write is acknowledged when something happens to the leader:
//
//	go test -run '^$' -bench Failover -benchtime 20x ./cmd/trivet
//
// Three processes of `trivet serve` and sixteen writers, each a closed loop of
// plain HTTP PUTs. A run's gap is the longest time without an acknowledgement to
// any of them that reaches into the 100 ms after the signal, or with SIGTERM
// until the process has ended; p50, p99 and max are over the runs. What is
// usual on this machine, with nothing happening, is the longest in the 100 ms
// before: its median is printed as usual-ms.
//
//   - kill: SIGKILL, the writers at the two others; then it is started again.
//   - stop: SIGSTOP, the writers at the two others; then SIGCONT.
//   - term: SIGTERM, the writers at all three. Each goes to the next node where an
//     answer says `Connection: close`.
//
// failed counts requests that were not acknowledged. TRIVET_LOG_LEVEL=debug
// prints what the nodes did in each run.
func BenchmarkFailover(b *testing.B) {
	for _, how := range []string{"kill", "stop", "term"} {
		b.Run(how, func(b *testing.B) {
			c := startBenchCluster(b)
			var gaps, usual []time.Duration
			failed := int64(0)
			b.ResetTimer()
			for range b.N {
				r := c.run(how)
				gaps, usual = append(gaps, r.gap), append(usual, r.usual)
				failed += r.failed
			}
			b.StopTimer()
			rank := func(d []time.Duration, q float64) float64 {
				slices.Sort(d)
				return float64(d[min(int(q*float64(len(d))), len(d)-1)].Microseconds()) / 1000
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(rank(gaps, 0.50), "p50-ms")
			b.ReportMetric(rank(gaps, 0.99), "p99-ms")
			b.ReportMetric(rank(gaps, 1), "max-ms")
			b.ReportMetric(rank(usual, 0.50), "usual-ms")
			b.ReportMetric(float64(failed), "failed")
		})
	}
}

const benchWriters = 16

// benchCluster is three nodes, each a process.
type benchCluster struct {
	b     testing.TB
	dir   string
	ports int
	nodes [3]*process
	args  []string // more flags of serve
	// program is what is started from now on; empty: this one.
	program string
}

func startBenchCluster(b testing.TB) *benchCluster {
	c := newBenchCluster(b)
	c.startAll()
	return c
}

// newBenchCluster returns one whose nodes are still to be started.
func newBenchCluster(b testing.TB, args ...string) *benchCluster {
	c := &benchCluster{b: b, dir: b.TempDir(), ports: freePorts(b), args: args}
	b.Cleanup(func() {
		for _, p := range c.nodes {
			if p != nil {
				p.signal(syscall.SIGCONT)
				p.signal(syscall.SIGKILL)
				p.ended()
			}
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return c
}

func (c *benchCluster) startAll() {
	for i := range c.nodes {
		c.start(i)
	}
	for i := range c.nodes {
		c.await(i)
	}
}

// urls are those of all nodes but the given ones.
func (c *benchCluster) urls(not ...int) []string {
	var urls []string
	for i := range c.nodes {
		if !slices.Contains(not, i) {
			urls = append(urls, c.url(i))
		}
	}
	return urls
}

// data is a node's data folder.
func (c *benchCluster) data(i int) string { return filepath.Join(c.dir, fmt.Sprintf("n%d", i+1)) }

func (c *benchCluster) url(i int) string { return fmt.Sprintf("http://127.0.0.1:%d", c.ports+i) }

// start starts a node that is down.
func (c *benchCluster) start(i int) {
	var peers []string
	for k := range c.nodes {
		peers = append(peers, fmt.Sprintf("n%d=127.0.0.1:%d", k+1, c.ports+10+k))
	}
	id := fmt.Sprintf("n%d", i+1)
	args := append([]string{"serve", "--id", id, "--data", c.data(i),
		"--api", fmt.Sprintf("127.0.0.1:%d", c.ports+i), "--peer", fmt.Sprintf("127.0.0.1:%d", c.ports+10+i),
		"--initial-cluster", strings.Join(peers, ","), "--log-level", cmp.Or(os.Getenv("TRIVET_LOG_LEVEL"), "warn")}, c.args...)
	if c.program == "" {
		c.nodes[i] = startProcess(c.b, c.dir, os.Environ(), args...)
	} else {
		c.nodes[i] = startProgram(c.b, c.program, c.dir, os.Environ(), args...)
	}
}

// await waits until a node serves and has caught up.
func (c *benchCluster) await(i int) {
	if err := poll(func() bool {
		resp, err := http.Get(c.url(i) + "/readyz?max_lag=10")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}); err != nil {
		c.b.Fatalf("node %d: %v\n%s", i+1, err, c.nodes[i].output())
	}
}

// leader returns the node that says that it leads; it waits until one does.
func (c *benchCluster) leader() (leader int) {
	if err := poll(func() bool {
		for i := range c.nodes {
			resp, err := http.Get(c.url(i) + "/v1/status")
			if err != nil {
				continue
			}
			var status struct{ Role string }
			err = json.NewDecoder(resp.Body).Decode(&status)
			resp.Body.Close()
			if err == nil && status.Role == "leader" {
				leader = i
				return true
			}
		}
		return false
	}); err != nil {
		c.b.Fatalf("no leader: %v", err)
	}
	return leader
}

// benchRun is what came of a run.
type benchRun struct {
	gap, usual    time.Duration
	acked, failed int64
}

// run does something to the leader.
func (c *benchCluster) run(how string) (r benchRun) {
	victim := c.leader()
	var urls []string
	for i := range c.nodes {
		if i != victim || how == "term" {
			urls = append(urls, c.url(i))
		}
	}
	var (
		wg   sync.WaitGroup
		acks [benchWriters][]time.Time
		bad  atomic.Int64
		good atomic.Int64
		done = make(chan struct{})
		pool = &http.Transport{MaxIdleConnsPerHost: benchWriters}
	)
	defer pool.CloseIdleConnections()
	for w := range acks {
		wg.Go(func() {
			for i, at := 0, w; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				req, _ := http.NewRequest(http.MethodPut, fmt.Sprintf("%s/v1/kv/failover/%d/%d", urls[at%len(urls)], w, i%100),
					bytes.NewReader(make([]byte, 256)))
				resp, err := pool.RoundTrip(req)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				switch {
				case err != nil || resp.StatusCode/100 != 2:
					if bad.Add(1) == 1 {
						c.b.Logf("%s: %v %v", how, resp, err)
					}
					time.Sleep(time.Millisecond)
					at++
				default:
					acks[w] = append(acks[w], time.Now())
					good.Add(1)
					if resp.Close {
						at++
					}
				}
			}
		})
	}
	enough := func(n int64) {
		target := good.Load() + n
		if err := poll(func() bool { return good.Load() > target }); err != nil {
			c.b.Fatalf("writes do not go through: %v", err)
		}
	}
	enough(500)
	began := time.Now()
	c.nodes[victim].signal(map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP, "term": syscall.SIGTERM}[how])
	over := began.Add(100 * time.Millisecond)
	if how != "stop" {
		if status, err := c.nodes[victim].ended(); err != nil || (how == "term" && status != 0) {
			c.b.Errorf("ended with %d, %v:\n%s", status, err, c.nodes[victim].output())
		}
		if how == "term" {
			over = time.Now()
		}
	}
	enough(1000)
	close(done)
	wg.Wait()
	if how == "stop" {
		c.nodes[victim].signal(syscall.SIGCONT)
	} else {
		c.start(victim)
	}
	c.await(victim)
	all := slices.Concat(acks[:]...)
	slices.SortFunc(all, time.Time.Compare)
	for i := 1; i < len(all); i++ {
		switch gap := all[i].Sub(all[i-1]); {
		case all[i].Before(began.Add(-100 * time.Millisecond)):
		case all[i].Before(began):
			r.usual = max(r.usual, gap)
		case all[i-1].Before(over):
			r.gap = max(r.gap, gap)
		}
	}
	r.acked, r.failed = int64(len(all)), bad.Load()
	if os.Getenv("TRIVET_LOG_LEVEL") != "" { // where did the time go?
		fmt.Fprintf(os.Stderr, "%s at %s: %+v\n", how, began.UTC().Format("05.000"), r)
		for _, p := range c.nodes {
			fmt.Fprintln(os.Stderr, p.output())
		}
	}
	return r
}
