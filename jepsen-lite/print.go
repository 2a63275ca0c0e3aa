package main

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
	"time"

	"trivet/jepsen-lite/history"
	"trivet/jepsen-lite/report"
)

// outcomes counts all operations of the round.
func (r *round) outcomes() []report.Outcome {
	var all []report.Outcome
	for _, k := range r.loads {
		byF := map[string]*report.Outcome{}
		latencies := map[string][]int64{}
		for _, c := range r.calls[k.Name] {
			o := byF[c.F]
			if o == nil {
				o = &report.Outcome{Workload: k.Name, F: c.F}
				byF[c.F] = o
			}
			switch c.Type {
			case history.OK:
				o.OK++
				latencies[c.F] = append(latencies[c.F], c.Returned-c.Invoked)
			case history.Fail:
				o.Fail++
			default:
				o.Info++
			}
		}
		var names []string
		for f := range byF {
			names = append(names, f)
		}
		sort.Strings(names)
		for _, f := range names {
			if l := latencies[f]; len(l) > 0 {
				slices.Sort(l)
				byF[f].Median, byF[f].Worst = time.Duration(l[len(l)/2]), time.Duration(l[len(l)-1])
			}
			all = append(all, *byF[f])
		}
	}
	return all
}

// print writes what people read of a round.
func (r *round) print(out io.Writer) {
	fmt.Fprintf(out, "%s: %v, %d nodes\n\n", r.name, r.length, len(r.env.Nodes))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "workload\tf\tok\tfail\tinfo\tmedian\tworst")
	ok, fail, info := 0, 0, 0
	for _, o := range r.outcomes() {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%v\t%v\n", o.Workload, o.F, o.OK, o.Fail, o.Info,
			o.Median.Round(100*time.Microsecond), o.Worst.Round(time.Millisecond))
		ok, fail, info = ok+o.OK, fail+o.Fail, info+o.Info
	}
	fmt.Fprintf(w, "all\t\t%d\t%d\t%d\t\t\n", ok, fail, info)
	w.Flush()

	counts, vain, skipped := map[string]int{}, map[string]int{}, map[string]bool{}
	for _, e := range r.events {
		if e.Skipped {
			skipped[e.Kind] = true
			continue
		}
		if e.Vain {
			vain[e.Kind]++
		} else {
			counts[e.Kind]++
		}
		if e.Error != "" {
			fmt.Fprintf(out, "\nfault %s at %v: %s\n", e.Kind, time.Duration(e.Began).Round(time.Millisecond), e.Error)
		}
	}
	if len(r.faults) > 0 {
		var done, failed, not []string
		for _, k := range r.faults {
			if counts[k.Name] > 0 {
				done = append(done, fmt.Sprintf("%s %d", k.Name, counts[k.Name]))
			}
			if vain[k.Name] > 0 {
				failed = append(failed, fmt.Sprintf("%s %d", k.Name, vain[k.Name]))
			}
			if skipped[k.Name] {
				not = append(not, k.Name)
			}
		}
		fmt.Fprintf(out, "\nfaults: %s\n", strings.Join(done, ", "))
		if len(failed) > 0 {
			fmt.Fprintf(out, "tried in vain: %s\n", strings.Join(failed, ", "))
		}
		if n := len(r.plan) - len(r.events); n > 0 {
			fmt.Fprintf(out, "left out: %d of the plan, as those before them took longer than planned\n", n)
		}
		if len(not) > 0 {
			fmt.Fprintf(out, "not available: %s\n", strings.Join(not, ", "))
		}
	}
	fmt.Fprintf(out, "leader changes: %d\n", r.changes)
	if len(r.recoveries) > 0 {
		sorted := slices.Clone(r.recoveries)
		slices.Sort(sorted)
		fmt.Fprintf(out, "recovery after a fault: median %v, longest %v\n",
			sorted[len(sorted)/2].Round(time.Millisecond), sorted[len(sorted)-1].Round(time.Millisecond))
	}
	fmt.Fprintln(out)

	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range r.results {
		var figures []string
		for _, f := range c.Figures {
			figures = append(figures, f.Name+" "+f.Value)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", c.Verdict, c.Checker, strings.Join(figures, ", "))
	}
	w.Flush()
	for _, c := range r.results {
		for _, f := range c.Findings {
			fmt.Fprintf(out, "\n%s: %s: %s\n", c.Verdict, c.Checker, f)
		}
		if c.Found > len(c.Findings) {
			fmt.Fprintf(out, "and %d more\n", c.Found-len(c.Findings))
		}
	}
}
