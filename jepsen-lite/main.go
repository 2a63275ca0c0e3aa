// Command jepsen-lite attacks a cluster of real processes and checks what its
// clients saw. See README.md beside it, and doc.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"trivet/jepsen-lite/check"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// Exit statuses: the verdict, and 3 for what is no verdict at all.
const (
	exitValid        = 0
	exitViolated     = 1
	exitInconclusive = 2
	exitNoRun        = 3
)

func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	verdict := check.Inconclusive
	cmd := &cobra.Command{
		Use:   "jepsen-lite",
		Short: "Attack a cluster and check what its clients saw",
		Long: `Start a cluster of real processes, work on it with recorded clients while it is
killed, paused and cut apart, check every history, and print the verdict.

The seed makes the plan of faults and what clients ask; how goroutines, nodes
and the network interleave is not its to decide, so that a violation may take a
few runs to show again.

With --endpoints it works on a cluster that runs already, and does it no harm
but the load. Its keys are all below jepsen-lite/.

Exit status: 0 valid, 1 violated, 2 inconclusive (a checker ran out of time, or
so little happened that the run shows nothing), 3 it could not be run.`,
		Example: `  go run ./jepsen-lite --duration 60s --seed 1 --report report
  go run ./jepsen-lite --workloads register,append --faults kill-leader,link
  go run ./jepsen-lite --endpoints http://127.0.0.1:7071,http://127.0.0.1:7072`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			verdict, err = o.run(cmd.Context(), stdout)
			return err
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.DurationVar(&o.duration, "duration", time.Minute, "how long the clients work, all rounds together")
	f.DurationVar(&o.round, "round", 2*time.Minute, "longest a round: a longer run is several, each checked by itself")
	f.Int64Var(&o.seed, "seed", 1, "of the plan and of what clients ask")
	f.StringSliceVar(&o.workloads, "workloads", nil, "some of them by name (default: all)")
	f.StringSliceVar(&o.faults, "faults", nil, "some of them by name, or by lane: process, link, client, member, clock, disk; or none (default: all that can be done here)")
	f.IntVar(&o.nodes, "nodes", 3, "members, 1 to 9")
	f.StringVar(&o.reportDir, "report", "", "folder for the report; without it a run that is valid leaves nothing")
	f.BoolVar(&o.rootless, "rootless", false, "loopback, forwarders and signals, also where it is root")
	f.BoolVar(&o.root, "root", false, "namespaces, a switch and disks of its own, or nothing (default: where that can be had)")
	f.StringSliceVar(&o.endpoints, "endpoints", nil, "URLs of a running cluster's nodes: no faults are done")
	f.BoolVar(&o.wallClocks, "wall-clocks", false, "build trivet such that the wall clock of each process can jump, and have them do so (the first time that takes minutes)")
	f.StringVar(&o.tags, "tags", "", "build tags of the trivet that is built")
	f.StringVar(&o.binary, "binary", "", "trivet's (default: built from this module)")
	f.StringSliceVar(&o.serveArgs, "serve-args", nil, "more arguments of every `trivet serve`")
	f.DurationVar(&o.pace, "pace", 15*time.Millisecond, "how long a client rests between two operations, on average")
	f.DurationVar(&o.timeout, "timeout", 2*time.Second, "how long a node has for an answer")
	f.DurationVar(&o.checkTime, "check-time", time.Minute, "how long a checker may take for a round")
	f.IntVar(&o.basePort, "base-port", 0, "first of a block of ports on loopback (default: a free one)")
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	if err := cmd.ExecuteContext(ctx); err != nil {
		if !errors.Is(err, context.Canceled) {
			fmt.Fprintln(stderr, "jepsen-lite:", err)
		}
		return exitNoRun
	}
	switch verdict {
	case check.Valid:
		return exitValid
	case check.Violated:
		return exitViolated
	}
	return exitInconclusive
}
