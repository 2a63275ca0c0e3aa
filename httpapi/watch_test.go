package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/trivetpb"
)

// watchReader reads a watch over a real connection.
type watchReader struct {
	t    testing.TB
	resp *http.Response
	in   *bufio.Reader
}

// watchFrame is a frame of a watch; id and event are set for server-sent events.
type watchFrame struct {
	Type     string
	Revision uint64
	Events   []struct {
		Type, Key, Value, Reason string
		ModRevision              uint64 `json:"mod_revision"`
	}
	Items   []struct{ Key, Value string }
	Problem *problemJSON

	id, event, line string
}

// watch opens a watch, which ends with the test.
func (d *door) watch(query string, headers ...string) *watchReader {
	d.t.Helper()
	return openWatch(d.t, d.client, d.addr, query, headers...)
}

func openWatch(t testing.TB, client *http.Client, addr, query string, headers ...string) *watchReader {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/v1/watch?"+query, nil)
	require.NoError(t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	resp, err := client.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	w := &watchReader{t: t, resp: resp, in: bufio.NewReader(resp.Body)}
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		require.FailNow(t, "no watch", "%d %s", resp.StatusCode, body)
	}
	require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
	require.Equal(t, "no", resp.Header.Get("X-Accel-Buffering"))
	require.Equal(t, "Accept", resp.Header.Get("Vary"))
	require.Regexp(t, `^[1-9][0-9]*$`, resp.Header.Get("Trivet-Revision"))
	return w
}

func (w *watchReader) line() (string, error) {
	line, err := w.in.ReadString('\n')
	if err == nil {
		line = line[:len(line)-1]
	}
	return line, err
}

// next reads the next frame.
func (w *watchReader) next() (f watchFrame) {
	w.t.Helper()
	data, err := w.line()
	if w.resp.Header.Get("Content-Type") == eventStream {
		for ; err == nil && data != ""; data, err = w.line() {
			name, value, found := strings.Cut(data, ": ")
			require.True(w.t, found, "%q", data)
			switch name {
			case "id":
				f.id = value
			case "event":
				f.event = value
			case "data":
				require.Empty(w.t, f.line, "data in two lines")
				f.line = value
			default:
				require.Fail(w.t, data)
			}
		}
	} else {
		f.line = data
	}
	require.NoError(w.t, err)
	require.NoError(w.t, json.Unmarshal([]byte(f.line), &f), "%q", f.line)
	if w.resp.Header.Get("Content-Type") == eventStream {
		require.Equal(w.t, f.Type, f.event)
		want := strconv.FormatUint(f.Revision, 10)
		if f.Type == "items" || f.Type == "error" {
			want = ""
		}
		require.Equal(w.t, want, f.id)
	}
	if len(f.line) < spillBytes { // it takes long
		requireFrameSchema(w.t, f.line)
	}
	return f
}

// nextChange reads the next frame that is no progress.
func (w *watchReader) nextChange() watchFrame {
	w.t.Helper()
	for {
		if f := w.next(); f.Type != "progress" {
			return f
		}
	}
}

// lines reads n frames and returns them as they are.
func (w *watchReader) lines(n int) (lines []string) {
	w.t.Helper()
	for range n {
		lines = append(lines, w.next().line)
	}
	return lines
}

// end reads the error frame and the clean end of the stream behind it.
func (w *watchReader) end(code string) *problemJSON {
	w.t.Helper()
	return w.requireEnd(w.next(), code)
}

func (w *watchReader) requireEnd(f watchFrame, code string) *problemJSON {
	w.t.Helper()
	require.Equal(w.t, "error", f.Type, f.line)
	require.Equal(w.t, code, f.Problem.Code)
	_, err := w.in.ReadByte()
	require.Equal(w.t, io.EOF, err)
	return f.Problem
}

var frameSchema = func() *openapi3.Schema {
	doc, err := openapi3.NewLoader().LoadFromData(openAPIDocument)
	if err != nil {
		panic(err)
	}
	return doc.Components.Schemas["WatchFrame"].Value
}()

