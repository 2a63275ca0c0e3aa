package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

func TestSnapshots(t *testing.T) {
	c, ctx := open(t, client.Config{Endpoints: endpoints(t)}), within(t)
	_, err := c.Put(ctx, "kept", []byte("before"))
	require.NoError(t, err)
	lease, err := c.LeaseGrant(ctx, time.Hour)
	require.NoError(t, err)
	large := bytes.Repeat([]byte("0123456789abcdef"), 60_000)
	for _, key := range []string{"large/1", "large/2", "large/3"} {
		_, err = c.Put(ctx, key, append(large, key...), client.WithLease(lease.ID))
		require.NoError(t, err)
	}
	var file bytes.Buffer
	var written []int64
	require.NoError(t, c.SnapshotSave(ctx, &file, func(n int64) { written = append(written, n) }))
	require.EqualValues(t, file.Len(), written[len(written)-1])
	require.IsIncreasing(t, written)

	_, err = c.Put(ctx, "kept", []byte("after"))
	require.NoError(t, err)
	_, err = c.Put(ctx, "new", nil)
	require.NoError(t, err)
	before := c.Revision()

	// A damaged file changes nothing.
	damaged := bytes.Clone(file.Bytes())
	damaged[len(damaged)/2] ^= 1
	_, err = c.SnapshotRestore(ctx, bytes.NewReader(damaged), nil)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.SnapshotRestore(ctx, strings.NewReader("no snapshot"), nil)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	_, err = c.SnapshotRestore(ctx, strings.NewReader(""), nil)
	requireError(t, err, client.NotApplied, client.ErrBadRequest)
	item, err := c.Get(ctx, "kept")
	require.NoError(t, err)
	require.Equal(t, "after", string(item.Value))

	// From where the file stands.
	reader := strings.NewReader("what comes before" + file.String())
	var sent int64
	var restored client.RestoreResult
	for {
		_, err = reader.Seek(int64(len("what comes before")), io.SeekStart)
		require.NoError(t, err)
		restored, err = c.SnapshotRestore(ctx, reader, func(n int64) { sent = n })
		// Where the leader changes meanwhile, on a busy machine, a node may not know: its
		// session went with the state that was replaced.
		if !errors.Is(err, client.ErrUnknown) {
			break
		}
	}
	require.NoError(t, err)
	require.EqualValues(t, file.Len(), sent)
	require.Greater(t, restored.Revision, before)
	require.EqualValues(t, 4, restored.Keys)
	require.Positive(t, restored.Leases, "others are of other tests")
	item, err = c.Get(ctx, "kept")
	require.NoError(t, err)
	require.Equal(t, "before", string(item.Value))
	_, err = c.Get(ctx, "new")
	requireError(t, err, client.NotApplied, client.ErrNotFound)
	_, err = c.Get(ctx, "kept", client.AtRevision(before))
	requireError(t, err, client.NotApplied, client.ErrCompacted)
	_, err = c.LeaseRevoke(ctx, lease.ID)
	require.NoError(t, err)
}

// failing fails when n bytes went through it.
type failing struct{ n int }

var errDisk = errors.New("the disk is full")

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func (f *failing) Read(p []byte) (int, error) {
	if f.n <= 0 {
		return 0, errDisk
	}
	n := min(len(p), f.n)
	f.n -= n
	return n, nil
}

func (f *failing) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		return 1 << 20, nil
	}
	return 0, nil
}

const octets = "application/octet-stream"

