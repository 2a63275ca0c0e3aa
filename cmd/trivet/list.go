package main

import (
	"bufio"
	"fmt"

	"github.com/spf13/cobra"

	"trivet/client"
)

func newList() *cobra.Command {
	var limit int
	var keysOnly, count bool
	var revision uint64
	cmd := &cobra.Command{
		Use:   "list [PREFIX]",
		Short: "List keys and values",
		Long: `List all keys, or those that start with a prefix, in byte order, all as of one
revision: a line a key, with its value behind a tab. What would break the line
is quoted like a Go string. --json prints the whole items, one a line.

However much there is, it is printed as it comes.`,
		Example: `  trivet list carts/
  trivet list --keys-only --limit 10
  trivet list carts/ --count
  trivet list --json | jq -r .key`,
		Args: takes(0, 1),
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "end after so many keys (default: all)")
	cmd.Flags().BoolVar(&keysOnly, "keys-only", false, "leave the values out")
	cmd.Flags().BoolVar(&count, "count", false, "print how many there are instead")
	cmd.Flags().Uint64Var(&revision, "revision", 0, "list the state as of this revision")
	cmd.MarkFlagsMutuallyExclusive("count", "limit")
	cmd.MarkFlagsMutuallyExclusive("count", "keys-only")
	read := addReadFlags(cmd)
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		freshness, err := read.freshness(cmd)
		if err != nil {
			return err
		}
		var listing []client.ListOption
		var counting []client.CountOption
		for _, o := range freshness {
			listing, counting = append(listing, o), append(counting, o)
		}
		if cmd.Flags().Changed("revision") {
			at := client.AtRevision(revision)
			listing, counting = append(listing, at), append(counting, at)
		}
		if cmd.Flags().Changed("limit") {
			if limit < 1 {
				return failf(exitUsage, "--limit must be at least 1")
			}
			listing = append(listing, client.Limit(limit))
		}
		if keysOnly {
			listing = append(listing, client.KeysOnly())
		}
		keys := client.All()
		if len(args) == 1 && args[0] != "" {
			keys = client.Prefix(args[0])
		}
		c, ctx, end, err := f.open(cmd, false)
		if err != nil {
			return err
		}
		defer end()

		out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
		if count {
			n, err := c.Count(ctx, keys, counting...)
			if err != nil {
				return err
			}
			if f.json {
				fmt.Fprintf(out, "{\"count\":%d}\n", n)
			} else {
				fmt.Fprintln(out, n)
			}
			return out.Flush()
		}
		encoder := newJSON(out)
		for item, err := range c.List(ctx, keys, listing...) {
			if err == nil {
				switch {
				case f.json:
					err = encoder.Encode(jsonOf(item))
				case keysOnly:
					_, err = fmt.Fprintln(out, shown(item.Key))
				default:
					_, err = fmt.Fprintf(out, "%s\t%s\n", shown(item.Key), shown(item.Value))
				}
			}
			if err != nil {
				out.Flush() // what came before it is good
				return err
			}
		}
		return out.Flush()
	})
	return cmd
}
