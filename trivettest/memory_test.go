package trivettest_test

import (
	"io"
	"net"
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

// In a bubble a ttl of ten minutes passes at once, over a change of leader, and not a
// moment early.
func TestTimeIsVirtualInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, ctx := trivettest.Start(t, trivettest.InMemory()), t.Context()
		c, began := cluster.Client(), time.Now()
		const ttl = time.Minute
		_, err := c.Put(ctx, "k", []byte("v"), client.WithTTL(ttl))
		require.NoError(t, err)
		cluster.Kill(cluster.Leader())
		time.Sleep(ttl - time.Since(began) - time.Millisecond)
		_, err = c.Get(ctx, "k")
		require.NoError(t, err)
		// The clock of leases falls behind where a leader dies, by up to a twentieth.
		time.Sleep(ttl / 10)
		_, err = c.Get(ctx, "k")
		require.ErrorIs(t, err, client.ErrNotFound)
	})
}

// The test's own http.Client reaches members by their URLs, until they are killed.
func TestHTTPClientsOfOnesOwn(t *testing.T) { everywhere(t, httpClientsOfOnesOwn) }

func httpClientsOfOnesOwn(t *testing.T, opts ...trivettest.Option) {
	cluster := trivettest.Start(t, opts...)
	own := http.Client{Transport: cluster.Transport()}
	for _, url := range cluster.Endpoints() {
		resp, err := own.Get(url + "/readyz")
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
	}
	for i, url := range cluster.Endpoints()[1:] {
		cluster.Kill(i + 1)
		_, err := own.Get(url + "/readyz")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	}
	_, err := cluster.DialContext(t.Context(), "tcp", "n9.trivettest:7071")
	var dial *net.OpError
	require.ErrorAs(t, err, &dial)
}

// What is written without a reader waits at some point, and deadlines end that; values
// much larger than that point come through whole.
func TestConnectionsInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, ctx := trivettest.Start(t, trivettest.InMemory()), t.Context()
		large := []byte(strings.Repeat("large", 200_000))
		c := cluster.Client()
		_, err := c.Put(ctx, "large", large)
		require.NoError(t, err)
		it, err := c.Get(ctx, "large")
		require.NoError(t, err)
		require.Equal(t, large, it.Value)

		cluster.Pause(0) // nobody reads
		nc, err := cluster.DialContext(ctx, "tcp", strings.TrimPrefix(cluster.Endpoints()[0], "http://"))
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, nc.SetDeadline(began.Add(time.Second)))
		n, err := nc.Write(make([]byte, 10<<20))
		require.Less(t, n, 1<<20)
		var ne net.Error
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
		_, err = nc.Read(make([]byte, 1))
		require.ErrorAs(t, err, &ne)
		require.True(t, ne.Timeout())
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, nc.SetDeadline(time.Time{}))
		time.AfterFunc(time.Second, func() { _ = nc.Close() })
		_, err = nc.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = nc.Write(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		cluster.Kill(0)
	})
}
