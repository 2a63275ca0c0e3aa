package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"

	"github.com/spf13/cobra"
)

// run runs one command line and returns its exit status. A context that ends is
// to a command what Ctrl-C is.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(negativeDelta(root, args))
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	status, line := explain(cmd, err)
	if line != "" {
		fmt.Fprintln(stderr, "trivet: "+line)
	}
	return status
}

// The groups that help shows the commands in.
const (
	groupRun  = "run"
	groupTalk = "talk"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "trivet",
		Short: "A replicated key-value store: shared state under a pool of stateless services",
		Long: `Trivet is the shared state under a pool of stateless service instances: a small
cluster that replicates a key-value store with Raft, takes writes and serves
reads on every node, and loses nothing that it has acknowledged.

This one binary runs nodes and talks to them. The quickest way to see it:

  trivet dev                      three nodes on this machine
  trivet put greeting hello       in another terminal
  trivet get greeting
  trivet status`,
		Version: version(),
		// Errors are printed once, as one line (run).
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return applyEnv(cmd.Flags())
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetUsageTemplate(usageTemplate)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run nodes:"},
		&cobra.Group{ID: groupTalk, Title: "Talk to a cluster:"},
	)
	for _, cmd := range []*cobra.Command{newDev(), newServe(), newRecover()} {
		cmd.GroupID = groupRun
		root.AddCommand(cmd)
	}
	for _, cmd := range []*cobra.Command{
		newGet(), newPut(), newDelete(), newList(), newAdd(), newTxn(), newWatch(), newLease(), newLock(), newSnapshot(),
		newStatus(), newCluster(), newBench(),
	} {
		cmd.GroupID = groupTalk
		root.AddCommand(cmd)
	}
	root.AddCommand(newVersion())
	return root
}

// action makes f what a command does. An error of f that says no exit status of
// its own exits with the given one; errors that come before f, from the parsing
// of the command line, are wrong usage.
func action(status int, f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return withStatus(status, f(cmd, args))
	}
}

// takes makes a command take from least to most arguments.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("an argument is missing: %s", cmd.UseLine())
		case len(args) > most:
			return fmt.Errorf("unexpected argument %q: %s", args[most], cmd.UseLine())
		}
		return nil
	}
}

var negativeNumber = regexp.MustCompile(`^-[0-9]+$`)

// negativeDelta lets `trivet add KEY -5` mean what it says. The flag parser
// would take -5 for a flag, so the number goes to the end, behind a "--".
func negativeDelta(root *cobra.Command, args []string) []string {
	if cmd, _, err := root.Find(args); err != nil || cmd.Name() != "add" || slices.Contains(args, "--") {
		return args
	}
	i := slices.IndexFunc(args, negativeNumber.MatchString)
	if i < 0 {
		return args
	}
	moved := slices.Delete(slices.Clone(args), i, i+1)
	return append(moved, "--", args[i])
}

// usageTemplate is cobra's, in this program's words, with the line about the
// environment.
const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) .IsAvailableCommand)}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}

{{if .Groups}}And:{{else}}Commands:{{end}}{{range $cmds}}{{if (and (eq .GroupID "") (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

Use "{{.CommandPath}} COMMAND --help" for more about a command.{{else}}

Every flag can be set by an environment variable too, --some-flag by
TRIVET_SOME_FLAG; a flag on the command line wins.{{end}}
`
