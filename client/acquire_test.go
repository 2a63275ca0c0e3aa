package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// lockScript answers the calls on one lock, and keeps what they were.
type lockScript struct {
	script
	mu   sync.Mutex
	asks []lockAsk
	// acquire answers a POST; what else comes succeeds.
	acquire func(r *http.Request, nth int) (*http.Response, error)
}

type lockAsk struct {
	method, host, key, wait string
	at                      time.Time
}

const lockBody = `{"name":"l","token":42,"lease":7,"owner":"me","ttl":"10s"}`

func newLockScript(acquire func(r *http.Request, nth int) (*http.Response, error)) *lockScript {
	s := &lockScript{acquire: acquire}
	s.answer = func(r *http.Request, _ int) (*http.Response, error) {
		nth := s.note(r)
		switch r.Method {
		case http.MethodPost:
			return s.acquire(r, nth)
		case http.MethodDelete:
			return response(r, 200, "application/json", `{"released":true,"revision":3}`), nil
		}
		return response(r, 200, "application/json", `{"name":"l","token":42,"lease":7,"ttl":"10s","remaining":"10s"}`), nil
	}
	return s
}

func (s *lockScript) RoundTrip(r *http.Request) (*http.Response, error) {
	var doc struct{ Wait string }
	if r.Body != nil && r.Method == http.MethodPost {
		b, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(b, &doc)
	}
	return s.script.RoundTrip(r.WithContext(context.WithValue(r.Context(), waitKey{}, doc.Wait)))
}

type waitKey struct{}

func (s *lockScript) note(r *http.Request) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks = append(s.asks, lockAsk{r.Method, r.URL.Host, r.Header.Get("Idempotency-Key"), r.Context().Value(waitKey{}).(string), time.Now()})
	return len(s.of(http.MethodPost))
}

// of is the calls of a method.
func (s *lockScript) of(method string) []lockAsk {
	return slices.DeleteFunc(slices.Clone(s.asks), func(a lockAsk) bool { return a.method != method })
}

func (s *lockScript) open(t *testing.T, hosts ...string) *client.Client {
	c := s.script.open(t, hosts...)
	require.NoError(t, c.Close())
	var urls []string
	for _, h := range hosts {
		urls = append(urls, "http://"+h)
	}
	c, err := client.Open(t.Context(), client.Config{Endpoints: urls, Transport: s, DisableDiscovery: true})
	require.NoError(t, err)
	return c
}

func got(r *http.Request) (*http.Response, error) {
	return response(r, 200, "application/json", lockBody), nil
}

// Whatever happens to the request, it is the same one that is sent again.
func TestARequestForALockKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockScript(func(r *http.Request, nth int) (*http.Response, error) {
			switch nth {
			case 1:
				return nil, errors.New("the connection broke")
			case 2:
				return response(r, 503, "application/problem+json", `{"code":"draining","outcome":"unknown","retryable":true}`), nil
			case 3, 4: // it waits, or hangs: who knows
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			time.Sleep(15 * time.Second)
			return got(r)
		})
		c := s.open(t, "n1", "n2")
		defer c.Close()
		began := time.Now()
		lock, err := c.Lock(t.Context(), "l")
		require.NoError(t, err)
		require.GreaterOrEqual(t, time.Since(began), 55*time.Second, "longer than any timeout of the client's own")
		posts := s.of("POST")
		require.Len(t, posts, 5)
		for _, p := range posts {
			require.Equal(t, posts[0].key, p.key)
			require.Len(t, p.key, 26)
			require.Equal(t, "5m0s", p.wait)
		}
		require.Equal(t, 20*time.Second, posts[3].at.Sub(posts[2].at))
		require.NotEqual(t, posts[2].host, posts[3].host)
		// When its turn came is not known, so it was renewed before it was given
		// out.
		require.Len(t, s.of("PUT"), 1)
		require.EqualValues(t, 42, lock.Token())
		require.NoError(t, lock.Err())
		require.NoError(t, lock.Unlock(t.Context()))
		require.Len(t, s.of("DELETE"), 1)
		time.Sleep(time.Hour)
		require.Len(t, s.of("PUT"), 1, "nothing keeps it alive any more")
	})
}

// A lock that is got at once is taken without another round trip.
func TestALockThatIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockScript(func(r *http.Request, _ int) (*http.Response, error) {
			time.Sleep(time.Second)
			return got(r)
		})
		c := s.open(t, "n1")
		defer c.Close()
		sent := time.Now()
		lock, err := c.TryLock(t.Context(), "l")
		require.NoError(t, err)
		require.Len(t, s.asks, 1)
		require.Equal(t, "0s", s.asks[0].wait)
		// With nobody to renew it by, it is over a ttl, less a margin, after it was asked
		// for.
		s.now(func(*http.Request, int) (*http.Response, error) { return nil, errors.New("the connection broke") })
		<-lock.Lost()
		require.Equal(t, 9*time.Second, time.Since(sent))
		require.ErrorIs(t, lock.Err(), client.ErrLockLost)
	})
}

func refuseLocked(r *http.Request) (*http.Response, error) {
	return response(r, 423, "application/problem+json",
		`{"code":"locked","outcome":"not_applied","retryable":true,"holder":{"token":3,"lease":9,"owner":"them","ttl":"1m0s"}}`), nil
}

