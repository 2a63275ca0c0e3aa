package client_test

import (
	"context"
	"errors"
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

// watchScript answers each connection of a watch by lines, in turn, and then
// ends it as the last line says: "hang" for a node that says no more. "rest" has what
// comes after it come late.
type watchScript struct {
	script
	queries []string
}

func newWatchScript(t *testing.T, connections ...string) *watchScript {
	s := &watchScript{}
	s.answer = func(r *http.Request, nth int) (*http.Response, error) {
		q := r.URL.Query()
		q.Del("timeout")
		s.queries = append(s.queries, q.Encode())
		require.Equal(t, "application/x-protobuf, application/x-ndjson;q=0.9", r.Header.Get("Accept"))
		if nth > len(connections) {
			return nil, errors.New("nobody is there")
		}
		text := connections[nth-1]
		if code, ok := strings.CutPrefix(text, "problem "); ok {
			return response(r, 410, "application/problem+json", code), nil
		}
		var body io.Reader = strings.NewReader(text)
		if early, late, ok := strings.Cut(text, "rest"); ok {
			body = io.MultiReader(strings.NewReader(early), resting{}, strings.NewReader(late))
		}
		if frames, ok := strings.CutSuffix(text, "hang"); ok {
			body = io.MultiReader(strings.NewReader(frames), hanging{r.Context()})
		}
		resp := response(r, 200, "application/x-ndjson", "")
		resp.ContentLength, resp.Body = -1, io.NopCloser(body)
		resp.Header.Set("Trivet-Revision", "10")
		return resp, nil
	}
	return s
}

// resting has what is behind it come two seconds later.
type resting struct{}

func (resting) Read([]byte) (int, error) {
	time.Sleep(2 * time.Second) // virtual
	return 0, io.EOF
}

type hanging struct{ ctx context.Context }

func (h hanging) Read([]byte) (int, error) { <-h.ctx.Done(); return 0, h.ctx.Err() }

func (s *watchScript) open(t *testing.T) *client.Client {
	c, err := client.Open(t.Context(), client.Config{
		Endpoints: []string{"http://n1", "http://n2"}, Transport: s, DisableDiscovery: true, MaxResponseBytes: 1 << 20,
	})
	require.NoError(t, err)
	return c
}

func frames(lines ...string) string { return strings.Join(lines, "\n") + "\n" }

func change(revision int) string {
	return fmt.Sprintf(`{"type":"change","revision":%d,"events":[{"type":"put","key":"k","value":"v","create_revision":3,"mod_revision":%[1]d,"version":2,"lease":0}]}`, revision)
}

func synced(revision int) string   { return fmt.Sprintf(`{"type":"synced","revision":%d}`, revision) }
func progress(revision int) string { return fmt.Sprintf(`{"type":"progress","revision":%d}`, revision) }

func items(revision int, keys ...string) string {
	var list []string
	for _, k := range keys {
		list = append(list, fmt.Sprintf(`{"key":%q,"value":"v","create_revision":1,"mod_revision":1,"version":1,"lease":0}`, k))
	}
	return fmt.Sprintf(`{"type":"items","revision":%d,"items":[%s]}`, revision, strings.Join(list, ","))
}

const (
	compacted    = `{"type":"error","problem":{"code":"compacted","outcome":"not_applied","compact_revision":30,"revision":40}}`
	nodeDraining = `{"type":"error","problem":{"code":"draining","outcome":"not_applied","retryable":true}}`
)

func TestWatchGoesOnElsewhere(t *testing.T) {
	for name, tt := range map[string]struct {
		options     []client.WatchOption
		connections []string // the last one should end with compacted
		queries     []string
		told        string
	}{
		"from the revision after the last": {
			connections: []string{frames(synced(10), change(12), change(15)), frames(synced(15), change(16), compacted)},
			queries:     []string{"key=k", "from_revision=16&key=k"},
			told:        "synced 10, change 12, change 15, change 16",
		},
		"nothing is told twice": {
			connections: []string{frames(synced(10), change(12)), frames(change(12), change(13), synced(13), change(13), compacted)},
			queries:     []string{"key=k", "from_revision=13&key=k"},
			told:        "synced 10, change 12, change 13",
		},
		"now is when the first connection came about": {
			connections: []string{"", frames(change(11), synced(11), compacted)},
			queries:     []string{"key=k", "from_revision=11&key=k"},
			told:        "change 11, synced 11",
		},
		"half a frame is none": {
			connections: []string{frames(synced(10)) + change(11)[:50], frames(change(11)) + change(12), frames(compacted)},
			queries:     []string{"key=k", "from_revision=11&key=k", "from_revision=12&key=k"},
			told:        "synced 10, change 11",
		},
		"a node that stops": {
			connections: []string{frames(synced(10), change(11), nodeDraining), frames(synced(11), compacted)},
			queries:     []string{"key=k", "from_revision=12&key=k"},
			told:        "synced 10, change 11",
		},
		"progress counts": {
			options:     []client.WatchOption{client.WithPrev()},
			connections: []string{frames(synced(10), progress(20)), frames(compacted)},
			queries:     []string{"key=k&prev=true", "from_revision=21&key=k&prev=true"},
			told:        "synced 10",
		},
		"and is told": {
			options:     []client.WatchOption{client.FromRevision(7), client.WithProgress()},
			connections: []string{frames(change(8), synced(10), progress(20)), frames(synced(22), compacted)},
			queries:     []string{"from_revision=7&key=k", "from_revision=21&key=k"},
			told:        "change 8, synced 10, progress 20, progress 22",
		},
		"a revision of the past that was not reached": {
			options:     []client.WatchOption{client.FromRevision(7)},
			connections: []string{"", frames(change(8)), frames(compacted)},
			queries:     []string{"from_revision=7&key=k", "from_revision=7&key=k", "from_revision=9&key=k"},
			told:        "change 8",
		},
		"initial items begin anew": {
			options: []client.WatchOption{client.Initial()},
			connections: []string{
				frames(items(10, "a", "b")), "",
				frames(items(12, "a"), items(12, "c"), synced(12), change(13)),
				frames(synced(13), change(14), compacted),
			},
			queries: []string{"initial=true&key=k", "initial=true&key=k", "initial=true&key=k", "from_revision=14&key=k"},
			told:    "items 10 a b, reset 0, items 12 a, items 12 c, synced 12, change 13, change 14",
		},
		"what is of the future": {
			connections: []string{frames(synced(10), `{"type":"of the future","revision":11}`, change(11), compacted)},
			queries:     []string{"key=k"},
			told:        "synced 10, change 11",
		},
		"what is of the future, whatever it holds": {
			connections: []string{frames(`{"type":"hint"}`, synced(10), `{"type":"hint","items":"none","revision":-1}`, change(11), compacted)},
			queries:     []string{"key=k"},
			told:        "synced 10, change 11",
		},
		"a frame that makes no sense": {
			connections: []string{frames(synced(10), change(11), `{"type":"change"}`), frames(`{"type":`), frames("none"), frames(change(12), compacted)},
			queries:     []string{"key=k", "from_revision=12&key=k", "from_revision=12&key=k", "from_revision=12&key=k"},
			told:        "synced 10, change 11, change 12",
		},
		"a long frame": {
			connections: []string{frames(synced(10), strings.Replace(change(11), `"v"`, `"`+strings.Repeat("v", 500_000)+`"`, 1), compacted)},
			queries:     []string{"key=k"},
			told:        "synced 10, change 11",
		},
		"compacted from the beginning": {
			options:     []client.WatchOption{client.FromRevision(7)},
			connections: []string{`problem {"code":"compacted","outcome":"not_applied","compact_revision":30,"revision":40}`},
			queries:     []string{"from_revision=7&key=k"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newWatchScript(t, tt.connections...)
				c := s.open(t)
				defer c.Close()
				var told []string
				var end error
				for f, err := range c.Watch(t.Context(), client.Key("k"), tt.options...) {
					require.NoError(t, end, "the error is the last")
					if end = err; err == nil {
						told = append(told, describe(f))
					}
				}
				e := requireError(t, end, client.NotApplied, client.ErrCompacted)
				require.EqualValues(t, 30, e.CompactRevision)
				require.EqualValues(t, 40, e.Revision)
				require.Equal(t, tt.told, strings.Join(told, ", "))
				require.Equal(t, tt.queries, s.queries)
			})
		})
	}
}

