package client

import (
	"bytes"
	"io"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// answerGets answers a batch of gets of keys that are not there.
func answerGets(r *http.Request) (calls int, resp *http.Response) {
	body, _ := io.ReadAll(r.Body)
	var req trivetpb.BatchRequest
	if err := req.UnmarshalVT(body); err != nil {
		panic(err)
	}
	answer := &trivetpb.BatchResponse{Revision: 1}
	for range req.Ops {
		answer.Results = append(answer.Results, &trivetpb.Result{Revision: 1, Result: &trivetpb.Result_Get{Get: &trivetpb.GetResult{}}})
	}
	body, err := answer.MarshalVT()
	if err != nil {
		panic(err)
	}
	return len(req.Ops), &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {protobufType}},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func openOver(t *testing.T, f roundTripper) *Client {
	c, err := Open(t.Context(), Config{Endpoints: []string{"http://n1", "http://n2"}, Transport: f, DisableDiscovery: true})
	require.NoError(t, err)
	return c
}

// The callers of a batch, who call again as it lands, go with those that waited
// meanwhile, and not one after the other by turns.
func TestCallersGatherWhenTheirBatchHasLanded(t *testing.T) {
	// On one processor whoever was woken runs before the carrier has had its turns.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var batches []int
		c := openOver(t, func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Millisecond)
			n, resp := answerGets(r)
			mu.Lock()
			batches = append(batches, n)
			mu.Unlock()
			return resp, nil
		})
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Microsecond)
				for range 10 {
					_, err := c.Get(t.Context(), "k")
					require.ErrorIs(t, err, ErrNotFound)
				}
			})
		}
		wg.Wait()
		require.NoError(t, c.Close())
		// The first two go alone, the next has all others, and from then on all go together: but
		// for one or two, where the system takes the processor away in the middle, that are a
		// batch behind to the end.
		require.Equal(t, []int{1, 1}, batches[:2], "%v", batches)
		require.LessOrEqual(t, len(batches), 2+10+2, "%v", batches)
		for _, n := range batches[2 : len(batches)-2] {
			require.GreaterOrEqual(t, n, 35, "%v", batches)
		}
	})
}

// Whose batch has landed but for one call that is sent again holds up nobody.
func TestAStragglerHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, refused atomic.Int32
		c := openOver(t, func(r *http.Request) (*http.Response, error) {
			if asked.Add(1) <= 3 { // two that are alone, and the many
				time.Sleep(time.Millisecond)
			}
			body, _ := io.ReadAll(r.Body)
			var req trivetpb.BatchRequest
			require.NoError(t, req.UnmarshalVT(body))
			answer := &trivetpb.BatchResponse{Revision: 1}
			for _, op := range req.Ops {
				result := &trivetpb.Result{Revision: 1, Result: &trivetpb.Result_Get{Get: &trivetpb.GetResult{}}}
				// One is sent again: at once to the other node, and then after a while.
				if string(op.Op.GetGet().Key) == "again" && refused.Add(1) <= 2 {
					result = &trivetpb.Result{Problem: &trivetpb.Problem{Code: trivetpb.Code_OVERLOADED}}
				}
				answer.Results = append(answer.Results, result)
			}
			body, err := answer.MarshalVT()
			require.NoError(t, err)
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {protobufType}},
				Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r,
			}, nil
		})
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Microsecond)
				key := "k"
				if i == 20 {
					key = "again"
				}
				_, err := c.Get(t.Context(), key)
				require.ErrorIs(t, err, ErrNotFound)
			})
		}
		// One comes while the many are under way, and nobody after it.
		time.Sleep(1500 * time.Microsecond)
		came := time.Now()
		waited := make(chan time.Duration, 1)
		wg.Go(func() {
			_, err := c.Get(t.Context(), "k")
			require.ErrorIs(t, err, ErrNotFound)
			waited <- time.Since(came)
		})
		time.Sleep(550 * time.Microsecond) // it has landed, and the one is to be sent again
		synctest.Wait()
		require.EqualValues(t, 2, refused.Load())
		require.Less(t, <-waited, 550*time.Microsecond)
		at := time.Now()
		_, err := c.Get(t.Context(), "k")
		require.ErrorIs(t, err, ErrNotFound)
		require.Equal(t, at, time.Now(), "it waited")
		wg.Wait()
		require.NoError(t, c.Close())
	})
}

// A batch of reads at a node that hangs holds up those that are in it, and others no
// longer than until it is late.
func TestABatchThatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		hang := true
		c := openOver(t, func(r *http.Request) (*http.Response, error) {
			if _, resp := answerGets(r); !hang {
				return resp, nil
			}
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return nil, io.ErrUnexpectedEOF
		})
		c.members.near.Store(2)
		var wg sync.WaitGroup
		get := func() {
			wg.Go(func() {
				_, err := c.Get(t.Context(), "k")
				require.ErrorIs(t, err, ErrNotFound)
			})
			synctest.Wait()
		}
		began := time.Now()
		get()
		get() // beside one that is alone
		time.Sleep(lateAfter / 2)
		hang = false
		done := make(chan time.Duration)
		go func() {
			_, err := c.Get(t.Context(), "k")
			require.ErrorIs(t, err, ErrNotFound)
			done <- time.Since(began)
		}()
		require.Equal(t, lateAfter, <-done)
		close(release)
		wg.Wait()
		require.NoError(t, c.Close())
	})
}
