package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/check"
	"trivet/jepsen-lite/cluster"
	"trivet/jepsen-lite/nemesis"
	"trivet/jepsen-lite/workload"
)

// options is the command line.
type options struct {
	duration, round          time.Duration
	seed                     int64
	workloads, faults        []string
	nodes                    int
	reportDir                string
	root, rootless           bool
	endpoints                []string
	binary, tags             string
	wallClocks               bool
	serveArgs                []string
	pace, timeout, checkTime time.Duration
	basePort                 int
}

// Ports that are tried where none are named: below those that Linux gives to
// connections of its own accord.
const firstPort, lastPort = 19600, 20000

// serveDefaults make what is rare happen often: snapshots, the end of old
// revisions.
var serveDefaults = []string{"--snapshot-bytes", "64KiB", "--history", "5s"}

// run is the whole of a run. Its error says that there was none.
func (o *options) run(ctx context.Context, out io.Writer) (check.Verdict, error) {
	none := check.Inconclusive
	switch {
	case o.duration < time.Second:
		return none, fmt.Errorf("--duration must be a second at least, not %v", o.duration)
	case o.round < time.Second:
		return none, fmt.Errorf("--round must be a second at least, not %v", o.round)
	case o.pace < 0:
		return none, fmt.Errorf("--pace must not be below zero")
	case o.timeout < 100*time.Millisecond || o.timeout > time.Minute:
		return none, fmt.Errorf("--timeout must be 100ms to 1m, not %v", o.timeout)
	case o.wallClocks && (o.binary != "" || len(o.endpoints) > 0):
		return none, fmt.Errorf("--wall-clocks: only of a trivet that is built here")
	case o.root && (o.rootless || len(o.endpoints) > 0):
		return none, fmt.Errorf("--root: not with --rootless or --endpoints")
	case len(o.endpoints) > 0 && len(o.faults) > 0 && o.faults[0] != "none":
		return none, fmt.Errorf("--faults: nothing is done to a cluster of --endpoints")
	}
	for i, at := range o.endpoints {
		if err := checkEndpoint(at); err != nil {
			return none, err
		}
		if slices.Contains(o.endpoints[:i], at) {
			return none, fmt.Errorf("--endpoints: %s is there twice", at)
		}
	}
	kinds, err := workload.Choose(o.workloads)
	if err != nil {
		return none, err
	}
	dir := o.reportDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "jepsen-lite-"); err != nil {
			return none, err
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return none, err
	}

	env := &nemesis.Environment{}
	var members *cluster.Cluster // nil where they are somebody else's
	if len(o.endpoints) > 0 {
		for i, at := range o.endpoints {
			env.Nodes = append(env.Nodes, api.Node{ID: fmt.Sprintf("e%d", i+1), URL: at})
		}
	} else {
		if members, err = o.open(ctx, out, dir); err != nil {
			return none, err
		}
		defer members.Close()
		env = members.Environment()
	}
	faults, err := nemesis.Choose(o.faults, env)
	if err != nil {
		return none, err
	}

	if members == nil {
		faults = nil
	}

	verdict := check.Valid
	rounds := int((o.duration + o.round - 1) / o.round)
	for i := range rounds {
		r := &round{
			options: o, env: env, members: members, loads: kinds, faults: faults,
			seed: o.seed + int64(i), length: o.duration / time.Duration(rounds),
			dir: dir, name: fmt.Sprintf("seed %d", o.seed+int64(i)),
		}
		if rounds > 1 {
			r.dir = filepath.Join(dir, fmt.Sprintf("round-%04d", i+1))
			if err := os.MkdirAll(r.dir, 0o755); err != nil {
				return none, err
			}
			r.name = fmt.Sprintf("round %d of %d, %s", i+1, rounds, r.name)
		}
		if err := r.run(ctx, out); err != nil {
			return none, err
		}
		verdict = max(verdict, r.verdict)
		if verdict == check.Violated {
			break // what is found is not to be run over
		}
		if rounds > 1 && r.verdict == check.Valid {
			// Hours of histories fill a disk, and nobody reads the good ones.
			if err := os.RemoveAll(r.dir); err != nil {
				return none, err
			}
		}
	}
	fmt.Fprintf(out, "\n%s\n", verdict)
	if members != nil {
		members.Close() // before its folders go
	}
	if verdict == check.Valid && o.reportDir == "" {
		return verdict, os.RemoveAll(dir)
	}
	if verdict == check.Valid && members != nil {
		// Logs stay, and the data of a violation: it may tell more.
		err = members.RemoveData()
	}
	fmt.Fprintf(out, "report in %s\n", dir)
	return verdict, err
}

// checkEndpoint refuses what no request could be sent to.
func checkEndpoint(at string) error {
	u, err := url.Parse(at)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("--endpoints: %q is not http://HOST:PORT", at)
	}
	return nil
}

// open starts the cluster.
func (o *options) open(ctx context.Context, out io.Writer, dir string) (*cluster.Cluster, error) {
	binary := o.binary
	if binary == "" {
		var err error
		if binary, err = o.build(ctx, dir); err != nil {
			return nil, err
		}
	}
	base := o.basePort
	if base == 0 {
		var err error
		if base, err = cluster.FreeBlock(firstPort, lastPort); err != nil {
			return nil, err
		}
	}
	nodes := filepath.Join(dir, "nodes")
	// Members of a run before would be taken for this one's.
	if err := errors.Join(os.RemoveAll(nodes), os.MkdirAll(nodes, 0o755)); err != nil {
		return nil, err
	}
	root := false
	if !o.rootless {
		why := cluster.CanRoot(filepath.Join(dir, "probe"))
		root = why == nil
		switch {
		case !root && o.root:
			return nil, fmt.Errorf("--root: %w", why)
		case !root:
			fmt.Fprintf(out, "without namespaces and disks of its own (see --root): %v\n\n", why)
		default:
			fmt.Fprint(out, "each member in a network namespace and on a disk of its own\n\n")
		}
	}
	return cluster.Open(ctx, cluster.Config{
		Binary: binary, Dir: nodes, Nodes: o.nodes, BasePort: base, Links: true, Root: root, Clocks: o.wallClocks,
		Args: append(append([]string(nil), serveDefaults...), o.serveArgs...),
	})
}
