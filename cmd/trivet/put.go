package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"trivet/client"
	"trivet/store"
)

func newPut() *cobra.Command {
	var ifAbsent bool
	var ifRevision, lease uint64
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "put KEY [VALUE]",
		Short: "Write a value",
		Long: `Write a value: the second argument or, where that is left out or "-", all of
standard input.

--if-revision writes only if the key's mod_revision (get -v) is still the given
one, 0 meaning that there is no such key; --if-absent only if there is no such
key. --guard writes only while a lock is held (trivet lock).

--ttl has the key deleted after that time, 1s to 24h, unless it is written again
before; --lease when the lease ends (trivet lease).

Exit status 1 where the condition does not hold, or there is no such lease; 3
where the write was certainly not applied; 4 where it may have been, or may yet
be.`,
		Example: `  trivet put greeting hello
  trivet put config/app.json < app.json
  trivet put leader "$HOSTNAME" --if-absent
  trivet put greeting hi --if-revision 7
  trivet put session/42 ann --ttl 30m`,
		Args: takes(1, 2),
	}
	cmd.Flags().Uint64Var(&ifRevision, "if-revision", 0, "write only if this is still the key's mod_revision")
	cmd.Flags().BoolVar(&ifAbsent, "if-absent", false, "write only if there is no such key")
	cmd.MarkFlagsMutuallyExclusive("if-revision", "if-absent")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "delete the key after this time")
	cmd.Flags().Uint64Var(&lease, "lease", 0, "delete the key when this lease ends")
	cmd.MarkFlagsMutuallyExclusive("ttl", "lease")
	guard := addGuardFlag(cmd)
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		var options []client.PutOption
		if cmd.Flags().Changed("if-revision") {
			options = append(options, client.IfRevision(ifRevision))
		}
		if ifAbsent {
			options = append(options, client.IfAbsent())
		}
		if cmd.Flags().Changed("ttl") {
			options = append(options, client.WithTTL(ttl))
		}
		if cmd.Flags().Changed("lease") {
			options = append(options, client.WithLease(lease))
		}
		guards, err := guard.options()
		if err != nil {
			return err
		}
		for _, g := range guards {
			options = append(options, g)
		}
		value, err := valueOf(cmd, args)
		if err != nil {
			return err
		}
		c, ctx, end, err := f.open(cmd, false)
		if err != nil {
			return err
		}
		defer end()
		r, err := c.Put(ctx, args[0], value, options...)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		switch {
		case f.json:
			err = newJSON(out).Encode(struct {
				Revision uint64 `json:"revision"`
				Version  uint64 `json:"version"`
				Created  bool   `json:"created"`
			}{r.Revision, r.Version, r.Created})
		case r.Created:
			_, err = fmt.Fprintf(out, "created at revision %d\n", r.Revision)
		default:
			_, err = fmt.Fprintf(out, "replaced at revision %d, version %d\n", r.Revision, r.Version)
		}
		return done(err)
	})
	return cmd
}

// valueOf returns the value to put, from the argument or standard input.
func valueOf(cmd *cobra.Command, args []string) ([]byte, error) {
	if len(args) > 1 && args[1] != "-" {
		return []byte(args[1]), nil
	}
	// A node's own limit is most often lower, and the node says where it is.
	value, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), store.HardMaxValueBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading standard input: %w", err)
	case len(value) > store.HardMaxValueBytes:
		return nil, failf(exitUsage, "too_large: the value on standard input is longer than %v", size(store.HardMaxValueBytes))
	}
	return value, nil
}
