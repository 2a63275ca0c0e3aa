package httpapi

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// discard is a ResponseWriter that costs nothing but its header map.
type discard struct {
	h      http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// benchmark serves the same request again and again, without a connection: what
// is measured is what this package adds to net/http and the node.
func benchmark(b *testing.B, method, target, body string, headers ...string) {
	node := newSoloNode()
	node.put(b, "some/key", strings.Repeat("v", 256))
	fixed := []*trivetpb.Result{{Revision: 7, Result: &trivetpb.Result_Put{Put: &trivetpb.PutResult{Version: 5}}}}
	s, err := New(quickNode{node, fixed}, Config{})
	require.NoError(b, err)
	u, err := url.ParseRequestURI(target)
	require.NoError(b, err)
	h := http.Header{"User-Agent": {"bench"}}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		h.Set(name, value)
	}
	b.ReportAllocs()
	w := &discard{h: http.Header{}}
	for b.Loop() {
		clear(w.h)
		r := &http.Request{Method: method, URL: u, Header: h, Host: "x", Body: http.NoBody}
		if body != "" {
			r.ContentLength, r.Body = int64(len(body)), io.NopCloser(strings.NewReader(body))
		}
		s.ServeHTTP(w, r)
	}
	require.Equal(b, 200, w.status)
}

func BenchmarkPut(b *testing.B) {
	benchmark(b, "PUT", "/v1/kv/some/key", strings.Repeat("v", 256))
}

func BenchmarkGet(b *testing.B) { benchmark(b, "GET", "/v1/kv/some/key", "") }

func BenchmarkGetJSON(b *testing.B) {
	benchmark(b, "GET", "/v1/kv/some/key?consistency=stale", "", "Accept: application/json")
}

func BenchmarkRoute(b *testing.B) { benchmark(b, "GET", "/livez", "") }

func BenchmarkBatchJSON(b *testing.B) {
	benchmark(b, "POST", "/v1/batch", `{"ops":[`+strings.Repeat(`,{"op":"get","key":"some/key"}`, 100)[1:]+`]}`)
}

func BenchmarkBatchProtobuf(b *testing.B) {
	req := &trivetpb.BatchRequest{}
	for range 100 {
		req.Ops = append(req.Ops, &trivetpb.BatchOp{Op: &trivetpb.Op{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: []byte("some/key")}}}})
	}
	body, err := req.MarshalVT()
	require.NoError(b, err)
	benchmark(b, "POST", "/v1/batch", string(body), "Content-Type: application/x-protobuf")
}

func BenchmarkDecodePuts(b *testing.B) {
	var ops []string
	for i := range 100 {
		ops = append(ops, `{"op":"put","key":"some/key`+strconv.Itoa(i)+`","value":"`+strings.Repeat("v", 256)+`"}`)
	}
	data := []byte(`{"ops":[` + strings.Join(ops, ",") + `]}`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, p := decodeBatch(data); p != nil {
			b.Fatal(p)
		}
	}
}
