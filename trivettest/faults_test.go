package trivettest_test

import (
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivettest"
)

// bare opens a client that sends each write once, and so shows what became of it.
func bare(t testing.TB, cluster *trivettest.Cluster) *client.Client {
	t.Helper()
	cfg := cluster.Config()
	cfg.DisableSessions, cfg.DisableDiscovery = true, true
	cfg.Endpoints = cfg.Endpoints[:1]
	c, err := client.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// Each fault does to a request what it says, to the very next one, and not to more.
func TestFail(t *testing.T) { everywhere(t, fail) }

func fail(t *testing.T, opts ...trivettest.Option) {
	cluster, ctx := trivettest.Start(t, opts...), within(t)
	c := bare(t, cluster)
	own := http.Client{Transport: cluster.Transport()}
	applied := int64(0)
	for _, tt := range []struct {
		name    string
		how     trivettest.Fault
		err     error // of a write that is sent once; nil: it is got over
		applied bool
		raw     func(*testing.T, *http.Response, error) // what an http.Client gets
	}{
		{"refused", trivettest.Refuse(), nil, true, func(t *testing.T, _ *http.Response, err error) {
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
		}},
		{"the request lost", trivettest.LoseRequest(), client.ErrUnknown, false, func(t *testing.T, _ *http.Response, err error) {
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}},
		{"the answer lost", trivettest.LoseAnswer(), client.ErrUnknown, true, func(t *testing.T, _ *http.Response, err error) {
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}},
		{"half an answer", trivettest.CutAnswer(), client.ErrUnknown, true, func(t *testing.T, resp *http.Response, err error) {
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
			_, err = io.ReadAll(resp.Body)
			require.ErrorIs(t, err, syscall.ECONNRESET)
		}},
		{"429", trivettest.Respond(429), nil, true, func(t *testing.T, resp *http.Response, err error) {
			require.NoError(t, err)
			require.Equal(t, 429, resp.StatusCode)
			require.Equal(t, "1", resp.Header.Get("Retry-After"))
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Contains(t, string(text), `"code":"overloaded","outcome":"not_applied","retryable":true`)
		}},
		{"503", trivettest.Respond(503), nil, true, func(t *testing.T, resp *http.Response, err error) {
			require.NoError(t, err)
			require.Equal(t, 503, resp.StatusCode)
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Contains(t, string(text), `"code":"no_leader"`)
		}},
		{"a proxy's page", trivettest.Respond(502), client.ErrUnknown, false, func(t *testing.T, resp *http.Response, err error) {
			require.NoError(t, err)
			require.Equal(t, "text/html", resp.Header.Get("Content-Type"))
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Contains(t, string(text), "502 Bad Gateway")
		}},
		{"later", trivettest.Delay(50 * time.Millisecond), nil, true, func(t *testing.T, resp *http.Response, err error) {
			require.NoError(t, err)
			require.Equal(t, 200, resp.StatusCode)
		}},
	} {
		happened := cluster.Fail(0, tt.how)
		_, err := c.Add(ctx, "n", 1)
		if tt.err == nil {
			require.NoError(t, err, tt.name)
		} else {
			require.ErrorIs(t, err, tt.err, tt.name)
		}
		<-happened
		if tt.applied {
			applied++
		}
		it, err := c.Get(ctx, "n")
		if applied > 0 {
			require.NoError(t, err, tt.name)
			require.Equal(t, applied, number(t, it.Value), tt.name)
		}

		happened = cluster.Fail(trivettest.AnyMember, tt.how)
		post, err := http.NewRequestWithContext(ctx, "PUT", cluster.Endpoints()[0]+"/v1/kv/raw", io.LimitReader(strings.NewReader("v"), 1))
		require.NoError(t, err)
		resp, err := own.Do(post)
		tt.raw(t, resp, err)
		if err == nil {
			require.NoError(t, resp.Body.Close())
		}
		<-happened
	}
}

func number(t *testing.T, value []byte) (n int64) {
	t.Helper()
	require.NotEmpty(t, value)
	for _, digit := range value {
		n = n*10 + int64(digit-'0')
	}
	return n
}

// Faults befall those requests that they were chosen for, in the order of the choice, as
// often as was asked for, and until Heal.
func TestFailWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, ctx := trivettest.Start(t, trivettest.InMemory()), within(t)
		c := cluster.Client()
		_, err := c.Add(ctx, "n", 1)
		require.NoError(t, err)

		locks := cluster.Fail(trivettest.AnyMember, trivettest.LoseAnswer(), trivettest.To("POST /v1/locks/"))
		batches := cluster.Fail(trivettest.AnyMember, trivettest.LoseAnswer(), trivettest.Times(3))
		for want := int64(2); want < 6; want++ {
			n, err := c.Add(ctx, "n", 1)
			require.NoError(t, err, "written once, however often the answer is lost")
			require.Equal(t, want, n)
		}
		<-batches
		select {
		case <-locks:
			t.Error("no lock was asked for")
		default:
		}
		lock, err := c.Lock(ctx, "l")
		require.NoError(t, err)
		<-locks
		require.NoError(t, lock.Unlock(ctx))

		cluster.Fail(trivettest.AnyMember, trivettest.Respond(429), trivettest.Times(1000))
		short := bare(t, cluster)
		_, err = short.Add(t.Context(), "n", 1) // for as long as Config.Timeout
		require.ErrorIs(t, err, client.ErrOverloaded)
		cluster.Heal()
		_, err = short.Add(ctx, "n", 1)
		require.NoError(t, err)

		began := time.Now()
		cluster.Fail(0, trivettest.Delay(500*time.Millisecond), trivettest.To("/v1/batch"))
		_, err = short.Get(ctx, "n")
		require.NoError(t, err)
		require.Equal(t, 500*time.Millisecond, time.Since(began).Round(10*time.Millisecond))
		require.Panics(t, func() { cluster.Fail(0, trivettest.Refuse(), trivettest.Times(0)) })
		require.Panics(t, func() { cluster.Fail(7, trivettest.Refuse()) })
	})
}
