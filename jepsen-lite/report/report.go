package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
	"trivet/jepsen-lite/nemesis"
)

// Round is what there is to report.
type Round struct {
	Name    string
	Seed    int64
	Length  time.Duration
	Verdict check.Verdict
	Plan    []nemesis.Step
	Events  []nemesis.Event
	// Workloads are the names, in the order of the page; Calls are theirs.
	Workloads     []string
	Calls         map[string][]history.Call
	Outcomes      []Outcome
	Results       []*check.Result
	LeaderChanges int
	Recoveries    []time.Duration
	// Logs are paths of the nodes' logs, for the page to point at.
	Logs []string
}

// Outcome counts the ends of the operations of one f.
type Outcome struct {
	Workload      string        `json:"workload"`
	F             string        `json:"f"`
	OK            int           `json:"ok"`
	Fail          int           `json:"fail"`
	Info          int           `json:"info"`
	Median, Worst time.Duration // of those that are OK
}

// Record is the name of the record in a report's folder, which is there before
// Write is called.
const Record = "history.jsonl"

// Write writes the report into a folder.
func Write(dir string, r *Round) error {
	page, err := r.page(dir)
	if err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "index.html"), page, 0o644),
		writeJSON(dir, "schedule.json", map[string]any{"seed": r.Seed, "plan": r.Plan, "events": r.Events}),
		writeJSON(dir, "results.json", map[string]any{
			"verdict": r.Verdict, "outcomes": r.Outcomes, "leader_changes": r.LeaderChanges, "results": r.Results,
		}),
		writeEDN(dir),
	)
	for _, result := range r.Results {
		for name, content := range result.Files {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), content, 0o644))
		}
	}
	return err
}

func writeJSON(dir, name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(filepath.Join(dir, name), append(b, '\n'), 0o644)
}

func writeEDN(dir string) (err error) {
	in, err := os.Open(filepath.Join(dir, Record))
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(dir, "history.edn"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	return history.EDN(out, in)
}
