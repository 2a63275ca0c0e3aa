package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivettest"
)

func runMain(args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	status = execute(context.Background(), args, &out, &err)
	return status, out.String(), err.String()
}

// The way of a user with a cluster of his own: every workload, no faults, a
// report. Real processes and faults are what `make jepsen` is for.
func TestEndpoints(t *testing.T) {
	c := trivettest.Start(t)
	dir := t.TempDir()
	status, stdout, stderr := runMain("--endpoints", strings.Join(c.Endpoints(), ","), "--duration", "3s", "--report", dir)
	require.Equal(t, exitValid, status, "%s%s", stdout, stderr)
	require.Contains(t, stdout, "\nvalid\n")
	for _, name := range []string{"index.html", "history.jsonl", "history.edn", "schedule.json", "results.json"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NotZero(t, info.Size(), name)
	}
}

// A cluster that is not there breaks no promise, and is not called valid.
func TestNobodyThere(t *testing.T) {
	status, stdout, _ := runMain("--endpoints", "http://127.0.0.1:1", "--duration", "1s", "--workloads", "register", "--report", t.TempDir())
	require.Equal(t, exitInconclusive, status, stdout)
	require.Contains(t, stdout, "inconclusive")
}

func TestWrongCommandLines(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--duration", "0s"}, "--duration"},
		{[]string{"--round", "1ms"}, "--round"},
		{[]string{"--pace", "-1s"}, "--pace"},
		{[]string{"--timeout", "1ms"}, "--timeout"},
		{[]string{"--workloads", "registers"}, `"registers"`},
		{[]string{"--endpoints", "http://127.0.0.1:1", "--faults", "kill-one"}, "--faults"},
		{[]string{"--root", "--rootless"}, "--root"},
		{[]string{"--endpoints", "127.0.0.1:1"}, `"127.0.0.1:1" is not http://HOST:PORT`},
		{[]string{"--endpoints", "https://127.0.0.1:1"}, "is not http://HOST:PORT"},
		{[]string{"--endpoints", "http://127.0.0.1"}, "is not http://HOST:PORT"},
		{[]string{"--endpoints", "http://127.0.0.1:1/trivet"}, "is not http://HOST:PORT"},
		{[]string{"--endpoints", "http://127.0.0.1:1,http://127.0.0.1:1"}, "twice"},
		{[]string{"--nodes", "10", "--binary", "trivet"}, "1 to 9"},
		{[]string{"--binary", "/no/such/trivet"}, "/no/such/trivet"},
		{[]string{"--colour"}, "colour"},
		{[]string{"run"}, "run"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			status, _, stderr := runMain(append(c.args, "--report", t.TempDir())...)
			require.Equal(t, exitNoRun, status)
			require.Contains(t, stderr, c.want)
		})
	}
}
