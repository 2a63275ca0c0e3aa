package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"trivet/client"
	"trivet/trivetpb"
)

// The codes of what the membership does not allow.
var (
	memberConflict = trivetpb.Code_MEMBER_CONFLICT.Info().Name
	noSuchMember   = trivetpb.Code_NOT_FOUND.Info().Name
)

func newCluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster COMMAND",
		Short: "Change who the members are, and who leads",
		Long: `Change who the members of the cluster are, and who leads. Each of these says how
things shall be: what is so already is a success, and a command whose outcome is
unknown can be given again.

Exit status 1 where the membership does not allow it (member_conflict).`,
		Example: `  trivet cluster add r1 10.0.0.9:7171 --role replica
  trivet cluster remove n2
  trivet cluster transfer n3`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failf(exitUsage, "a command is missing: %s add, remove, promote, demote or transfer", cmd.CommandPath())
		},
	}
	cmd.AddCommand(newClusterAdd(), newClusterRemove(), newClusterPromote(), newClusterDemote(), newClusterTransfer())
	return cmd
}

// changeCluster makes a change and prints its answer: as it is, or as text says.
func changeCluster(cmd *cobra.Command, f *clusterFlags, r rawRequest, answer any, text func(out io.Writer) error) error {
	if err := f.check(); err != nil {
		return err
	}
	endpoints, err := f.urls()
	if err != nil {
		return err
	}
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	r.repeatable = true
	b, err := newRawClient(f.token).send(ctx, endpoints, r, f.timeout)
	if refused := (*client.Error)(nil); errors.As(err, &refused) && refused.Outcome == client.NotApplied {
		switch refused.Code {
		case memberConflict, noSuchMember:
			return &exitError{exitNo, err}
		}
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return failf(exitUnknown, "bad_response: an answer that no node gives")
	}
	if f.json {
		_, err = cmd.OutOrStdout().Write(b)
		return done(err)
	}
	return done(text(cmd.OutOrStdout()))
}

func newClusterAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add ID PEER",
		Short: "Let a member in",
		Long: `Let a member in whose peer port is at PEER (HOST:PORT). It is usually not needed:
a node that is started with --join asks for it by itself.

A voter is added as a replica, and promoted once it has caught up, within
--timeout; after that it asks by itself, if it was started with --join. Exit
status 1 where the id or the address is in use otherwise.`,
		Example: `  trivet cluster add n4 10.0.0.4:7171
  trivet cluster add r1 10.0.0.9:7171 --role replica`,
		Args: takes(2, 2),
	}
	role := choiceFlag(cmd, "role", "what it is to be", "voter", "replica")
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		body, err := json.Marshal(map[string]string{"id": args[0], "peer": args[1], "role": role.value})
		if err != nil {
			return err
		}
		var a memberAdded
		return changeCluster(cmd, f, rawRequest{method: http.MethodPost, path: "/v1/cluster/members", body: body}, &a, func(out io.Writer) error {
			switch {
			case a.CatchingUp:
				_, err = fmt.Fprintf(out, "%s is a member, and votes once it has caught up\n", a.ID)
			case a.Changed:
				_, err = fmt.Fprintf(out, "%s was added as a %s\n", a.ID, a.Role)
			default:
				_, err = fmt.Fprintf(out, "%s was a %s already\n", a.ID, a.Role)
			}
			return err
		})
	})
	return cmd
}

// newMemberChange is a command that changes one member.
func newMemberChange(cmd *cobra.Command, method, behind, did, was string) *cobra.Command {
	cmd.Args = takes(1, 1)
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		if args[0] == "" {
			return failf(exitUsage, "the member's id is empty")
		}
		var a struct {
			Changed bool `json:"changed"`
		}
		r := rawRequest{method: method, path: "/v1/cluster/members/" + url.PathEscape(args[0]) + behind}
		return changeCluster(cmd, f, r, &a, func(out io.Writer) error {
			text := was
			if a.Changed {
				text = did
			}
			_, err := fmt.Fprintf(out, text+"\n", args[0])
			return err
		})
	})
	return cmd
}

func newClusterRemove() *cobra.Command {
	return newMemberChange(&cobra.Command{
		Use:   "remove ID",
		Short: "Remove a member, the leader too",
		Long: `Remove a member, the leader too. Its node stops by itself, with exit status 1, as
soon as it talks to another one. The id can be added again, with an empty data
folder.

Exit status 1 where too few of the voters that would be left answer.`,
		Example: `  trivet cluster remove n2`,
	}, http.MethodDelete, "", "%s was removed", "%s is no member")
}

func newClusterPromote() *cobra.Command {
	return newMemberChange(&cobra.Command{
		Use:   "promote ID",
		Short: "Make a replica a voter",
		Long: `Make a replica a voter, once it has caught up. Exit status 1 where it has not
within --timeout, or there is no such member.`,
		Example: `  trivet cluster promote r1 --timeout 1m`,
	}, http.MethodPost, "/promote", "%s votes now", "%s is a voter already")
}

func newClusterDemote() *cobra.Command {
	return newMemberChange(&cobra.Command{
		Use:   "demote ID",
		Short: "Make a voter a replica",
		Long: `Make a voter a replica, the leader too. Exit status 1 where too few of the voters
that would be left answer, or there is no such member.`,
		Example: `  trivet cluster demote n5`,
	}, http.MethodPost, "/demote", "%s is a replica now", "%s is a replica already")
}

func newClusterTransfer() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "transfer [ID]",
		Short: "Transfer leadership to a voter",
		Long: `Transfer leadership to the voter ID, or to the one with the longest log, and print
who leads then. Writes wait meanwhile, and none is lost.

Exit status 1 where there is no such voter, or it does not catch up in time.`,
		Example: `  trivet cluster transfer n3`,
		Args:    takes(0, 1),
	}
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, args []string) error {
		document := map[string]string{}
		if len(args) == 1 {
			document["to"] = args[0]
		}
		body, err := json.Marshal(document)
		if err != nil {
			return err
		}
		var a struct {
			Leader string `json:"leader"`
		}
		return changeCluster(cmd, f, rawRequest{method: http.MethodPost, path: "/v1/cluster/transfer", body: body}, &a, func(out io.Writer) error {
			if a.Leader == "" {
				_, err = fmt.Fprintln(out, "leadership was transferred")
			} else {
				_, err = fmt.Fprintf(out, "%s leads\n", a.Leader)
			}
			return err
		})
	})
	return cmd
}
