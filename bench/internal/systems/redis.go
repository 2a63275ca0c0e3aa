package systems

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"trivet/bench/internal/load"
)

// Redis is one unreplicated Redis that syncs its log before it answers
// (appendfsync always).
type Redis struct{}

func (Redis) Name() string   { return "redis" }
func (Redis) Ways() []string { return []string{"go"} }

func (Redis) Version(ctx context.Context) (string, error) {
	path, err := installed("redis-server")
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", err
	}
	for _, field := range strings.Fields(string(out)) {
		if v, ok := strings.CutPrefix(field, "v="); ok {
			return v, nil
		}
	}
	return strings.TrimSpace(string(out)), nil
}

// redisCluster is its one server.
type redisCluster struct {
	*processes
	address string
}

func (Redis) Start(ctx context.Context, env Env) (Cluster, error) {
	port, err := env.Port()
	if err != nil {
		return nil, err
	}
	path, err := installed("redis-server")
	if err != nil {
		return nil, err
	}
	c := &redisCluster{address: fmt.Sprintf("127.0.0.1:%d", port)}
	c.processes, err = startAll(1, func(int) (*process, error) {
		return startProcess(exec.Command(path, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", env.Dir, "--appendonly", "yes",
			"--appendfsync", "always", "--save", "", "--loglevel", "warning"), filepath.Join(env.Dir, "redis.log"))
	})
	if err != nil {
		return nil, err
	}
	if err := c.nodes[0].await(ctx, func(ctx context.Context) error {
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Do(ctx, client.B().Ping().Build()).Error()
	}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *redisCluster) client() (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{c.address}, DisableCache: true, ConnWriteTimeout: 10 * time.Second})
}

func (c *redisCluster) Leader(context.Context) (int, error) { return 0, ErrUnsupported }

func (c *redisCluster) Snapshot(context.Context, io.Writer) error { return ErrUnsupported }

func (c *redisCluster) Load(ctx context.Context, from, to, valueBytes int) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return loadBatches(ctx, from, to, 500, func(ctx context.Context, from, to int) error {
		set := client.B().Mset().KeyValue()
		for i := from; i < to; i++ {
			set = set.KeyValue(load.Key(i), rueidis.BinaryString(load.Value(valueBytes)))
		}
		return client.Do(ctx, set.Build()).Error()
	})
}

func (c *redisCluster) Open(_ context.Context, way string, o Options) (Client, error) {
	if way != "go" {
		return nil, fmt.Errorf("redis is not spoken to by %q", way)
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	return &redisClient{client: client, options: o}, nil
}

// redisClient is rueidis, which packs commands of one moment into one packet.
type redisClient struct {
	client  rueidis.Client
	options Options
}

func (c *redisClient) Close() error { c.client.Close(); return nil }

func (c *redisClient) Caller(int) (Caller, error) { return redisCaller{c}, nil }

// Watch: what Redis tells of changes is lost for one who is away.
func (c *redisClient) Watch(context.Context, int, func(), func(int)) error { return ErrUnsupported }

type redisCaller struct{ *redisClient }

// Close leaves the client, which is everybody's.
func (c redisCaller) Close() error { return nil }

func (c redisCaller) Put(ctx context.Context, key int, value []byte) error {
	return c.client.Do(ctx, c.client.B().Set().Key(load.Key(key)).Value(rueidis.BinaryString(value)).Build()).Error()
}

func (c redisCaller) Get(ctx context.Context, key int) error {
	value, err := c.client.Do(ctx, c.client.B().Get().Key(load.Key(key)).Build()).AsBytes()
	if err == nil && len(value) != c.options.ValueBytes {
		err = fmt.Errorf("a value of %d bytes", len(value))
	}
	return err
}

// StaleGet: one server has no stale state. Scan: its keys have no order.
func (c redisCaller) StaleGet(context.Context, int) error  { return ErrUnsupported }
func (c redisCaller) Scan(context.Context, int, int) error { return ErrUnsupported }

// redisTxn is a compare and two puts.
var redisTxn = rueidis.NewLuaScript(`
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('SET', KEYS[3], ARGV[1])
return 1`)

func (c redisCaller) Txn(ctx context.Context, exists, a, b int, value []byte) error {
	n, err := redisTxn.Exec(ctx, c.client, []string{load.Key(exists), load.Key(a), load.Key(b)}, []string{rueidis.BinaryString(value)}).AsInt64()
	if err == nil && n != 1 {
		err = errCompare
	}
	return err
}
