package systems

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"trivet/bench/internal/load"
)

// Etcd is three processes of etcd with its defaults: see etcdNode.
type Etcd struct{}

func (Etcd) Name() string   { return "etcd" }
func (Etcd) Ways() []string { return []string{"http", "go"} }

func (Etcd) Version(context.Context) (string, error) { return version.Version, nil }

// etcdCluster is its running servers.
type etcdCluster struct {
	*processes
	api []int // ports, of gRPC and of the JSON gateway
}

func (Etcd) Start(ctx context.Context, env Env) (Cluster, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &etcdCluster{}
	var nodes []etcdNode
	var initial []string
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
		n := etcdNode{Name: fmt.Sprintf("n%d", i+1), Client: fmt.Sprintf("http://127.0.0.1:%d", api), Peer: fmt.Sprintf("http://127.0.0.1:%d", peer)}
		n.Dir = filepath.Join(env.Dir, n.Name)
		nodes = append(nodes, n)
		initial = append(initial, n.Name+"="+n.Peer)
	}
	c.processes, err = startAll(clusterNodes, func(i int) (*process, error) {
		n := nodes[i]
		n.InitialCluster = strings.Join(initial, ",")
		text, err := json.Marshal(n)
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), etcdNodeEnv+"="+string(text))
		return startProcess(cmd, filepath.Join(env.Dir, n.Name+".log"))
	})
	if err != nil {
		return nil, err
	}
	for i := range c.nodes {
		if err := c.nodes[i].await(ctx, func(ctx context.Context) error {
			conn := newHTTPConn(c.api[i])
			defer conn.Close()
			status, body, err := conn.do(ctx, prepare("GET", "/readyz", "", nil))
			if err == nil && status != 200 {
				err = unexpected(status, body)
			}
			return err
		}); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// client returns a client of the nodes; nil means all.
func (c *etcdCluster) client(nodes []int) (*clientv3.Client, error) {
	cfg := clientv3.Config{DialTimeout: 5 * time.Second, Logger: zap.NewNop()}
	for i, port := range c.api {
		if nodes == nil || slices.Contains(nodes, i) {
			cfg.Endpoints = append(cfg.Endpoints, fmt.Sprintf("http://127.0.0.1:%d", port))
		}
	}
	return clientv3.New(cfg)
}

func (c *etcdCluster) Leader(ctx context.Context) (int, error) {
	var failed error
	for i, p := range c.nodes {
		if !p.running() {
			continue
		}
		cl, err := c.client([]int{i})
		if err != nil {
			failed = err
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		status, err := cl.Status(ctx, cl.Endpoints()[0])
		cancel()
		cl.Close()
		if err != nil {
			failed = err
			continue
		}
		if status.Leader == status.Header.MemberId {
			return i, nil
		}
	}
	return 0, errors.Join(errors.New("no node leads"), failed)
}

func (c *etcdCluster) Open(ctx context.Context, way string, o Options) (Client, error) {
	switch way {
	case "http":
		return openEtcdHTTP(ctx, c, o)
	case "go":
		return openEtcdGo(ctx, c, o)
	}
	return nil, fmt.Errorf("etcd is not spoken to by %q", way)
}

func (c *etcdCluster) Load(ctx context.Context, from, to, valueBytes int) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	cl, err := c.client([]int{leader})
	if err != nil {
		return err
	}
	defer cl.Close()
	// 128 is the most operations that a txn has by default.
	return loadBatches(ctx, from, to, 128, func(ctx context.Context, from, to int) error {
		ops := make([]clientv3.Op, 0, to-from)
		for i := from; i < to; i++ {
			ops = append(ops, clientv3.OpPut(load.Key(i), string(load.Value(valueBytes))))
		}
		_, err := cl.Txn(ctx).Then(ops...).Commit()
		return err
	})
}

func (c *etcdCluster) Snapshot(ctx context.Context, w io.Writer) error {
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	cl, err := c.client([]int{leader})
	if err != nil {
		return err
	}
	defer cl.Close()
	r, err := cl.SnapshotWithVersion(ctx)
	if err != nil {
		return err
	}
	defer r.Snapshot.Close()
	_, err = io.Copy(w, r.Snapshot)
	return err
}