func TestWhatIsNoFrame(t *testing.T) {
	for _, line := range []string{
		`{}`, `null`, `hello`, ``, `{"type":"error"}`, `{"type":"change","revision":11}`, items(11, "a"),
		`{"type":"change","events":[{"type":"delete","key":"k","mod_revision":11}]}`,
		`{"type":"change","revision":11,"events":[{"type":"put","key":"k"}]}`,
		`{"type":"change","revision":11,"events":[{"type":"delete","key":"k"}]}`,
		`{"type":"change","revision":11,"events":[{"type":"move","key":"k","mod_revision":11}]}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newWatchScript(t, frames(synced(10), line), frames(change(11), compacted))
			c := s.open(t)
			defer c.Close()
			var told []string
			for f, err := range c.Watch(t.Context(), client.Key("k")) {
				if err == nil {
					told = append(told, describe(f))
				} else {
					requireError(t, err, client.NotApplied, client.ErrCompacted)
				}
			}
			require.Equal(t, []string{"synced 10", "change 11"}, told, line)
		})
	}
}

// A node of which nothing comes that makes sense is asked a few times, not for ever,
// and one frame in between begins the count anew.
func TestAStreamOfNonsenseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWatchScript(t, frames(synced(10), "none"), "none\n", "none\n", frames(change(11), "none"), "none\n", "none\n", "none\n", "none\n")
		c, err := client.Open(t.Context(), client.Config{Endpoints: []string{"http://n1"}, Transport: s, DisableDiscovery: true})
		require.NoError(t, err)
		defer c.Close()
		var told []string
		var end error
		for f, err := range c.Watch(t.Context(), client.Key("k")) {
			if end = err; err == nil {
				told = append(told, describe(f))
			}
		}
		e := requireError(t, end, client.NotApplied, client.ErrUnavailable)
		require.Equal(t, "bad_response", e.Code)
		require.False(t, e.Retryable)
		require.Equal(t, []string{"synced 10", "change 11"}, told)
		require.Len(t, s.queries, 8)
	})
}

// Not so where each has lasted.
func TestNonsenseNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := frames(synced(10)) + "rest" + frames("none")
		s := newWatchScript(t, now, now, now, now, now, now, now, now, frames(compacted))
		c, err := client.Open(t.Context(), client.Config{Endpoints: []string{"http://n1"}, Transport: s, DisableDiscovery: true})
		require.NoError(t, err)
		defer c.Close()
		var end error
		for _, err := range c.Watch(t.Context(), client.Key("k")) {
			end = err
		}
		require.ErrorIs(t, end, client.ErrCompacted)
		require.Len(t, s.queries, 9)
	})
}

func describe(f client.WatchFrame) string {
	kinds := map[client.FrameKind]string{
		client.FrameChange: "change", client.FrameItems: "items", client.FrameSynced: "synced",
		client.FrameReset: "reset", client.FrameProgress: "progress",
	}
	text := fmt.Sprint(kinds[f.Kind], " ", f.Revision)
	for _, it := range f.Items {
		text += " " + it.Key
	}
	return text
}

// A node that says nothing is as good as none.
func TestASilentNodeIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newWatchScript(t, frames(synced(10))+"hang", "hang", frames(compacted))
		c := s.open(t)
		defer c.Close()
		for f, err := range c.Watch(t.Context(), client.All()) {
			if err == nil {
				require.Equal(t, client.FrameSynced, f.Kind)
				// However long the caller takes, it is not the node that is silent.
				time.Sleep(time.Hour) // virtual
				s.start = time.Now()
			}
		}
		require.Len(t, s.at, 3)
		require.InDelta(t, 25*time.Second, s.at[1], float64(time.Second))
		require.InDelta(t, 50*time.Second, s.at[2], float64(2*time.Second))
		require.NotEqual(t, s.asked[0], s.asked[1])
	})
}

func TestAWatchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := func(c *client.Client, ctx context.Context, keys client.KeyRange, options ...client.WatchOption) (last error) {
			for _, err := range c.Watch(ctx, keys, options...) {
				last = err
			}
			return last
		}
		// With its context: in the middle, and while there is no node.
		s := newWatchScript(t, frames(synced(10))+"hang")
		c := s.open(t)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		requireError(t, ends(c, ctx, client.All()), client.NotApplied, context.DeadlineExceeded)
		cancel()
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Hour, cancel)
		began := time.Now()
		requireError(t, ends(c, ctx, client.All()), client.NotApplied, context.Canceled)
		require.Equal(t, time.Hour, time.Since(began))
		require.Less(t, len(s.asked), 3*7200)
		require.NoError(t, c.Close())

		// When its caller has had enough.
		s = newWatchScript(t, frames(synced(10), change(11))+"hang")
		c = s.open(t)
		for range c.Watch(t.Context(), client.All()) {
			break
		}
		require.NoError(t, c.Close())

		// With the client, which may be closed within the loop.
		s = newWatchScript(t, frames(synced(10))+"hang")
		c = s.open(t)
		var last error
		for _, err := range c.Watch(t.Context(), client.All()) {
			last = err
			require.NoError(t, c.Close())
		}
		requireError(t, last, client.NotApplied, client.ErrClosed)
		s = newWatchScript(t, "hang")
		c = s.open(t)
		time.AfterFunc(time.Second, func() { c.Close() })
		requireError(t, ends(c, t.Context(), client.All()), client.NotApplied, client.ErrClosed)

		// With a frame that it may not hold.
		s = newWatchScript(t, frames(synced(10), strings.Replace(change(11), `"v"`, `"`+strings.Repeat("v", 2<<20)+`"`, 1)))
		c = s.open(t)
		e := requireError(t, ends(c, t.Context(), client.All()), client.NotApplied, client.ErrTooLarge)
		require.EqualValues(t, 1<<20, e.Limit)

		// Before it has begun.
		asked := len(s.asked)
		requireError(t, ends(c, t.Context(), client.KeyRange{}), client.NotApplied, client.ErrBadRequest)
		requireError(t, ends(c, t.Context(), client.Key("")), client.NotApplied, client.ErrBadRequest)
		requireError(t, ends(c, t.Context(), client.All(), client.FromRevision(0)), client.NotApplied, client.ErrBadRequest)
		requireError(t, ends(c, t.Context(), client.All(), client.FromRevision(1), client.Initial()), client.NotApplied, client.ErrBadRequest)
		require.Len(t, s.asked, asked)
		require.NoError(t, c.Close())
	})
}
