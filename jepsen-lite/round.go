package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/cluster"
	"trivet/jepsen-lite/history"
	"trivet/jepsen-lite/monitor"
	"trivet/jepsen-lite/nemesis"
	"trivet/jepsen-lite/report"
	"trivet/jepsen-lite/workload"
)

// round is a part of a run that is checked by itself, with keys of its own.
type round struct {
	*options
	env     *nemesis.Environment
	members *cluster.Cluster
	loads   []workload.Kind
	faults  []nemesis.Kind
	seed    int64
	length  time.Duration
	dir     string
	name    string

	// What comes out.
	plan    []nemesis.Step
	events  []nemesis.Event
	calls   map[string][]history.Call
	results []*check.Result
	verdict check.Verdict
	changes int
	// unfinished are the workloads whose last reads were not over in time.
	unfinished []string
	// recoveries are how long after the end of each fault all nodes served
	// again; of one during which the next began, that one's count in.
	recoveries []time.Duration
}

// Bounds of what comes after the work.
const (
	// calmTail is how long the clients go on after the last fault.
	calmTail = 3 * time.Second
	// stopTime is how long operations under way may take, finalTime the last reads
	// of one workload, settleTime until all nodes show one index.
	stopTime   = 20 * time.Second
	finalTime  = 15 * time.Second
	settleTime = 15 * time.Second
)

// run does the round. Its error says that there was none.
func (r *round) run(ctx context.Context, out io.Writer) error {
	record := filepath.Join(r.dir, report.Record)
	file, err := os.Create(record)
	if err != nil {
		return err
	}
	defer file.Close()
	start := time.Now()
	rec := history.NewRecorder(file, start)
	shared := &workload.Run{
		Recorder: rec, Nodes: r.env.Nodes, Seed: r.seed, Pace: r.pace, Timeout: r.timeout,
		Prefix: fmt.Sprintf("jepsen-lite/%d/", start.UnixNano()),
	}
	mon := monitor.Start(rec, r.env.Nodes, shared.Prefix)
	defer mon.Close()
	env := *r.env
	env.Leader = mon.Leader

	// Work and faults.
	stop := make(chan struct{})
	hard, cancel := context.WithCancel(ctx)
	defer cancel()
	loads := map[string]workload.Workload{}
	finished := make(chan struct{})
	var waits []func()
	for _, k := range r.loads {
		loads[k.Name] = k.New(shared)
		waits = append(waits, shared.Start(hard, k.Name, loads[k.Name], stop).Wait)
	}
	go func() {
		for _, wait := range waits {
			wait()
		}
		close(finished)
	}()
	r.plan = nemesis.Plan(r.seed, r.length-min(calmTail, r.length/5), r.faults)
	r.events = nemesis.Run(ctx, &env, rec, r.plan)
	calm := rec.Now()
	var took time.Duration
	recovered := true
	if len(r.faults) > 0 {
		took, recovered = r.recover(ctx, mon, calm)
	}
	select {
	case <-time.After(r.length - time.Since(start)):
	case <-ctx.Done():
	}
	close(stop)
	select {
	case <-finished:
	case <-time.After(stopTime):
		cancel()
		<-finished
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}

	// The last reads, and the nodes side by side; of those that ever answered.
	quiet := rec.Now()
	if mon.Served() {
		quiet = r.finish(ctx, shared, loads, mon)
	}
	mon.Close()
	if err := rec.Flush(); err != nil {
		return err
	}

	// The verdict.
	r.changes = mon.Changes()
	r.calls = map[string][]history.Call{}
	limits := workload.Limits{Checker: r.checkTime, Restarts: restarts(r.events)}
	for _, k := range r.loads {
		r.calls[k.Name] = rec.Take(k.Name)
		for _, result := range loads[k.Name].Check(r.calls[k.Name], limits) {
			result.Checker = k.Name + ": " + result.Checker
			r.results = append(r.results, result)
		}
	}
	var nodes []string
	for _, n := range r.env.Nodes {
		nodes = append(nodes, n.ID)
	}
	r.results = append(r.results, check.Hashes(mon.Hashes(), nodes, quiet))
	if len(r.faults) > 0 {
		for _, e := range r.events {
			if at, ok := mon.Recovered(e.Ended); ok && e.Done() {
				r.recoveries = append(r.recoveries, time.Duration(at-e.Ended))
			}
		}
		r.results = append(r.results, check.Recovery(took, recovered, r.recoveries, mon.Stalled(calm, calm+int64(took))))
	}
	if r.members != nil {
		r.results = append(r.results, check.Deaths(r.members.Deaths()))
	}
	r.results = append(r.results, check.Vacuous(r.done()))
	for _, result := range r.results {
		r.verdict = max(r.verdict, result.Verdict)
	}
	r.print(out)
	return r.write()
}

