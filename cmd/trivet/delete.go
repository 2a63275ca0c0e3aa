package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"trivet/client"
)

func newDelete() *cobra.Command {
	var prefix string
	var ifRevision uint64
	cmd := &cobra.Command{
		Use:   "delete (KEY | --prefix P)",
		Short: "Delete a key, or all keys with a prefix",
		Long: `Delete a key, or all keys that start with a prefix, these at one revision.

Exit status 1 where there is no such key, or --if-revision or --guard does not
hold; a prefix that no key has is no failure.`,
		Example: `  trivet delete greeting
  trivet delete greeting --if-revision 7
  trivet delete --prefix carts/`,
		Args: takes(0, 1),
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "delete all keys that start with this")
	cmd.Flags().Uint64Var(&ifRevision, "if-revision", 0, "delete only if this is still the key's mod_revision")
	cmd.MarkFlagsMutuallyExclusive("prefix", "if-revision")
	guard := addGuardFlag(cmd)
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		ranged := cmd.Flags().Changed("prefix")
		switch {
		case ranged == (len(args) == 1):
			return failf(exitUsage, "need either a KEY or --prefix: %s", cmd.UseLine())
		case ranged && prefix == "":
			return failf(exitUsage, "--prefix is empty, which would delete every key")
		}
		guards, err := guard.options()
		if err != nil {
			return err
		}
		var options []client.DeleteOption
		var ranging []client.WriteOption
		for _, g := range guards {
			options, ranging = append(options, g), append(ranging, g)
		}
		if cmd.Flags().Changed("if-revision") {
			options = append(options, client.IfRevision(ifRevision))
		}
		c, ctx, end, err := f.open(cmd, false)
		if err != nil {
			return err
		}
		defer end()
		var r client.DeleteResult
		if ranged {
			r, err = c.DeleteRange(ctx, client.Prefix(prefix), ranging...)
		} else {
			r, err = c.Delete(ctx, args[0], options...)
		}
		if err != nil {
			return err
		}
		if f.json || ranged || r.Deleted > 0 {
			err = printDeleted(cmd, f, r)
		}
		if err != nil {
			return done(err)
		}
		if !ranged && r.Deleted == 0 {
			return failf(exitNo, "delete %q: key_not_found: there is no such key", args[0])
		}
		return nil
	})
	return cmd
}

func printDeleted(cmd *cobra.Command, f *clusterFlags, r client.DeleteResult) (err error) {
	if f.json {
		return newJSON(cmd.OutOrStdout()).Encode(struct {
			Deleted  uint64 `json:"deleted"`
			Revision uint64 `json:"revision"`
		}{r.Deleted, r.Revision})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "deleted %d at revision %d\n", r.Deleted, r.Revision)
	return err
}
