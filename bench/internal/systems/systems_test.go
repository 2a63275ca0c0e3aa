package systems

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// binary is cmd/trivet, built once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "trivet-bench-test")
	if err != nil {
		return "", err
	}
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "trivet").Output()
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "trivet")
	build := exec.Command("go", "build", "-o", path, "./cmd/trivet")
	build.Dir = strings.TrimSpace(string(root))
	out, err := build.CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return path, nil
})

var binaryDir string

func TestMain(m *testing.M) {
	RunIfNode()
	status := m.Run()
	if binaryDir != "" {
		os.RemoveAll(binaryDir)
	}
	os.Exit(status)
}

// testEnv is a folder that servers of any user may have a folder in. The ports are
// those from TRIVET_BENCH_PORT on, or any.
func testEnv(t *testing.T) Env {
	dir, err := os.MkdirTemp("", "trivet-bench-test")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { os.RemoveAll(dir) })
	first, _ := strconv.Atoi(os.Getenv("TRIVET_BENCH_PORT"))
	return Env{Dir: dir, Port: Ports(first)}
}

// TestSystems: every system that is installed does all that its adapter says, and
// what a request checks it checks.
func TestSystems(t *testing.T) {
	trivet, err := binary()
	require.NoError(t, err)
	for _, s := range All(trivet) {
		t.Run(s.Name(), func(t *testing.T) {
			version, err := s.Version(t.Context())
			if err != nil {
				t.Skipf("LEFT OUT: %s is not tested: %v", s.Name(), err)
			}
			require.NotEmpty(t, version)
			c, err := s.Start(t.Context(), testEnv(t))
			require.NoError(t, err)
			defer c.Close()
			testCluster(t, s, c)
		})
	}
}

const (
	testKeys  = 300
	testBytes = 64
)

func testCluster(t *testing.T, s System, c Cluster) {
	ctx := t.Context()
	require.NoError(t, c.Load(ctx, 0, testKeys, testBytes))
	for i := range c.Nodes() {
		// A watch begins at what its node has: a follower may lack some of the keys.
		require.NoError(t, FirstRead(ctx, c, s.Ways()[0], i, testBytes))
	}
	for _, way := range s.Ways() {
		t.Run(way, func(t *testing.T) { testWay(t, c, way) })
	}
	_, err := c.Open(ctx, "pigeon", Options{})
	require.ErrorContains(t, err, "pigeon")

	t.Run("snapshot", func(t *testing.T) {
		var b bytes.Buffer
		if err := c.Snapshot(ctx, &b); !errors.Is(err, ErrUnsupported) {
			require.NoError(t, err)
			require.Greater(t, b.Len(), testKeys*testBytes)
		}
	})
	t.Run("restart", func(t *testing.T) { testRestart(t, s, c) })
}

func testWay(t *testing.T, c Cluster, way string) {
	ctx := t.Context()
	client, err := c.Open(ctx, way, Options{ValueBytes: testBytes})
	require.NoError(t, err)
	defer client.Close()
	value := bytes.Repeat([]byte{0xff, 0}, testBytes/2)

	// The changes that a watch tells of.
	watchCtx, stop := context.WithCancel(ctx)
	ready, changes, watched := make(chan struct{}), make(chan int, 100), make(chan error, 1)
	go func() {
		watched <- client.Watch(watchCtx, 1, func() { close(ready) }, func(n int) { changes <- n })
	}()
	watches := true
	select {
	case <-ready:
	case err := <-watched:
		require.ErrorIs(t, err, ErrUnsupported)
		watches = false
	}

	// On whatever node.
	for i := range max(2, c.Nodes()) {
		r, err := client.Caller(i)
		require.NoError(t, err)
		defer r.Close()
		require.NoError(t, r.Put(ctx, 7, value))
		require.NoError(t, r.Get(ctx, 7))
		require.NoError(t, r.Txn(ctx, 7, 9, 8, value))
		require.Error(t, r.Txn(ctx, testKeys+10, 8, 9, value), "the compare does not hold")
		require.Error(t, r.Get(ctx, testKeys+10), "there is no such key")
		for _, err := range []error{r.StaleGet(ctx, 3), r.Scan(ctx, 100, 100)} {
			if !errors.Is(err, ErrUnsupported) {
				require.NoError(t, err)
			}
		}
		require.Error(t, r.Scan(ctx, testKeys-50, 100), "there are 50")
	}
	if watches {
		for want := max(2, c.Nodes()) * 3; want > 0; {
			want -= <-changes
			require.GreaterOrEqual(t, want, 0)
		}
	}
	stop()
	if watches {
		require.NoError(t, <-watched)
	}

	// A value of another length is noticed.
	short, err := c.Open(ctx, way, Options{ValueBytes: testBytes - 1})
	require.NoError(t, err)
	defer short.Close()
	r, err := short.Caller(0)
	require.NoError(t, err)
	defer r.Close()
	require.Error(t, r.Get(ctx, 7))
}

