package httpapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

func loadOpenAPI(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openAPIDocument)
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	return doc
}

// The document and the routes name the same paths, methods and parameters.
func TestTheDocumentDescribesEveryResource(t *testing.T) {
	doc := loadOpenAPI(t)
	s, err := New(newSoloNode(), Config{})
	require.NoError(t, err)
	resources := s.resources()
	require.Len(t, resources, doc.Paths.Len())
	for _, rs := range resources {
		item := doc.Paths.Value(rs.path)
		require.NotNil(t, item, "%s is not described", rs.path)
		var methods []string
		for name := range item.Operations() {
			methods = append(methods, name)
		}
		slices.Sort(methods)
		require.Equal(t, rs.allow(), strings.Join(methods, ", "), rs.path)
		for name, op := range item.Operations() {
			m, _, _ := rs.lookUp(name)
			known := with(m.params, "timeout")
			var described []string
			for _, p := range op.Parameters {
				if p.Value.In == openapi3.ParameterInQuery {
					described = append(described, p.Value.Name)
				}
			}
			slices.Sort(known)
			slices.Sort(described)
			require.Equal(t, known, described, "%s %s", name, rs.path)
			for status, r := range op.Responses.Map() {
				for _, h := range []string{"Trivet-Revision", "Trivet-Node", "Trivet-Cluster"} {
					require.Contains(t, r.Value.Headers, h, "%s %s %s", name, rs.path, status)
				}
			}
		}
	}
}

