package client_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivetpb"
)

const underWay = 2 // batches of writes at a time

// What comes while all batches are under way goes together in the next one; a call
// whose context ends before that is not in it.
func TestCallsGatherWhileBatchesAreUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s, letGo := hold(f, underWay)
		c := s.open(t, "n1")
		defer c.Close()
		var wg sync.WaitGroup
		put := func(ctx context.Context, key string) (err error) {
			_, err = c.Put(ctx, key, []byte("v"))
			return err
		}
		for i := range underWay {
			wg.Go(func() { require.NoError(t, put(t.Context(), fmt.Sprint("alone/", i))) })
			synctest.Wait()
		}
		for i := range 100 {
			wg.Go(func() { require.NoError(t, put(t.Context(), fmt.Sprint("together/", i))) })
		}
		leaving, leave := context.WithCancel(t.Context())
		wg.Go(func() {
			requireError(t, put(leaving, "withdrawn"), client.NotApplied, context.Canceled)
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		require.Len(t, s.asked, 1+underWay, "and the opening of a session")
		close(letGo)
		wg.Wait()
		require.ElementsMatch(t, []int{1, 1, 100}, f.batches)
		require.NotContains(t, f.applied, "withdrawn")
		require.Len(t, f.applied, underWay+100)
	})
}

// Where many calls are under way, what comes waits for them and goes in one batch, and
// does not go as soon as a small one beside them has landed.
func TestManyCallsGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		landing := make(chan chan struct{}, 4) // of each batch that is under way
		s := over(f, func(_ *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
			land := make(chan struct{})
			landing <- land
			<-land
			return answer(), nil
		})
		c := s.open(t, "n1")
		defer c.Close()
		var wg sync.WaitGroup
		put := func(n int) {
			for range n {
				wg.Go(func() { _, err := c.Put(t.Context(), "k", nil); require.NoError(t, err) })
				synctest.Wait()
			}
		}
		put(2)
		first, second := <-landing, <-landing
		put(40)
		close(first)
		many := <-landing
		close(second)
		put(30)
		require.Empty(t, landing, "something went beside forty calls")
		close(many)
		close(<-landing)
		wg.Wait()
		require.Equal(t, []int{1, 1, 40, 30}, f.batches)
	})
}

// A queue has a bound, and whoever comes then knows at once.
func TestAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s, letGo := hold(f, underWay)
		c := s.open(t, "n1")
		defer c.Close()
		var wg sync.WaitGroup
		value := make([]byte, 1<<20-100)
		for range underWay + 64 {
			wg.Go(func() {
				_, err := c.Put(t.Context(), "k", value)
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		began := time.Now()
		_, err := c.Put(t.Context(), "k", value)
		requireError(t, err, client.NotApplied, client.ErrOverloaded)
		require.Zero(t, time.Since(began))
		close(letGo)
		wg.Wait()
		_, err = c.Put(t.Context(), "k", value)
		require.NoError(t, err)
	})
}

// A call without a deadline has Config.Timeout, wherever it is then.
func TestTheTimeoutEndsWhatWaitsAndWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s, _ := hold(f, 1<<30)
		c := s.open(t, "n1")
		defer c.Close()
		var wg sync.WaitGroup
		for i := range underWay + 2 {
			began := time.Now()
			wg.Go(func() {
				_, err := c.Put(t.Context(), "k", nil)
				outcome := client.Unknown
				if i >= underWay {
					outcome = client.NotApplied
				}
				requireError(t, err, outcome, context.DeadlineExceeded, client.ErrUnavailable)
				require.Equal(t, 10*time.Second, time.Since(began))
			})
			synctest.Wait()
		}
		wg.Wait()
	})
}

