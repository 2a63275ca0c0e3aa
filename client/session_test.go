package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivetpb"
)

var errCut = errors.New("the connection was cut")

// over returns a script over the fake cluster, in which spoil may have an answer
// lost: it gets each batch, and what the cluster answered.
func over(f *fake, spoil func(r *http.Request, nth int, answer func() *http.Response) (*http.Response, error)) *script {
	return &script{sessions: true, answer: func(r *http.Request, nth int) (*http.Response, error) {
		if spoil != nil && r.URL.Path == "/v1/batch" {
			return spoil(r, nth, func() *http.Response { return f.answer(r) })
		}
		return f.answer(r), nil
	}}
}

// An answer that is lost is asked for again, under the same seq: whatever the write
// is, it takes effect once, and its caller learns what it did the first time.
func TestAWriteWhoseAnswerIsLostTakesEffectOnce(t *testing.T) {
	for name, write := range map[string]func(context.Context, *client.Client) error{
		"put":    func(ctx context.Context, c *client.Client) error { _, err := c.Put(ctx, "x", []byte("v")); return err },
		"delete": func(ctx context.Context, c *client.Client) error { _, err := c.Delete(ctx, "x"); return err },
		"add": func(ctx context.Context, c *client.Client) error {
			sum, err := c.Add(ctx, "x", 3)
			if sum != 3 {
				return fmt.Errorf("the sum is %d", sum)
			}
			return err
		},
		"txn": func(ctx context.Context, c *client.Client) error {
			_, err := c.Txn().Then(client.OpPut("x", nil)).Commit(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, lost := newFake(), 0
				s := over(f, func(r *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
					resp := answer()
					if lost++; lost <= 5 {
						if lost%2 == 0 { // a node that hangs once it has done its work
							<-r.Context().Done()
						}
						return nil, errCut
					}
					return resp, nil
				})
				c := s.open(t, "n1", "n2", "n3")
				defer c.Close()
				require.NoError(t, write(t.Context(), c))
				require.Equal(t, 6, lost)
				require.Equal(t, map[string]int{"x": 1}, f.applied)
			})
		})
	}
}

// hold makes a script whose first requests hang until they are let go.
func hold(f *fake, n int) (*script, chan struct{}) {
	letGo := make(chan struct{})
	var mu sync.Mutex
	return over(f, func(r *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
		mu.Lock()
		n--
		held := n >= 0
		mu.Unlock()
		if held {
			select {
			case <-letGo:
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}
		return answer(), nil
	}), letGo
}

// A write that stays unknown uses up the window of its session, which is then left
// for a new one: nobody waits for it, and it can be resolved all the same.
func TestAWriteThatStaysUnknownHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, cut := newFake(), true
		s := over(f, func(_ *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
			if cut {
				answer()
				return nil, errCut
			}
			return answer(), nil
		})
		c := s.open(t, "n1")
		defer c.Close()
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, unknown := c.Add(short, "x", 1)
		requireError(t, unknown, client.Unknown)
		time.Sleep(time.Second) // its batch is over
		synctest.Wait()
		cut = false
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				for range 200 {
					_, err := c.Add(t.Context(), "n", 1)
					require.NoError(t, err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 20_000, f.sums["n"])
		require.Len(t, f.sessions, 2)
		require.Less(t, f.maxAhead, uint64(1<<15))
		res, err := c.Resolve(t.Context(), unknown)
		require.NoError(t, err)
		require.True(t, res.Applied)
	})
}

// The cluster may forget the session while the process sleeps. What was under way then
// fails, and what comes is not bothered.
func TestASessionThatExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := over(f, nil).open(t, "n1", "n2")
		defer c.Close()
		put := func() error { _, err := c.Put(t.Context(), "k", nil); return err }
		require.NoError(t, put())
		f.expire()
		err := put()
		requireError(t, err, client.Unknown, client.ErrSessionExpired)
		_, rerr := c.Resolve(t.Context(), err)
		requireError(t, rerr, client.Unknown, client.ErrSessionExpired)
		require.NoError(t, put())
		require.EqualValues(t, 2, f.opened)
		require.Equal(t, 2, f.applied["k"])
	})
}