func requireFrameSchema(t testing.TB, line string) {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal([]byte(line), &v))
	require.NoError(t, frameSchema.VisitJSON(v, openapi3.EnableJSONSchema2020()), line)
}

func (n *soloNode) apply1(t testing.TB, op *trivetpb.Op) {
	t.Helper()
	results, err := n.apply([]*trivetpb.Command{{Command: &trivetpb.Command_Op{Op: op}}}, nil)
	require.NoError(t, err)
	require.Nil(t, results[0].Problem)
}

func deleteOp(key string) *trivetpb.Op {
	return &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{Key: []byte(key)}}}
}

func TestWatchGivesFrames(t *testing.T) {
	node := newSoloNode()
	node.put(t, "a/1", "old", "b", "x")
	d := openDoor(t, node, Config{})
	prefix, plain := d.watch("prefix=a/&prev=true"), d.watch("prefix=a/")
	key, backlog := d.watch("key64=YS8y"), d.watch("start=a&end=b&from_revision=2")
	require.Equal(t, ndjsonType, prefix.resp.Header.Get("Content-Type"))
	require.Equal(t, "linearizable", prefix.resp.Header.Get("Trivet-Consistency"))
	require.Equal(t, "3", prefix.resp.Header.Get("Trivet-Revision"))
	require.Empty(t, backlog.resp.Header.Get("Trivet-Consistency"))
	const synced = `{"type":"synced","revision":3}`
	require.Equal(t, synced, prefix.next().line)
	require.Equal(t, synced, plain.next().line)
	require.Equal(t, synced, key.next().line)
	require.Contains(t, d.do("GET", "/v1/status", "").body, `"watchers":4`)
	require.EqualValues(t, 0, d.srv.underWay.held.Load())

	node.apply1(t, &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: &trivetpb.TxnOp{Then: []*trivetpb.Op{
		putOp("a/2", "\xff"), putOp("a/1", "new\n\"line\""), putOp("c", ""),
	}}}}) // 4
	node.apply1(t, deleteOp("a/2")) // 5
	one := `{"type":"put","key":"a/1","value":"new\n\"line\"","create_revision":2,"mod_revision":4,"version":2,"lease":0`
	two := `{"type":"put","key":"a/2","value64":"/w==","create_revision":4,"mod_revision":4,"version":1,"lease":0}`
	gone := `{"type":"delete","key":"a/2","mod_revision":5,"reason":"delete"`
	require.Equal(t, []string{
		`{"type":"change","revision":4,"events":[` + two + `,` + one + `,"prev":{"key":"a/1","value":"old","create_revision":2,"mod_revision":2,"version":1,"lease":0}}]}`,
		`{"type":"change","revision":5,"events":[` + gone + `,"prev":{"key":"a/2","value64":"/w==","create_revision":4,"mod_revision":4,"version":1,"lease":0}}]}`,
	}, prefix.lines(2))
	changes := []string{
		`{"type":"change","revision":4,"events":[` + two + `,` + one + `}]}`,
		`{"type":"change","revision":5,"events":[` + gone + `}]}`,
	}
	require.Equal(t, changes, plain.lines(2))
	require.Equal(t, append([]string{`{"type":"change","revision":2,"events":[{"type":"put","key":"a/1","value":"old","create_revision":2,"mod_revision":2,"version":1,"lease":0}]}`,
		synced}, changes...), backlog.lines(4))
	require.Equal(t, []string{`{"type":"change","revision":4,"events":[` + two + `]}`, changes[1]}, key.lines(2))

	for _, w := range []*watchReader{prefix, plain, key, backlog} {
		w.resp.Body.Close()
	}
	require.Eventually(t, func() bool { return node.data.Watchers() == 0 && d.srv.watching.held.Load() == 0 }, waitAtMost, waitStep)
}

