package httpapi

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// rawWatch is a watch whose frames are counted, not parsed: readers that cost
// next to nothing, so that it is the server that is measured.
type rawWatch struct {
	conn   net.Conn
	events atomic.Int64
	reads  int64
}

// openRawWatch opens a watch from now on, in NDJSON, and returns once it is
// there.
func openRawWatch(t testing.TB, addr, query string) *rawWatch {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, "GET /v1/watch?"+query+" HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	r := &rawWatch{conn: conn}
	in := bufio.NewReaderSize(conn, 16)
	for {
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		if strings.HasPrefix(line, `{"type":"synced"`) {
			break
		}
	}
	_, err = in.Discard(2) // the end of the chunk
	require.NoError(t, err)
	return r
}

// count counts frames until the connection ends: lines, but for those that end
// in \r\n, which frame the chunks. The delay of the last event of each read goes
// to sample, where that is set: the value begins with the time it was put.
func (r *rawWatch) count(sample func(time.Duration)) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.conn.Read(buf)
		if err != nil {
			return
		}
		got := buf[:n]
		r.events.Add(int64(bytes.Count(got, []byte("\n")) - bytes.Count(got, []byte("\r"))))
		r.reads++
		if sample == nil {
			continue
		}
		const before = `"value":"`
		if i := bytes.LastIndex(got, []byte(before)); i >= 0 && i+len(before)+16 <= n {
			at := i + len(before)
			if ns, err := strconv.ParseInt(string(got[at:at+16]), 16, 64); err == nil {
				sample(time.Duration(time.Now().UnixNano() - ns))
			}
		}
	}
}

// writeFor has callers put values, each after the answer to its last, until n
// puts are done.
func writeFor(b testing.TB, doors []member, callers, n int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range callers {
		conn, err := net.Dial("tcp", doors[i%len(doors)].addr)
		require.NoError(b, err)
		defer conn.Close()
		wg.Go(func() {
			in := bufio.NewReader(conn)
			rest := strings.Repeat("x", 256-16)
			for {
				n64 := next.Add(1)
				if n64 > int64(n) {
					return
				}
				exchange(b, conn, in, fmt.Appendf(nil, "PUT /v1/kv/watched/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 256\r\n\r\n%016x%s",
					n64%1000, time.Now().UnixNano(), rest))
			}
		})
	}
	wg.Wait()
}

// BenchmarkWatchFanOut has 100 watches of one prefix, spread over three members,
// and 16 writers of it, each waiting for its answer. The figures are events/s,
// from the first put to the last event received by the last watch, and the
// delay from before a put is sent to its arrival at a watch.
func BenchmarkWatchFanOut(b *testing.B) {
	const watchers, writers = 100, 16
	doors := startCluster(b, 3)
	writeFor(b, doors, writers, 1000)
	var mu sync.Mutex
	var delays []time.Duration
	var watches []*rawWatch
	var wg sync.WaitGroup
	for i := range watchers {
		w := openRawWatch(b, doors[i%3].addr, "prefix=watched/")
		watches = append(watches, w)
		var sample func(time.Duration)
		if i < 3 {
			sample = func(d time.Duration) {
				mu.Lock()
				delays = append(delays, d)
				mu.Unlock()
			}
		}
		wg.Go(func() { w.count(sample) })
	}
	b.ResetTimer()
	start, cpu := time.Now(), processTime()
	writeFor(b, doors, writers, b.N)
	puts := time.Since(start)
	for _, w := range watches {
		for w.events.Load() < int64(b.N) {
			time.Sleep(100 * time.Microsecond)
		}
	}
	took := time.Since(start)
	cpu = processTime() - cpu
	b.StopTimer()
	for _, w := range watches {
		w.conn.Close()
	}
	wg.Wait()
	var reads int64
	for _, w := range watches {
		reads += w.reads
	}
	b.ReportMetric(float64(b.N*watchers)/float64(reads), "events/read")
	slices.Sort(delays)
	b.ReportMetric(float64(b.N*watchers)/took.Seconds(), "events/s")
	b.ReportMetric(float64(b.N)/puts.Seconds(), "puts/s")
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N*watchers), "cpu-ns/event")
	if len(delays) > 0 {
		b.ReportMetric(float64(delays[len(delays)/2].Microseconds())/1e3, "p50-ms")
		b.ReportMetric(float64(delays[len(delays)*99/100].Microseconds())/1e3, "p99-ms")
	}
}

