package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"trivet/trivettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// instance is one running service, as main would run it.
type instance struct {
	t    testing.TB
	url  string
	stop context.CancelFunc
	done chan error
	http *http.Client
}

func start(t testing.TB, endpoints []string) *instance {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in := &instance{t: t, stop: cancel, done: make(chan error, 1), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	logged, logTo := io.Pipe()
	go func() {
		env := func(name string) string {
			return map[string]string{"SERVICEB_TRIVET": strings.Join(endpoints, ",")}[name]
		}
		in.done <- run(ctx, []string{"--listen", "127.0.0.1:0"}, env, logTo)
		logTo.Close()
	}()
	lines := bufio.NewScanner(logged)
	require.True(t, lines.Scan(), "the service did not start: %v", lines.Err())
	in.url = regexp.MustCompile(`http://[0-9.:]+`).FindString(lines.Text())
	require.NotEmpty(t, in.url)
	drained := make(chan struct{})
	go func() {
		io.Copy(io.Discard, logged)
		close(drained)
	}()
	t.Cleanup(func() {
		in.stop()
		in.http.CloseIdleConnections()
		<-drained
	})
	return in
}

// do sends a request and decodes the answer into v, unless that is nil.
func (in *instance) do(method, path string, v any) int {
	req, err := http.NewRequest(method, in.url+path, nil)
	if err == nil {
		var resp *http.Response
		if resp, err = in.http.Do(req); err == nil {
			defer resp.Body.Close()
			var text []byte
			if text, err = io.ReadAll(resp.Body); err == nil {
				if v != nil {
					err = json.Unmarshal(text, v)
				}
				if err == nil {
					return resp.StatusCode
				}
			}
		}
	}
	in.t.Error(method, path, err)
	return 0
}

func (in *instance) cart(name string) map[string]int {
	var cart Cart
	require.Equal(in.t, 200, in.do("GET", "/carts/"+name, &cart))
	return cart.Items
}

// Two instances change one cart at the same time, and nothing is lost: each
// addition is there once, and so is each item that only one of them put in.
func TestConcurrentChangesThroughTwoInstances(t *testing.T) {
	cluster := trivettest.Start(t)
	instances := []*instance{start(t, cluster.Endpoints()), start(t, cluster.Endpoints())}
	const workers, each = 6, 15
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			in := instances[w%2]
			for i := range each {
				if status := in.do("POST", "/carts/c/items/shared?add=1", nil); status != 200 {
					t.Errorf("status %d", status)
				}
				path := fmt.Sprintf("/carts/c/items/item-%d-%d?quantity=2", w, i)
				if status := in.do("PUT", path, nil); status != 200 {
					t.Errorf("status %d", status)
				}
			}
		})
	}
	wg.Wait()
	want := map[string]int{"shared": workers * each}
	for w := range workers {
		for i := range each {
			want[fmt.Sprintf("item-%d-%d", w, i)] = 2
		}
	}
	for _, in := range instances {
		require.Equal(t, want, in.cart("c"))
	}

	// Many check out the one cart: it becomes one order.
	orders := make(chan int64, workers)
	for w := range workers {
		wg.Go(func() {
			var order Order
			if instances[w%2].do("POST", "/carts/c/checkout", &order) == 200 {
				orders <- order.Number
			}
		})
	}
	wg.Wait()
	require.Len(t, orders, 1)
	var order Order
	require.Equal(t, 200, instances[0].do("GET", fmt.Sprint("/orders/", <-orders), &order))
	require.Equal(t, want, order.Items)
	require.Empty(t, instances[1].cart("c"))
}

// What one instance has acknowledged, the other shows.
func TestEachInstanceSeesWhatTheOtherWrote(t *testing.T) {
	cluster := trivettest.Start(t)
	a, b := start(t, cluster.Endpoints()), start(t, cluster.Endpoints())
	for i := range 50 {
		a, b = b, a
		require.Equal(t, 200, a.do("PUT", fmt.Sprint("/carts/c/items/x?quantity=", i+1), nil))
		require.Equal(t, map[string]int{"x": i + 1}, b.cart("c"))
	}
	numbers := map[int64]bool{}
	for i := range 10 {
		a, b = b, a
		cart := fmt.Sprint("/carts/", i)
		require.Equal(t, 200, a.do("PUT", cart+"/items/x?quantity=1", nil))
		var order Order
		require.Equal(t, 200, b.do("POST", cart+"/checkout", &order))
		require.False(t, numbers[order.Number], "order %d twice", order.Number)
		numbers[order.Number] = true
	}
}

