package systems

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"trivet/bench/internal/load"
	"trivet/client"
)

// clusterNodes is how many nodes those have that have nodes.
const clusterNodes = 3

// Trivet is three processes of `trivet serve` with its defaults.
type Trivet struct {
	// Binary is the path of cmd/trivet.
	Binary string
}

func (Trivet) Name() string   { return "trivet" }
func (Trivet) Ways() []string { return []string{"http", "go"} }

func (t Trivet) Version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, t.Binary, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", t.Binary, err)
	}
	return strings.TrimSpace(strings.TrimPrefix(string(out), "trivet version ")), nil
}

// trivetCluster is its running servers.
type trivetCluster struct {
	*processes
	api []int // ports
}

func (t Trivet) Start(ctx context.Context, env Env) (Cluster, error) {
	c := &trivetCluster{}
	var peers []string
	for i := range clusterNodes {
		api, err := env.Port()
		if err != nil {
			return nil, err
		}
		peer, err := env.Port()
		if err != nil {
			return nil, err
		}
		c.api = append(c.api, api)
		peers = append(peers, fmt.Sprintf("n%d=127.0.0.1:%d", i+1, peer))
	}
	var err error
	c.processes, err = startAll(clusterNodes, func(i int) (*process, error) {
		id, peer, _ := strings.Cut(peers[i], "=")
		cmd := exec.Command(t.Binary, "serve", "--id", id, "--data", filepath.Join(env.Dir, id), "--api", fmt.Sprintf("127.0.0.1:%d", c.api[i]),
			"--peer", peer, "--initial-cluster", strings.Join(peers, ","), "--log-level", "warn")
		return startProcess(cmd, filepath.Join(env.Dir, id+".log"))
	})
	if err != nil {
		return nil, err
	}
	for i := range c.nodes {
		if err := c.nodes[i].await(ctx, func(ctx context.Context) error {
			_, err := c.ask(ctx, i, "/readyz")
			return err
		}); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// ask gets a document of node i.
func (c *trivetCluster) ask(ctx context.Context, i int, path string) ([]byte, error) {
	conn := newHTTPConn(c.api[i])
	defer conn.Close()
	status, body, err := conn.do(ctx, prepare("GET", path, "", nil))
	if err != nil {
		return nil, err
	}
	if status != 200 {
		return nil, unexpected(status, body)
	}
	return body, nil
}

func (c *trivetCluster) Leader(ctx context.Context) (int, error) {
	var failed error
	for i := range c.nodes {
		body, err := c.ask(ctx, i, "/v1/status")
		if err != nil {
			failed = err
			continue
		}
		var status struct{ Role string }
		if err := json.Unmarshal(body, &status); err != nil {
			return 0, err
		}
		if status.Role == "leader" {
			return i, nil
		}
	}
	return 0, errors.Join(errors.New("no node leads"), failed)
}

func (c *trivetCluster) Open(ctx context.Context, way string, o Options) (Client, error) {
	switch way {
	case "http":
		return openTrivetHTTP(ctx, c, o)
	case "go":
		return openTrivetGo(ctx, c, o)
	}
	return nil, fmt.Errorf("trivet is not spoken to by %q", way)
}

// client returns a Go client of the nodes; nil means all.
func (c *trivetCluster) client(ctx context.Context, nodes []int) (*client.Client, error) {
	// It would find the others.
	cfg := client.Config{DisableDiscovery: nodes != nil && len(nodes) < len(c.api)}
	for i, port := range c.api {
		if nodes == nil || slices.Contains(nodes, i) {
			cfg.Endpoints = append(cfg.Endpoints, fmt.Sprintf("http://127.0.0.1:%d", port))
		}
	}
	return client.Open(ctx, cfg)
}

func (c *trivetCluster) Load(ctx context.Context, from, to, valueBytes int) error {
	cl, err := c.client(ctx, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	return loadBatches(ctx, from, to, 500, func(ctx context.Context, from, to int) error {
		ops := make([]client.Op, 0, to-from)
		for i := from; i < to; i++ {
			ops = append(ops, client.OpPut(load.Key(i), load.Value(valueBytes)))
		}
		_, err := cl.Txn().Then(ops...).Commit(ctx)
		return err
	})
}

func (c *trivetCluster) Snapshot(ctx context.Context, w io.Writer) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	cl, err := c.client(ctx, []int{leader})
	if err != nil {
		return err
	}
	defer cl.Close()
	return cl.SnapshotSave(ctx, w, nil)
}

// loaders is how many batches are written at a time when keys are loaded.
const loaders = 8

// loadBatches calls write for all of from to to, in parts of at most step keys,
// several at a time, until all are written or one has failed.
func loadBatches(ctx context.Context, from, to, step int, write func(ctx context.Context, from, to int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	next.Store(int64(from))
	var wg sync.WaitGroup
	for range loaders {
		wg.Go(func() {
			for ctx.Err() == nil {
				at := int(next.Add(int64(step))) - step
				if at >= to {
					return
				}
				if err := write(ctx, at, min(at+step, to)); err != nil {
					cancel(fmt.Errorf("load keys %d to %d: %w", at, min(at+step, to), err))
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
