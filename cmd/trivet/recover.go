package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"trivet/raftnode"
)

func newRecover() *cobra.Command {
	var data, peersFile string
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover --data DIR --peers FILE",
		Short: "Go on with what is left, where a majority is lost for good",
		Long: `Make the data folder of a member that is left the beginning of a cluster of its
own, for when a majority of the members is lost for good: their disks, not their
processes. While a majority can still come back, start it instead; a single dead
member is replaced with "trivet cluster remove" and serve --join.

FILE lists the voters of the new cluster, an ID=HOST:PORT a line, or as JSON:
[{"id":"n1","peer":"10.0.0.1:7171"}]. It is best to list this member alone, to
start it, and to join the others over empty folders. Of several survivors, take
the one whose log is at the greatest term, and entry within it.

The node of the folder must have stopped. What the lost members had acknowledged
and this one did not hear of is gone; what it holds and nobody was told of may be
taken for written. The new cluster has another id, so that members of the old one
that come back after all are refused.`,
		Example: `  echo n3=10.0.0.3:7171 > peers
  trivet recover --data /var/lib/trivet --peers peers
  trivet serve --id n3 --data /var/lib/trivet --peer 10.0.0.3:7171 …`,
		Args: takes(0, 0),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&data, "data", "", "data folder of the member that is left")
	flags.StringVar(&peersFile, "peers", "", "file that lists the voters of the new cluster, this member among them")
	flags.BoolVar(&yes, "yes", false, "do not ask first")
	for _, name := range []string{"data", "peers"} {
		// They fail only for a flag that is not there.
		_ = cmd.MarkFlagRequired(name)
	}
	_ = cmd.MarkFlagDirname("data")
	cmd.RunE = action(exitNo, func(cmd *cobra.Command, _ []string) error {
		peers, err := readPeers(peersFile)
		if err != nil {
			return err
		}
		if _, err := os.Stat(data); err != nil { // not to be made
			return err
		}
		out := cmd.OutOrStdout()
		done, err := raftnode.Recover(data, peers, slog.New(slog.DiscardHandler), func(r raftnode.Recovery) error {
			printRecovery(out, r)
			if yes {
				return nil
			}
			return ask(cmd, fmt.Sprintf("Make %s the beginning of a new cluster?", data),
				"recover takes a member out of its cluster: say --yes if that is meant", "nothing was changed")
		})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "recovered: start %s, then join the others over empty folders\n", done.ID)
		return err
	})
	return cmd
}

func printRecovery(out io.Writer, r raftnode.Recovery) {
	fmt.Fprintf(out, "member %s of cluster %s: revision %d, %d keys; its log ends at entry %d of term %d\n",
		r.ID, r.Cluster, r.Revision, r.Keys, r.LastIndex, r.LastTerm)
	fmt.Fprintf(out, "members until now:")
	for _, m := range r.Before {
		role := ""
		if !m.Voter {
			role = " (replica)"
		}
		fmt.Fprintf(out, " %s=%s%s", m.ID, m.Peer, role)
	}
	fmt.Fprintf(out, "\nvoters of the new cluster %s:", r.NewCluster)
	for _, p := range r.After {
		fmt.Fprintf(out, " %s=%s", p.ID, p.Addr)
	}
	fmt.Fprintln(out)
}

// maxPeersFile bounds the file that lists them.
const maxPeersFile = 1 << 20

// readPeers reads a list of members: lines of ID=HOST:PORT, or JSON.
func readPeers(path string) ([]raftnode.Peer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--peers: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPeersFile+1))
	if err == nil && len(b) > maxPeersFile {
		err = errors.New("is too long to be a list of members")
	}
	if err != nil {
		return nil, fmt.Errorf("--peers: %s: %w", path, err)
	}
	peers, err := parsePeers(b)
	if err != nil {
		return nil, fmt.Errorf("--peers: %s: %s", path, strings.TrimPrefix(err.Error(), "initial cluster: "))
	}
	return peers, nil
}

func parsePeers(b []byte) ([]raftnode.Peer, error) {
	var parts []string
	if text := bytes.TrimSpace(b); len(text) > 0 && text[0] == '[' {
		var list []struct{ ID, Peer string }
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&list); err != nil {
			return nil, err
		}
		for _, p := range list {
			parts = append(parts, p.ID+"="+p.Peer)
		}
	} else {
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				parts = append(parts, line)
			}
		}
	}
	if len(parts) == 0 {
		return nil, errors.New("lists nobody")
	}
	return raftnode.ParseInitialCluster(strings.Join(parts, ","))
}
