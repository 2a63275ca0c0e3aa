package report

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"trivet/bench/internal/rows"
)

// Plot is a picture of a run.
type Plot struct {
	Name, Title string
	SVG         string
}

// colors are those of the columns; two ways of one system are of one hue.
var colors = map[Column]string{
	{"trivet", "http"}: "#7fb3e0", {"trivet", "go"}: "#1f5f9e", {"etcd", "go"}: "#c8642b", {"etcd", "http"}: "#ecb792",
	{"postgres", "go"}: "#6b8e4e", {"redis", "go"}: "#8a6bab",
}

const (
	ink   = "#222222"
	faint = "#d8d8d8"
)

// Plots returns the pictures for which there are figures: rates, latencies, and rates
// over the number of keys.
func (d *Data) Plots() []Plot {
	var plots []Plot
	rate := func(c cell) (value, high float64) { return c.median.Load.OpsPerSecond, 0 }
	latency := func(c cell) (value, high float64) {
		l := c.median.Load
		return l.P50.Seconds() * 1000, l.P99.Seconds() * 1000
	}
	if p := d.bars("Operations a second (logarithmic)", rate, func(v float64) string { return Number(v) + "/s" }); p != "" {
		plots = append(plots, Plot{"throughput.svg", "Operations a second", p})
	}
	if p := d.bars("Latency: the bar is the median, the line goes to p99, in milliseconds (logarithmic)", latency, func(v float64) string { return Number(v) + " ms" }); p != "" {
		plots = append(plots, Plot{"latency.svg", "Latency, median and p99", p})
	}
	if p := d.sizes(); p != "" {
		plots = append(plots, Plot{"sizes.svg", "Operations a second over the number of keys", p})
	}
	return plots
}

// WritePlots writes the pictures into a folder, which is made.
func (d *Data) WritePlots(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range d.Plots() {
		if err := os.WriteFile(filepath.Join(dir, p.Name), []byte(p.SVG), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// loops returns the rows that are closed loops on few keys and have figures, and
// compare those: in the others the loop is what something else is measured beside.
func (d *Data) loops() []rows.Row {
	var loops []rows.Row
	for _, row := range d.Rows {
		if strings.Contains(row.ID, "-at-") || row.Own || strings.HasPrefix(row.ID, "watch") {
			continue
		}
		for _, c := range d.columns() {
			if v := d.cell(row.ID, c); v.n > 0 && v.median.Load != nil {
				loops = append(loops, row)
				break
			}
		}
	}
	return loops
}

// bars draws a group of bars a row, a bar a column; empty where there is nothing. of
// gives the length of a bar, and where a line behind it ends.
func (d *Data) bars(title string, of func(cell) (value, high float64), label func(float64) string) string {
	const left, right, top, bar, gap = 290.0, 100.0, 70.0, 13.0, 12.0
	loops, columns := d.loops(), d.columns()
	if len(loops) == 0 {
		return ""
	}
	var values []float64
	for _, row := range loops {
		for _, c := range columns {
			if v := d.cell(row.ID, c); v.n > 0 && v.median.Load != nil {
				value, high := of(v)
				values = append(values, value, high)
			}
		}
	}
	s := &svg{width: 980}
	scale := newLogScale(values, s.width-left-right)
	group := bar*float64(len(columns)) + gap
	s.height = top + group*float64(len(loops)) + 30
	s.text(16, 22, 15, "start", ink, title)
	d.legend(s, 16, 44, columns)
	for _, t := range scale.ticks() {
		x := left + scale.at(t)
		s.line(x, top-6, x, s.height-24, faint, 1)
		s.text(x, s.height-8, 11, "middle", ink, Number(t))
	}
	for i, row := range loops {
		y := top + group*float64(i)
		s.text(left-8, y+bar*float64(len(columns))/2+4, 12, "end", ink, row.Title)
		for k, c := range columns {
			v := d.cell(row.ID, c)
			if v.n == 0 || v.median.Load == nil {
				continue
			}
			value, high := of(v)
			at := y + bar*float64(k)
			end := left + scale.at(value)
			s.rect(left, at, scale.at(value), bar-2, colors[c], fmt.Sprintf("%s, %s: %s", row.Title, c.Name(), label(value)))
			if high > value {
				s.line(end, at+bar/2-1, left+scale.at(high), at+bar/2-1, colors[c], 2)
				end = left + scale.at(high)
			}
			s.text(end+4, at+bar-3, 10, "start", ink, label(value))
		}
	}
	return s.String()
}

func (d *Data) legend(s *svg, x, y float64, columns []Column) {
	for _, c := range columns {
		s.rect(x, y-10, 11, 11, colors[c], c.Name())
		s.text(x+15, y, 11, "start", ink, c.Name())
		x += 30 + 6.2*float64(len(c.Name()))
	}
}

// sizes draws rates over numbers of keys, a line a column, gets and puts side by
// side; empty where fewer than two sizes were measured.
func (d *Data) sizes() string {
	if len(d.Plan.Sizes) < 2 {
		return ""
	}
	const left, top, width, height = 70.0, 90.0, 380.0, 260.0
	s := &svg{width: 980, height: top + height + 50}
	s.text(left, 22, 15, "start", ink, "Operations a second over the number of keys, 64 callers (logarithmic)")
	var drawn []Column
	for i, kind := range []string{"put", "get"} {
		x0 := left + float64(i)*(width+90)
		var values []float64
		var counts []float64
		for _, n := range d.Plan.Sizes {
			counts = append(counts, float64(n))
			for _, c := range d.columns() {
				values = append(values, d.cell(fmt.Sprintf("%s-at-%d", kind, n), c).value)
			}
		}
		xs, ys := newLogScale(counts, width), newLogScale(values, height)
		s.text(x0, top-12, 13, "start", ink, kind)
		for _, t := range ys.ticks() {
			y := top + height - ys.at(t)
			s.line(x0, y, x0+width, y, faint, 1)
			s.text(x0-6, y+4, 11, "end", ink, Number(t))
		}
		for _, n := range d.Plan.Sizes {
			s.text(x0+xs.at(float64(n)), top+height+18, 11, "middle", ink, rows.Count(n))
		}
		for _, c := range d.columns() {
			var px, py float64
			first := true
			for _, n := range d.Plan.Sizes {
				v := d.cell(fmt.Sprintf("%s-at-%d", kind, n), c)
				if v.n == 0 {
					continue
				}
				x, y := x0+xs.at(float64(n)), top+height-ys.at(v.value)
				if !first {
					s.line(px, py, x, y, colors[c], 2)
				}
				s.circle(x, y, 3.5, colors[c], fmt.Sprintf("%s, %s at %s keys: %s/s", c.Name(), kind, rows.Count(n), Number(v.value)))
				px, py, first = x, y, false
				if !slices.Contains(drawn, c) {
					drawn = append(drawn, c)
				}
			}
		}
	}
	if len(drawn) == 0 {
		return ""
	}
	d.legend(s, left, 44, drawn)
	return s.String()
}
