package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"trivet/client"
)

const (
	// maxEnvValue is the longest value that goes into the environment: systems
	// refuse to start a program with more than 128 KiB in one variable.
	maxEnvValue = 64 << 10
	// execGrace is how long a command may go on once the watch is to end.
	execGrace = 10 * time.Second
)

// watchExec runs a shell command for each event, one after the other.
type watchExec struct {
	cmd     *cobra.Command
	command string
}

func (w *watchExec) frame(ctx context.Context, f client.WatchFrame) error {
	for _, l := range linesOf(f) {
		if ctx.Err() != nil {
			return nil
		}
		if err := w.run(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// run runs the command for one event. It fails where there is no shell to run
// it; a command that fails is only reported.
func (w *watchExec) run(ctx context.Context, l eventLine) error {
	c := exec.CommandContext(ctx, "sh", "-c", w.command)
	// Ctrl-C in a terminal reaches the command by itself; another signal that ends
	// the watch is passed on so.
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = execGrace
	// Those that the event has not must not come from elsewhere.
	inherited := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(eventVariables, name)
	})
	c.Env = append(inherited, l.environment()...)
	c.Stdin = bytes.NewReader(l.item.Value)
	c.Stdout, c.Stderr = w.cmd.OutOrStdout(), w.cmd.ErrOrStderr()
	if err := c.Start(); err != nil {
		return failf(exitUsage, "--exec: %v", err)
	}
	if err := c.Wait(); err != nil && ctx.Err() == nil {
		fmt.Fprintf(w.cmd.ErrOrStderr(), "trivet: --exec: %v, at %s of %s at revision %d\n", err, l.name, shown(l.item.Key), l.item.ModRevision)
	}
	return nil
}

// eventVariables are all that environment may set.
var eventVariables = []string{"TRIVET_EVENT", "TRIVET_KEY", "TRIVET_KEY64", "TRIVET_MOD_REVISION", "TRIVET_VALUE"}

// environment is what the command is told beside the value on its standard
// input.
func (l eventLine) environment() []string {
	env := []string{"TRIVET_EVENT=" + l.name}
	if l.name == "reset" {
		return env
	}
	env = append(env,
		// Not TRIVET_REVISION: a trivet get in the command would take it for its
		// --revision, and read the past.
		fmt.Sprintf("TRIVET_MOD_REVISION=%d", l.item.ModRevision),
		"TRIVET_KEY64="+base64.StdEncoding.EncodeToString([]byte(l.item.Key)))
	if !strings.Contains(l.item.Key, "\x00") {
		env = append(env, "TRIVET_KEY="+l.item.Key)
	}
	if v := l.item.Value; l.item.Value != nil && len(v) <= maxEnvValue && bytes.IndexByte(v, 0) < 0 {
		env = append(env, "TRIVET_VALUE="+string(v))
	}
	return env
}
