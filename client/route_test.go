package client_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// A node of another cluster among the endpoints is not listened to, and a write that
// it got has done nothing there.
func TestAnEndpointOfAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, others := newFake(), newFake()
		others.opened = 100
		s := &script{sessions: true}
		s.answer = func(r *http.Request, _ int) (*http.Response, error) {
			f, cluster := ours, "c1"
			if r.URL.Host == "n2" {
				f, cluster = others, "c2"
			}
			resp := f.answer(r)
			resp.Header.Set("Trivet-Cluster", cluster)
			return resp, nil
		}
		c := s.open(t, "n1", "n2")
		defer c.Close()
		for i := range 20 {
			_, err := c.Add(t.Context(), "n", 1)
			require.NoError(t, err)
			_, err = c.Count(t.Context(), client.All())
			require.NoError(t, err)
			if i == 10 {
				time.Sleep(5 * time.Second)
			}
		}
		require.EqualValues(t, 20, ours.sums["n"])
		require.Empty(t, others.applied)

		only := s.open(t, "n2")
		defer only.Close()
		_, err := only.Put(t.Context(), "k", nil)
		require.NoError(t, err, "it is the one that it heard of first")
	})
}

// Reads weaker than linearizable name what the client has seen.
func TestWeakReadsAreNotBehindWhatWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, query := newFake(), ""
		s := over(f, func(r *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
			query = r.URL.RawQuery
			query = query[:max(0, strings.LastIndex(query, "timeout=")-1)]
			return answer(), nil
		})
		c := s.open(t, "n1")
		defer c.Close()
		get := func(f ...client.GetOption) string {
			_, err := c.Get(t.Context(), "k", f...)
			require.NoError(t, err)
			return query
		}
		require.ErrorIs(t, func() error { _, err := c.Get(t.Context(), "k", client.Stale()); return err }(), client.ErrNotFound)
		require.Equal(t, "consistency=session&min_revision=1", query, "of the empty store")
		_, err := c.Put(t.Context(), "k", nil)
		require.NoError(t, err)
		require.EqualValues(t, 7, c.Revision())
		require.Equal(t, "", get())
		require.Equal(t, "consistency=session&min_revision=7", get(client.Stale()))
		require.Equal(t, "consistency=session&min_revision=7", get(client.MinRevision(3)))
		require.Equal(t, "consistency=session&min_revision=8", get(client.MinRevision(8)))
		require.Equal(t, "consistency=bounded&max_staleness=1s&min_revision=7", get(client.MaxStaleness(time.Second)))
		require.Equal(t, "consistency=stale", get(client.AnyState()))
		_, err = c.Count(t.Context(), client.All(), client.Stale())
		require.NoError(t, err)
		require.Equal(t, "consistency=session&min_revision=7", query)
	})
}
