package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"trivet/client"
	"trivet/trivettest"
)

// shared is one cluster for all tests and examples that do it no harm; each
// starts with it empty (emptied).
var shared = sync.OnceValues(func() (*trivettest.Cluster, error) {
	sharedStarted = true
	return trivettest.Open()
})

var sharedStarted bool

type closingShared struct{ m *testing.M }

// Run closes the shared cluster before goleak looks.
func (c closingShared) Run() int {
	code := c.m.Run()
	if sharedStarted {
		if cluster, err := shared(); err == nil {
			if err := cluster.Close(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
	}
	return code
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(closingShared{m}) }

// emptied returns the endpoints of the shared cluster, which holds no key then.
func emptied() ([]string, error) {
	cluster, err := shared()
	if err != nil {
		return nil, err
	}
	c, err := client.Open(context.Background(), client.Config{Endpoints: cluster.Endpoints()})
	if err != nil {
		return nil, err
	}
	_, err = c.DeleteRange(context.Background(), client.All())
	return cluster.Endpoints(), errors.Join(err, c.Close())
}

func endpoints(t testing.TB) []string {
	t.Helper()
	urls, err := emptied()
	require.NoError(t, err)
	return urls
}

// open opens a client until the end of the test.
func open(t testing.TB, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// within bounds a test's calls: long enough for a cluster that starts.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// requireError checks what holds of every error of a call, and returns it.
func requireError(t testing.TB, err error, outcome client.Outcome, kinds ...error) *client.Error {
	t.Helper()
	require.Error(t, err)
	var e *client.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, outcome, e.Outcome, "%v", err)
	if outcome == client.Unknown {
		require.ErrorIs(t, err, client.ErrUnknown)
	} else {
		require.NotErrorIs(t, err, client.ErrUnknown)
	}
	for _, kind := range kinds {
		require.ErrorIs(t, err, kind)
	}
	return e
}
