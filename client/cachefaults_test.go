package client_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// What answers in the place of a node confirms nothing: a cache beyond its bound fails
// with an error that says what it got, and goes on as soon as a node answers.
func TestACacheIsConfirmedByNodesAlone(t *testing.T) {
	const ndjson = "application/x-ndjson"
	for name, bad := range map[string]func(r *http.Request) (*http.Response, error){
		"a page of a proxy": func(r *http.Request) (*http.Response, error) { return response(r, 200, "text/html", "<html>"), nil },
		"nothing":           func(r *http.Request) (*http.Response, error) { return response(r, 200, ndjson, ""), nil },
		"no synced frame": func(r *http.Request) (*http.Response, error) {
			return response(r, 200, ndjson, `{"type":"progress","revision":9}`), nil
		},
		"half a frame": func(r *http.Request) (*http.Response, error) {
			return response(r, 200, ndjson, `{"type":"synced","rev`), nil
		},
		"another type": func(r *http.Request) (*http.Response, error) { return response(r, 200, "application/json", `{}`), nil },
		"a frame of no sense": func(r *http.Request) (*http.Response, error) {
			return response(r, 200, ndjson, `{"type":"change","revision":8,"events":[{"type":"put"}]}`), nil
		},
		"a node that stops": func(r *http.Request) (*http.Response, error) {
			return response(r, 200, ndjson, `{"type":"error","problem":{"code":"draining"}}`), nil
		},
		"a broken connection": func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF },
		"a hang": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				healed := make(chan struct{})
				s := &script{answer: func(r *http.Request, _ int) (*http.Response, error) {
					if r.URL.Query().Get("follow") != "false" {
						resp := response(r, 200, ndjson, "")
						resp.ContentLength = -1
						resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(
							`{"type":"items","revision":7,"items":[{"key":"k","value":"old","create_revision":5,"mod_revision":5,"version":1}]}`+"\n"+
								`{"type":"synced","revision":7}`+"\n"), hanging{r.Context()}))
						return resp, nil
					}
					select {
					case <-healed:
						return response(r, 200, ndjson,
							`{"type":"change","revision":8,"events":[{"type":"put","key":"k","value":"new","create_revision":5,"mod_revision":8,"version":2}]}`+"\n"+
								`{"type":"synced","revision":9}`+"\n"), nil
					default:
						return bad(r)
					}
				}}
				c := s.open(t, "n1")
				defer c.Close()
				k, err := c.Cache(t.Context(), client.Prefix("k"), client.WithMaxAge(time.Second))
				require.NoError(t, err)
				it, err := k.Get(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, "old", string(it.Value))
				time.Sleep(1001 * time.Millisecond) // virtual
				require.Equal(t, 1001*time.Millisecond, k.Age())
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err = k.Get(ctx, "k")
				requireError(t, err, client.NotApplied, context.DeadlineExceeded)
				close(healed)
				it, err = k.Get(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, "new", string(it.Value))
				require.EqualValues(t, 9, k.Revision())
			})
		})
	}
}

// A cache that cannot be made says why, and leaves nothing.
func TestACacheThatCannotBeMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(r *http.Request, _ int) (*http.Response, error) {
			return response(r, 403, "application/problem+json", `{"code":"permission_denied","outcome":"not_applied","retryable":false}`), nil
		}}
		c := s.open(t, "n1")
		defer c.Close()
		_, err := c.Cache(t.Context(), client.All())
		requireError(t, err, client.NotApplied, client.ErrDenied)
		s.answer = func(*http.Request, int) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }
		began := time.Now()
		_, err = c.Cache(t.Context(), client.All())
		requireError(t, err, client.NotApplied, context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(began), "Config.Timeout")
	})
}
