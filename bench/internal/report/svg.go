package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// svg writes a picture: a white ground, so that it reads in dark mode too, and what
// is drawn on it.
type svg struct {
	body          strings.Builder
	width, height float64
}

func (s *svg) rect(x, y, w, h float64, fill, title string) {
	fmt.Fprintf(&s.body, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s</title></rect>`+"\n", x, y, w, h, fill, html.EscapeString(title))
}

func (s *svg) line(x1, y1, x2, y2 float64, stroke string, width float64) {
	fmt.Fprintf(&s.body, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f"/>`+"\n", x1, y1, x2, y2, stroke, width)
}

func (s *svg) circle(x, y, r float64, fill, title string) {
	fmt.Fprintf(&s.body, `<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s"><title>%s</title></circle>`+"\n", x, y, r, fill, html.EscapeString(title))
}

// text writes at a baseline; anchor is start, middle or end.
func (s *svg) text(x, y, size float64, anchor, fill, text string) {
	fmt.Fprintf(&s.body, `<text x="%.1f" y="%.1f" font-size="%.0f" text-anchor="%s" fill="%s">%s</text>`+"\n", x, y, size, anchor, fill, html.EscapeString(text))
}

func (s *svg) String() string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" font-family="sans-serif">
<rect width="100%%" height="100%%" fill="#ffffff"/>
%s</svg>
`, s.width, s.height, s.width, s.height, s.body.String())
}

// logScale maps values from low to high, both above 0, to 0 to length, by their
// logarithms: a system that does ten times as much is one step further, wherever.
type logScale struct{ low, high, length float64 }

// newLogScale spans the values by whole powers of ten.
func newLogScale(values []float64, length float64) logScale {
	low, high := math.Inf(1), 0.0
	for _, v := range values {
		if v > 0 {
			low, high = min(low, v), max(high, v)
		}
	}
	if high == 0 {
		low, high = 1, 10
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	if low == high {
		high *= 10
	}
	return logScale{low, high, length}
}

func (s logScale) at(v float64) float64 {
	if v <= s.low {
		return 0
	}
	return s.length * (math.Log10(v) - math.Log10(s.low)) / (math.Log10(s.high) - math.Log10(s.low))
}

// ticks are the powers of ten.
func (s logScale) ticks() []float64 {
	var t []float64
	for e := math.Round(math.Log10(s.low)); e <= math.Round(math.Log10(s.high)); e++ {
		t = append(t, math.Pow(10, e))
	}
	return t
}
