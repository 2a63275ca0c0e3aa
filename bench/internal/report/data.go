package report

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"trivet/bench/internal/rows"
)

// Data is a whole run.
type Data struct {
	Began   time.Time     `json:"began"`
	Took    time.Duration `json:"took_ns"`
	Machine Machine       `json:"machine"`
	Quick   bool          `json:"quick"`
	Plan    rows.Plan     `json:"plan"`
	// Rows are those of the plan.
	Rows []rows.Row `json:"rows"`
	// Versions are those of the systems that were measured, by name; LeftOut says of
	// the others why they were not.
	Versions map[string]string `json:"versions"`
	LeftOut  map[string]string `json:"left_out,omitempty"`
	Results  []rows.Result     `json:"results"`
}

// Machine is what it was measured on.
type Machine struct {
	CPU       string `json:"cpu"`
	Cores     int    `json:"cores"`
	MemoryMiB int    `json:"memory_mib"`
	Kernel    string `json:"kernel"`
	Go        string `json:"go"`
	// SyncMS is the median time of an fdatasync of a 4 KiB append, in milliseconds,
	// in the folder that the data were in.
	SyncMS float64 `json:"sync_ms"`
}

// Write writes d to a file, whole or not at all.
func (d *Data) Write(path string) error {
	text, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temporary, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// Read reads what Write has written.
func Read(path string) (*Data, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := new(Data)
	return d, json.Unmarshal(text, d)
}

// Column is a system, spoken to in a way.
type Column struct{ System, Way string }

// columns returns those that were measured, in the order of the report.
func (d *Data) columns() []Column {
	var c []Column
	for _, known := range []Column{{"trivet", "http"}, {"trivet", "go"}, {"etcd", "go"}, {"etcd", "http"}, {"postgres", "go"}, {"redis", "go"}} {
		if _, measured := d.Versions[known.System]; measured {
			c = append(c, known)
		}
	}
	return c
}

// Name is the column's for people.
func (c Column) Name() string {
	switch c {
	case Column{"trivet", "http"}:
		return "Trivet, plain HTTP"
	case Column{"trivet", "go"}:
		return "Trivet, Go client"
	case Column{"etcd", "http"}:
		return "etcd, JSON gateway"
	case Column{"etcd", "go"}:
		return "etcd, Go client"
	case Column{"postgres", "go"}:
		return "PostgreSQL, one node"
	case Column{"redis", "go"}:
		return "Redis, one node"
	}
	return c.System + ", " + c.Way
}

// cell is what was measured of a row in a column.
type cell struct {
	// value is the median over the rounds that have one; n is how many have.
	value float64
	n     int
	// median is the result whose value that is.
	median      rows.Result
	unsupported bool
	failed      string
}

func (d *Data) cell(row string, c Column) cell {
	var out cell
	var values []float64
	var results []rows.Result
	for _, r := range d.Results {
		if r.Row != row || r.System != c.System || r.Way != c.Way {
			continue
		}
		switch {
		case r.Unsupported:
			out.unsupported = true
		case r.Error != "":
			out.failed = r.Error
		default:
			values, results = append(values, r.Value), append(results, r)
		}
	}
	out.n, out.value = len(values), rows.Median(values)
	for _, r := range results {
		if r.Value == out.value {
			out.median = r
		}
	}
	return out
}

// ratio returns what a row's target is compared with: the value to that of the base.
// It is false where one of them is missing.
func (d *Data) ratio(row rows.Row, c Column) (float64, bool) {
	v := d.cell(row.ID, c)
	switch {
	case v.n == 0:
		return 0, false
	case row.Own:
		return v.value, true
	}
	base := d.cell(row.ID, Column{rows.BaseSystem, rows.BaseWay})
	if row.Base != "" {
		base = d.cell(row.Base, c)
	}
	// Memory and restart are measured once for a system, not for each of its ways.
	if base.n == 0 && row.Base == "" {
		base = d.cell(row.ID, Column{rows.BaseSystem, "http"})
	}
	if base.n == 0 || base.value == 0 {
		return 0, false
	}
	return v.value / base.value, true
}
