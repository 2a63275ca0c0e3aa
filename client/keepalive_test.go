package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

const leaseBody = `{"lease":7,"ttl":"10s","remaining":"10s"}`

// The client knows that a lease may be gone when its ttl is over since the last
// renewal that succeeded was sent, whatever the cluster does meanwhile.
func TestALeaseMayBeLostOneTTLAfterItsLastRenewalWasSent(t *testing.T) {
	for name, tt := range map[string]struct {
		// then is what happens to renewals from the third on; slow is how long the
		// two before take to be answered.
		then func(r *http.Request) (*http.Response, error)
		slow time.Duration
	}{
		"the nodes are gone": {
			then: func(*http.Request) (*http.Response, error) { return nil, errors.New("the connection broke") },
		},
		"the nodes hang": {
			then: func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() },
		},
		"they hang and do not let go": {
			then: func(r *http.Request) (*http.Response, error) { time.Sleep(time.Minute); return nil, io.EOF },
		},
		"there is no leader": {
			then: func(r *http.Request) (*http.Response, error) { return refusal(r, 503, "no_leader", "1") },
		},
		"they no longer let it in": {
			then: func(r *http.Request) (*http.Response, error) { return refusal(r, 403, "permission_denied", "") },
		},
		"answers are slow": {
			then: func(r *http.Request) (*http.Response, error) { return refusal(r, 503, "no_leader", "1") },
			slow: time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var renewals atomic.Int32
				var last time.Time // when the last that succeeded was sent
				s := &script{answer: func(r *http.Request, _ int) (*http.Response, error) {
					require.Equal(t, "PUT", r.Method)
					if renewals.Add(1) > 2 {
						return tt.then(r)
					}
					last = time.Now()
					time.Sleep(tt.slow)
					return response(r, 200, "application/json", leaseBody), nil
				}}
				c := s.open(t, "n1", "n2")
				kept, err := c.KeepAlive(t.Context(), 7)
				require.NoError(t, err)
				<-kept.Done()
				require.Equal(t, 9*time.Second, time.Since(last), "a margin before the ttl is over")
				require.Greater(t, renewals.Load(), int32(2))
				requireError(t, kept.Err(), client.NotApplied, client.ErrLeaseLost)
				require.NotErrorIs(t, kept.Err(), client.ErrLeaseNotFound)
				require.NoError(t, c.Close())
			})
		})
	}
}

// A third of the ttl is between two renewals, and a failure in between does no
// harm.
func TestRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failing atomic.Bool
		s := &script{answer: func(r *http.Request, _ int) (*http.Response, error) {
			if failing.Load() {
				return nil, errors.New("the connection broke")
			}
			return response(r, 200, "application/json", leaseBody), nil
		}}
		c := s.open(t, "n1", "n2")
		ctx, cancel := context.WithCancel(t.Context())
		kept, err := c.KeepAlive(ctx, 7)
		require.NoError(t, err)
		time.Sleep(time.Minute) // virtual
		require.InDelta(t, 18, s.count()-1, 1)
		require.NoError(t, kept.Err())
		failing.Store(true)
		time.Sleep(5 * time.Second)
		require.NoError(t, kept.Err())
		failing.Store(false)
		time.Sleep(time.Minute)
		require.NoError(t, kept.Err())
		cancel()
		<-kept.Done()
		require.ErrorIs(t, kept.Err(), context.Canceled)
		asked := s.count()
		time.Sleep(time.Minute)
		require.Equal(t, asked, s.count(), "nothing is renewed any more")

		kept, err = c.KeepAlive(t.Context(), 7)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		<-kept.Done()
		require.ErrorIs(t, kept.Err(), client.ErrClosed)
		_, err = c.KeepAlive(t.Context(), 7)
		requireError(t, err, client.NotApplied, client.ErrClosed)
	})
}