// A snapshot that breaks off is not begun again behind what was written of it.
func TestASnapshotThatBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connections := []string{"", "half a", "never"}
		s := &script{}
		s.answer = func(r *http.Request, nth int) (*http.Response, error) {
			if nth == 1 {
				return nil, errors.New("nobody is there")
			}
			resp := response(r, 200, octets, "")
			resp.ContentLength, resp.Body = -1, io.NopCloser(io.MultiReader(strings.NewReader(connections[nth-2]), broken{}))
			return resp, nil
		}
		c := s.open(t, "n1", "n2")
		defer c.Close()
		var file bytes.Buffer
		err := c.SnapshotSave(t.Context(), &file, nil)
		e := requireError(t, err, client.NotApplied, client.ErrUnavailable, io.ErrUnexpectedEOF)
		require.ErrorContains(t, e, "save a snapshot: unavailable: the answer broke off")
		require.Equal(t, "half a", file.String())
		require.Len(t, s.asked, 3)

		// One that stands still.
		s.now(func(r *http.Request, nth int) (*http.Response, error) {
			resp := response(r, 200, octets, "")
			resp.ContentLength, resp.Body = -1, io.NopCloser(io.MultiReader(strings.NewReader("part"), hanging{r.Context()}))
			return resp, nil
		})
		began := time.Now()
		requireError(t, c.SnapshotSave(t.Context(), io.Discard, nil), client.NotApplied, client.ErrUnavailable)
		require.Equal(t, time.Minute, time.Since(began))

		// One that cannot be written.
		asked := len(s.asked)
		err = c.SnapshotSave(t.Context(), &failing{n: 2}, nil)
		requireError(t, err, client.NotApplied, errDisk)
		require.Len(t, s.asked, asked+1)

		// Nobody is there: that is known when the client's time is up.
		s.now(func(*http.Request, int) (*http.Response, error) { return nil, errors.New("nobody is there") })
		began = time.Now()
		requireError(t, c.SnapshotSave(t.Context(), io.Discard, nil), client.NotApplied, client.ErrUnavailable)
		require.InDelta(t, 10*time.Second, time.Since(began), float64(time.Second))
	})
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// A restore goes elsewhere as long as no node can have had all of the file.
func TestARestoreIsNotRepeatedWhereItMayHaveHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const file = "0123456789"
		done := `{"revision":9,"keys":1,"bytes":5,"leases":0}`
		var bodies []string
		var answers []func(r *http.Request) (*http.Response, error)
		s := transportFunc(func(r *http.Request) (*http.Response, error) {
			answer := answers[0]
			answers = answers[1:]
			return answer(r)
		})
		takes := func(bytes int64, then func(r *http.Request) (*http.Response, error)) func(r *http.Request) (*http.Response, error) {
			return func(r *http.Request) (*http.Response, error) {
				require.EqualValues(t, len(file), r.ContentLength)
				b, _ := io.ReadAll(io.LimitReader(r.Body, bytes))
				bodies = append(bodies, string(b))
				return then(r)
			}
		}
		breaks := func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }
		succeeds := func(r *http.Request) (*http.Response, error) {
			return response(r, 200, "application/json", done), nil
		}
		hangs := func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return nil, r.Context().Err() }
		refuses := func(r *http.Request) (*http.Response, error) { return refusal(r, 503, "no_leader", "1") }

		c, err := client.Open(t.Context(), client.Config{Transport: s, DisableDiscovery: true})
		require.NoError(t, err)
		defer c.Close()
		answers = append(answers, takes(0, breaks), takes(4, breaks), takes(4, hangs), takes(10, refuses), takes(10, succeeds))
		began := time.Now()
		result, err := c.SnapshotRestore(t.Context(), strings.NewReader(file), nil)
		require.NoError(t, err)
		require.Equal(t, client.RestoreResult{Revision: 9, Keys: 1, Bytes: 5}, result)
		require.Equal(t, []string{"", "0123", "0123", file, file}, bodies)
		require.GreaterOrEqual(t, time.Since(began), time.Minute)

		answers = append(answers, takes(10, breaks))
		_, err = c.SnapshotRestore(t.Context(), strings.NewReader(file), nil)
		requireError(t, err, client.Unknown, client.ErrUnavailable)
		require.Empty(t, answers)

		answers = append(answers, takes(10, hangs))
		began = time.Now()
		_, err = c.SnapshotRestore(t.Context(), strings.NewReader(file), nil)
		requireError(t, err, client.Unknown, client.ErrUnavailable)
		require.Equal(t, 5*time.Minute, time.Since(began))

		answers = append(answers, takes(10, hangs))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.SnapshotRestore(ctx, strings.NewReader(file), nil)
		requireError(t, err, client.Unknown, context.DeadlineExceeded)

		// A file that cannot be read.
		answers = append(answers, func(r *http.Request) (*http.Response, error) {
			_, err := io.Copy(io.Discard, r.Body)
			return nil, err
		})
		_, err = c.SnapshotRestore(t.Context(), &failing{n: 5}, nil)
		require.Equal(t, "local_failure", requireError(t, err, client.NotApplied, errDisk).Code)
		require.Empty(t, answers)
	})
}