// The items of one revision, then what changed after it: nothing between.
func TestWatchWithInitialItems(t *testing.T) {
	node := newSoloNode()
	d := openDoor(t, node, Config{})
	empty := d.watch("initial=true&prefix=k")
	require.Equal(t, []string{`{"type":"synced","revision":1}`}, empty.lines(1))
	var want []string
	for i := range 100 {
		want = append(want, fmt.Sprintf("k%03d", i))
		node.put(t, want[i], strings.Repeat("v", 2000))
	}
	node.put(t, "other", "")
	for _, headers := range [][]string{nil, {"Accept: text/event-stream"}} {
		at := node.data.Revision()
		w := d.watch("initial=true&prefix=k", headers...)
		var got []string
		frames := 0
		f := w.next()
		for ; f.Type == "items"; f = w.next() {
			require.LessOrEqual(t, len(f.line), spillBytes+3000)
			require.Equal(t, at, f.Revision)
			for _, it := range f.Items {
				got = append(got, it.Key)
			}
			if frames++; frames == 1 {
				node.put(t, "k", "later")
			}
		}
		require.Equal(t, want, got)
		require.Equal(t, 4, frames)
		require.Equal(t, "synced", f.Type)
		require.Equal(t, at, f.Revision)
		require.Equal(t, w.resp.Header.Get("Trivet-Revision"), fmt.Sprint(f.Revision))
		f = w.next()
		require.Equal(t, "later", f.Events[0].Value)
		require.Equal(t, node.data.Revision(), f.Revision)
		node.apply1(t, deleteOp("k"))
	}
	for i := range want {
		require.Equal(t, want[i], empty.next().Events[0].Key)
	}
}

// Whatever is written while a watch opens is among its items or its changes.
func TestWatchHasNoGapBehindItsItems(t *testing.T) {
	node := newSoloNode()
	node.put(t, "k", "")
	d := openDoor(t, node, Config{})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := node.apply([]*trivetpb.Command{{Command: &trivetpb.Command_Op{Op: putOp("k", "")}}}, nil); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	for range 40 {
		w := d.watch("key=k&initial=true")
		items := w.next()
		require.Equal(t, "items", items.Type)
		f := w.next()
		if f.Type == "synced" {
			f = w.next()
		}
		require.Equal(t, []any{"change", items.Revision + 1}, []any{f.Type, f.Revision})
		w.resp.Body.Close()
	}
}

func TestWatchAsServerSentEvents(t *testing.T) {
	node := newSoloNode()
	node.put(t, "a", "1")
	d := openDoor(t, node, Config{})
	sse := "Accept: text/event-stream"
	w := d.watch("initial=true", sse)
	require.Equal(t, eventStream, w.resp.Header.Get("Content-Type"))
	require.Equal(t, "items", w.next().Type)
	require.Equal(t, "2", w.next().id)
	node.put(t, "a", "two\nlines\r\nid: 7\n\n", "b", "\n")
	f := w.next()
	require.Equal(t, "3", f.id)
	require.Equal(t, "two\nlines\r\nid: 7\n\n", f.Events[0].Value)
	// The browser comes back with the same URL, and with the last id it saw.
	w.resp.Body.Close()
	w = d.watch("initial=true", sse, "Last-Event-ID: 3")
	require.Equal(t, "4", w.next().id)
	require.Equal(t, "synced", w.next().Type)
	w = d.watch("from_revision=1", sse, "Last-Event-ID: 2")
	require.Equal(t, "3", w.next().id)
	w = d.watch("from_revision=3", "Last-Event-ID: 3") // in NDJSON as well
	require.EqualValues(t, 4, w.next().Revision)
	w = d.watch("", sse, "Last-Event-ID: 0")
	require.Equal(t, "2", w.next().id)
}

