// Command trivet is the one binary of Trivet: it runs nodes, and it talks to
// them.
//
// # Rules
//
//  1. A command is one file, named after it: its flags, its help, what it does.
//  2. What a command does is done by the packages below (raftnode, httpapi,
//     client); here are flags, output and exit statuses.
//  3. Standard output has what was asked for and nothing else. An error is one
//     line on standard error, and the exit status says what it means (exit.go).
//  4. Nothing is global: run can be called any number of times, by tests too. What a
//     process of its own does for itself first is in its init (monitor.go).
//
// # Reading order
//
// root.go (the commands), env.go (every flag's environment variable), exit.go
// (errors and exit statuses), size.go and choice.go (kinds of flags), terminal.go
// (what is one) and child.go (processes of ours). For nodes: serve.go, listen.go,
// logging.go and hold.go, and what it has of the
// machine: processors.go, garbage.go, hugepages.go, monitor.go; dev.go with devdir.go (its folder), devnode.go (a
// process of it) and devwatch.go (what it sees of the cluster). For callers:
// endpoints.go, freshness.go, guard.go and rawhttp.go (the ways to a cluster),
// item.go (how items are printed), then get.go, put.go, delete.go, list.go,
// add.go, txn.go, watch.go with watchexec.go, lease.go, lock.go with lockrun.go (the command that runs under
// it), status.go, and bench.go.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
