package main

import (
	"github.com/spf13/cobra"

	"trivet/client"
)

func newGet() *cobra.Command {
	var verbose bool
	var revision uint64
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Print the value of a key: its bytes as they are, with nothing behind them. -v and
--json print the whole item.

The answer is linearizable by default, whatever node gives it: it sees every
write that was acknowledged before. --consistency asks for less, --revision for
an old state, as long as it is retained.

Exit status 1 where there is no such key. A key that starts with a dash goes
behind a "--".`,
		Example: `  trivet get greeting
  trivet get -v greeting
  trivet get greeting --max-staleness 200ms
  trivet get greeting --revision 7`,
		Args: takes(1, 1),
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print the whole item: value, revisions, version, lease")
	cmd.Flags().Uint64Var(&revision, "revision", 0, "read the state as of this revision")
	read := addReadFlags(cmd)
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		freshness, err := read.freshness(cmd)
		if err != nil {
			return err
		}
		var options []client.GetOption
		for _, o := range freshness {
			options = append(options, o)
		}
		if cmd.Flags().Changed("revision") {
			options = append(options, client.AtRevision(revision))
		}
		c, ctx, end, err := f.open(cmd, false)
		if err != nil {
			return err
		}
		defer end()
		item, err := c.Get(ctx, args[0], options...)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		switch {
		case f.json:
			return newJSON(out).Encode(jsonOf(item))
		case verbose:
			return printItem(out, item)
		}
		_, err = out.Write(item.Value)
		return err
	})
	return cmd
}
