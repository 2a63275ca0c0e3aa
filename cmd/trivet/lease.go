package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"trivet/client"
)

func newLease() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lease COMMAND",
		Short: "Make, keep and end leases, which keys go with",
		Long: `A lease ends when nobody has kept it alive for its ttl, or when it is revoked. The
keys that were put with --lease are deleted with it, all at one revision.`,
		Example: `  lease=$(trivet lease grant 30s)
  trivet put instances/1 10.0.0.1:80 --lease $lease
  trivet lease keepalive $lease --keep`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failf(exitUsage, "a command is missing: %s grant, keepalive, revoke or list", cmd.CommandPath())
		},
	}
	cmd.AddCommand(newLeaseGrant(), newLeaseKeepAlive(), newLeaseRevoke(), newLeaseList())
	return cmd
}

func newLeaseGrant() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "grant TTL",
		Short: "Make a lease and print its id",
		Long: `Make a lease that ends TTL (1s to 24h) after it was last kept alive, and
print its id.`,
		Example: `  lease=$(trivet lease grant 30s)
  trivet put instances/1 10.0.0.1:80 --lease $lease`,
		Args: takes(1, 1),
	}
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		ttl, err := time.ParseDuration(args[0])
		if err != nil {
			return failf(exitUsage, "%q is no duration such as 30s or 5m", args[0])
		}
		c, ctx, end, err := f.open(cmd, false)
		if err != nil {
			return err
		}
		defer end()
		lease, err := c.LeaseGrant(ctx, ttl)
		if err != nil {
			return err
		}
		if f.json {
			err = newJSON(cmd.OutOrStdout()).Encode(leaseJSON{Lease: lease.ID, TTL: lease.TTL.String()})
		} else {
			_, err = fmt.Fprintln(cmd.OutOrStdout(), lease.ID)
		}
		return done(err)
	})
	return cmd
}

// leaseJSON is a lease as the HTTP API has it.
type leaseJSON struct {
	Lease uint64 `json:"lease"`
	TTL   string `json:"ttl"`
}

func newLeaseKeepAlive() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "keepalive ID",
		Short: "Start the ttl of a lease again",
		Long: `Start the ttl of a lease again: once or, with --keep, three times within each ttl
until Ctrl-C.

Exit status 1 where the lease has ended; 3 where it could not be kept alive, and
with --keep may have ended.`,
		Example: `  trivet lease keepalive $lease
  trivet lease keepalive $lease --keep &`,
		Args: takes(1, 1),
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "go on until Ctrl-C")
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		id, err := leaseID(args[0])
		if err != nil {
			return err
		}
		c, ctx, end, err := f.open(cmd, keep)
		if err != nil {
			return err
		}
		defer end()
		if keep {
			return keepLease(ctx, c, cmd, f, id)
		}
		lease, err := c.LeaseKeepAlive(ctx, id)
		if err != nil {
			return err
		}
		return done(printKept(cmd, f, lease))
	})
	return cmd
}

// keepLease keeps the lease alive until ctx ends, which is no failure.
func keepLease(ctx context.Context, c *client.Client, cmd *cobra.Command, f *clusterFlags, id uint64) error {
	first, cancel := context.WithTimeout(ctx, f.timeout)
	lease, err := c.LeaseKeepAlive(first, id)
	cancel()
	if err != nil {
		return err
	}
	kept, err := c.KeepAlive(ctx, id)
	if err != nil {
		return err
	}
	if err := printKept(cmd, f, lease); err != nil {
		return err
	}
	<-kept.Done()
	if err := kept.Err(); ctx.Err() == nil || errors.Is(err, client.ErrLeaseLost) {
		return err
	}
	return nil
}

func printKept(cmd *cobra.Command, f *clusterFlags, lease client.Lease) (err error) {
	if f.json {
		return newJSON(cmd.OutOrStdout()).Encode(leaseJSON{Lease: lease.ID, TTL: lease.TTL.String()})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "lease %d has %v again\n", lease.ID, lease.TTL)
	return err
}

func newLeaseRevoke() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "End a lease and delete its keys",
		Long: `End a lease and delete its keys, at one revision. With the lease of a lock the
lock is released.

Exit status 1 where the lease has ended before.`,
		Example: `  trivet lease revoke $lease`,
		Args:    takes(1, 1),
	}
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		id, err := leaseID(args[0])
		if err != nil {
			return err
		}
		c, ctx, end, err := f.open(cmd, false)
		if err != nil {
			return err
		}
		defer end()
		r, err := c.LeaseRevoke(ctx, id)
		if err != nil {
			return err
		}
		return done(printDeleted(cmd, f, r))
	})
	return cmd
}

func newLeaseList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List all leases",
		Long: `List all leases: a line for each, with its ttl, what is left of it, how many keys
are attached, and the lock that is held by it. --json prints one a line.`,
		Example: `  trivet lease list
  trivet lease list --json | jq 'select(.key_count == 0)'`,
		Args: takes(0, 0),
	}
	read := addReadFlags(cmd)
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, _ []string) error {
		freshness, err := read.freshness(cmd)
		if err != nil {
			return err
		}
		c, ctx, end, err := f.open(cmd, false)
		if err != nil {
			return err
		}
		defer end()
		out := cmd.OutOrStdout()
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		if !f.json {
			fmt.Fprintln(table, "LEASE\tTTL\tREMAINING\tKEYS\tLOCK")
		}
		for l, err := range c.Leases(ctx, freshness...) {
			if err == nil {
				err = printLease(f, out, table, l)
			}
			if err != nil {
				table.Flush()
				return err
			}
		}
		return table.Flush()
	})
	return cmd
}

func printLease(f *clusterFlags, out, table io.Writer, l client.LeaseInfo) error {
	if !f.json {
		_, err := fmt.Fprintf(table, "%d\t%v\t%v\t%d\t%s\n", l.ID, l.TTL, l.Remaining.Truncate(time.Millisecond), l.KeyCount, shown(l.Lock))
		return err
	}
	doc := struct {
		leaseJSON
		Remaining string  `json:"remaining"`
		KeyCount  uint64  `json:"key_count"`
		Lock      *string `json:"lock,omitempty"`
		Lock64    []byte  `json:"lock64,omitempty"`
	}{leaseJSON: leaseJSON{l.ID, l.TTL.String()}, Remaining: l.Remaining.String(), KeyCount: l.KeyCount}
	if l.Lock != "" {
		doc.Lock, doc.Lock64 = textOrBytes([]byte(l.Lock))
	}
	return newJSON(out).Encode(doc)
}

func leaseID(text string) (uint64, error) {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		return 0, failf(exitUsage, "%q is no id of a lease", text)
	}
	return id, nil
}
