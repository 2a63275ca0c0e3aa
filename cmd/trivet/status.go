package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func newStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the nodes do",
		Long: `Ask every node of --endpoints, and every member that these know of, about itself,
and print a line for each; those that do not answer have a line too.

  HEALTH    ok; not ready: it cannot serve now; failed: it took itself out of
            service; unreachable: no answer. Below the table is the reason.
  APPLIED   how far the node has got in the log, LAG how many entries that are
            committed it has not applied yet
  REVISION  of the node's data, KEYS and BYTES what is in it

Exit status 3 where no node answers.`,
		Example: `  trivet status
  trivet status --json | jq '.nodes[] | select(.health != "ok")'`,
		Args: takes(0, 0),
	}
	f := addClusterFlags(cmd)
	cmd.RunE = action(exitUnserved, func(cmd *cobra.Command, _ []string) error {
		if err := f.check(); err != nil {
			return err
		}
		endpoints, err := f.urls()
		if err != nil {
			return err
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		ctx, cancel := context.WithTimeout(ctx, f.timeout)
		defer cancel()
		s := askCluster(ctx, newRawClient(f.token), endpoints, f.timeout)
		if f.json {
			err = json.NewEncoder(cmd.OutOrStdout()).Encode(s)
		} else {
			err = s.print(cmd.OutOrStdout())
		}
		if err == nil && !slices.ContainsFunc(s.Nodes, func(n nodeRow) bool { return n.Status != nil }) {
			// The table has said why.
			return failf(exitUnserved, "unavailable: no node answers")
		}
		return err
	})
	return cmd
}

// clusterStatus is what status shows.
type clusterStatus struct {
	Nodes []nodeRow `json:"nodes"`
}

// nodeRow is one node. Status is nil where it did not answer.
type nodeRow struct {
	Endpoint string `json:"endpoint"`
	// Node is the node's id, "" where nobody knows who should be there.
	Node    string      `json:"node"`
	Health  string      `json:"health"`
	Reasons []string    `json:"reasons,omitempty"`
	Lag     uint64      `json:"lag"`
	Status  *nodeStatus `json:"status"`
}

// The values of nodeRow.Health.
const (
	healthOK          = "ok"
	healthNotReady    = "not ready"
	healthFailed      = "failed"
	healthUnreachable = "unreachable"
)

// askCluster asks the endpoints, then the members that they know of and that
// were not among them.
func askCluster(ctx context.Context, c *rawClient, endpoints []string, patience time.Duration) clusterStatus {
	var s clusterStatus
	// An endpoint that swallows the question must leave time for the rest.
	first, cancel := context.WithTimeout(ctx, patience/2)
	s.Nodes = askAll(first, c, endpoints)
	cancel()
	var more []string
	names := map[string]string{}
	for _, m := range askMembers(ctx, c, s.Nodes) {
		names[m.API] = m.ID
		known := slices.ContainsFunc(s.Nodes, func(n nodeRow) bool {
			return n.Endpoint == m.API || n.Node == m.ID && n.cluster() == m.cluster
		})
		if !known && m.API != "" {
			more = append(more, m.API)
		}
	}
	s.Nodes = append(s.Nodes, askAll(ctx, c, more)...)

	// Two URLs of one node are one row.
	seen := map[[2]string]bool{}
	s.Nodes = slices.DeleteFunc(s.Nodes, func(n nodeRow) bool {
		name := [2]string{n.cluster(), n.Node}
		again := n.Node != "" && seen[name]
		seen[name] = true
		return again
	})
	committed := map[string]uint64{} // by cluster
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if n.Status != nil {
			committed[n.cluster()] = max(committed[n.cluster()], n.Status.CommitIndex)
		} else if n.Node == "" {
			n.Node = names[n.Endpoint]
		}
	}
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Status != nil {
			most := committed[n.cluster()]
			n.Lag = most - min(most, n.Status.AppliedIndex)
		}
	}
	slices.SortStableFunc(s.Nodes, func(a, b nodeRow) int { return strings.Compare(a.name(), b.name()) })
	return s
}

