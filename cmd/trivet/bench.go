package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"trivet/client"
	"trivet/internal/histogram"
	"trivet/store"
)

// benchFlags is the command line of bench.
type benchFlags struct {
	*clusterFlags
	read             *readFlags
	clients, keys    int
	duration, warmup time.Duration
	mix              mix
	valueBytes       size
	prefix           string
	plain            bool
	endpointsOnly    bool
}

func newBench() *cobra.Command {
	f := &benchFlags{valueBytes: 256}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Load a cluster and measure it",
		Long: `Load a cluster with a closed loop: each of --clients sends its next request when
it has the answer to the last, on keys drawn at random. Printed are throughput
and latency, as the callers saw it, for each kind of request, and errors by
their code.

--mix is put, get, or gets and puts in per cent, such as 90/10. Where there are
gets, missing keys are written first. The requests go through the Go client, which
packs those of one moment into batches; with --plain each is a request of its own,
over connections that are kept, as from a service that has no such client.

It all goes on under --prefix, and stays
there: trivet delete --prefix bench/ clears it away.

Ctrl-C ends the run early and prints what was measured.`,
		Example: `  trivet bench
  trivet bench --mix 90/10 --clients 256 --duration 30s
  trivet bench --mix get --consistency stale --json
  trivet bench --clients 1 --plain`,
		Args: takes(0, 0),
	}
	flags := cmd.Flags()
	flags.IntVar(&f.clients, "clients", 64, "requests under way at a time")
	flags.DurationVar(&f.duration, "duration", 10*time.Second, "how long to measure")
	flags.DurationVar(&f.warmup, "warmup", time.Second, "how long to run before that")
	flags.Var(&f.mix, "mix", "what is asked: put, get, or GETS/PUTS in per cent")
	flags.Var(&f.valueBytes, "value-bytes", "length of the values")
	flags.IntVar(&f.keys, "keys", 100_000, "number of different keys")
	flags.StringVar(&f.prefix, "prefix", "bench/", "what the keys start with")
	flags.BoolVar(&f.plain, "plain", false, "one HTTP request for each, without the Go client")
	flags.BoolVar(&f.endpointsOnly, "endpoints-only", false, "load the nodes of --endpoints and no others of the cluster")
	f.read = addReadFlags(cmd)
	f.clusterFlags = addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, _ []string) error {
		options, err := f.options(cmd)
		if err != nil {
			return err
		}
		// The first Ctrl-C ends the run, which lets the requests under way end;
		// a second is not waited for.
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		context.AfterFunc(ctx, stop)
		c, _, end, err := f.open(cmd, !f.endpointsOnly)
		if err != nil {
			return err
		}
		defer end()
		b := &bench{benchFlags: f, client: c, options: options}
		b.put = func(ctx context.Context, key string, value []byte) error {
			_, err := c.Put(ctx, key, value)
			return err
		}
		b.get = func(ctx context.Context, key string) error {
			_, err := c.Get(ctx, key, options...)
			return err
		}
		if f.plain {
			plain, err := newPlainLoad(ctx, f, c, cmd)
			if err != nil {
				return err
			}
			defer plain.close()
			b.put, b.get = plain.put, plain.get
		}
		if f.mix.getPercent > 0 {
			if err := b.load(ctx, cmd.ErrOrStderr()); err != nil {
				return err
			}
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "measuring for %v …\n", f.duration)
		r := b.run(ctx)
		if f.json {
			err = newJSON(cmd.OutOrStdout()).Encode(r)
		} else {
			err = r.print(cmd.OutOrStdout())
		}
		if err == nil && r.All.Ops == 0 && len(r.Errors) > 0 {
			return failf(exitUnserved, "%s: no request succeeded", slices.Sorted(maps.Keys(r.Errors))[0])
		}
		return err
	})
	return cmd
}

