package client_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// A write that the cluster knows by its key is sent again after any fault but
// those that the request brings upon itself.
func TestWritesWithAKeyGetOverFaults(t *testing.T) {
	good := startFaulty(t, func(string, string) string {
		return raw("200 OK", jsonHead+"\r\nTrivet-Replayed: true", putBody)
	})
	for _, tt := range faults {
		bad := startFaulty(t, func(string, string) string { return tt.answer })
		c := open(t, client.Config{Endpoints: []string{bad.url, good.url}, DisableDiscovery: true})
		own := tt.kind == nil || errors.Is(tt.kind, client.ErrSessionExpired) || errors.Is(tt.kind, client.ErrConflict) || errors.Is(tt.kind, client.ErrDenied) || errors.Is(tt.kind, client.ErrQuota)
		for range 2 { // whoever's turn it is first
			before := good.count("PUT")
			put, err := c.Put(t.Context(), "k", []byte("v"), client.WithIdempotencyKey("key"))
			if own && err != nil {
				requireError(t, err, tt.outcome)
				require.Equal(t, before, good.count("PUT"), tt.name)
				continue
			}
			require.NoError(t, err, tt.name)
			require.Equal(t, client.PutResult{Revision: 7, Version: 1, Created: true, Replayed: true}, put, tt.name)
		}
	}
}

// After an attempt whose outcome is unknown only an answer that the cluster
// remembers proves anything of the write as a whole.
func TestTheOutcomeOfAllAttempts(t *testing.T) {
	for _, tt := range []struct {
		status  int
		code    string
		outcome client.Outcome
		kind    error
	}{
		{412, "precondition_failed", client.NotApplied, client.ErrConflict},
		{412, "guard_failed", client.NotApplied, client.ErrGuardFailed},
		{404, "lease_not_found", client.NotApplied, client.ErrLeaseNotFound},
		{422, "idempotency_key_reused", client.NotApplied, client.ErrIdempotencyKeyReused},
		{503, "no_leader", client.Unknown, client.ErrNoLeader},
		{429, "overloaded", client.Unknown, client.ErrOverloaded},
		{507, "quota_exceeded", client.Unknown, client.ErrQuota},
		{403, "permission_denied", client.Unknown, client.ErrDenied},
		{400, "bad_request", client.Unknown, client.ErrBadRequest},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{answer: func(r *http.Request, nth int) (*http.Response, error) {
				require.Equal(t, []string{"the-key"}, r.Header["Idempotency-Key"])
				if nth == 1 {
					return nil, errors.New("the connection broke")
				}
				return refusal(r, tt.status, tt.code, "")
			}}
			c := s.open(t, "n1", "n2")
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Put(ctx, "k", nil, client.WithIdempotencyKey("the-key"))
			requireError(t, err, tt.outcome, tt.kind)
			require.GreaterOrEqual(t, len(s.asked), 2)
		})
	}
}

// One that comes back to nobody who knows ends with the context, as unknown.
func TestAWriteWithAKeyIsRepeatedUntilTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(r *http.Request, nth int) (*http.Response, error) {
			if r.URL.Host == "n1" { // a node that hangs
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return refusal(r, 503, "no_leader", "1")
		}}
		c := s.open(t, "n1", "n2")
		defer c.Close()
		began := time.Now()
		_, err := c.Add(t.Context(), "k", 1, client.WithIdempotencyKey("x"))
		requireError(t, err, client.Unknown, context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(began))
		require.Equal(t, 2*time.Second, s.at[1], "as long as a read would wait")
		require.Greater(t, len(s.asked), 4)
	})
}

func TestGuardsAndKeysGoWithEveryWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var header http.Header
		var query string
		answer := putBody
		s := &script{answer: func(r *http.Request, _ int) (*http.Response, error) {
			header, query = r.Header, r.URL.RawQuery
			return response(r, 200, "application/json", answer), nil
		}}
		c := s.open(t, "n1")
		defer c.Close()
		key, guard, other := client.WithIdempotencyKey("k1"), client.WithGuard("a/b,c=d", 7), client.WithGuard("ü", 8)
		check := func(err error) {
			t.Helper()
			require.NoError(t, err)
			require.Equal(t, []string{"k1"}, header["Idempotency-Key"])
			require.Equal(t, []string{"a%2Fb%2Cc%3Dd=7", "%C3%BC=8"}, header["Trivet-Guard"])
		}
		_, err := c.Put(t.Context(), "k", nil, key, guard, other, client.WithTTL(90*time.Second), client.WithLease(5))
		check(err)
		require.Contains(t, query, "lease=5")
		require.NotContains(t, query, "ttl")
		answer = `{"revision":7,"deleted":1}`
		_, err = c.Delete(t.Context(), "k", key, guard, other)
		check(err)
		_, err = c.DeleteRange(t.Context(), client.All(), key, guard, other)
		check(err)
		answer = `{"revision":7,"value":1}`
		_, err = c.Add(t.Context(), "k", 1, key, guard, other)
		check(err)
		answer = `{"revision":7,"succeeded":true,"results":[]}`
		_, err = c.Txn().Commit(t.Context(), key, guard, other)
		check(err)

		for _, options := range [][]client.PutOption{
			{client.WithIdempotencyKey("")}, {client.WithIdempotencyKey("a b")}, {client.WithIdempotencyKey("é")},
			{client.WithGuard("", 1)}, {client.WithGuard("l", 0)},
			{client.WithTTL(0)}, {client.WithTTL(25 * time.Hour)}, {client.WithTTL(time.Second + 1)}, {client.WithLease(0)},
		} {
			_, err := c.Put(t.Context(), "k", nil, options...)
			requireError(t, err, client.NotApplied, client.ErrBadRequest)
		}
		require.Len(t, s.asked, 5)
	})
}