// askAll asks all endpoints at once.
func askAll(ctx context.Context, c *rawClient, endpoints []string) []nodeRow {
	rows := make([]nodeRow, len(endpoints))
	var wg sync.WaitGroup
	for i, endpoint := range endpoints {
		wg.Go(func() {
			rows[i] = nodeRow{Endpoint: endpoint}
			a, err := c.ask(ctx, endpoint)
			if err != nil {
				rows[i].Health, rows[i].Reasons = healthUnreachable, []string{err.Error()}
				return
			}
			rows[i].Node, rows[i].Status = a.Node, &a.nodeStatus
			switch {
			case a.Failed != "":
				rows[i].Health, rows[i].Reasons = healthFailed, []string{a.Failed}
			case !a.Ready:
				rows[i].Health, rows[i].Reasons = healthNotReady, a.Reasons
			default:
				rows[i].Health = healthOK
			}
		})
	}
	wg.Wait()
	return rows
}

// member is a member as GET /v1/cluster lists it.
type member struct {
	ID  string `json:"id"`
	API string `json:"api"`

	cluster string
}

// askMembers asks the nodes for the members, until one of each cluster answers:
// one, but where an address leads to another.
func askMembers(ctx context.Context, c *rawClient, nodes []nodeRow) []member {
	var all []member
	asked := map[string]bool{}
	for _, n := range nodes {
		var cluster struct {
			Members []member `json:"members"`
		}
		if n.Status == nil || asked[n.cluster()] || c.getJSON(ctx, n.Endpoint+"/v1/cluster", &cluster, 200) != nil {
			continue
		}
		asked[n.cluster()] = true
		for _, m := range cluster.Members {
			m.cluster = n.cluster()
			all = append(all, m)
		}
	}
	return all
}

// cluster is the id of the node's cluster, "" where it did not answer.
func (n nodeRow) cluster() string {
	if n.Status == nil {
		return ""
	}
	return n.Status.Cluster
}

// name is what the row is called: the node's id, else where it should be.
func (n nodeRow) name() string {
	if n.Node == "" {
		return n.Endpoint
	}
	return n.Node
}

// print prints the table, and below it why nodes are not ok.
func (s clusterStatus) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tROLE\tHEALTH\tTERM\tAPPLIED\tLAG\tREVISION\tKEYS\tBYTES")
	for _, n := range s.Nodes {
		if st := n.Status; st != nil {
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n",
				n.name(), st.Role, n.Health, st.Term, st.AppliedIndex, n.Lag, st.Revision, st.Keys, st.Bytes)
		} else {
			fmt.Fprintf(table, "%s\t-\t%s\t-\t-\t-\t-\t-\t-\n", n.name(), n.Health)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if len(n.Reasons) > 0 {
			if _, err := fmt.Fprintf(out, "%s: %s: %s\n", n.name(), n.Health, strings.Join(n.Reasons, "; ")); err != nil {
				return err
			}
		}
	}
	return s.printClusters(out)
}

// printClusters says which node is in which cluster, where there are several:
// an address leads elsewhere, or a member is left of a cluster that was recovered
// without it.
func (s clusterStatus) printClusters(out io.Writer) error {
	var clusters []string
	nodes := map[string][]string{}
	for _, n := range s.Nodes {
		if id := n.cluster(); id != "" {
			if nodes[id] == nil {
				clusters = append(clusters, id)
			}
			nodes[id] = append(nodes[id], n.name())
		}
	}
	if len(clusters) < 2 {
		return nil
	}
	for i, id := range clusters {
		clusters[i] = id + ": " + strings.Join(nodes[id], ", ")
	}
	_, err := fmt.Fprintf(out, "these are nodes of %d clusters: %s\n", len(clusters), strings.Join(clusters, "; "))
	return err
}