// A batch that a server does not take as a whole is sent in parts, so that a call has
// the answer to itself alone.
func TestABatchThatIsRefusedAsAWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		letGo := make(chan struct{})
		first := underWay
		s := over(f, func(r *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
			if first--; first >= 0 {
				<-letGo
				return answer(), nil
			}
			req := batchOf(r)
			for _, op := range req.Ops {
				if string(op.Op.GetPut().GetKey()) == "poison" {
					resp, err := refusal(r, 400, "bad_request", "")
					resp.Body = io.NopCloser(strings.NewReader(`{"code":"bad_request","outcome":"not_applied"}`))
					return resp, err
				}
			}
			if req.SizeVT() > 20_000 {
				resp, err := refusal(r, 413, "too_large", "")
				resp.Body = io.NopCloser(strings.NewReader(`{"code":"too_large","outcome":"not_applied","limit":20000}`))
				return resp, err
			}
			return answer(), nil
		})
		c := s.open(t, "n1")
		defer c.Close()
		var wg sync.WaitGroup
		for i := range underWay {
			wg.Go(func() { _, err := c.Put(t.Context(), fmt.Sprint(i), nil); require.NoError(t, err) })
			synctest.Wait()
		}
		for i := range 100 {
			wg.Go(func() {
				_, err := c.Put(t.Context(), fmt.Sprint("k", i), make([]byte, 1000))
				require.NoError(t, err)
			})
		}
		wg.Go(func() {
			_, err := c.Put(t.Context(), "poison", nil)
			requireError(t, err, client.NotApplied, client.ErrBadRequest)
		})
		wg.Go(func() {
			_, err := c.Put(t.Context(), "large", make([]byte, 30_000))
			requireError(t, err, client.NotApplied, client.ErrTooLarge)
		})
		synctest.Wait()
		close(letGo)
		wg.Wait()
		require.Len(t, f.applied, underWay+100)
		for key, n := range f.applied {
			require.Equal(t, 1, n, key)
		}
	})
}

// Reads whose answers are too large together are asked for in parts; one that is too
// large by itself is told so.
func TestAnswersThatAreTooLargeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		letGo := make(chan struct{})
		first := underWay
		s := over(newFake(), func(r *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
			if first--; first >= 0 {
				<-letGo
				return answer(), nil
			}
			resp := &trivetpb.BatchResponse{Revision: 5}
			for i, op := range batchOf(r).Ops {
				res := &trivetpb.Result{Revision: 5, Result: &trivetpb.Result_Get{Get: &trivetpb.GetResult{}}}
				if i >= 3 || string(op.Op.GetGet().GetKey()) == "huge" {
					res = &trivetpb.Result{Problem: &trivetpb.Problem{Code: trivetpb.Code_TOO_LARGE}}
				}
				resp.Results = append(resp.Results, res)
			}
			body, err := resp.MarshalVT()
			return response(r, 200, "application/x-protobuf", string(body)), err
		})
		c := s.open(t, "n1")
		defer c.Close()
		var wg sync.WaitGroup
		for i := range underWay + 40 {
			key, want := fmt.Sprint(i), client.ErrNotFound
			if i%10 == 9 {
				key, want = "huge", client.ErrTooLarge
			}
			wg.Go(func() {
				_, err := c.Get(t.Context(), key)
				requireError(t, err, client.NotApplied, want)
			})
			if i < underWay {
				synctest.Wait()
			}
		}
		synctest.Wait()
		close(letGo)
		wg.Wait()
	})
}

// Close ends what waits and what is under way, and says of each what is known.
func TestCloseEndsCallsInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := hold(newFake(), 1<<30)
		c := s.open(t, "n1")
		var wg sync.WaitGroup
		for i := range underWay + 2 {
			wg.Go(func() {
				_, err := c.Put(t.Context(), "k", nil)
				outcome := client.Unknown
				if i >= underWay {
					outcome = client.NotApplied
				}
				requireError(t, err, outcome, client.ErrClosed)
			})
			synctest.Wait()
		}
		require.NoError(t, c.Close())
		wg.Wait()
		_, err := c.Get(t.Context(), "k")
		requireError(t, err, client.NotApplied, client.ErrClosed)
	})
}

