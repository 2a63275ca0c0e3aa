package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
	"time"

	"trivet/jepsen-lite/history"
	"trivet/jepsen-lite/nemesis"
)

// A plot is as wide as the page, with time from left to right, over bands of the
// faults that were in force.
const (
	plotWidth, plotHeight     = 1000, 220
	marginLeft, marginRight   = 60, 10
	marginTop, marginBottom   = 10, 22
	bandHeight                = 8
	maxPoints                 = 20_000 // of one kind; of more, each nth is drawn
	innerWidth, innerHeight   = plotWidth - marginLeft - marginRight, plotHeight - marginTop - marginBottom
	leastLatency, mostLatency = 100e-6, 20.0 // s, the axis is logarithmic
	rateBuckets               = 120
)

var (
	typeColours = map[history.Type]string{history.OK: "#2a78c2", history.Fail: "#d34a8c", history.Info: "#e8900c"}
	types       = []history.Type{history.OK, history.Fail, history.Info}
	laneColours = map[string]string{"process": "#c0392b", "link": "#7d5ba6", "member": "#2e8b57", "disk": "#a0742a", "clock": "#00838f"}
	lanes       = []string{"process", "link", "member", "disk", "clock"}
)

// plot is an SVG in the making.
type plot struct {
	b      strings.Builder
	length time.Duration
}

func newPlot(length time.Duration, events []nemesis.Event) *plot {
	p := &plot{length: max(length, time.Second)}
	fmt.Fprintf(&p.b, `<svg viewBox="0 0 %d %d" role="img">`, plotWidth, plotHeight)
	for _, e := range events {
		if e.Skipped {
			continue
		}
		x, end := p.x(e.Began), p.x(e.Ended)
		fmt.Fprintf(&p.b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s" fill-opacity=".13"><title>%s</title></rect>`,
			x, marginTop, max(end-x, 1), innerHeight, laneColours[e.Lane], title(e))
		for i, lane := range lanes {
			if lane == e.Lane {
				fmt.Fprintf(&p.b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"><title>%s</title></rect>`,
					x, marginTop+i*bandHeight, max(end-x, 1), bandHeight-2, laneColours[lane], title(e))
			}
		}
	}
	step := 10 * time.Second
	for p.length/step > 12 {
		step *= 2
	}
	for at := time.Duration(0); at <= p.length; at += step {
		p.text(p.x(int64(at)), plotHeight-6, "middle", at.String())
	}
	return p
}

func title(e nemesis.Event) string {
	return html.EscapeString(fmt.Sprintf("%s %v, %v to %v", e.Kind, e.Whom,
		time.Duration(e.Began).Round(time.Millisecond), time.Duration(e.Ended).Round(time.Millisecond)))
}

func (p *plot) x(ns int64) float64 {
	return marginLeft + innerWidth*min(float64(ns)/float64(p.length), 1)
}

func (p *plot) text(x, y float64, anchor, text string) {
	fmt.Fprintf(&p.b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, html.EscapeString(text))
}

func (p *plot) line(y float64) {
	fmt.Fprintf(&p.b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#8884"/>`, marginLeft, plotWidth-marginRight, y, y)
}

func (p *plot) done() template.HTML {
	p.b.WriteString("</svg>")
	return template.HTML(p.b.String()) // all text in it is escaped or a number
}

// latencies draws a dot an operation: when it began, and how long it took.
func latencies(length time.Duration, events []nemesis.Event, calls []history.Call) template.HTML {
	p := newPlot(length, events)
	y := func(seconds float64) float64 {
		part := math.Log(max(seconds, leastLatency)/leastLatency) / math.Log(mostLatency/leastLatency)
		return marginTop + innerHeight*(1-min(part, 1))
	}
	for _, tick := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second} {
		p.line(y(tick.Seconds()))
		p.text(marginLeft-5, y(tick.Seconds())+4, "end", tick.String())
	}
	for _, t := range types {
		var of []history.Call
		for _, c := range calls {
			if c.Type == t {
				of = append(of, c)
			}
		}
		every := len(of)/maxPoints + 1
		// One path of dots is a tenth of the size of as many circles.
		var d strings.Builder
		for i := 0; i < len(of); i += every {
			fmt.Fprintf(&d, "M%.1f %.1fh0", p.x(of[i].Invoked), y(time.Duration(of[i].Returned-of[i].Invoked).Seconds()))
		}
		if d.Len() > 0 {
			fmt.Fprintf(&p.b, `<path d="%s" stroke="%s" stroke-width="%s" stroke-linecap="round" stroke-opacity=".6"/>`,
				d.String(), typeColours[t], map[bool]string{true: "5", false: "2.5"}[t == history.Info])
		}
	}
	return p.done()
}

// rates draws how many operations ended a second, by what became of them.
func rates(length time.Duration, events []nemesis.Event, calls []history.Call) template.HTML {
	p := newPlot(length, events)
	counts := map[history.Type][]float64{}
	bucket := p.length.Seconds() / rateBuckets
	most := 1.0
	for _, t := range types {
		counts[t] = make([]float64, rateBuckets+1)
	}
	for _, c := range calls {
		i := min(int(time.Duration(c.Returned).Seconds()/bucket), rateBuckets)
		counts[c.Type][i] += 1 / bucket
		most = max(most, counts[c.Type][i])
	}
	y := func(rate float64) float64 { return marginTop + innerHeight*(1-rate/most) }
	for _, part := range []float64{0, 0.5, 1} {
		p.line(y(part * most))
		p.text(marginLeft-5, y(part*most)+4, "end", fmt.Sprintf("%.0f/s", part*most))
	}
	for _, t := range types {
		var d strings.Builder
		for i, rate := range counts[t][:rateBuckets] {
			command := "L"
			if i == 0 {
				command = "M"
			}
			fmt.Fprintf(&d, "%s%.1f %.1f", command, p.x(int64((float64(i)+0.5)*bucket*1e9)), y(rate))
		}
		fmt.Fprintf(&p.b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`, d.String(), typeColours[t])
	}
	return p.done()
}
