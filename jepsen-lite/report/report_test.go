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

	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/history"
	"trivet/jepsen-lite/nemesis"
)

func example() *Round {
	bad := check.Recovery(11*time.Second, true, nil, 0)
	bad.Files = map[string][]byte{"register-k.html": []byte("<html>")}
	bad.Findings = []string{"a <script> in a key"}
	return &Round{
		Name: "seed 1", Seed: 1, Length: 30 * time.Second, Verdict: check.Violated,
		Workloads: []string{"register"},
		Calls: map[string][]history.Call{"register": {
			{F: "read", Type: history.OK, Invoked: 1e9, Returned: 1e9 + 2e6},
			{F: "write", Type: history.Fail, Invoked: 2e9, Returned: 2e9},
			{F: "write", Type: history.Info, Invoked: 3e9, Returned: 40e9},
		}},
		Events: []nemesis.Event{
			{Step: nemesis.Step{Lane: "process", Kind: "kill-one"}, Whom: []string{"<n1>"}, Began: 1e9, Ended: 5e9},
			{Step: nemesis.Step{Lane: "member", Kind: "transfer"}, Skipped: true},
		},
		Outcomes: []Outcome{{Workload: "register", F: "read", OK: 1}},
		Results:  []*check.Result{bad},
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	line := `{"index":0,"time":1,"process":0,"type":"invoke","f":"read","value":null}` + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, Record), []byte(line), 0o600))
	require.NoError(t, Write(dir, example()))
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(b)
	}
	page := read("index.html")
	require.Contains(t, page, `Tested with jepsen-lite: <span class="violated">violated`)
	require.Contains(t, page, `href="register-k.html"`)
	require.NotContains(t, page, "<script>")
	require.NotContains(t, page, "<n1>")
	require.Contains(t, read("history.edn"), ":type :invoke")
	require.Contains(t, read("schedule.json"), `"kill-one"`)
	require.Contains(t, read("results.json"), `"violated"`)
	require.Equal(t, "<html>", read("register-k.html"))
}

// Plots are well-formed, and nothing is drawn outside of them.
func TestPlots(t *testing.T) {
	r := example()
	for _, svg := range []string{
		string(latencies(r.Length, r.Events, r.Calls["register"])),
		string(rates(r.Length, r.Events, r.Calls["register"])),
		string(rates(0, nil, nil)),
	} {
		dec := xml.NewDecoder(strings.NewReader(svg))
		for {
			_, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
		}
		require.NotContains(t, svg, "NaN")
		require.NotContains(t, svg, "Inf")
		require.NotContains(t, svg, `"-`)
	}
}

// A record that cannot be read is told, and the rest is written all the same.
func TestWriteWithoutARecord(t *testing.T) {
	dir := t.TempDir()
	require.Error(t, Write(dir, example()))
	require.FileExists(t, filepath.Join(dir, "index.html"))
}
