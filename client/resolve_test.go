package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// Of a write that is unknown Resolve finds out what became of it, and that stays so:
// what arrives later is not applied any more.
func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(context.Context, *client.Client) error
	}{
		{"put", func(ctx context.Context, c *client.Client) error { _, err := c.Put(ctx, "x", []byte("v")); return err }},
		{"add", func(ctx context.Context, c *client.Client) error { _, err := c.Add(ctx, "x", 3); return err }},
		{"delete", func(ctx context.Context, c *client.Client) error { _, err := c.Delete(ctx, "x"); return err }},
		{"txn", func(ctx context.Context, c *client.Client) error {
			_, err := c.Txn().Then(client.OpPut("x", nil)).Commit(ctx)
			return err
		}},
	} {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, " applied ", applied), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, cut := newFake(), true
					var late *http.Request
					s := over(f, func(r *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
						if !cut {
							return answer(), nil
						}
						late = r.Clone(context.Background())
						body, _ := io.ReadAll(r.Body)
						late.Body = io.NopCloser(strings.NewReader(string(body)))
						r.Body = io.NopCloser(strings.NewReader(string(body)))
						if applied {
							answer()
						}
						return nil, errCut
					})
					c := s.open(t, "n1", "n2")
					defer c.Close()
					short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
					defer cancel()
					err := tt.write(short, c)
					requireError(t, err, client.Unknown, context.DeadlineExceeded)
					synctest.Wait()

					_, rerr := c.Resolve(short, err)
					requireError(t, rerr, client.Unknown, context.DeadlineExceeded)

					// Others are not held up, and do not acknowledge it, once its batch is over.
					time.Sleep(time.Second)
					synctest.Wait()
					cut = false
					for range 10 {
						_, err := c.Put(t.Context(), "other", nil)
						require.NoError(t, err)
					}
					for i := range 2 { // the second time without asking
						asked := s.count()
						res, rerr := c.Resolve(t.Context(), fmt.Errorf("wrapped: %w", err))
						require.NoError(t, rerr)
						require.Equal(t, applied, res.Applied)
						require.NoError(t, res.Err)
						require.Equal(t, applied && tt.name == "put", res.Put != nil)
						require.Equal(t, applied && tt.name == "delete", res.Delete != nil)
						require.Equal(t, applied && tt.name == "txn", res.Txn != nil)
						if applied && tt.name == "add" {
							require.EqualValues(t, 3, res.Add.Value)
						}
						if i == 1 {
							require.Equal(t, asked, s.count())
						}
					}
					want := 0
					if applied {
						want = 1
					}
					require.Equal(t, want, f.applied["x"])
					f.answer(late) // it was on the way all the time
					require.Equal(t, want, f.applied["x"])

					// Now it is acknowledged, once the batch that it was in is over.
					time.Sleep(time.Second)
					synctest.Wait()
					_, err = c.Put(t.Context(), "other", nil)
					require.NoError(t, err)
					require.Greater(t, f.sessions[1].ack, uint64(10))
				})
			})
		}
	}
	c := open(t, client.Config{DisableDiscovery: true})
	_, err := c.Resolve(t.Context(), errCut)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
}

// A write that is answered after its caller has left is known without asking.
func TestAnAnswerThatComesAfterItsCallerHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s, letGo := hold(f, 1)
		c := s.open(t, "n1")
		defer c.Close()
		short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := c.Add(short, "x", 1)
		requireError(t, err, client.Unknown, context.DeadlineExceeded)
		close(letGo)
		synctest.Wait()
		asked := s.count()
		res, err := c.Resolve(t.Context(), err)
		require.NoError(t, err)
		require.True(t, res.Applied)
		require.Equal(t, asked, s.count())
	})
}