// options checks the flags and returns those of the gets.
func (f *benchFlags) options(cmd *cobra.Command) ([]client.GetOption, error) {
	switch {
	case f.clients < 1:
		return nil, failf(exitUsage, "--clients must be at least 1")
	case f.keys < 1:
		return nil, failf(exitUsage, "--keys must be at least 1")
	case f.duration <= 0:
		return nil, failf(exitUsage, "--duration must be more than zero")
	case f.warmup < 0:
		return nil, failf(exitUsage, "--warmup is negative")
	case f.valueBytes > store.HardMaxValueBytes:
		return nil, failf(exitUsage, "--value-bytes: the most is %v", size(store.HardMaxValueBytes))
	}
	freshness, err := f.read.freshness(cmd)
	if err != nil {
		return nil, err
	}
	var options []client.GetOption
	for _, o := range freshness {
		options = append(options, o)
	}
	return options, nil
}

// mix is a flag's value: how many of a hundred requests are gets.
type mix struct{ getPercent int }

func (m *mix) String() string {
	switch m.getPercent {
	case 0:
		return "put"
	case 100:
		return "get"
	}
	return fmt.Sprintf("%d/%d", m.getPercent, 100-m.getPercent)
}

// Set is for flags.
func (m *mix) Set(text string) error {
	switch text {
	case "put":
		m.getPercent = 0
		return nil
	case "get":
		m.getPercent = 100
		return nil
	}
	gets, puts, _ := strings.Cut(text, "/")
	g, gerr := strconv.Atoi(gets)
	p, perr := strconv.Atoi(puts)
	if gerr != nil || perr != nil || g < 0 || p < 0 || g+p != 100 {
		return errors.New("need put, get, or GETS/PUTS in per cent, such as 90/10")
	}
	m.getPercent = g
	return nil
}

// Type is what help calls the value.
func (m *mix) Type() string { return "mix" }

// bench is one run.
type bench struct {
	*benchFlags
	client  *client.Client
	options []client.GetOption
	// put and get are one request each.
	put func(ctx context.Context, key string, value []byte) error
	get func(ctx context.Context, key string) error
}

func (b *bench) key(i int) string { return fmt.Sprintf("%s%08d", b.prefix, i) }

// value returns random bytes: nothing on the way can make less of them.
func (b *bench) value() []byte {
	v := make([]byte, b.valueBytes)
	crand.Read(v) // never fails
	return v
}

const (
	// A txn of the loading has at most so many puts and about so many bytes.
	loadOps   = 500
	loadBytes = 1 << 20
	loaders   = 8
)