// Answers are as the document says: status, media type, body and headers.
func TestAnswersAreAsDescribed(t *testing.T) {
	doc := loadOpenAPI(t)
	d := openDoor(t, newSoloNode(), Config{MaxValueBytes: 100})
	d.node.put(t, "a", "1", "b/1", "2", "text", "x", "\xff/\xfe", "\xff", "c", "3")
	ndjson := "Accept: application/x-ndjson"
	lease := "/v1/leases/" + itoa(int(d.grant("1h")))
	held := d.lock("held", `{"ttl":"1h","owner":"somebody"}`)
	token := itoa(int(held.Token))
	session := d.session()
	sessions := "/v1/sessions/" + strings.TrimPrefix(session, "Trivet-Session: ")
	_, err := d.node.apply([]*trivetpb.Command{{Command: &trivetpb.Command_LockAcquire{LockAcquire: &trivetpb.LockAcquire{Name: []byte("held"), TtlMs: 5000, WaitMs: 5000}}}}, nil)
	require.NoError(t, err)
	snapshot := d.do("GET", "/v1/snapshot", "").body
	for _, call := range []struct {
		method, path, target, body string
		headers                    []string
	}{
		{"GET", "/v1/kv/{key}", "/v1/kv/a", "", nil},
		{"GET", "/v1/kv/{key}", "/v1/kv/a", "", []string{"Accept: application/json"}},
		{"GET", "/v1/kv/{key}", "/v1/kv/%ff%2f%fe", "", []string{"Accept: application/json"}},
		{"GET", "/v1/kv/{key}", "/v1/kv/a", "", []string{`If-None-Match: "2"`}},
		{"GET", "/v1/kv/{key}", "/v1/kv/none", "", nil},
		{"GET", "/v1/kv/{key}", "/v1/kv/a?revision=99", "", nil},
		{"GET", "/v1/kv/{key}", "/v1/kv/a", "", []string{`If-Match: "9"`}},
		{"HEAD", "/v1/kv/{key}", "/v1/kv/a", "", nil},
		{"PUT", "/v1/kv/{key}", "/v1/kv/a?prev=true", "2", nil},
		{"PUT", "/v1/kv/{key}", "/v1/kv/new", "2", nil},
		{"PUT", "/v1/kv/{key}", "/v1/kv/new", "2", []string{"If-None-Match: *"}},
		{"PUT", "/v1/kv/{key}", "/v1/kv/new", strings.Repeat("x", 101), nil},
		{"PUT", "/v1/kv/{key}", "/v1/kv/new", "x", []string{"Content-Encoding: gzip"}},
		{"PUT", "/v1/kv/{key}", "/v1/kv/new?lease=4", "x", nil},
		{"POST", "/v1/kv/{key}", "/v1/kv/n?add=-4", "", nil},
		{"POST", "/v1/kv/{key}", "/v1/kv/text?add=-4", "", nil},
		{"DELETE", "/v1/kv/{key}", "/v1/kv/new?prev=true", "", nil},
		{"DELETE", "/v1/kv/{key}", "/v1/kv/new", "", []string{"Origin: http://evil.example"}},
		{"GET", "/v1/kv", "/v1/kv", "", nil},
		{"GET", "/v1/kv", "/v1/kv?delimiter=/&limit=2&keys_only=true", "", nil},
		{"GET", "/v1/kv", "/v1/kv?delimiter=/", "", nil},
		{"GET", "/v1/kv", "/v1/kv?limit=0", "", nil},
		{"HEAD", "/v1/kv", "/v1/kv", "", nil},
		{"DELETE", "/v1/kv", "/v1/kv?prefix=c", "", nil},
		{"POST", "/v1/txn", "/v1/txn", `{"then":[{"op":"get","key":"a"},{"op":"get","key":"none"},{"op":"range","prefix":"","limit":2}]}`, nil},
		{"POST", "/v1/txn", "/v1/txn", `{"then":[{"op":"put","key":"a","value":"3","prev":true},{"op":"delete","prefix":"b/","prev":true},{"op":"add","key":"n","delta":1}]}`, nil},
		{"POST", "/v1/txn", "/v1/txn", `[]`, nil},
		{"POST", "/v1/batch", "/v1/batch", `{"ops":[{"op":"put","key":"a","value":"3","prev":true},{"op":"txn","then":[{"op":"get","key":"a"}]},{"op":"get","key":"a"},{"op":"get","key":""}]}`, nil},
		{"GET", "/v1/cluster", "/v1/cluster", "", nil},
		{"POST", "/v1/cluster/members", "/v1/cluster/members", `{"id":"n4","peer":"10.0.0.4:7171","role":"replica"}`, nil},
		{"POST", "/v1/cluster/members", "/v1/cluster/members", `{"id":"n4"}`, nil},
		{"POST", "/v1/cluster/members", "/v1/cluster/members", `{"id":"n4"}`, []string{"Content-Type: text/plain"}},
		{"DELETE", "/v1/cluster/members/{id}", "/v1/cluster/members/n4", "", nil},
		{"DELETE", "/v1/cluster/members/{id}", "/v1/cluster/members/n4", "x", nil},
		{"POST", "/v1/cluster/members/{id}/promote", "/v1/cluster/members/n4/promote", "", nil},
		{"POST", "/v1/cluster/members/{id}/demote", "/v1/cluster/members/n4/demote", "", nil},
		{"POST", "/v1/cluster/transfer", "/v1/cluster/transfer", `{"to":"n2"}`, nil},
		{"GET", "/v1/status", "/v1/status", "", nil},
		{"GET", "/livez", "/livez", "", nil},
		{"GET", "/readyz", "/readyz?max_lag=4", "", nil},
		{"GET", "/metrics", "/metrics", "", nil},
		{"GET", "/metrics", "/metrics", "", []string{"Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"}},
		{"GET", "/v1/openapi.json", "/v1/openapi.json", "", nil},
		{"GET", "/v1/kv", "/v1/kv?delimiter=/", "", []string{ndjson}},
		{"PUT", "/v1/kv/{key}", "/v1/kv/mortal?ttl=1h", "1", []string{"Idempotency-Key: k", "Trivet-Guard: held=" + token}},
		{"PUT", "/v1/kv/{key}", "/v1/kv/mortal?ttl=1h", "1", []string{"Idempotency-Key: k", "Trivet-Guard: held=" + token}},
		{"PUT", "/v1/kv/{key}", "/v1/kv/mortal?ttl=2h", "1", []string{"Idempotency-Key: k"}},
		{"PUT", "/v1/kv/{key}", "/v1/kv/mortal", "1", []string{"Trivet-Guard: held=99"}},
		{"PUT", "/v1/kv/{key}", "/v1/kv/mortal", "1", []string{"Trivet-Session: 5;seq=1"}},
		{"DELETE", "/v1/kv/{key}", "/v1/kv/none", "", []string{session + ";seq=1"}},
		{"DELETE", "/v1/kv/{key}", "/v1/kv/none", "", []string{session + ";seq=1"}},
		{"POST", "/v1/txn", "/v1/txn", `{"guard":[{"lock":"held","token":` + token + `}],"then":[{"op":"put","key":"a","value":"3","ttl":"1h"}]}`, nil},
		{"POST", "/v1/batch", "/v1/batch", `{"session":` + strings.TrimPrefix(session, "Trivet-Session: ") + `,"ack":1,"ops":[{"op":"put","key":"a","value":"3","ttl":"1m","seq":2,"guard":[{"lock64":"aGVsZA==","token":` + token + `}]},{"op":"add","key":"n","delta":1,"seq":3},{"op":"delete","key":"n","seq":4},{"op":"txn","seq":5}]}`, nil},
		{"POST", "/v1/batch", "/v1/batch", `{"session":` + strings.TrimPrefix(session, "Trivet-Session: ") + `,"ack":1,"ops":[{"op":"add","key":"n","delta":1,"seq":3}]}`, nil},
		{"POST", "/v1/leases", "/v1/leases", `{"ttl":"10s"}`, []string{"Idempotency-Key: l"}},
		{"POST", "/v1/leases", "/v1/leases", `{"ttl":"10s"}`, []string{"Idempotency-Key: l"}},
		{"POST", "/v1/leases", "/v1/leases", `{"ttl":"0s"}`, nil},
		{"GET", "/v1/leases", "/v1/leases", "", nil},
		{"GET", "/v1/leases", "/v1/leases?limit=1", "", nil},
		{"HEAD", "/v1/leases", "/v1/leases", "", nil},
		{"GET", "/v1/leases/{id}", lease, "", nil},
		{"GET", "/v1/leases/{id}", "/v1/leases/" + itoa(int(held.Lease)), "", nil},
		{"GET", "/v1/leases/{id}", "/v1/leases/7", "", nil},
		{"PUT", "/v1/leases/{id}", lease, "", nil},
		{"PUT", "/v1/leases/{id}", "/v1/leases/7", "", nil},
		{"DELETE", "/v1/leases/{id}", lease, "", nil},
		{"DELETE", "/v1/leases/{id}", lease, "", nil},
		{"GET", "/v1/locks/{name}", "/v1/locks/held", "", nil},
		{"GET", "/v1/locks/{name}", "/v1/locks/%ff", "", nil},
		{"HEAD", "/v1/locks/{name}", "/v1/locks/held", "", nil},
		{"POST", "/v1/locks/{name}", "/v1/locks/a%2Fb", `{"ttl":"10s","wait":"1s","owner":"me"}`, nil},
		{"POST", "/v1/locks/{name}", "/v1/locks/held", `{}`, nil},
		{"POST", "/v1/locks/{name}", "/v1/locks/held", `{"wait":"5ms"}`, nil},
		{"PUT", "/v1/locks/{name}", "/v1/locks/held", `{"token":` + token + `}`, nil},
		{"PUT", "/v1/locks/{name}", "/v1/locks/held", `{"token":99}`, nil},
		{"DELETE", "/v1/locks/{name}", "/v1/locks/held?token=" + token, "", nil},
		{"DELETE", "/v1/locks/{name}", "/v1/locks/held?token=" + token, "", nil},
		{"POST", "/v1/sessions", "/v1/sessions", `{"ttl":"1s"}`, nil},
		{"PUT", "/v1/sessions/{id}", sessions, "", nil},
		{"DELETE", "/v1/sessions/{id}", sessions, "", nil},
		{"DELETE", "/v1/sessions/{id}", sessions, "", nil},
		{"GET", "/v1/snapshot", "/v1/snapshot", "", nil},
		{"HEAD", "/v1/snapshot", "/v1/snapshot", "", nil},
		{"PUT", "/v1/snapshot", "/v1/snapshot", snapshot, nil},
		{"PUT", "/v1/snapshot", "/v1/snapshot", "x", nil},
		{"PUT", "/v1/snapshot", "/v1/snapshot", "x", []string{"Content-Type: text/plain"}},
	} {
		r := d.do(call.method, call.target, call.body, call.headers...)
		op := doc.Paths.Value(call.path).GetOperation(call.method)
		described := op.Responses.Status(r.status)
		require.NotNil(t, described, "%s %s: %d is not described: %s", call.method, call.target, r.status, r.body)
		for name := range r.header {
			if strings.HasPrefix(name, "Trivet-") || name == "Vary" || name == "Etag" || name == "Content-Disposition" {
				require.True(t, hasHeader(described.Value.Headers, name), "%s %s: header %s of %d is not described", call.method, call.target, name, r.status)
			}
		}
		if call.method == http.MethodHead || r.status == http.StatusNotModified {
			continue
		}
		mediaType := described.Value.Content.Get(r.header.Get("Content-Type"))
		require.NotNil(t, mediaType, "%s %s: %s is not described", call.method, call.target, r.header.Get("Content-Type"))
		if strings.Contains(r.header.Get("Content-Type"), "json") {
			for line := range strings.Lines(r.body) {
				if r.header.Get("Content-Type") != ndjsonType {
					line = r.body
				}
				var v any
				require.NoError(t, json.Unmarshal([]byte(line), &v))
				require.NoError(t, mediaType.Schema.Value.VisitJSON(v, openapi3.EnableJSONSchema2020()), "%s %s: %s", call.method, call.target, line)
			}
		}
		if call.body != "" && r.status < 300 && op.RequestBody.Value.Content.Get("application/json") != nil {
			var v any
			require.NoError(t, json.Unmarshal([]byte(call.body), &v))
			schema := op.RequestBody.Value.Content.Get("application/json").Schema.Value
			if !strings.HasPrefix(call.target, "/v1/kv/") {
				require.NoError(t, schema.VisitJSON(v, openapi3.EnableJSONSchema2020()), call.body)
			}
		}
	}
}

func hasHeader(headers openapi3.Headers, name string) bool {
	for described := range headers {
		if strings.EqualFold(described, name) {
			return true
		}
	}
	return false
}

// The document that is served is the one that is embedded.
func TestTheDocumentIsServed(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	r := d.do("GET", "/v1/openapi.json", "")
	body, err := io.ReadAll(strings.NewReader(r.body))
	require.NoError(t, err)
	require.True(t, bytes.Equal(openAPIDocument, body))
}
