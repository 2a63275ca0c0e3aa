package check

import (
	"fmt"
	"time"
)

// Verdict is what a checker says.
type Verdict int

// From good to bad; the verdict of a run is the worst of its checkers'.
const (
	Valid Verdict = iota
	Inconclusive
	Violated
)

func (v Verdict) String() string {
	return [...]string{"valid", "inconclusive", "violated"}[v]
}

// MarshalText makes it a word in JSON.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// Figure is a number of a result, with what it counts.
type Figure struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Result is what a checker found.
type Result struct {
	Checker string   `json:"checker"`
	Verdict Verdict  `json:"verdict"`
	Figures []Figure `json:"figures,omitempty"`
	// Findings are what is wrong, at most maxFindings of them, a sentence or a
	// small report each; Found is how many there were.
	Findings []string `json:"findings,omitempty"`
	Found    int      `json:"found,omitempty"`
	// Files are what the checker wants kept with the report, by name.
	Files map[string][]byte `json:"-"`
}

const maxFindings = 10

// NewResult returns a valid result without a finding.
func NewResult(checker string) *Result { return &Result{Checker: checker} }

// violated notes something that must not be.
func (r *Result) violated(format string, args ...any) {
	r.Verdict = Violated
	r.note(format, args...)
}

// inconclusive notes why the checker cannot say.
func (r *Result) inconclusive(format string, args ...any) {
	r.Verdict = max(r.Verdict, Inconclusive)
	r.note(format, args...)
}

func (r *Result) note(format string, args ...any) {
	r.Found++
	if len(r.Findings) < maxFindings {
		r.Findings = append(r.Findings, fmt.Sprintf(format, args...))
	}
}

func (r *Result) figure(name string, value any) {
	r.Figures = append(r.Figures, Figure{name, fmt.Sprint(value)})
}

// at is a time of the record for people.
func at(ns int64) string { return time.Duration(ns).Round(time.Microsecond).String() }