func TestWatchesThatAreRefused(t *testing.T) {
	node := newSoloNode()
	_, err := node.apply(nil, &trivetpb.Settings{HistoryRevisions: 3})
	require.NoError(t, err)
	for i := range 9 {
		node.put(t, "k", fmt.Sprint(i)) // to revision 10
	}
	d := openDoor(t, node, Config{MaxWatchers: 1})
	for path, code := range map[string]trivetpb.Code{
		"key=a&prefix=b":                      trivetpb.Code_BAD_REQUEST,
		"key=a&end64=YQ==":                    trivetpb.Code_BAD_REQUEST,
		"key=a&key64=YQ==":                    trivetpb.Code_BAD_REQUEST,
		"key64=*":                             trivetpb.Code_BAD_REQUEST,
		"prefix=a&start=b":                    trivetpb.Code_BAD_REQUEST,
		"initial=yes":                         trivetpb.Code_BAD_REQUEST,
		"prev=1":                              trivetpb.Code_BAD_REQUEST,
		"initial=true&from_revision=9":        trivetpb.Code_BAD_REQUEST,
		"from_revision=0":                     trivetpb.Code_BAD_REQUEST,
		"from_revision=x":                     trivetpb.Code_BAD_REQUEST,
		"revision=9":                          trivetpb.Code_BAD_REQUEST,
		"consistency=stale":                   trivetpb.Code_BAD_REQUEST,
		"timeout=2m":                          trivetpb.Code_BAD_REQUEST,
		"key=":                                trivetpb.Code_BAD_KEY,
		"key=" + strings.Repeat("k", 4097):    trivetpb.Code_BAD_KEY,
		"prefix=" + strings.Repeat("k", 4098): trivetpb.Code_BAD_KEY,
		"from_revision=7":                     trivetpb.Code_COMPACTED,
		"from_revision=1":                     trivetpb.Code_COMPACTED,
		"from_revision=12":                    trivetpb.Code_FUTURE_REVISION,
	} {
		p := d.do("GET", "/v1/watch?"+path, "").requireProblem(t, code)
		require.Equal(t, "not_applied", p.Outcome)
		switch code {
		case trivetpb.Code_COMPACTED:
			require.EqualValues(t, 7, *p.CompactRevision)
			require.EqualValues(t, 10, *p.Revision)
		case trivetpb.Code_FUTURE_REVISION:
			require.EqualValues(t, 10, *p.Revision)
		}
	}
	for _, id := range []string{"x", "-1", "1.5", "9007199254740991"} {
		d.do("GET", "/v1/watch", "", "Last-Event-ID: "+id).requireProblem(t, trivetpb.Code_BAD_REQUEST)
	}
	d.do("GET", "/v1/watch", "", "Last-Event-ID: 5").requireProblem(t, trivetpb.Code_COMPACTED)
	r := d.do("POST", "/v1/watch", "")
	r.requireProblem(t, trivetpb.Code_METHOD_NOT_ALLOWED)
	require.Equal(t, "GET, HEAD", r.header.Get("Allow"))

	r = d.do("HEAD", "/v1/watch?from_revision=9", "")
	require.Equal(t, 200, r.status)
	require.Equal(t, ndjsonType, r.header.Get("Content-Type"))
	require.Equal(t, 410, d.do("HEAD", "/v1/watch?from_revision=2", "").status)
	require.Zero(t, node.data.Watchers())

	w := d.watch("from_revision=11")
	require.Equal(t, "synced", w.next().Type)
	r = d.do("GET", "/v1/watch", "")
	r.requireProblem(t, trivetpb.Code_OVERLOADED)
	require.Equal(t, "1", r.header.Get("Retry-After"))
	require.Equal(t, 200, d.do("GET", "/v1/kv/k", "").status)
	w.resp.Body.Close()
	require.Eventually(t, func() bool { return d.srv.watching.held.Load() == 0 }, waitAtMost, waitStep)
	d.watch("")
	d.srv.Drain()
	d.do("GET", "/v1/watch", "").requireProblem(t, trivetpb.Code_DRAINING)
}