// An operation that fails with an answer that nobody is certain of is repeated; what
// the session remembers is certain.
func TestProblemsOfSingleOperations(t *testing.T) {
	for _, tt := range []struct {
		problem *trivetpb.Problem
		asked   int // 0 for until the time is up
		outcome client.Outcome
		kind    error
	}{
		{&trivetpb.Problem{Code: trivetpb.Code_PRECONDITION_FAILED, ModRevision: 9}, 1, client.NotApplied, client.ErrConflict},
		{&trivetpb.Problem{Code: trivetpb.Code_QUOTA_EXCEEDED}, 1, client.NotApplied, client.ErrQuota},
		{&trivetpb.Problem{Code: trivetpb.Code_PERMISSION_DENIED}, 1, client.NotApplied, client.ErrDenied},
		{&trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Unknown: true}, 0, client.Unknown, context.DeadlineExceeded},
		{&trivetpb.Problem{Code: trivetpb.Code_NO_LEADER}, 0, client.NotApplied, client.ErrNoLeader},
		{&trivetpb.Problem{Code: trivetpb.Code_OVERLOADED}, 0, client.NotApplied, client.ErrOverloaded},
	} {
		t.Run(tt.problem.Code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				s := over(newFake(), func(r *http.Request, _ int, _ func() *http.Response) (*http.Response, error) {
					asked++
					resp := &trivetpb.BatchResponse{Revision: 5, Results: []*trivetpb.Result{{Problem: tt.problem}}}
					body, err := resp.MarshalVT()
					return response(r, 200, "application/x-protobuf", string(body)), err
				})
				c := s.open(t, "n1")
				defer c.Close()
				_, err := c.Put(t.Context(), "k", nil)
				e := requireError(t, err, tt.outcome, tt.kind)
				require.Equal(t, tt.problem.ModRevision, e.ModRevision)
				if tt.asked == 0 {
					require.Greater(t, asked, 5)
				} else {
					require.Equal(t, tt.asked, asked)
				}
			})
		})
	}
}

// Answers that are no results of the batch are none of its calls'.
func TestAnswersThatDoNotFit(t *testing.T) {
	put := &trivetpb.Result{Revision: 7, Result: &trivetpb.Result_Put{Put: &trivetpb.PutResult{Version: 1}}}
	add := &trivetpb.Result{Revision: 7, Result: &trivetpb.Result_Add{Add: &trivetpb.AddResult{}}}
	for name, answer := range map[string]*trivetpb.BatchResponse{
		"none":         {Revision: 7},
		"one too many": {Revision: 7, Results: []*trivetpb.Result{put, put}},
		"another kind": {Revision: 7, Results: []*trivetpb.Result{add}},
		"nothing":      {Revision: 7, Results: []*trivetpb.Result{{Revision: 7}}},
	} {
		s := transportFunc(func(r *http.Request) (*http.Response, error) {
			body, err := answer.MarshalVT()
			return response(r, 200, "application/x-protobuf", string(body)), err
		})
		c := open(t, client.Config{Transport: s, DisableDiscovery: true, DisableSessions: true})
		_, err := c.Put(t.Context(), "k", nil)
		require.Equal(t, "bad_response", requireError(t, err, client.Unknown).Code, name)
	}
	s := transportFunc(func(r *http.Request) (*http.Response, error) {
		return response(r, 200, "text/html", "<html>Please log in</html>"), nil
	})
	c := open(t, client.Config{Transport: s, DisableDiscovery: true})
	_, err := c.Put(t.Context(), "k", nil)
	require.Equal(t, "bad_response", requireError(t, err, client.NotApplied, client.ErrUnavailable).Code)
	require.ErrorContains(t, err, "Please log in")
	_, err = c.Get(t.Context(), "k")
	require.Equal(t, "bad_response", requireError(t, err, client.NotApplied).Code)
	var dial *net.OpError
	require.NotErrorAs(t, err, &dial)
}

// A call that is withdrawn while its request waits for a connection is not sent when
// there is one: its caller was told so.
func TestACallThatIsWithdrawnBeforeItHasAConnection(t *testing.T) {
	letGo := make(chan struct{})
	f := startFaulty(t, func(string, string) string {
		<-letGo
		return agree
	})
	c := open(t, client.Config{Endpoints: []string{f.url}, DisableDiscovery: true, DisableSessions: true, MaxConnsPerNode: 1})
	first := make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), "first", nil)
		first <- err
	}()
	<-f.arrived
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Put(short, "withdrawn", nil)
	requireError(t, err, client.NotApplied, context.DeadlineExceeded)
	close(letGo)
	require.NoError(t, <-first)
	_, err = c.Put(t.Context(), "third", nil)
	require.NoError(t, err)
	require.Equal(t, 2, f.count("PUT"))
}