// load writes the keys, unless they are all there.
func (b *bench) load(ctx context.Context, progress io.Writer) error {
	count, err := b.client.Count(ctx, client.Prefix(b.prefix))
	if err != nil {
		return err
	}
	if count >= uint64(b.keys) {
		return nil
	}
	fmt.Fprintf(progress, "writing %d keys …\n", b.keys)
	step := min(loadOps, max(1, loadBytes/max(1, int(b.valueBytes))))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range loaders {
		wg.Go(func() {
			value := b.value()
			for ctx.Err() == nil {
				from := int(next.Add(int64(step))) - step
				if from >= b.keys {
					return
				}
				var ops []client.Op
				for i := from; i < min(from+step, b.keys); i++ {
					ops = append(ops, client.OpPut(b.key(i), value))
				}
				// It does not matter whether it is applied once or twice.
				_, err := b.client.Txn().Then(ops...).Commit(ctx)
				if err != nil && !errors.Is(err, client.ErrUnknown) {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	if failed := (*client.Error)(nil); ctx.Err() != nil && !errors.As(context.Cause(ctx), &failed) {
		return errors.New("interrupted while the keys were written")
	}
	return context.Cause(ctx)
}

// benchWorker is what one of the clients has measured.
type benchWorker struct {
	puts, gets histogram.Histogram
	errors     map[string]uint64
}

// run runs the closed loops until the time is over or the context ends.
func (b *bench) run(ctx context.Context) benchResult {
	start := time.Now().Add(b.warmup)
	ctx, cancel := context.WithDeadline(ctx, start.Add(b.duration))
	defer cancel()
	workers := make([]*benchWorker, b.clients)
	var wg sync.WaitGroup
	for i := range workers {
		workers[i] = &benchWorker{errors: map[string]uint64{}}
		wg.Go(func() { b.work(ctx, workers[i], start) })
	}
	wg.Wait()
	// Until the last answer: the requests under way at the end count.
	measured := max(time.Since(start), 0)

	var all benchWorker
	all.errors = map[string]uint64{}
	for _, w := range workers {
		all.puts.Merge(&w.puts)
		all.gets.Merge(&w.gets)
		for code, n := range w.errors {
			all.errors[code] += n
		}
	}
	r := benchResult{
		DurationMS: measured.Milliseconds(), Clients: b.clients, Mix: b.mix.String(), ValueBytes: int64(b.valueBytes), Keys: b.keys,
		Errors: all.errors,
	}
	if b.mix.getPercent < 100 {
		r.Put = summarize(&all.puts, measured)
	}
	if b.mix.getPercent > 0 {
		r.Get = summarize(&all.gets, measured)
	}
	all.puts.Merge(&all.gets)
	r.All = *summarize(&all.puts, measured)
	return r
}

// work is one closed loop. What began before start is warming up.
func (b *bench) work(ctx context.Context, w *benchWorker, start time.Time) {
	value := b.value()
	for ctx.Err() == nil {
		key := b.key(rand.IntN(b.keys))
		h := &w.puts
		began := time.Now()
		var err error
		// With a context of its own: a request that is under way at the end is
		// finished, within --timeout, not cut off.
		if rand.IntN(100) < b.mix.getPercent {
			h = &w.gets
			err = b.get(context.WithoutCancel(ctx), key)
		} else {
			err = b.put(context.WithoutCancel(ctx), key, value)
		}
		took := time.Since(began)
		switch failed := (*client.Error)(nil); {
		case began.Before(start):
		case err == nil:
			h.Add(took)
		case errors.As(err, &failed):
			w.errors[failed.Code]++
		default:
			w.errors["other"]++
		}
	}
}

// benchResult is what bench prints.
type benchResult struct {
	DurationMS int64             `json:"duration_ms"`
	Clients    int               `json:"clients"`
	Mix        string            `json:"mix"`
	ValueBytes int64             `json:"value_bytes"`
	Keys       int               `json:"keys"`
	Put        *benchLatency     `json:"put,omitempty"`
	Get        *benchLatency     `json:"get,omitempty"`
	All        benchLatency      `json:"all"`
	Errors     map[string]uint64 `json:"errors"` // by code
}

// benchLatency is throughput and latency of one kind of request.
type benchLatency struct {
	Ops          uint64  `json:"ops"`
	OpsPerSecond float64 `json:"ops_per_second"`
	MeanUS       int64   `json:"mean_us"`
	P50US        int64   `json:"p50_us"`
	P95US        int64   `json:"p95_us"`
	P99US        int64   `json:"p99_us"`
	MaxUS        int64   `json:"max_us"`
}

func summarize(h *histogram.Histogram, measured time.Duration) *benchLatency {
	l := &benchLatency{
		Ops:    h.Count,
		MeanUS: h.Mean().Microseconds(),
		P50US:  h.Quantile(0.50).Microseconds(),
		P95US:  h.Quantile(0.95).Microseconds(),
		P99US:  h.Quantile(0.99).Microseconds(),
		MaxUS:  h.Max.Microseconds(),
	}
	if measured > 0 {
		l.OpsPerSecond = float64(h.Count) / measured.Seconds()
	}
	return l
}

func (r benchResult) print(out io.Writer) error {
	fmt.Fprintf(out, "%.1f s, %d clients, %d keys, values of %v\n\n", float64(r.DurationMS)/1000, r.Clients, r.Keys, size(r.ValueBytes))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "\tOPS\tOPS/S\tP50\tP95\tP99\tMAX\t")
	line := func(name string, l *benchLatency) {
		fmt.Fprintf(table, "%s\t%d\t%.0f\t", name, l.Ops, l.OpsPerSecond)
		for _, us := range []int64{l.P50US, l.P95US, l.P99US, l.MaxUS} {
			fmt.Fprintf(table, "%.2fms\t", float64(us)/1000)
		}
		fmt.Fprintln(table)
	}
	if r.Put != nil {
		line("put", r.Put)
	}
	if r.Get != nil {
		line("get", r.Get)
	}
	if r.Put != nil && r.Get != nil {
		line("all", &r.All)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var err error
	for _, code := range slices.Sorted(maps.Keys(r.Errors)) {
		_, err = fmt.Fprintf(out, "errors: %d %s\n", r.Errors[code], code)
	}
	return err
}