// BenchmarkPutBesideWatches has 16 writers beside 10,000 watches of other keys, a
// connection each, spread over three members, and beside none. There are two
// clusters of 100,000 keys, each a process, of which one has the watches, and short
// turns of writing at the one and at the other; in the middle the watches move. All callers
// are processes of their own, and those of the watches are sockets that nobody
// reads, so what is counted is the servers'.
//
// An op is a pair of turns next to each other. The figures are medians over the
// pairs of the ratio with watches to without, of the processor time that a put
// takes and of puts/s, with their quartiles. What the watches take while nobody
// writes, which is progress frames, is a figure of its own, in ms a second, and
// left out of cpu-net-ratio: to a put it adds the more the fewer there are.
//
//	go test -run '^$' -bench PutBesideWatches -benchtime 100x ./httpapi
func BenchmarkPutBesideWatches(b *testing.B) {
	const watchers, writers, filled, turn = 10_000, 16, 100_000, 250 * time.Millisecond
	writer := startBenchPeer(b)
	var clusters [2]struct {
		servers, watches *benchPeer
		addrs            string
	}
	for i := range clusters {
		c := &clusters[i]
		c.servers, c.watches = startBenchPeer(b), startBenchPeer(b)
		c.addrs = c.servers.say(b, "cluster 3")
		c.servers.do(b, "fill %d", filled)
		writer.do(b, "put %s %d %v", c.addrs, writers, turn)
	}
	// move gives the watches to one of the clusters, and returns what each takes.
	move := func(to int) float64 {
		clusters[1-to].watches.do(b, "unwatch")
		for _, c := range clusters {
			for c.servers.do(b, "conns") > 0 {
				time.Sleep(time.Millisecond)
			}
		}
		c := &clusters[to]
		before := c.servers.do(b, "memory")
		c.watches.do(b, "watch %s 100", c.addrs) // what a first one makes stays
		require.Equal(b, watchers, c.watches.do(b, "watch %s %d", c.addrs, watchers))
		held := c.servers.do(b, "memory") - before
		clusters[1-to].servers.do(b, "memory") // collects there too
		// A heap that has just grown goes round in pages that the kernel has to make
		// first, which is a fifth of what a put costs and over after a collection.
		for _, c := range clusters {
			for goal := c.servers.do(b, "collections") + 2; c.servers.do(b, "collections") < goal; {
				writer.do(b, "put %s %d %v", c.addrs, writers, turn)
			}
		}
		return float64(held) / watchers
	}
	var rates, costs, net, alone []float64
	held := move(0)
	// idle is what a second of nothing but progress takes, in µs.
	used := func() int { return clusters[0].servers.do(b, "cpu") - clusters[1].servers.do(b, "cpu") }
	before, start := used(), time.Now()
	time.Sleep(10 * time.Second) // more than ProgressInterval
	idle := float64(used()-before) / time.Since(start).Seconds()
	b.ResetTimer()
	for i := range b.N {
		if i == b.N/2 && i > 0 {
			held = move(1)
		}
		var puts, cpu [2]float64
		for j := range 2 {
			at := (i + j) % 2
			c, beside := &clusters[at], at
			if i < b.N/2 || b.N == 1 {
				beside = 1 - at
			}
			used := c.servers.do(b, "cpu")
			n := float64(writer.do(b, "put %s %d %v", c.addrs, writers, turn))
			puts[beside], cpu[beside] = n, float64(c.servers.do(b, "cpu")-used)/n
		}
		rates, costs = append(rates, puts[1]/puts[0]), append(costs, cpu[1]/cpu[0])
		net = append(net, (cpu[1]-idle*turn.Seconds()/puts[1])/cpu[0])
		alone = append(alone, cpu[0])
	}
	quartile := func(of []float64, q int) float64 {
		slices.Sort(of)
		return of[(len(of)-1)*q/4]
	}
	for q, name := range []string{1: "-q1", 2: "", 3: "-q3"} {
		if q > 0 {
			b.ReportMetric(quartile(costs, q), "cpu-ratio"+name)
			b.ReportMetric(quartile(net, q), "cpu-net-ratio"+name)
			b.ReportMetric(quartile(rates, q), "puts-ratio"+name)
		}
	}
	b.ReportMetric(quartile(alone, 2), "cpu-us/put")
	b.ReportMetric(idle/1000, "idle-cpu-ms/s")
	b.ReportMetric(held, "B/watch")
}

