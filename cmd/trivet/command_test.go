package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"trivet/client"
)

// TestHelp holds every command to having all that its help is made of, and every
// flag to having a line of its own.
func TestHelp(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.HasParent() {
			require.NotEmpty(t, cmd.Short, cmd.CommandPath())
			require.NotEmpty(t, cmd.Long, cmd.CommandPath())
			require.NotEmpty(t, cmd.Example, cmd.CommandPath())
			require.False(t, strings.HasSuffix(cmd.Short, "."), cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Long + "\n" + cmd.Example) {
			require.LessOrEqual(t, len([]rune(strings.TrimRight(line, "\n"))), 82, line)
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			require.NotEmpty(t, f.Usage, "%s --%s", cmd.CommandPath(), f.Name)
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
}

func TestNegativeDelta(t *testing.T) {
	for line, want := range map[string]string{
		"add k -5":            "add k -- -5",
		"add k -5 --json":     "add k --json -- -5",
		"add --json k -5":     "add --json k -- -5",
		"add k 5":             "add k 5",
		"add -- k -5":         "add -- k -5",
		"put k -5":            "put k -5",
		"add k --timeout 1s":  "add k --timeout 1s",
		"get --endpoints x k": "get --endpoints x k",
	} {
		got := negativeDelta(newRoot(), strings.Fields(line))
		require.Equal(t, want, strings.Join(got, " "))
	}
}

func TestExitStatus(t *testing.T) {
	for _, tc := range []struct {
		err    client.Error
		status int
	}{
		{client.Error{Code: "key_not_found", Outcome: client.NotApplied}, exitNo},
		{client.Error{Code: "precondition_failed", Outcome: client.NotApplied}, exitNo},
		{client.Error{Code: "not_a_number", Outcome: client.NotApplied}, exitNo},
		{client.Error{Code: "bad_key", Outcome: client.NotApplied}, exitUsage},
		{client.Error{Code: "too_large", Outcome: client.NotApplied}, exitUsage},
		{client.Error{Code: "future_revision", Outcome: client.NotApplied}, exitUsage},
		{client.Error{Code: "compacted", Outcome: client.NotApplied}, exitUnserved},
		{client.Error{Code: "no_leader", Outcome: client.NotApplied}, exitUnserved},
		{client.Error{Code: "quota_exceeded", Outcome: client.NotApplied}, exitUnserved},
		{client.Error{Code: "permission_denied", Outcome: client.NotApplied}, exitUnserved},
		{client.Error{Code: "timeout", Outcome: client.NotApplied}, exitUnserved},
		{client.Error{Code: "timeout", Outcome: client.Unknown}, exitUnknown},
		{client.Error{Code: "bad_response", Outcome: client.Unknown}, exitUnknown},
	} {
		err := withStatus(exitUnserved, fmt.Errorf("wrapped: %w", &tc.err))
		status, line := explain(&cobra.Command{}, err)
		require.Equal(t, tc.status, status, tc.err)
		require.Contains(t, line, tc.err.Code)
	}
	status, line := explain(&cobra.Command{}, withStatus(exitNo, errors.New("trivet: first\n\n\tsecond\r\n")))
	require.Equal(t, exitNo, status)
	require.Equal(t, "first; second", line)
	status, line = explain(&cobra.Command{}, &exitError{status: exitNo})
	require.Equal(t, exitNo, status)
	require.Empty(t, line)
}

// TestOutputThatFails: a result that cannot be printed is told, and a write is
// not called unapplied for it.
func TestOutputThatFails(t *testing.T) {
	var stderr bytes.Buffer
	status := run(context.Background(), []string{"version"}, nil, failingWriter{}, &stderr)
	require.Equal(t, exitUnserved, status)
	require.Equal(t, "trivet: no room\n", stderr.String())
	status, line := explain(&cobra.Command{}, withStatus(exitUnserved, done(errors.New("no room"))))
	require.Equal(t, exitUnknown, status)
	require.Contains(t, line, "applied, but")
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no room") }

func TestShown(t *testing.T) {
	for text, want := range map[string]string{
		"plain":     "plain",
		"a b é €":   "a b é €",
		"":          "",
		"tab\t":     `"tab\t"`,
		"a\nb":      `"a\nb"`,
		`"quoted"`:  `"\"quoted\""`,
		`in"side`:   `in"side`,
		"\xff":      `"\xff"`,
		"\x1b[31m!": `"\x1b[31m!"`,
	} {
		require.Equal(t, want, shown(text))
	}
}

func TestOnlyLoopback(t *testing.T) {
	for host, ok := range map[string]bool{
		"127.0.0.1": true, "127.1.2.3": true, "::1": true, "localhost": true,
		"": false, "0.0.0.0": false, "::": false, "10.0.0.1": false, "8.8.8.8": false, "fe80::1": false, "::ffff:10.0.0.1": false,
		"::ffff:127.0.0.1": true,
	} {
		err := onlyLoopback(t.Context(), host)
		require.Equal(t, ok, err == nil, "%q: %v", host, err)
	}
	ln, err := listen(t.Context(), "api", "127.0.0.1:0", false)
	require.NoError(t, err)
	defer ln.Close()
	require.True(t, isLoopback(ln.Addr()))
	require.Equal(t, ln.Addr().String(), reachable("127.0.0.1:0", ln))
	require.Equal(t, net.JoinHostPort("localhost", portOf(ln)), reachable("localhost:0", ln))
	require.Empty(t, reachable("0.0.0.0:0", ln))
	require.Empty(t, reachable(":0", ln))
}

func TestMix(t *testing.T) {
	for text, gets := range map[string]int{"put": 0, "get": 100, "90/10": 90, "0/100": 0} {
		var m mix
		require.NoError(t, m.Set(text))
		require.Equal(t, gets, m.getPercent)
	}
	for _, text := range []string{"", "puts", "90", "90/20", "-10/110", "a/b", "50/50/0"} {
		require.Error(t, new(mix).Set(text), text)
	}
}

func TestDevEnvironment(t *testing.T) {
	require.Equal(t, []string{"PATH=/bin", "TRIVET_QUOTA=1GiB", "TRIVET_DATADOG=x"}, devEnv([]string{
		"TRIVET_ID=n9", "PATH=/bin", "TRIVET_API=0.0.0.0:1", "TRIVET_QUOTA=1GiB", "TRIVET_ADVERTISE_PEER=x:1", "TRIVET_DATADOG=x",
		"TRIVET_DATA=d",
	}))
}

// TestFreshIsFinishedAfterACrash: a crash between the first and the last file
// that --fresh deletes leaves nothing of the old cluster to the new one.
func TestFreshIsFinishedAfterACrash(t *testing.T) {
	path := t.TempDir()
	open := func(w devWants) *devDir {
		d, err := openDevDir(path, w)
		require.NoError(t, err)
		return d
	}
	d := open(devWants{})
	require.NoError(t, d.create())
	for _, id := range []string{"n1", "n2", "n3"} {
		require.NoError(t, os.MkdirAll(d.data(id), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(d.data(id), "member.json"), nil, 0o600))
		require.NoError(t, os.WriteFile(d.log(id), nil, 0o600))
	}
	require.NoError(t, d.begun())
	token := d.state.Token
	d.close()

	// As far as the crash: the new cluster is written down, n1 is deleted.
	d = open(devWants{fresh: true, nodes: 2})
	require.NotEqual(t, token, d.state.Token)
	require.NoError(t, d.save())
	require.NoError(t, os.RemoveAll(d.data("n1")))
	token = d.state.Token
	d.close()

	d = open(devWants{})
	require.Equal(t, token, d.state.Token)
	require.Equal(t, 2, d.state.Nodes)
	require.NoError(t, d.create())
	for _, id := range []string{"n1", "n2", "n3"} {
		require.NoFileExists(t, d.log(id))
		require.NoDirExists(t, d.data(id))
	}
	d.close()

	d = open(devWants{})
	require.Equal(t, token, d.state.Token)
	require.Zero(t, d.state.Clear)
	d.close()
}

func TestLastLine(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	require.Empty(t, lastLine(name, 0))
	require.NoError(t, os.WriteFile(name, []byte("one\ntwo\nthree\n"), 0o600))
	require.Equal(t, "three", lastLine(name, 0))
	require.Empty(t, lastLine(name, 14))
	require.Empty(t, lastLine(name, 1000))
	require.NoError(t, os.WriteFile(name, bytes.Repeat([]byte("0123456789abcdef\n"), 4000), 0o600))
	require.Equal(t, "0123456789abcdef", lastLine(name, 0))
}