// A session that is not used is closed, and a new one opened when it is needed; one
// that a write of unknown outcome needs is kept alive as long as that is remembered.
func TestSessionsLastAsLongAsTheyAreNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, cut, kept := newFake(), false, 0
		s := over(f, func(_ *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
			if cut {
				return nil, errCut
			}
			return answer(), nil
		})
		inner := s.answer
		s.answer = func(r *http.Request, nth int) (*http.Response, error) {
			if strings.HasPrefix(r.URL.Path, "/v1/sessions/") && r.Method == http.MethodPut {
				kept++
			}
			return inner(r, nth)
		}
		c := s.open(t, "n1")
		put := func(ctx context.Context) error { _, err := c.Put(ctx, "k", nil); return err }
		require.NoError(t, put(t.Context()))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Equal(t, 1, f.closed)
		require.Zero(t, kept)
		require.NoError(t, put(t.Context()))
		require.EqualValues(t, 2, f.opened)

		cut = true
		short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		err := put(short)
		requireError(t, err, client.Unknown)
		cut = false
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		require.Greater(t, kept, 9)
		res, rerr := c.Resolve(t.Context(), err)
		require.NoError(t, rerr)
		require.False(t, res.Applied)

		cut = true
		short, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		err = put(short)
		requireError(t, err, client.Unknown)
		cut = false
		time.Sleep(12 * time.Minute)
		synctest.Wait()
		_, rerr = c.Resolve(t.Context(), err)
		requireError(t, rerr, client.Unknown, client.ErrSessionExpired)
		require.NoError(t, put(t.Context()))
		require.NoError(t, c.Close())
		require.EqualValues(t, f.opened, f.closed)
	})
}

// Where the cluster has no room for a session, writes are as without: done, and sent
// again only where they were not applied.
func TestWritesGoOnWithoutASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, cut := newFake(), false
		s := over(f, func(_ *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
			if cut {
				return nil, errCut
			}
			return answer(), nil
		})
		inner := s.answer
		s.answer = func(r *http.Request, nth int) (*http.Response, error) {
			if r.URL.Path == "/v1/sessions" {
				return refusal(r, 429, "overloaded", "1")
			}
			return inner(r, nth)
		}
		c := s.open(t, "n1", "n2")
		defer c.Close()
		_, err := c.Put(t.Context(), "k", nil)
		require.NoError(t, err)
		cut = true
		asked := s.count()
		_, err = c.Put(t.Context(), "k", nil)
		requireError(t, err, client.Unknown, errCut)
		require.Equal(t, asked+1, s.count())
		_, rerr := c.Resolve(t.Context(), err)
		requireError(t, rerr, client.NotApplied, client.ErrBadRequest)
	})
}

// What became of the opening of a session is not what became of the write: that was
// not sent. Nor does a failure to open one have the writes after it go without.
func TestAWriteBeforeItsSessionIsCertain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(*http.Request) (*http.Response, error)
	}{
		{"the answer is lost", func(*http.Request) (*http.Response, error) { return nil, errCut }},
		{"504", func(r *http.Request) (*http.Response, error) { return refusal(r, 504, "timeout", "") }},
		{"503", func(r *http.Request) (*http.Response, error) { return refusal(r, 503, "no_leader", "") }},
		{"500", func(r *http.Request) (*http.Response, error) {
			return response(r, 500, "application/problem+json", `{"code":"internal","outcome":"unknown","detail":"it failed"}`), nil
		}},
	} {
		for _, alone := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, alone %v", tt.name, alone), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFake()
					var good atomic.Bool
					s := over(f, nil)
					inner := s.answer
					s.answer = func(r *http.Request, nth int) (*http.Response, error) {
						if !good.Load() && r.URL.Path == "/v1/sessions" {
							return tt.answer(r)
						}
						return inner(r, nth)
					}
					c := s.open(t, "n1", "n2")
					defer c.Close()
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
					defer cancel()
					var err error
					if alone {
						_, err = c.LeaseGrant(ctx, time.Minute)
					} else {
						_, err = c.Add(ctx, "n", 1)
					}
					requireError(t, err, client.NotApplied, client.ErrUnavailable)
					time.Sleep(time.Second) // what is left of the opening ends, virtually
					good.Store(true)
					for range 3 {
						_, err = c.Add(t.Context(), "n", 1)
						require.NoError(t, err)
					}
					require.EqualValues(t, 1, f.opened)
					require.Equal(t, 3, f.applied["n"])
				})
			})
		}
	}
}