// BenchmarkWatchProgress has 1,000 watches of which nothing but progress is heard,
// a thousand frames a second, of a node that does nothing else. The figure is
// what one frame costs, the kernel's part in sending and receiving it included.
func BenchmarkWatchProgress(b *testing.B) {
	const watchers, interval = 1000, time.Second
	d := openDoor(b, newSoloNode(), Config{ProgressInterval: interval})
	var read *rawWatch
	for i := range watchers {
		read = openRawWatch(b, d.addr, fmt.Sprintf("key=idle/%d", i))
	}
	in := bufio.NewReader(read.conn)
	rounds := 0
	start, cpu := time.Now(), processTime()
	for b.Loop() {
		if _, err := in.ReadString('}'); err != nil {
			b.Fatal(err)
		}
		rounds++
	}
	frames := float64(watchers) * max(time.Since(start).Seconds()/interval.Seconds(), 1)
	b.ReportMetric(float64((processTime()-cpu).Nanoseconds())/frames, "cpu-ns/frame")
	b.ReportMetric(frames/float64(rounds)/watchers, "intervals/frame") // more than 1: they came late
}

func memoryInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// BenchmarkWatchPaced has watches of one prefix, a connection each, of a node whose
// entries come at a given pace, so that what an event takes does not depend on what
// a put does. A node of three that 16 callers write to, with 100 watches, is the
// third of these. The figures are processor time, that of the reading ends
// included, events/read, and the delay of all events of one watch.
//
//	go test -run '^$' -bench WatchPaced -benchtime 2000x ./httpapi
func BenchmarkWatchPaced(b *testing.B) {
	for _, watchers := range []int{1, 4, 33, 100} {
		b.Run(fmt.Sprint(watchers), func(b *testing.B) { benchWatchPaced(b, watchers, time.Second/860, 4) })
	}
}

func benchWatchPaced(b *testing.B, watchers int, every time.Duration, puts int) {
	node := newSoloNode()
	d := openDoor(b, node, Config{})
	var wg sync.WaitGroup
	watches := make([]*rawWatch, watchers)
	var delays []time.Duration
	for i := range watches {
		w := openRawWatch(b, d.addr, "prefix=watched/")
		watches[i] = w
		if i == 0 {
			wg.Go(func() {
				in := bufio.NewReaderSize(w.conn, 64<<10)
				for {
					line, err := in.ReadSlice('\n')
					if err != nil {
						return
					}
					const before = `"value":"`
					at := bytes.Index(line, []byte(before))
					if at < 0 {
						continue
					}
					at += len(before)
					ns, err := strconv.ParseInt(string(line[at:at+16]), 16, 64)
					if err != nil {
						b.Error(err)
						return
					}
					delays = append(delays, time.Duration(time.Now().UnixNano()-ns))
					w.events.Add(1)
				}
			})
			continue
		}
		wg.Go(func() { w.count(nil) })
	}
	rest := strings.Repeat("x", 256-16)
	put := func(i int) {
		commands := make([]*trivetpb.Command, puts)
		for j := range commands {
			commands[j] = &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{
				Key: fmt.Appendf(nil, "watched/%d", (i*puts+j)%1000), Value: fmt.Appendf(nil, "%016x%s", time.Now().UnixNano(), rest)}}}}}
		}
		_, err := node.apply(commands, nil)
		require.NoError(b, err)
	}
	b.ResetTimer()
	start, cpu := time.Now(), processTime()
	for i := range b.N {
		time.Sleep(time.Until(start.Add(time.Duration(i) * every)))
		put(i)
	}
	for _, w := range watches {
		for w.events.Load() < int64(b.N*puts) {
			time.Sleep(100 * time.Microsecond)
		}
	}
	events := float64(b.N * puts * watchers)
	b.ReportMetric(float64((processTime()-cpu).Nanoseconds())/events, "cpu-ns/event")
	b.ReportMetric(float64(time.Since(start))/float64(b.N)/float64(every), "pace")
	b.StopTimer()
	var reads int64
	for _, w := range watches {
		w.conn.Close()
	}
	wg.Wait()
	for _, w := range watches[1:] {
		reads += w.reads
	}
	if reads > 0 {
		b.ReportMetric(float64(b.N*puts*(watchers-1))/float64(reads), "events/read")
	}
	slices.Sort(delays)
	b.ReportMetric(float64(delays[len(delays)/2].Microseconds())/1e3, "p50-ms")
	b.ReportMetric(float64(delays[len(delays)*99/100].Microseconds())/1e3, "p99-ms")
}