// A wait that is longer than one request is asked for again, by another key.
func TestLongWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A cluster whose lock is never free: it answers when the wait is over.
		waits := map[string]time.Time{}
		s := newLockScript(nil)
		s.acquire = func(r *http.Request, _ int) (*http.Response, error) {
			wait, err := time.ParseDuration(r.Context().Value(waitKey{}).(string))
			require.NoError(t, err)
			key := r.Header.Get("Idempotency-Key")
			if waits[key].IsZero() {
				waits[key] = time.Now().Add(wait)
			}
			select {
			case <-time.After(time.Until(waits[key])):
				return refuseLocked(r)
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}
		c := s.open(t, "n1", "n2")
		defer c.Close()
		for _, tt := range []struct {
			wait time.Duration
			keys int
		}{{time.Second, 1}, {time.Minute, 1}, {12 * time.Minute, 3}} {
			clear(waits)
			began := time.Now()
			_, err := c.Lock(t.Context(), "l", client.WithWait(tt.wait))
			e := requireError(t, err, client.NotApplied, client.ErrLocked)
			require.Equal(t, client.LockHolder{Token: 3, Lease: 9, Owner: "them", TTL: time.Minute}, *e.Holder)
			require.InDelta(t, tt.wait, time.Since(began), float64(time.Second))
			require.Len(t, waits, tt.keys)
		}
		// The context's end is the end of the wait too, and the cluster's word on it
		// comes first.
		clear(waits)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		began := time.Now()
		_, err := c.Lock(ctx, "l")
		requireError(t, err, client.NotApplied)
		require.InDelta(t, 30*time.Second, time.Since(began), float64(200*time.Millisecond))
		require.Len(t, waits, 1)

		// Nobody waits where nobody is to.
		began = time.Now()
		_, err = c.TryLock(t.Context(), "l")
		requireError(t, err, client.NotApplied, client.ErrLocked)
		require.Zero(t, time.Since(began))
	})
}

// A lock that may come to be held by a request that was given up is released
// when it does.
func TestWhatIsGivenUpIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockScript(nil)
		c := s.open(t, "n1")
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, cancel)
		s.acquire = func(r *http.Request, nth int) (*http.Response, error) {
			if nth == 1 {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			time.Sleep(10 * time.Second)
			return got(r)
		}
		began := time.Now()
		_, err := c.Lock(ctx, "l")
		requireError(t, err, client.Unknown, context.Canceled)
		require.Equal(t, 5*time.Second, time.Since(began))
		time.Sleep(time.Minute)
		synctest.Wait()
		posts, deletes := s.of("POST"), s.of("DELETE")
		require.Len(t, posts, 2)
		require.Equal(t, posts[0].key, posts[1].key)
		require.Len(t, deletes, 1)
		require.Equal(t, began.Add(15*time.Second), deletes[0].at)

		// One that was lost before it was known to be held is asked for again.
		s.asks = nil
		s.acquire = func(r *http.Request, nth int) (*http.Response, error) {
			if nth == 1 {
				time.Sleep(15 * time.Second)
			}
			return got(r)
		}
		renewed := s.answer
		s.now(func(r *http.Request, nth int) (*http.Response, error) {
			if r.Method == http.MethodPut && len(s.of("POST")) == 1 {
				s.note(r)
				return refusal(r, 412, "guard_failed", "")
			}
			return renewed(r, nth)
		})
		lock, err := c.Lock(t.Context(), "l")
		require.NoError(t, err)
		posts = s.of("POST")
		require.Len(t, posts, 2)
		require.NotEqual(t, posts[0].key, posts[1].key)
		require.NoError(t, lock.Err())
	})
}

// Without a key the connection is the place in the queue: it is not given up for
// want of patience, and where it breaks the wait begins anew.
func TestARequestThatLeavesWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockScript(nil)
		s.acquire = func(r *http.Request, nth int) (*http.Response, error) {
			time.Sleep(2 * time.Minute)
			switch nth {
			case 1:
				return nil, errors.New("the connection broke")
			case 2:
				return refuseLocked(r)
			}
			return got(r)
		}
		c := s.open(t, "n1", "n2")
		defer c.Close()
		lock, err := c.Lock(t.Context(), "l", client.LeaveWithConnection(), client.WithWait(10*time.Minute))
		require.NoError(t, err)
		posts := s.of("POST")
		require.Len(t, posts, 3)
		for _, p := range posts {
			require.Empty(t, p.key)
		}
		require.Equal(t, "5m0s", posts[0].wait)
		require.NoError(t, lock.Unlock(t.Context()))

		s.asks = nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.acquire = func(r *http.Request, nth int) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		_, err = c.Lock(ctx, "l", client.LeaveWithConnection())
		requireError(t, err, client.Unknown, context.DeadlineExceeded)
		time.Sleep(time.Hour)
		require.Len(t, s.asks, 1, "there is nothing to undo")
	})
}

// Nobody is there: that is no reason to wait for the lock.
func TestALockThatNobodyGives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLockScript(func(r *http.Request, _ int) (*http.Response, error) {
			return refusal(r, 503, "no_leader", "1")
		})
		c := s.open(t, "n1", "n2")
		defer c.Close()
		began := time.Now()
		_, err := c.Lock(t.Context(), "l")
		requireError(t, err, client.NotApplied, client.ErrNoLeader)
		require.InDelta(t, 10*time.Second, time.Since(began), float64(time.Second))
		// It is if the caller says so.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began = time.Now()
		_, err = c.Lock(ctx, "l")
		requireError(t, err, client.NotApplied, client.ErrNoLeader, context.DeadlineExceeded)
		require.InDelta(t, time.Minute, time.Since(began), float64(time.Second))
	})
}
