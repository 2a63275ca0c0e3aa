package httpapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// How watches end, by the server, by their node and by callers that do not read.

func TestWatchEndsWithTheServer(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	json, sse := d.watch(""), d.watch("", "Accept: text/event-stream")
	for _, w := range []*watchReader{json, sse} {
		require.Equal(t, "synced", w.next().Type)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- d.srv.Shutdown(context.Background()) }()
	for _, w := range []*watchReader{json, sse} {
		p := w.end("draining")
		require.Equal(t, 503, p.Status)
		require.True(t, p.Retryable)
	}
	require.NoError(t, <-stopped)
	require.Zero(t, d.node.data.Watchers())
}

// However much there is for a watch that lags, it ends when the server does.
func TestWatchThatLagsEndsWithTheServer(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	slow := d.openStalled("key=k")
	const writes = 400
	for range writes { // each a frame that is written by itself
		d.node.put(t, "k", strings.Repeat("v", 2*spillBytes))
	}
	stopped := make(chan error, 1)
	go func() { stopped <- d.srv.Shutdown(context.Background()) }()
	<-d.srv.stopping
	require.NoError(t, slow.SetDeadline(time.Now().Add(20*time.Second)))
	resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
	require.NoError(t, err)
	w := &watchReader{t: t, resp: resp, in: bufio.NewReader(resp.Body)}
	require.Equal(t, "synced", w.next().Type)
	f := w.nextChange()
	for ; f.Type == "change"; f = w.nextChange() {
		require.LessOrEqual(t, f.Revision, uint64(writes), "it was given everything first")
	}
	w.requireEnd(f, "draining")
	require.NoError(t, <-stopped)
}

// A node that has failed learns of nothing any more: who watches there is told, to
// go on elsewhere, and nobody begins.
func TestWatchEndsWithItsNode(t *testing.T) {
	node := newSoloNode()
	node.put(t, "k", "1")
	d := openDoor(t, node, Config{})
	json, sse := d.watch(""), d.watch("", "Accept: text/event-stream")
	for _, w := range []*watchReader{json, sse} {
		require.Equal(t, "synced", w.next().Type)
	}
	node.stop()
	for _, w := range []*watchReader{json, sse} {
		require.True(t, w.end("draining").Retryable)
	}
	d.do("GET", "/v1/watch?from_revision=2", "").requireProblem(t, trivetpb.Code_DRAINING)
	d.do("GET", "/v1/watch", "").requireProblem(t, trivetpb.Code_DRAINING)
	require.Zero(t, node.data.Watchers())
}

// openStalled opens a watch and does not read from it.
func (d *door) openStalled(query string) net.Conn {
	d.t.Helper()
	nc, err := net.Dial("tcp", d.addr)
	require.NoError(d.t, err)
	d.t.Cleanup(func() { nc.Close() })
	watchers := d.node.data.Watchers()
	_, err = io.WriteString(nc, "GET /v1/watch?"+query+" HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(d.t, err)
	require.Eventually(d.t, func() bool { return d.node.data.Watchers() > watchers }, waitAtMost, waitStep)
	return nc
}

// One that falls behind hears that it did, after everything that it was still
// given; writes and others go on meanwhile.
func TestWatchThatFallsBehind(t *testing.T) {
	node := newSoloNode()
	_, err := node.apply(nil, &trivetpb.Settings{HistoryRevisions: 2})
	require.NoError(t, err)
	d := openDoor(t, node, Config{})
	slow := d.openStalled("key=k")
	fast := d.watch("key=k")
	require.Equal(t, "synced", fast.next().Type)
	value := strings.Repeat("v", 1<<20)
	const writes = 100
	for i := range writes {
		node.put(t, "k", value)
		require.EqualValues(t, i+2, fast.nextChange().Revision)
	}
	require.NoError(t, slow.SetDeadline(time.Now().Add(20*time.Second)))
	resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
	require.NoError(t, err)
	w := &watchReader{t: t, resp: resp, in: bufio.NewReader(resp.Body)}
	require.Equal(t, "synced", w.next().Type)
	last := uint64(1)
	f := w.nextChange()
	for ; f.Type == "change"; f = w.nextChange() {
		require.Equal(t, last+1, f.Revision)
		require.Len(t, f.Events[0].Value, len(value))
		last = f.Revision
	}
	require.Less(t, last, uint64(writes))
	p := w.requireEnd(f, "compacted")
	require.Equal(t, 410, p.Status)
	require.Equal(t, node.data.Stats().CompactRevision, *p.CompactRevision)
	require.EqualValues(t, writes+1, *p.Revision)
	d.do("GET", fmt.Sprint("/v1/watch?key=k&from_revision=", last+1), "").requireProblem(t, trivetpb.Code_COMPACTED)
}

func TestWatchersThatDoNotReadAreCut(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{WriteTimeout: 50 * time.Millisecond})
	d.openStalled("")
	// With time enough: on a busy machine nobody is fast.
	fast := openDoor(t, d.node, Config{}).watch("")
	require.Equal(t, "synced", fast.next().Type)
	value := strings.Repeat("v", 1<<20)
	for i := 0; d.node.data.Watchers() > 1; i++ {
		require.Less(t, i, 10_000)
		d.node.put(t, "k", value)
		require.EqualValues(t, i+2, fast.nextChange().Revision)
	}
	d.node.put(t, "k", "")
	require.Equal(t, "change", fast.nextChange().Type)
}

// The initial items hold on to an old state, so they have a time limit.
func TestWatchInitialItemsHaveALimit(t *testing.T) {
	node := newSoloNode()
	for i := range 50 {
		node.put(t, fmt.Sprint("k", i), strings.Repeat("v", 4000))
	}
	d := openDoor(t, node, Config{StreamTimeout: time.Nanosecond})
	w := d.watch("initial=true")
	require.Equal(t, "items", w.next().Type)
	w.end("timeout")
}

// A caller in the same process gets the same.
func TestWatchInProcess(t *testing.T) {
	node := newSoloNode()
	node.put(t, "k", "1", "k", "2")
	d := openDoor(t, node, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	r := httptest.NewRequest("GET", "/v1/watch?from_revision=2", nil).WithContext(ctx)
	rec := &lineRecorder{ResponseRecorder: httptest.NewRecorder()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.srv.ServeHTTP(rec, r)
	}()
	require.Eventually(t, func() bool { return rec.lines.Load() == 3 }, waitAtMost, waitStep)
	require.Equal(t, 1, node.data.Watchers())
	cancel()
	<-done
	require.True(t, rec.Flushed)
	require.EqualValues(t, 3, rec.lines.Load())
	require.Zero(t, node.data.Watchers())
}

// lineRecorder counts the lines that it has recorded.
type lineRecorder struct {
	*httptest.ResponseRecorder
	lines atomic.Int64
}

func (r *lineRecorder) Write(p []byte) (int, error) {
	r.lines.Add(int64(bytes.Count(p, []byte("\n"))))
	return r.ResponseRecorder.Write(p)
}