// A watch from now on, or from a revision that this node has not seen yet, asks
// the cluster first; one from a revision that is here does not.
func TestWatchIsFresh(t *testing.T) {
	node := newSoloNode()
	node.put(t, "k", "1")
	refused := &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER}
	node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) { return raftnode.Proof{}, refused }
	d := openDoor(t, node, Config{})
	for _, query := range []string{"", "initial=true", "from_revision=5"} {
		d.do("GET", "/v1/watch?"+query, "").requireProblem(t, trivetpb.Code_NO_LEADER)
	}
	for _, query := range []string{"from_revision=2", "from_revision=3"} {
		d.watch(query)
	}
	node = newSoloNode()
	node.onRead = func(context.Context, raftnode.ReadOptions) (raftnode.Proof, error) {
		node.put(t, "k", "2", "k", "3", "k", "4") // what the others had already
		return raftnode.Proof{Proven: true}, nil
	}
	d = openDoor(t, node, Config{})
	w := d.watch("from_revision=4")
	require.Equal(t, raftnode.Linearizable, node.lastRead().Consistency)
	require.EqualValues(t, 4, w.next().Revision)
	require.Equal(t, `{"type":"synced","revision":4}`, w.next().line)
	require.Equal(t, `{"type":"synced","revision":7}`, d.watch("").next().line)
}

// A watch from a revision that is here begins at once, but is synced only when
// this node has all that was committed before: it may lag, or nobody may lead.
func TestWatchIsSyncedWithTheCluster(t *testing.T) {
	node := newSoloNode()
	node.put(t, "k", "1")
	asked := make(chan func() error)
	node.onRead = func(ctx context.Context, _ raftnode.ReadOptions) (raftnode.Proof, error) {
		select {
		case answer := <-asked:
			return raftnode.Proof{}, answer()
		case <-ctx.Done():
			return raftnode.Proof{}, ctx.Err()
		}
	}
	d := openDoor(t, node, Config{})
	w := d.watch("from_revision=2")
	require.EqualValues(t, 2, w.next().Revision)
	node.put(t, "k", "2")
	require.EqualValues(t, 3, w.next().Revision)
	asked <- func() error { return &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER} }
	asked <- func() error {
		node.put(t, "k", "3") // what the others had already
		return nil
	}
	f := w.next()
	require.Equal(t, "change", f.Type, "before it is synced")
	require.EqualValues(t, 4, f.Revision)
	require.Equal(t, `{"type":"synced","revision":4}`, w.next().line)
	node.put(t, "k", "4")
	require.EqualValues(t, 5, w.next().Revision)

	// Nothing is left of one that goes away before.
	w = d.watch("from_revision=6")
	w.resp.Body.Close()
	require.Eventually(t, func() bool { return node.data.Watchers() == 1 }, waitAtMost, waitStep)
}

// timeout bounds the time to the first byte alone.
func TestWatchTimeout(t *testing.T) {
	node := newSoloNode()
	wait := make(chan struct{})
	node.onRead = func(ctx context.Context, _ raftnode.ReadOptions) (raftnode.Proof, error) {
		select {
		case <-ctx.Done():
			return raftnode.Proof{}, ctx.Err()
		case <-wait:
			return raftnode.Proof{}, nil
		}
	}
	d := openDoor(t, node, Config{ProgressInterval: 30 * time.Millisecond})
	d.do("GET", "/v1/watch?timeout=20ms", "").requireProblem(t, trivetpb.Code_TIMEOUT)
	close(wait)
	w := d.watch("timeout=20ms")
	require.Equal(t, "synced", w.next().Type)
	for range 3 {
		require.Equal(t, "progress", w.next().Type)
	}
	node.put(t, "k", "")
	for f := w.next(); f.Type != "change"; f = w.next() {
		require.Equal(t, "progress", f.Type)
	}
}

// Progress comes whether anything is sent or not, and counts what did not
// concern the watch.
func TestWatchProgress(t *testing.T) {
	node := newSoloNode()
	d := openDoor(t, node, Config{ProgressInterval: 20 * time.Millisecond})
	for _, headers := range [][]string{nil, {"Accept: text/event-stream"}} {
		w := d.watch("key=k", headers...)
		require.Equal(t, "synced", w.next().Type)
		node.put(t, "other", "")
		for f := w.next(); f.Revision < node.data.Revision(); f = w.next() {
			require.Equal(t, "progress", f.Type)
		}
		last, seen := uint64(0), 0
		for seen < 3 {
			node.put(t, "k", "")
			f := w.next()
			require.GreaterOrEqual(t, f.Revision, last)
			if last = f.Revision; f.Type == "progress" {
				seen++
			}
		}
	}
}
