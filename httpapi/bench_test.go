package httpapi

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
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
	fixed := []*trivetpb.Result{{Revision: 7, Result: &trivetpb.Result_Put{Put: &trivetpb.PutResult{Version: 5}}}}
	benchmarkWith(b, fixed, method, target, body, headers...)
}

// benchmarkWith is benchmark for writes that have these results.
func benchmarkWith(b *testing.B, fixed []*trivetpb.Result, method, target, body string, headers ...string) {
	node := newSoloNode()
	node.put(b, "some/key", strings.Repeat("v", 256))
	value := make([]byte, 256)
	for i := range 300 { // of which lists take a part
		for j := range value {
			value[j] = byte(i*7 + j*13) // no text, as most values are none
		}
		node.put(b, fmt.Sprintf("list/%027d", i), string(value))
		node.put(b, fmt.Sprintf("text/%027d", i), strings.Repeat("some text, ", 24)[:256])
	}
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

func BenchmarkListJSON(b *testing.B) {
	for _, of := range []string{"list", "text"} {
		b.Run(of, func(b *testing.B) {
			benchmark(b, "GET", fmt.Sprintf("/v1/kv?start=%s/%027d&limit=100", of, 100), "")
		})
	}
}

// BenchmarkListBatch is a list of 100 keys as the Go client asks for it, alone and
// with those of others.
func BenchmarkListBatch(b *testing.B) {
	for _, lists := range []int{1, 5} {
		b.Run(strconv.Itoa(lists), func(b *testing.B) {
			req := &trivetpb.BatchRequest{}
			for range lists {
				req.Ops = append(req.Ops, &trivetpb.BatchOp{Op: &trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{
					Range: &trivetpb.KeyRange{Start: fmt.Appendf(nil, "list/%027d", 100), End: fmt.Appendf(nil, "list/%027d", 200)}, Limit: 100,
				}}}})
			}
			body, err := req.MarshalVT()
			require.NoError(b, err)
			benchmark(b, "POST", "/v1/batch", string(body), "Content-Type: application/x-protobuf", "Trivet-Part-Bytes: 262144")
		})
	}
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

// BenchmarkDecodeTxn decodes a txn of a compare and two puts.
func BenchmarkDecodeTxn(b *testing.B) {
	value := base64.StdEncoding.EncodeToString(make([]byte, 256))
	put := func(key string) string { return `{"op":"put","key":"` + key + `","value64":"` + value + `"}` }
	data := []byte(`{"if":[{"key":"some/key","target":"version","op":">","number":0}],"then":[` + put("some/key") + `,` + put("another/key") + `]}`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, p := decodeTxn(data); p != nil {
			b.Fatal(p)
		}
	}
}

// BenchmarkListOverTCP is BenchmarkListJSON with net/http and connections, whose other
// ends do next to nothing.
func BenchmarkListOverTCP(b *testing.B) {
	node := newSoloNode()
	for i := range 300 {
		node.put(b, fmt.Sprintf("list/%027d", i), strings.Repeat("\xff", 256))
	}
	s, err := New(quickNode{node, nil}, Config{})
	require.NoError(b, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	go func() { _ = s.Serve(l) }()
	defer s.Close()
	request := fmt.Appendf(nil, "GET /v1/kv?start=list/%027d&limit=100 HTTP/1.1\r\nHost: x\r\n\r\n", 100)
	b.ReportAllocs()
	before := processTime()
	b.RunParallel(func(p *testing.PB) {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Error(err)
			return
		}
		defer nc.Close()
		buf := make([]byte, 64<<10)
		for p.Next() {
			if _, err := nc.Write(request); err != nil {
				b.Error(err)
				return
			}
			for end := []byte("}\n"); ; {
				n, err := nc.Read(buf)
				if err != nil {
					b.Error(err)
					return
				}
				if bytes.HasSuffix(buf[:n], end) {
					break
				}
			}
		}
	})
	b.ReportMetric(float64((processTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}
