package systems

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"

	"trivet/bench/internal/load"
)

// trivetHTTP speaks to Trivet by plain HTTP, a request a call.
type trivetHTTP struct {
	cluster *trivetCluster
	spread  spread
	options Options
}

func openTrivetHTTP(ctx context.Context, c *trivetCluster, o Options) (Client, error) {
	s, err := newSpread(ctx, c, o)
	return &trivetHTTP{cluster: c, spread: s, options: o}, err
}

func (t *trivetHTTP) Close() error { return nil }

func (t *trivetHTTP) Caller(i int) (Caller, error) {
	return &trivetHTTPCaller{httpConns: newHTTPConns(t.cluster.api, t.spread, i), valueBytes: t.options.ValueBytes}, nil
}

// trivetHTTPCaller puts its requests together in a buffer of its own.
type trivetHTTPCaller struct {
	httpConns
	valueBytes int
	request    []byte
	body       []byte
}

func (t *trivetHTTPCaller) Put(ctx context.Context, key int, value []byte) error {
	r := append(t.request[:0], "PUT /v1/kv/"...)
	r = load.AppendKey(r, key)
	r = fmt.Appendf(r, " HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n", len(value))
	t.request = append(r, value...)
	status, body, err := t.write.do(ctx, t.request)
	if err == nil && status != 200 && status != 201 {
		err = unexpected(status, body)
	}
	return err
}

func (t *trivetHTTPCaller) Get(ctx context.Context, key int) error {
	return t.get(ctx, key, "")
}

func (t *trivetHTTPCaller) StaleGet(ctx context.Context, key int) error {
	return t.get(ctx, key, "?consistency=stale")
}

func (t *trivetHTTPCaller) get(ctx context.Context, key int, query string) error {
	r := append(t.request[:0], "GET /v1/kv/"...)
	r = append(load.AppendKey(r, key), query...)
	t.request = append(r, " HTTP/1.1\r\nHost: bench\r\n\r\n"...)
	status, body, err := t.read.do(ctx, t.request)
	if err == nil && (status != 200 || len(body) != t.valueBytes) {
		err = unexpected(status, body)
	}
	return err
}

func (t *trivetHTTPCaller) Scan(ctx context.Context, key, count int) error {
	r := append(t.request[:0], "GET /v1/kv?start="...)
	r = load.AppendKey(r, key)
	r = append(r, "&end="...)
	r = load.AppendKey(r, key+count)
	t.request = fmt.Appendf(r, "&limit=%d HTTP/1.1\r\nHost: bench\r\n\r\n", count)
	status, body, err := t.read.do(ctx, t.request)
	if err == nil && (status != 200 || !holds(body, count, 1)) {
		err = unexpected(status, body)
	}
	return err
}

// modRevision is in each item of a range, once, in the JSON of Trivet and in that of
// etcd.
var modRevision = []byte(`"mod_revision"`)

// holds says that an answer in JSON has so many items. Each is an object, and around
// them are some more. Braces are counted first, which no key has and no value in base64:
// to look for a text all through the answer was a third of what the load generator
// took for a scan.
func holds(answer []byte, items, around int) bool {
	return bytes.Count(answer, []byte{'{'}) == items+around || bytes.Count(answer, modRevision) == items
}

// succeeded is in the answer to a txn whose compare held, in both.
var succeeded = []byte(`"succeeded":true`)

func (t *trivetHTTPCaller) Txn(ctx context.Context, exists, a, b int, value []byte) error {
	body := append(t.body[:0], `{"if":[{"key":"`...)
	body = load.AppendKey(body, exists)
	body = append(body, `","target":"version","op":">","number":0}],"then":[`...)
	for i, key := range []int{a, b} {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"op":"put","key":"`...)
		body = load.AppendKey(body, key)
		body = append(body, `","value64":"`...)
		body = base64.StdEncoding.AppendEncode(body, value)
		body = append(body, `"}`...)
	}
	t.body = append(body, `]}`...)
	r := fmt.Appendf(t.request[:0], "POST /v1/txn HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(t.body))
	t.request = append(r, t.body...)
	status, answer, err := t.write.do(ctx, t.request)
	if err == nil && (status != 200 || !bytes.Contains(answer, succeeded)) {
		err = unexpected(status, answer)
	}
	return err
}

func (t *trivetHTTP) Watch(ctx context.Context, i int, ready func(), events func(int)) error {
	_, node := t.spread.of(i)
	conn := newHTTPConn(t.cluster.api[node])
	defer conn.Close()
	changes := eventCount{begins: []byte(`{"type":"change"`), around: 1, each: 1}
	return conn.stream(ctx, prepare("GET", "/v1/watch?prefix="+load.Prefix, "", nil), func(line []byte) {
		if n := changes.of(line); n > 0 {
			events(n)
		} else if ready != nil && bytes.Contains(line, []byte(`"synced"`)) {
			ready()
			ready = nil
		}
	})
}

// eventCount counts the events in the lines of a watch, which may come in pieces, by their
// braces, as holds does: keys have none, nor have values in base64, which all that are not
// text are in. To look for a text in each was a twelfth of all processor time of
// a hundred watches.
type eventCount struct {
	begins       []byte // what a line with events begins with; a piece is longer
	around, each int    // objects in such a line beside its events, and in each of them

	within  bool // a line has begun and not ended
	objects int  // seen and not counted yet, or less than zero: those around are to come
	counts  bool // it is one with events
}

func (e *eventCount) of(piece []byte) (events int) {
	if !e.within {
		e.counts, e.objects = bytes.HasPrefix(piece, e.begins), -e.around
	}
	e.within = !bytes.HasSuffix(piece, []byte{'\n'})
	if !e.counts {
		return 0
	}
	e.objects += bytes.Count(piece, []byte{'{'})
	events = max(0, e.objects/e.each)
	e.objects -= events * e.each
	return events
}
