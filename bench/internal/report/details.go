package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Details returns a table of every closed loop: latencies, and the CPU time that an
// operation costs servers and client.
func (d *Data) Details() string {
	var b strings.Builder
	b.WriteString("| | | ops/s | p50 ms | p95 ms | p99 ms | max ms | servers, CPU µs an op | client, CPU µs an op |\n" +
		"| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, row := range d.Rows {
		title := row.Title
		for _, c := range d.columns() {
			v := d.cell(row.ID, c)
			l := v.median.Load
			if v.n == 0 || l == nil || l.Ops == 0 {
				continue
			}
			ms := func(t time.Duration) string { return Number(t.Seconds() * 1000) }
			micros := func(seconds float64) string { return Number(seconds * 1e6 / float64(l.Ops)) }
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", title, c.Name(), Number(l.OpsPerSecond),
				ms(l.P50), ms(l.P95), ms(l.P99), ms(l.Max), micros(l.ServerCPU), micros(l.ClientCPU))
			title = ""
		}
	}
	return b.String()
}

// Further returns the figures that belong to a row and are not its value, a line
// each; empty where there are none.
func (d *Data) Further() string {
	var b strings.Builder
	for _, row := range d.Rows {
		for _, c := range d.columns() {
			v := d.cell(row.ID, c)
			if v.n == 0 || len(v.median.Details)+len(v.median.Samples) == 0 {
				continue
			}
			var parts []string
			for _, name := range slices.Sorted(maps.Keys(v.median.Details)) {
				parts = append(parts, strings.ReplaceAll(name, "_", " ")+" "+Number(v.median.Details[name]))
			}
			if len(v.median.Samples) > 0 {
				var samples []string
				for _, s := range v.median.Samples {
					samples = append(samples, Number(s))
				}
				parts = append(parts, "single values "+strings.Join(samples, " "))
			}
			fmt.Fprintf(&b, "- %s, %s: %s\n", row.Title, c.Name(), strings.Join(parts, "; "))
		}
	}
	return b.String()
}

// Failures returns what has no value though it should, a line each, and what was left
// out; empty where there is nothing.
func (d *Data) Failures() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(d.LeftOut)) {
		fmt.Fprintf(&b, "- %s was left out: %s\n", name, d.LeftOut[name])
	}
	for _, r := range d.Results {
		if r.Error != "" {
			fmt.Fprintf(&b, "- %s, %s, round %d failed: %s\n", r.Row, Column{r.System, r.Way}.Name(), r.Round, strings.ReplaceAll(r.Error, "\n", " "))
		}
	}
	return b.String()
}

// Setting says what was measured, when and on what.
func (d *Data) Setting() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, in %v, on %d cores (%s), %d MiB of memory, Linux %s, %s; an fdatasync of a 4 KiB append took %s ms there (median).\n",
		d.Began.UTC().Format("2006-01-02"), d.Took.Round(time.Minute), d.Machine.Cores, d.Machine.CPU, d.Machine.MemoryMiB, d.Machine.Kernel, d.Machine.Go, Number(d.Machine.SyncMS))
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(d.Versions)) {
		versions = append(versions, name+" "+d.Versions[name])
	}
	fmt.Fprintf(&b, "Versions: %s.\n", strings.Join(versions, ", "))
	fmt.Fprintf(&b, "Closed loops of %v after %v of warming up, the median of %d rounds; %d kills for each way.\n", d.Plan.Measure, d.Plan.Warmup, d.Plan.Rounds, d.Plan.Failovers)
	if d.Quick {
		b.WriteString("\n**This was a quick run: it shows that everything works, and no more than roughly where it stands.**\n")
	}
	return b.String()
}
