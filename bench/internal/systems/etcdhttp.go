package systems

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"

	"trivet/bench/internal/load"
)

// etcdHTTP speaks to etcd by its JSON gateway, a request a call.
type etcdHTTP struct {
	cluster *etcdCluster
	spread  spread
	options Options
}

func openEtcdHTTP(ctx context.Context, c *etcdCluster, o Options) (Client, error) {
	s, err := newSpread(ctx, c, o)
	return &etcdHTTP{cluster: c, spread: s, options: o}, err
}

func (e *etcdHTTP) Close() error { return nil }

func (e *etcdHTTP) Caller(i int) (Caller, error) {
	return &etcdHTTPCaller{httpConns: newHTTPConns(e.cluster.api, e.spread, i), valueBytes: e.options.ValueBytes}, nil
}

// etcdHTTPCaller puts its requests together in buffers of its own.
type etcdHTTPCaller struct {
	httpConns
	valueBytes int
	request    []byte
	body       []byte
	key        []byte
}

// appendKey appends a key as the gateway wants its bytes.
func (e *etcdHTTPCaller) appendKey(b []byte, key int) []byte {
	e.key = load.AppendKey(e.key[:0], key)
	return base64.StdEncoding.AppendEncode(b, e.key)
}

// post sends e.body.
func (e *etcdHTTPCaller) post(ctx context.Context, conn *httpConn, path string) ([]byte, error) {
	r := fmt.Appendf(e.request[:0], "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, len(e.body))
	e.request = append(r, e.body...)
	status, body, err := conn.do(ctx, e.request)
	if err == nil && status != 200 {
		err = unexpected(status, body)
	}
	return body, err
}

func (e *etcdHTTPCaller) appendPut(b []byte, key int, value []byte) []byte {
	b = append(b, `{"key":"`...)
	b = e.appendKey(b, key)
	b = append(b, `","value":"`...)
	b = base64.StdEncoding.AppendEncode(b, value)
	return append(b, `"}`...)
}

func (e *etcdHTTPCaller) Put(ctx context.Context, key int, value []byte) error {
	e.body = e.appendPut(e.body[:0], key, value)
	_, err := e.post(ctx, e.write, "/v3/kv/put")
	return err
}

func (e *etcdHTTPCaller) Get(ctx context.Context, key int) error {
	return e.get(ctx, key, `"}`)
}

func (e *etcdHTTPCaller) StaleGet(ctx context.Context, key int) error {
	return e.get(ctx, key, `","serializable":true}`)
}

func (e *etcdHTTPCaller) get(ctx context.Context, key int, rest string) error {
	b := append(e.body[:0], `{"key":"`...)
	b = e.appendKey(b, key)
	e.body = append(b, rest...)
	answer, err := e.post(ctx, e.read, "/v3/kv/range")
	if err == nil && valueText(answer) != base64.StdEncoding.EncodedLen(e.valueBytes) {
		err = unexpected(200, answer)
	}
	return err
}

// valueText returns how long the text of the first value in an answer is, which is
// not decoded; -1 where there is none.
func valueText(answer []byte) int {
	_, value, found := bytes.Cut(answer, []byte(`"value":"`))
	if !found {
		return -1
	}
	return bytes.IndexByte(value, '"')
}

func (e *etcdHTTPCaller) Scan(ctx context.Context, key, count int) error {
	b := append(e.body[:0], `{"key":"`...)
	b = e.appendKey(b, key)
	b = append(b, `","range_end":"`...)
	b = e.appendKey(b, key+count)
	e.body = fmt.Appendf(b, `","limit":"%d"}`, count)
	answer, err := e.post(ctx, e.read, "/v3/kv/range")
	if err == nil && !holds(answer, count, 2) { // the header is one
		err = unexpected(200, answer)
	}
	return err
}

func (e *etcdHTTPCaller) Txn(ctx context.Context, exists, a, b int, value []byte) error {
	t := append(e.body[:0], `{"compare":[{"key":"`...)
	t = e.appendKey(t, exists)
	t = append(t, `","target":"VERSION","result":"GREATER","version":"0"}],"success":[{"request_put":`...)
	t = e.appendPut(t, a, value)
	t = append(t, `},{"request_put":`...)
	t = e.appendPut(t, b, value)
	e.body = append(t, `}]}`...)
	answer, err := e.post(ctx, e.write, "/v3/kv/txn")
	if err == nil && !bytes.Contains(answer, succeeded) {
		err = unexpected(200, answer)
	}
	return err
}

func (e *etcdHTTP) Watch(ctx context.Context, i int, ready func(), events func(int)) error {
	_, node := e.spread.of(i)
	conn := newHTTPConn(e.cluster.api[node])
	defer conn.Close()
	end := []byte(load.Prefix)
	end[len(end)-1]++ // etcd's way to say prefix
	body := fmt.Sprintf(`{"create_request":{"key":"%s","range_end":"%s"}}`,
		base64.StdEncoding.EncodeToString([]byte(load.Prefix)), base64.StdEncoding.EncodeToString(end))
	// Objects: the line, its result, the header; an event and its key and value.
	changes := eventCount{begins: []byte(`{"result":{"header":`), around: 3, each: 2}
	return conn.stream(ctx, prepare("POST", "/v3/watch", "application/json", []byte(body)), func(line []byte) {
		if n := changes.of(line); n > 0 {
			events(n)
		} else if ready != nil && bytes.Contains(line, []byte(`"created":true`)) {
			ready()
			ready = nil
		}
	})
}
