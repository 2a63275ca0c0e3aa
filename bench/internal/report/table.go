package report

import (
	"fmt"
	"math"
	"strings"

	"trivet/bench/internal/rows"
)

// Table returns the comparison: a row of it a line, with the value of each column
// and, in parentheses, the ratio to etcd's Go client in the same row.
func (d *Data) Table() string {
	var b strings.Builder
	columns := d.columns()
	b.WriteString("| |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.Name())
	}
	b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(columns)) + "\n")
	for _, row := range d.Rows {
		fmt.Fprintf(&b, "| %s, %s |", row.Title, row.Unit)
		for _, c := range columns {
			fmt.Fprintf(&b, " %s |", d.cellText(row, c))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (d *Data) cellText(row rows.Row, c Column) string {
	v := d.cell(row.ID, c)
	switch {
	case v.n == 0 && v.failed != "":
		return "failed"
	case v.n == 0:
		return "–"
	}
	text := Number(v.value)
	// The base needs no ratio to itself, nor does a value that is one.
	plain := row
	plain.Base = ""
	if ratio, ok := d.ratio(plain, c); ok && !row.Own && (c != Column{rows.BaseSystem, rows.BaseWay}) && ratio != 1 {
		text += fmt.Sprintf(" (%s×)", Ratio(ratio))
	}
	return text
}

// Targets returns what Trivet is to reach and what it has reached.
func (d *Data) Targets() string {
	var b strings.Builder
	b.WriteString("| | plain HTTP | to reach | | Go client | to reach | |\n| --- | ---: | ---: | --- | ---: | ---: | --- |\n")
	for _, row := range d.Rows {
		if len(row.Targets) == 0 {
			continue
		}
		title := row.Title
		if row.Base != "" {
			title += ", to that at the fewest keys"
		}
		fmt.Fprintf(&b, "| %s |", title)
		for _, way := range []string{"http", "go"} {
			b.WriteString(d.targetText(row, way))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (d *Data) targetText(row rows.Row, way string) string {
	target, has := row.Targets[way]
	if !has {
		return " | | |"
	}
	sign := "≥"
	if row.Lower {
		sign = "≤"
	}
	ratio, ok := d.ratio(row, Column{"trivet", way})
	if !ok {
		return fmt.Sprintf(" – | %s %s× | not measured |", sign, Ratio(target))
	}
	verdict := "no"
	if Reached(row, ratio, target) {
		verdict = "yes"
	}
	return fmt.Sprintf(" %s× | %s %s× | %s |", Ratio(ratio), sign, Ratio(target), verdict)
}

// Reached says whether a ratio is as good as a target.
func Reached(row rows.Row, ratio, target float64) bool {
	if row.Lower {
		return ratio <= target
	}
	return ratio >= target
}

// Number writes a value with three digits that count, and a comma between thousands.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a < 1:
		return fmt.Sprintf("%.3f", v)
	case a < 10:
		return fmt.Sprintf("%.2f", v)
	case a < 100:
		return fmt.Sprintf("%.1f", v)
	}
	digits := int(math.Floor(math.Log10(math.Abs(v)))) + 1
	unit := math.Pow(10, float64(max(0, digits-3)))
	text := fmt.Sprintf("%.0f", math.Round(v/unit)*unit)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// Ratio writes a ratio with two digits that count.
func Ratio(r float64) string {
	switch {
	case r >= 10:
		return fmt.Sprintf("%.0f", r)
	case r >= 1:
		return fmt.Sprintf("%.1f", r)
	}
	return fmt.Sprintf("%.2f", r)
}
