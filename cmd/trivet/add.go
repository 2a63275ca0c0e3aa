package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"trivet/client"
)

func newAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add KEY [N]",
		Short: "Add to a counter",
		Long: `Add N (default 1, may be negative) to the number at a key, in one step, and print
the sum. A missing key counts from 0; the value is kept as decimal text.

Exit status 1 where the value is no number, or the sum would leave the range of
64 bits; 4 where it may have been added all the same.`,
		Example: `  trivet add visits
  trivet add stock/42 -3`,
		Args: takes(1, 2),
	}
	guard := addGuardFlag(cmd)
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		delta := int64(1)
		if len(args) == 2 {
			var err error
			if delta, err = strconv.ParseInt(args[1], 10, 64); err != nil {
				return failf(exitUsage, "%q is no whole number of 64 bits", args[1])
			}
		}
		guards, err := guard.options()
		if err != nil {
			return err
		}
		var options []client.WriteOption
		for _, g := range guards {
			options = append(options, g)
		}
		c, ctx, end, err := f.open(cmd, false)
		if err != nil {
			return err
		}
		defer end()
		sum, err := c.Add(ctx, args[0], delta, options...)
		if err != nil {
			return err
		}
		if f.json {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "{\"value\":%d}\n", sum)
		} else {
			_, err = fmt.Fprintln(cmd.OutOrStdout(), sum)
		}
		return done(err)
	})
	return cmd
}
