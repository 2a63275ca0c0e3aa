package report

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/bench/internal/load"
	"trivet/bench/internal/rows"
)

// example is a run with figures that are easy to check.
func example() *Data {
	plan := rows.Full()
	plan.Sizes = []int{1000, 2000}
	d := &Data{
		Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: time.Hour, Machine: Machine{CPU: "a <cpu> & more", Cores: 2, SyncMS: 0.26},
		Plan: plan, Rows: rows.List(plan), Versions: map[string]string{"trivet": "1", "etcd": "3.7"}, LeftOut: map[string]string{"redis": "redis-server is not installed"},
	}
	add := func(system, way, row string, values ...float64) {
		for i, v := range values {
			d.Results = append(d.Results, rows.Result{System: system, Way: way, Row: row, Round: i + 1, Value: v, Load: &load.Summary{
				Ops: 1000, OpsPerSecond: v, P50: time.Millisecond, P99: 2 * time.Millisecond, ServerCPU: 0.05, ClientCPU: 0.01}})
		}
	}
	add("etcd", "go", "put-64", 900, 1000, 5000)
	add("trivet", "http", "put-64", 2500, 2400, 2600)
	add("trivet", "go", "put-64", 7999)
	add("etcd", "go", "put-1", 1)
	add("trivet", "http", "put-1", 0.6)
	add("trivet", "go", "put-1", 0.7)
	add("etcd", "http", "memory", 1000) // once for the system, through its first way
	add("trivet", "http", "memory", 600)
	add("trivet", "go", "snapshot", 1.4) // a ratio itself
	for _, at := range []string{"put-at-1000", "put-at-2000"} {
		add("etcd", "go", at, 10)
	}
	add("trivet", "go", "put-at-1000", 1000)
	add("trivet", "go", "put-at-2000", 790)
	d.Results = append(d.Results,
		rows.Result{System: "etcd", Way: "http", Row: "watch", Round: 1, Unsupported: true},
		rows.Result{System: "trivet", Way: "go", Row: "watch", Round: 1, Error: "it\nbroke"})
	return d
}

func TestRatios(t *testing.T) {
	d := example()
	for _, test := range []struct {
		row, way string
		ratio    float64
		reached  bool
	}{
		{"put-64", "http", 2.5, true},      // of medians
		{"put-64", "go", 7.999, false},     // at least 8
		{"put-1", "http", 0.6, true},       // at most
		{"put-1", "go", 0.7, false},        //
		{"memory", "http", 0.6, false},     // to the one way that it was measured by
		{"snapshot", "go", 1.4, true},      // to nothing
		{"put-at-2000", "go", 0.79, false}, // to itself with fewer keys
	} {
		for _, row := range d.Rows {
			if row.ID != test.row {
				continue
			}
			ratio, ok := d.ratio(row, Column{"trivet", test.way})
			require.True(t, ok, test.row)
			require.InDelta(t, test.ratio, ratio, 1e-9, test.row)
			require.Equal(t, test.reached, Reached(row, ratio, row.Targets[test.way]), test.row)
		}
	}
	_, ok := d.ratio(rows.Row{ID: "get-64"}, Column{"trivet", "go"})
	require.False(t, ok, "nothing was measured")
}

func TestTable(t *testing.T) {
	table := example().Table()
	lines := strings.Split(table, "\n")
	require.Equal(t, "| | Trivet, plain HTTP | Trivet, Go client | etcd, Go client | etcd, JSON gateway |", lines[0])
	require.Contains(t, table, "| put, 64 callers, ops/s | 2,500 (2.5×) | 8,000 (8.0×) | 1,000 | – |")
	require.Contains(t, table, "| watch, 100 watches of one client, 16 writers, events/s | – | failed | – | – |")
	require.Contains(t, table, "| – | 1.40 | – | – |") // the snapshot's is a ratio, and has none
	require.NotContains(t, table, "Redis", "it was left out")
}

func TestTargets(t *testing.T) {
	text := example().Targets()
	require.Contains(t, text, "| put, 64 callers | 2.5× | ≥ 2.5× | yes | 8.0× | ≥ 8.0× | no |")
	require.Contains(t, text, "| put, 1 caller | 0.60× | ≤ 0.60× | yes | 0.70× | ≤ 0.60× | no |")
	require.Contains(t, text, "to that at the fewest keys | – | ≥ 0.80× | not measured | 0.79× | ≥ 0.80× | no |")
}

func TestMarkdownTellsWhatIsMissing(t *testing.T) {
	text := example().Markdown("plots")
	require.Contains(t, text, "redis was left out: redis-server is not installed")
	require.Contains(t, text, "watch, Trivet, Go client, round 1 failed: it broke")
	require.Contains(t, text, "](plots/throughput.svg)")
	require.Contains(t, text, "| etcd, Go client | 1,000 | 1.00 | 0 | 2.00 | 0 | 50.0 | 10.0 |")
	require.NotContains(t, text, "quick run")
	quick := example()
	quick.Quick = true
	require.Contains(t, quick.Markdown(""), "quick run")
}

// TestPlotsAreXML: whatever a title has in it.
func TestPlotsAreXML(t *testing.T) {
	d := example()
	d.Rows[1].Title = `<put> & "more"`
	plots := d.Plots()
	require.Len(t, plots, 3)
	for _, p := range plots {
		dec := xml.NewDecoder(strings.NewReader(p.SVG))
		for {
			_, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, p.Name)
		}
		require.NotContains(t, p.SVG, "NaN")
		require.NotContains(t, p.SVG, "Inf")
	}
	empty := &Data{Plan: rows.Full(), Rows: rows.List(rows.Full())}
	require.Empty(t, empty.Plots())
	require.NotEmpty(t, empty.Markdown(""))
}

func TestLogScale(t *testing.T) {
	s := newLogScale([]float64{0, 20, 3000}, 300)
	require.Equal(t, []float64{10, 100, 1000, 10000}, s.ticks())
	require.InDelta(t, 0, s.at(10), 1e-9)
	require.InDelta(t, 100, s.at(100), 1e-9)
	require.InDelta(t, 300, s.at(10000), 1e-9)
	require.InDelta(t, 0, s.at(0), 1e-9)
}

func TestNumber(t *testing.T) {
	for text, v := range map[string]float64{"0": 0, "0.123": 0.1234, "1.23": 1.234, "12.3": 12.34, "123": 123.4, "1,230": 1234, "12,300": 12345, "1,230,000": 1234567} {
		require.Equal(t, text, Number(v))
	}
	require.Equal(t, "12", Ratio(12.3))
	require.Equal(t, "0.05", Ratio(0.05))
}

func TestReplaceSection(t *testing.T) {
	doc := "before\n" + sectionBegin + "\nold\n" + sectionEnd + "\nafter\n"
	once, err := ReplaceSection(doc, "new\n")
	require.NoError(t, err)
	require.Equal(t, "before\n"+sectionBegin+"\n\nnew\n\n"+sectionEnd+"\nafter\n", once)
	twice, err := ReplaceSection(once, "new\n")
	require.NoError(t, err)
	require.Equal(t, once, twice)
	for _, bad := range []string{"none", sectionBegin, doc + sectionEnd, sectionEnd + sectionBegin} {
		same, err := ReplaceSection(bad, "new")
		require.Error(t, err)
		require.Equal(t, bad, same)
	}
}

func TestDataIsReadAsItWasWritten(t *testing.T) {
	d := example()
	path := filepath.Join(t.TempDir(), "report.json")
	require.NoError(t, d.Write(path))
	again, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, d.Markdown("x"), again.Markdown("x"))
	left, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, left, 1)
}