// write writes the report.
func (r *round) write() error {
	out := &report.Round{
		Name: r.name, Seed: r.seed, Length: r.length, Verdict: r.verdict, Plan: r.plan, Events: r.events, Calls: r.calls,
		Outcomes: r.outcomes(), Results: r.results, LeaderChanges: r.changes, Recoveries: r.recoveries,
	}
	for _, k := range r.loads {
		out.Workloads = append(out.Workloads, k.Name)
	}
	if r.members != nil {
		out.Logs = r.members.Logs()
	}
	return report.Write(r.dir, out)
}

// finish has all workloads do their last reads, and waits until the nodes show
// one state. It returns from when on nothing was asked of them any more.
func (r *round) finish(ctx context.Context, shared *workload.Run, loads map[string]workload.Workload, mon *monitor.Monitor) (end int64) {
	for _, k := range r.loads {
		finalCtx, cancel := context.WithTimeout(ctx, finalTime)
		shared.Finish(finalCtx, k.Name, loads[k.Name])
		if finalCtx.Err() != nil {
			r.unfinished = append(r.unfinished, k.Name)
		}
		cancel()
	}
	settleCtx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	return mon.Settle(settleCtx)
}

// recover waits until every node has served a request that began after calm, or
// twice the bound of that is over.
func (r *round) recover(ctx context.Context, mon *monitor.Monitor, calm int64) (time.Duration, bool) {
	begin := time.Now()
	for ctx.Err() == nil && time.Since(begin) < 2*check.RecoveryBound {
		if at, ok := mon.Recovered(calm); ok {
			return time.Duration(at - calm), true
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return time.Since(begin), false
}

// done is what the run did.
func (r *round) done() check.Done {
	d := check.Done{
		Length: r.length, Operations: map[string]int{}, OK: map[string]int{},
		FaultsWanted: len(r.faults) > 0, LeaderChanges: r.changes, ByF: map[string]check.Share{}, Unfinished: r.unfinished,
	}
	for _, e := range r.events {
		if !e.Done() {
			continue
		}
		d.Faults++
		for _, k := range nemesis.Kinds {
			if k.Name == e.Kind && k.Leader {
				d.LeaderFaults++
			}
		}
	}
	for name, calls := range r.calls {
		d.Operations[name] = len(calls)
		for _, c := range calls {
			share := d.ByF[name+" "+c.F]
			share.All++
			if c.Type == history.OK {
				d.OK[name]++
				share.OK++
			}
			d.ByF[name+" "+c.F] = share
			for _, e := range r.events {
				if e.Done() && e.Began <= c.Invoked && c.Invoked <= e.Ended {
					d.DuringFaults++
					break
				}
			}
		}
	}
	return d
}

// restarts are the times at which nodes began or ended.
func restarts(events []nemesis.Event) map[string][]int64 {
	out := map[string][]int64{}
	for _, e := range events {
		whom, _ := e.Whom.([]string)
		for _, id := range whom {
			if e.Kills() {
				out[id] = append(out[id], e.Began, e.Ended)
			}
		}
	}
	return out
}
