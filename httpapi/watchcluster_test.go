package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// A watch goes on at another member after its own died, with no gap and no
// repeat, beside a writer that never stops; by from_revision, and by the id that
// a browser sends.
func TestWatchGoesOnAtAnotherMember(t *testing.T) {
	doors := startCluster(t, 3)
	leader, first, second := doors[0], doors[1], doors[2]
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	byRevision := openWatch(t, client, first.addr, "prefix=w/")
	byID := openWatch(t, client, first.addr, "prefix=w/", "Accept: text/event-stream")

	// The writer puts numbers, one after the other.
	var written atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			for _, key := range []string{"w/k", "other"} {
				req, err := http.NewRequest(http.MethodPut, "http://"+leader.addr+"/v1/kv/"+key, strings.NewReader(strconv.Itoa(i)))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode >= 300 {
					t.Errorf("%s %v", body, err)
					return
				}
			}
			written.Store(int64(i))
		}
	}()
	at, last := 0, uint64(0)
	take := func(w *watchReader, until int, at *int, last *uint64) {
		for *at < until {
			f := w.next()
			if f.Type != "change" {
				require.GreaterOrEqual(t, f.Revision, *last)
				continue
			}
			*at++
			require.Equal(t, strconv.Itoa(*at), f.Events[0].Value)
			require.Greater(t, f.Revision, *last)
			*last = f.Revision
		}
	}
	idAt, idLast := 0, uint64(0)
	take(byRevision, 50, &at, &last)
	take(byID, 30, &idAt, &idLast)
	now, cancel := context.WithCancel(t.Context())
	cancel()
	first.server.Close()
	first.node.Close(now)

	// Neither is at the end of what it was sent: they go on from what they have.
	byRevision = openWatch(t, client, second.addr, fmt.Sprint("prefix=w/&from_revision=", last+1))
	byID = openWatch(t, client, second.addr, "prefix=w/", "Accept: text/event-stream", fmt.Sprint("Last-Event-ID: ", idLast))
	take(byRevision, at+100, &at, &last)
	close(stop)
	<-done
	all := int(written.Load())
	take(byRevision, all, &at, &last)
	take(byID, all, &idAt, &idLast)
	require.Equal(t, last, idLast)
}

// What a member is told to have been written, a watch that is opened at any
// other afterwards does not give, and what is written after it is opened it does.
func TestWatchFromNowIsFreshEverywhere(t *testing.T) {
	doors := startCluster(t, 3)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	put := func(addr, value string) uint64 {
		req, err := http.NewRequest(http.MethodPut, "http://"+addr+"/v1/kv/k", strings.NewReader(value))
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Less(t, resp.StatusCode, 300)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		revision, err := strconv.ParseUint(resp.Header.Get("Trivet-Revision"), 10, 64)
		require.NoError(t, err)
		return revision
	}
	for i := range 30 {
		from, to := doors[i%3], doors[(i+1)%3]
		before := put(from.addr, "before")
		w := openWatch(t, client, to.addr, "key=k")
		items := openWatch(t, client, doors[(i+2)%3].addr, "key=k&initial=true")
		after := put(from.addr, "after")
		f := w.next()
		require.Equal(t, "synced", f.Type)
		require.GreaterOrEqual(t, f.Revision, before)
		require.Equal(t, after, w.next().Revision)
		require.Equal(t, "before", items.next().Items[0].Value)
		require.Equal(t, "synced", items.next().Type)
		require.Equal(t, after, items.next().Revision)
		w.resp.Body.Close()
		items.resp.Body.Close()
	}
	// A position that one member has and another may not have yet.
	revision := put(doors[0].addr, "last")
	w := openWatch(t, client, doors[1].addr, fmt.Sprint("key=k&from_revision=", revision))
	f := w.next()
	if f.Type == "synced" { // up to right before it: that member had no more
		require.Equal(t, revision-1, f.Revision)
		f = w.next()
	}
	require.Equal(t, revision, f.Revision)
}
