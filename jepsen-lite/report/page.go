package report

import (
	"bytes"
	"html/template"
	"path/filepath"
	"slices"
	"time"

	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
)

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"ms": func(d time.Duration) string { return d.Round(100 * time.Microsecond).String() },
	"at": func(ns int64) string { return time.Duration(ns).Round(time.Millisecond).String() },
}).Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>jepsen-lite: {{.Verdict}}</title>
<style>
:root { color-scheme: light dark }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1060px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } td, th { padding: .15em .8em .15em 0; text-align: left; vertical-align: top }
td.n, th.n { text-align: right } svg { width: 100%; height: auto } svg text { font-size: 11px; fill: currentColor }
.valid { color: #23874b } .violated { color: #c0392b; font-weight: bold } .inconclusive { color: #b8730a; font-weight: bold }
pre { white-space: pre-wrap; background: #8881; padding: .6em } .key span { padding: 0 .5em; color: #fff; border-radius: 3px }
</style>
<h1>Tested with jepsen-lite: <span class="{{.Verdict}}">{{.Verdict}}</span></h1>
<p>{{.Name}}, {{.Length}}, {{.LeaderChanges}} changes of leader.
<a href="history.jsonl">history.jsonl</a>, <a href="history.edn">history.edn</a>,
<a href="schedule.json">schedule.json</a>, <a href="results.json">results.json</a>{{range .Files}},
<a href="{{.}}">{{.}}</a>{{end}}.</p>
<h2>Checkers</h2>
<table>{{range .Results}}<tr><td class="{{.Verdict}}">{{.Verdict}}<td>{{.Checker}}<td>{{range $i, $f := .Figures}}{{if $i}}, {{end}}{{$f.Name}} {{$f.Value}}{{end}}
{{end}}</table>
{{range .Results}}{{$c := .Checker}}{{range .Findings}}<h3>{{$c}}</h3><pre>{{.}}</pre>{{end}}{{if gt .Found (len .Findings)}}<p>{{.Found}} in all.{{end}}{{end}}
<h2>All operations</h2>
<p class="key"><span style="background:#2a78c2">ok</span> <span style="background:#d34a8c">fail: certainly not</span>
<span style="background:#e8900c">info: nobody knows</span>. Faults: <span style="background:#c0392b">process</span>
<span style="background:#7d5ba6">link</span> <span style="background:#2e8b57">member</span> <span style="background:#a0742a">disk</span> <span style="background:#00838f">clock</span></p>
{{.Rates}}
{{range .Plots}}<h3>{{.Name}}: latency</h3>{{.Latencies}}{{end}}
<h2>Outcomes</h2>
<table><tr><th>workload<th>f<th class="n">ok<th class="n">fail<th class="n">info<th class="n">median<th class="n">worst
{{range .Outcomes}}<tr><td>{{.Workload}}<td>{{.F}}<td class="n">{{.OK}}<td class="n">{{.Fail}}<td class="n">{{.Info}}<td class="n">{{ms .Median}}<td class="n">{{ms .Worst}}
{{end}}</table>
<h2>Faults</h2>
<table><tr><th class="n">from<th class="n">to<th>what<th>whom<th>
{{range .Events}}<tr><td class="n">{{at .Began}}<td class="n">{{at .Ended}}<td>{{.Kind}}<td>{{.Whom}}<td>{{if .Skipped}}not available{{end}}{{if .Vain}}in vain: {{end}}{{.Error}}
{{end}}</table>
</html>
`))

type workloadPlots struct {
	Name      string
	Latencies template.HTML
}

func (r *Round) page(dir string) ([]byte, error) {
	var all []history.Call
	var end int64
	var plots []workloadPlots
	for _, name := range r.Workloads {
		for _, c := range r.Calls[name] {
			end = max(end, c.Returned)
		}
	}
	length := max(r.Length, time.Duration(end))
	for _, name := range r.Workloads {
		all = append(all, r.Calls[name]...)
		plots = append(plots, workloadPlots{name, latencies(length, r.Events, r.Calls[name])})
	}
	var files []string
	for _, result := range r.Results {
		for name := range result.Files {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	for _, log := range r.Logs {
		if path, err := filepath.Rel(dir, log); err == nil {
			files = append(files, filepath.ToSlash(path))
		}
	}
	var b bytes.Buffer
	err := page.Execute(&b, struct {
		*Round
		Verdict check.Verdict
		Files   []string
		Rates   template.HTML
		Plots   []workloadPlots
	}{r, r.Verdict, files, rates(length, r.Events, all), plots})
	return b.Bytes(), err
}