// A write that goes by itself has its seq in a header, and is repeated under it too.
func TestAWriteThatGoesAloneIsRepeatedUnderItsSeq(t *testing.T) {
	large := make([]byte, 1<<20+1)
	for name, tt := range map[string]struct {
		do     func(ctx context.Context, c *client.Client) error
		answer string
	}{
		"large put": {func(ctx context.Context, c *client.Client) error { _, err := c.Put(ctx, "k", large); return err }, putBody},
		"grant": {func(ctx context.Context, c *client.Client) error {
			_, err := c.LeaseGrant(ctx, time.Minute)
			return err
		}, `{"lease":7,"ttl":"1m0s"}`},
		"revoke": {func(ctx context.Context, c *client.Client) error {
			_, err := c.LeaseRevoke(ctx, 7)
			return err
		}, `{"revision":7,"deleted":0}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var identities []string
				cut := true
				s := &script{answer: func(r *http.Request, nth int) (*http.Response, error) {
					if id := r.Header.Get("Trivet-Session"); id != "" {
						identities = append(identities, id)
					}
					if cut && nth%3 != 0 {
						return nil, errCut
					}
					return response(r, 200, "application/json", tt.answer), nil
				}}
				c := s.open(t, "n1", "n2")
				defer c.Close()
				require.NoError(t, tt.do(t.Context(), c))
				require.NoError(t, tt.do(t.Context(), c))
				require.Equal(t, []string{
					"1;seq=1;ack=0", "1;seq=1;ack=0", "1;seq=1;ack=0", "1;seq=2;ack=1", "1;seq=2;ack=1", "1;seq=2;ack=1",
				}, identities)
				s.now(func(*http.Request, int) (*http.Response, error) { return nil, errCut })
				short, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				err := tt.do(short, c)
				requireError(t, err, client.Unknown, context.DeadlineExceeded)

				// What Resolve asks is of the same seq.
				var req *trivetpb.BatchRequest
				s.now(func(r *http.Request, _ int) (*http.Response, error) { req = batchOf(r); return done(r) })
				res, err := c.Resolve(t.Context(), err)
				require.NoError(t, err)
				require.False(t, res.Applied)
				require.EqualValues(t, 3, req.Ops[0].Seq)
				require.EqualValues(t, 2, req.Ack)
			})
		})
	}
}

// Close does not wait for a cluster that is gone.
func TestCloseWithoutACluster(t *testing.T) {
	for name, tt := range map[string]struct {
		gone func(r *http.Request) (*http.Response, error)
		call bool // one has failed before
		most time.Duration
	}{
		"all refuse": {gone: func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}},
		"all hang":              {most: 500 * time.Millisecond, gone: hangs},
		"all hang, as is known": {call: true, most: 50 * time.Millisecond, gone: hangs},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := over(newFake(), nil)
				c := s.open(t, "n1", "n2")
				_, err := c.Put(t.Context(), "k", nil)
				require.NoError(t, err)
				s.now(func(r *http.Request, _ int) (*http.Response, error) { return tt.gone(r) })
				if tt.call {
					_, err := c.Get(t.Context(), "k")
					requireError(t, err, client.NotApplied, context.DeadlineExceeded)
				}
				began := time.Now()
				require.NoError(t, c.Close())
				require.Equal(t, tt.most, time.Since(began))
			})
		})
	}
}

func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}