// testRestart: a node that was killed, and all after a stop, serve what was written.
func testRestart(t *testing.T, s System, c Cluster) {
	ctx := t.Context()
	leader, err := c.Leader(ctx)
	if !errors.Is(err, ErrUnsupported) {
		require.NoError(t, err)
	}
	require.Error(t, c.Restart(leader), "it is running")
	before := c.PIDs(leader)[0]
	require.NoError(t, c.Kill(leader))
	require.NoError(t, c.Restart(leader))
	require.NotEqual(t, before, c.PIDs(leader)[0])
	require.NoError(t, FirstRead(ctx, c, s.Ways()[0], leader, testBytes))

	for i := range c.Nodes() {
		require.NoError(t, c.Stop(i))
	}
	for i := range c.Nodes() {
		require.NoError(t, c.Restart(i))
	}
	for i := range c.Nodes() {
		require.NoError(t, FirstRead(ctx, c, s.Ways()[0], i, testBytes))
	}
}

func TestPorts(t *testing.T) {
	port := Ports(0)
	a, err := port()
	require.NoError(t, err)
	require.NotZero(t, a)
	counted := Ports(a)
	b, err := counted()
	require.NoError(t, err)
	d, err := counted()
	require.NoError(t, err)
	require.LessOrEqual(t, a, b)
	require.Less(t, b, d)
	_, err = Ports(65536)()
	require.Error(t, err)
}

func TestHolds(t *testing.T) {
	item := `{"key":"k","value64":"/w==","mod_revision":7}`
	trivet := []byte(`{"revision":7,"items":[` + item + `,` + item + `],"count":2}`)
	etcd := []byte(`{"header":{"revision":"7"},"kvs":[` + item + `,` + item + `],"count":"2"}`)
	for n := range 5 {
		require.Equal(t, n == 2, holds(trivet, n, 1), n)
		require.Equal(t, n == 2, holds(etcd, n, 2), n)
	}
	require.True(t, holds([]byte(`{"items":[{"value":"{","mod_revision":7}]}`), 1, 1))
}

func TestEventCount(t *testing.T) {
	trivet := eventCount{begins: []byte(`{"type":"change"`), around: 1, each: 1}
	etcd := eventCount{begins: []byte(`{"result":{"header":`), around: 3, each: 2}
	for line, want := range map[string]struct {
		counter *eventCount
		events  int
	}{
		`{"type":"synced","revision":1}`:                                             {&trivet, 0},
		`{"type":"change","revision":2,"events":[{"type":"put"}]}`:                   {&trivet, 1},
		`{"type":"change","revision":2,"events":[{"type":"put"},{"type":"put"}]}`:    {&trivet, 2},
		`{"result":{"header":{"revision":"1"},"created":true}}`:                      {&etcd, 0},
		`{"result":{"header":{"revision":"1"},"events":[{"kv":{"a":1}},{"kv":{}}]}}`: {&etcd, 2},
		`{"error":{"code":14,"message":"{}","details":[{},{},{}]}}`:                  {&etcd, 0},
	} {
		line += "\n"
		for cut := range line {
			events := 0
			for _, piece := range []string{line[:cut], line[cut:]} {
				if len(piece) > 0 {
					events += want.counter.of([]byte(piece))
				}
			}
			if cut == 0 || cut >= len(want.counter.begins) { // a piece is longer than that
				require.Equal(t, want.events, events, "%s at %d", line, cut)
			}
		}
	}
}