// The service outlives the leader: at most some requests say that they may have
// been done.
func TestTheLeaderDies(t *testing.T) {
	cluster := trivettest.Start(t)
	in := start(t, cluster.Endpoints())
	acked, unknown := 0, 0
	for i := range 60 {
		if i == 20 {
			cluster.Kill(cluster.Leader())
		}
		switch status := in.do("POST", "/carts/c/items/x?add=1", nil); status {
		case 200:
			acked++
		case 504:
			unknown++
		default:
			t.Fatal(status)
		}
	}
	has := in.cart("c")["x"]
	require.GreaterOrEqual(t, has, acked)
	require.LessOrEqual(t, has, acked+unknown)
}

func TestRequestsThatAreRefused(t *testing.T) {
	cluster := trivettest.Start(t, trivettest.Nodes(1))
	in := start(t, cluster.Endpoints())
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"PUT", "/carts/c/items/x?quantity=-1", 422},
		{"PUT", "/carts/c/items/x?quantity=1001", 422},
		{"PUT", "/carts/c/items/x", 400},
		{"PUT", "/limits/x?most=-1", 400},
		{"PUT", "/limits/x", 400},
		{"PUT", "/carts/c/items/x?quantity=many", 400},
		{"POST", "/carts/c/items/x?add=-1", 422},
		{"POST", "/carts/c/items/x?add=9223372036854775807", 400},
		{"DELETE", "/carts/c/items/x", 200},
		{"POST", "/carts/c/checkout", 409},
		{"GET", "/orders/1", 404},
		{"GET", "/carts/" + strings.Repeat("c", 5000), 400},
		{"GET", "/healthz", 200},
	} {
		require.Equal(t, tt.want, in.do(tt.method, tt.path, nil), "%+v", tt)
	}
}

// A limit that one instance sets holds there at once, and in the other within the age
// that its cache may have; what a cart has beyond it may only become less.
func TestLimits(t *testing.T) {
	cluster := trivettest.Start(t)
	a, b := start(t, cluster.Endpoints()), start(t, cluster.Endpoints())
	require.Equal(t, 200, a.do("PUT", "/carts/c/items/x?quantity=9", nil))
	require.Equal(t, 200, b.do("PUT", "/carts/d/items/x?quantity=9", nil))
	require.Equal(t, 200, a.do("PUT", "/limits/x?most=5", nil))
	set := time.Now()
	require.Equal(t, 422, a.do("PUT", "/carts/c/items/x?quantity=10", nil))
	require.Equal(t, 200, a.do("PUT", "/carts/c/items/x?quantity=8", nil))
	for {
		began := time.Now()
		if b.do("POST", "/carts/d/items/x?add=1", nil) == 422 {
			break
		}
		require.LessOrEqual(t, began.Sub(set), limitsAge)
	}
	require.Equal(t, 200, b.do("PUT", "/carts/d/items/y?quantity=1000", nil))
}

// A stop lets requests finish, and reports success.
func TestStop(t *testing.T) {
	cluster := trivettest.Start(t, trivettest.Nodes(1))
	in := start(t, cluster.Endpoints())
	require.Equal(t, 200, in.do("PUT", "/carts/c/items/x?quantity=1", nil))
	in.stop()
	select {
	case err := <-in.done:
		require.NoError(t, err)
	case <-time.After(drainTime):
		t.Fatal("it did not stop")
	}
	require.Error(t, run(t.Context(), []string{"--listen", "nowhere"}, func(string) string { return "" }, io.Discard))
	require.Error(t, run(t.Context(), []string{"--trivet", "nowhere"}, func(string) string { return "" }, io.Discard))
	require.Error(t, run(t.Context(), []string{"argument"}, func(string) string { return "" }, io.Discard))
}
