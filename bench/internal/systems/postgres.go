package systems

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"trivet/bench/internal/load"
)

// Postgres is one unreplicated PostgreSQL with synchronous_commit: the database that
// a pool of services usually shares. It has one table, of keys and values.
type Postgres struct{}

func (Postgres) Name() string   { return "postgres" }
func (Postgres) Ways() []string { return []string{"go"} }

func (Postgres) Version(ctx context.Context) (string, error) {
	if _, err := pgBinary("initdb"); err != nil {
		return "", err
	}
	path, err := pgBinary("postgres")
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "postgres (PostgreSQL) "), nil
}

// pgBinary finds a program of the server: on the path, or where Debian has it.
func pgBinary(name string) (string, error) {
	if path, err := installed(name); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("%s is not installed", name)
	}
	return found[len(found)-1], nil
}

// pgUser has a command run as somebody who is not root, which PostgreSQL refuses to
// be, and gives dir to them.
func pgUser(cmd *exec.Cmd, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return os.Chown(dir, uid, gid)
}

// pgConnections is how many a pool has: more than that slow it down on a small
// machine.
const pgConnections = 64

// pgCluster is its one server.
type pgCluster struct {
	*processes
	url string
}

func (Postgres) Start(ctx context.Context, env Env) (Cluster, error) {
	port, err := env.Port()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(env.Dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	initdb, err := pgBinary("initdb")
	if err != nil {
		return nil, err
	}
	server, err := pgBinary("postgres")
	if err != nil {
		return nil, err
	}
	init := exec.CommandContext(ctx, initdb, "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	init.Dir = "/"
	if err := pgUser(init, data); err != nil {
		return nil, err
	}
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	c := &pgCluster{url: fmt.Sprintf("postgres://bench@127.0.0.1:%d/postgres?sslmode=disable&pool_max_conns=%d", port, pgConnections)}
	c.processes, err = startAll(1, func(int) (*process, error) {
		cmd := exec.Command(server, "-D", data, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
			"-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "shared_buffers=1GB", "-c", "max_wal_size=4GB", "-c", "max_connections=200")
		cmd.Dir = "/"
		if err := pgUser(cmd, data); err != nil {
			return nil, err
		}
		return startProcess(cmd, filepath.Join(env.Dir, "postgres.log"))
	})
	if err != nil {
		return nil, err
	}
	if err := c.nodes[0].await(ctx, func(ctx context.Context) error {
		return c.exec(ctx, "CREATE TABLE IF NOT EXISTS kv (k bytea PRIMARY KEY, v bytea NOT NULL)")
	}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *pgCluster) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, strings.Split(c.url, "&pool")[0])
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

// PIDs returns the server's and those of its backends, which come and go with
// connections.
func (c *pgCluster) PIDs(i int) []int {
	pid := c.nodes[i].pid()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	pids := []int{pid}
	if err != nil {
		return pids
	}
	for _, text := range strings.Fields(string(children)) {
		if child, err := strconv.Atoi(text); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// Stop is PostgreSQL's fast shutdown: without waiting for clients.
func (c *pgCluster) Stop(i int) error { return c.nodes[i].stop(syscall.SIGINT) }

// Kill kills the server and waits for its backends, which end by themselves.
func (c *pgCluster) Kill(i int) error { return c.nodes[i].stop(syscall.SIGQUIT) }

// Close does not kill: backends would outlive their server for a moment, with its
// files.
func (c *pgCluster) Close() { _ = c.Kill(0) }

func (c *pgCluster) Leader(context.Context) (int, error) { return 0, ErrUnsupported }

func (c *pgCluster) Snapshot(context.Context, io.Writer) error { return ErrUnsupported }

func (c *pgCluster) Load(ctx context.Context, from, to, valueBytes int) error {
	conn, err := pgx.Connect(ctx, strings.Split(c.url, "&pool")[0])
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	at := from
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"kv"}, []string{"k", "v"}, pgx.CopyFromFunc(func() ([]any, error) {
		if at == to {
			return nil, nil
		}
		at++
		return []any{load.AppendKey(nil, at-1), load.Value(valueBytes)}, nil
	}))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "ANALYZE kv")
	return err
}

func (c *pgCluster) Open(ctx context.Context, way string, o Options) (Client, error) {
	if way != "go" {
		return nil, fmt.Errorf("postgres is not spoken to by %q", way)
	}
	pool, err := pgxpool.New(ctx, c.url)
	if err != nil {
		return nil, err
	}
	return &pgClient{pool: pool, options: o}, nil
}

// pgClient is a pool of connections, which statements are prepared on as they come.
type pgClient struct {
	pool    *pgxpool.Pool
	options Options
}

func (c *pgClient) Close() error { c.pool.Close(); return nil }

func (c *pgClient) Caller(int) (Caller, error) { return pgCaller{c}, nil }

// Watch: LISTEN tells that something happened, not what, and keeps nothing for one
// who was away.
func (c *pgClient) Watch(context.Context, int, func(), func(int)) error { return ErrUnsupported }

type pgCaller struct{ *pgClient }

// Close leaves the pool, which is everybody's.
func (c pgCaller) Close() error { return nil }

func (c pgCaller) Put(ctx context.Context, key int, value []byte) error {
	_, err := c.pool.Exec(ctx, "INSERT INTO kv (k, v) VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = excluded.v", load.AppendKey(nil, key), value)
	return err
}

func (c pgCaller) Get(ctx context.Context, key int) error {
	var value []byte
	if err := c.pool.QueryRow(ctx, "SELECT v FROM kv WHERE k = $1", load.AppendKey(nil, key)).Scan(&value); err != nil {
		return err
	}
	if len(value) != c.options.ValueBytes {
		return fmt.Errorf("a value of %d bytes", len(value))
	}
	return nil
}

// StaleGet: one server has no stale state.
func (c pgCaller) StaleGet(context.Context, int) error { return ErrUnsupported }

func (c pgCaller) Scan(ctx context.Context, key, count int) error {
	rows, err := c.pool.Query(ctx, "SELECT k, v FROM kv WHERE k >= $1 AND k < $2 ORDER BY k LIMIT $3",
		load.AppendKey(nil, key), load.AppendKey(nil, key+count), count)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var k, v []byte
		if err := rows.Scan(&k, &v); err != nil {
			return err
		}
		n++
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if n != count {
		return fmt.Errorf("%d items", n)
	}
	return nil
}

// Txn is one statement, which is one round trip. The rows are locked in the order of
// their keys, so that two of them do not wait for each other.
func (c pgCaller) Txn(ctx context.Context, exists, a, b int, value []byte) error {
	tag, err := c.pool.Exec(ctx, `INSERT INTO kv (k, v) SELECT n.k, $4 FROM unnest(ARRAY[$2::bytea, $3::bytea]) AS n(k)
		WHERE EXISTS (SELECT 1 FROM kv WHERE k = $1) ON CONFLICT (k) DO UPDATE SET v = excluded.v`,
		load.AppendKey(nil, exists), load.AppendKey(nil, min(a, b)), load.AppendKey(nil, max(a, b)), value)
	if err == nil && tag.RowsAffected() != 2 {
		err = errors.Join(errCompare, fmt.Errorf("%d rows", tag.RowsAffected()))
	}
	return err
}
