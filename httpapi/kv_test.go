package httpapi

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/store"
	"trivet/trivetpb"
)

func itoa(n int) string { return strconv.Itoa(n) }

// step is one request of a scenario and what it must give.
type step struct {
	method, path, body string
	headers            []string // "Name: value"
	status             int
	// want is the whole body, or the code of the problem where status is an
	// error; empty: not looked at.
	want string
	// wantHeaders are headers that must be there: "Name: value".
	wantHeaders []string
}

// play plays a scenario on a fresh server.
func play(t *testing.T, steps []step) {
	t.Helper()
	d := openDoor(t, newSoloNode(), Config{})
	for i, s := range steps {
		r := d.do(s.method, s.path, s.body, s.headers...)
		require.Equal(t, s.status, r.status, "step %d: %s %s: %s", i, s.method, s.path, r.body)
		switch {
		case s.want == "":
		case r.status >= 400:
			require.Equal(t, s.want, r.problem(t).Code, "step %d", i)
		default:
			require.Equal(t, s.want, strings.TrimSuffix(r.body, "\n"), "step %d: %s %s", i, s.method, s.path)
		}
		for _, h := range s.wantHeaders {
			name, value, _ := strings.Cut(h, ": ")
			require.Equal(t, value, r.header.Get(name), "step %d: header %s", i, name)
		}
	}
}

func TestKeys(t *testing.T) {
	for name, steps := range map[string][]step{
		"a value comes back as it was put": {
			{method: "PUT", path: "/v1/kv/a", body: "one", status: 201, want: `{"revision":2,"version":1,"created":true}`, wantHeaders: []string{"Trivet-Revision: 2", "Content-Type: application/json"}},
			{method: "GET", path: "/v1/kv/a", status: 200, want: "one", wantHeaders: []string{
				`ETag: "2"`, "Trivet-Create-Revision: 2", "Trivet-Version: 1", "Trivet-Lease: 0", "Trivet-Revision: 2",
				"Content-Type: application/octet-stream", "Content-Length: 3", "Trivet-Consistency: linearizable", "Trivet-Staleness: 0"}},
			{method: "HEAD", path: "/v1/kv/a", status: 200, wantHeaders: []string{`ETag: "2"`, "Content-Length: 3"}},
			{method: "PUT", path: "/v1/kv/a", body: "two", status: 200, want: `{"revision":3,"version":2,"created":false}`},
			{method: "GET", path: "/v1/kv/a", status: 200, want: "two", wantHeaders: []string{`ETag: "3"`, "Trivet-Create-Revision: 2", "Trivet-Version: 2"}},
		},
		"an empty value is a value": {
			{method: "PUT", path: "/v1/kv/a", status: 201},
			{method: "GET", path: "/v1/kv/a", status: 200, wantHeaders: []string{"Content-Length: 0"}},
			{method: "GET", path: "/v1/kv/a", headers: []string{"Accept: application/json"}, status: 200,
				want: `{"key":"a","value":"","create_revision":2,"mod_revision":2,"version":1,"lease":0}`},
		},
		"an item as JSON has text as text and other bytes as base64": {
			{method: "PUT", path: "/v1/kv/a", body: "x\"\n\x01é", status: 201},
			{method: "GET", path: "/v1/kv/a", headers: []string{"Accept: application/json"}, status: 200,
				want:        `{"key":"a","value":"x\"\n\u0001é","create_revision":2,"mod_revision":2,"version":1,"lease":0}`,
				wantHeaders: []string{"Content-Type: application/json", "Vary: Accept", `ETag: "2"`}},
			{method: "PUT", path: "/v1/kv/%ff", body: "\xff\xfe", status: 201},
			{method: "GET", path: "/v1/kv/%ff", headers: []string{"Accept: application/json, */*"}, status: 200,
				want: `{"key64":"/w==","value64":"//4=","create_revision":3,"mod_revision":3,"version":1,"lease":0}`},
			{method: "GET", path: "/v1/kv/%ff", headers: []string{"Accept: */*"}, status: 200, want: "\xff\xfe"},
			{method: "HEAD", path: "/v1/kv/%ff", headers: []string{"Accept: application/json"}, status: 200, wantHeaders: []string{"Content-Type: application/json", "Content-Length: 93"}},
		},
		"a missing key": {
			{method: "GET", path: "/v1/kv/a", status: 404, want: "key_not_found", wantHeaders: []string{"Trivet-Revision: 1", "Trivet-Consistency: linearizable"}},
			{method: "HEAD", path: "/v1/kv/a", status: 404},
			{method: "DELETE", path: "/v1/kv/a", status: 200, want: `{"deleted":0,"revision":1}`},
		},
		"If-Match holds a write to the revision that was read": {
			{method: "PUT", path: "/v1/kv/a", body: "1", headers: []string{"If-Match: *"}, status: 412, want: "precondition_failed"},
			{method: "PUT", path: "/v1/kv/a", body: "1", headers: []string{`If-Match: "9"`}, status: 412, want: "precondition_failed"},
			{method: "PUT", path: "/v1/kv/a", body: "1", headers: []string{"If-None-Match: *"}, status: 201},
			{method: "PUT", path: "/v1/kv/a", body: "2", headers: []string{"If-None-Match: *"}, status: 412, want: "precondition_failed"},
			{method: "PUT", path: "/v1/kv/a", body: "2", headers: []string{`If-Match: "2"`}, status: 200},
			{method: "PUT", path: "/v1/kv/a", body: "3", headers: []string{`If-Match: "2"`}, status: 412},
			{method: "PUT", path: "/v1/kv/a", body: "3", headers: []string{"If-Match: *"}, status: 200},
			{method: "DELETE", path: "/v1/kv/a", headers: []string{`If-Match: "2"`}, status: 412, want: "precondition_failed"},
			{method: "DELETE", path: "/v1/kv/a", headers: []string{`If-Match: "4"`}, status: 200, want: `{"deleted":1,"revision":5}`},
			{method: "DELETE", path: "/v1/kv/a", headers: []string{"If-Match: *"}, status: 412, want: "precondition_failed"},
		},
		"prev is the item before": {
			{method: "PUT", path: "/v1/kv/a?prev=true", body: "1", status: 201, want: `{"revision":2,"version":1,"created":true}`},
			{method: "PUT", path: "/v1/kv/a?prev=true", body: "2", status: 200,
				want: `{"revision":3,"version":2,"created":false,"prev":{"key":"a","value":"1","create_revision":2,"mod_revision":2,"version":1,"lease":0}}`},
			{method: "PUT", path: "/v1/kv/a?prev=false", body: "3", status: 200, want: `{"revision":4,"version":3,"created":false}`},
			{method: "DELETE", path: "/v1/kv/a?prev=true", status: 200,
				want: `{"deleted":1,"prev":{"key":"a","value":"3","create_revision":2,"mod_revision":4,"version":3,"lease":0},"revision":5}`},
			{method: "DELETE", path: "/v1/kv/a?prev=true", status: 200, want: `{"deleted":0,"revision":5}`},
		},
		"a counter": {
			{method: "POST", path: "/v1/kv/n?add=5", status: 200, want: `{"value":5,"revision":2}`},
			{method: "POST", path: "/v1/kv/n?add=-7", status: 200, want: `{"value":-2,"revision":3}`},
			{method: "GET", path: "/v1/kv/n", status: 200, want: "-2"},
			{method: "PUT", path: "/v1/kv/n", body: "9223372036854775807", status: 200},
			{method: "POST", path: "/v1/kv/n?add=0", status: 200, want: `{"value":9223372036854775807,"revision":5}`},
			{method: "POST", path: "/v1/kv/n?add=1", status: 409, want: "overflow"},
			{method: "PUT", path: "/v1/kv/n", body: "text", status: 200},
			{method: "POST", path: "/v1/kv/n?add=1", status: 409, want: "not_a_number"},
			{method: "POST", path: "/v1/kv/n", status: 400, want: "bad_request"},
			{method: "POST", path: "/v1/kv/n?add=1.5", status: 400, want: "bad_request"},
			{method: "POST", path: "/v1/kv/n?add=9223372036854775808", status: 400, want: "bad_request"},
			{method: "POST", path: "/v1/kv/n?add=1", body: "x", status: 400, want: "bad_request"},
			{method: "POST", path: "/v1/kv/n?add=1", headers: []string{"If-Match: *"}, status: 400, want: "bad_request"},
		},
		"a GET that has it already": {
			{method: "PUT", path: "/v1/kv/a", body: "1", status: 201},
			{method: "GET", path: "/v1/kv/a", headers: []string{`If-None-Match: "2"`}, status: 304, wantHeaders: []string{`ETag: "2"`, "Trivet-Revision: 2"}},
			{method: "HEAD", path: "/v1/kv/a", headers: []string{`If-None-Match: "2"`}, status: 304},
			{method: "GET", path: "/v1/kv/a", headers: []string{"If-None-Match: *"}, status: 304},
			{method: "GET", path: "/v1/kv/a", headers: []string{`If-None-Match: "1"`}, status: 200, want: "1"},
			{method: "GET", path: "/v1/kv/a", headers: []string{`If-Match: "2"`}, status: 200, want: "1"},
			{method: "GET", path: "/v1/kv/a", headers: []string{"If-Match: *"}, status: 200, want: "1"},
			{method: "GET", path: "/v1/kv/a", headers: []string{`If-Match: "1"`}, status: 412, want: "precondition_failed"},
			{method: "GET", path: "/v1/kv/b", headers: []string{`If-None-Match: "1"`}, status: 404, want: "key_not_found"},
		},
		"old revisions": {
			{method: "PUT", path: "/v1/kv/a", body: "1", status: 201},
			{method: "PUT", path: "/v1/kv/a", body: "2", status: 200},
			{method: "DELETE", path: "/v1/kv/a", status: 200},
			{method: "GET", path: "/v1/kv/a?revision=1", status: 404, want: "key_not_found", wantHeaders: []string{"Trivet-Revision: 1"}},
			{method: "GET", path: "/v1/kv/a?revision=2", status: 200, want: "1", wantHeaders: []string{"Trivet-Revision: 2", `ETag: "2"`}},
			{method: "GET", path: "/v1/kv/a?revision=3", status: 200, want: "2"},
			{method: "GET", path: "/v1/kv/a?revision=4", status: 404, want: "key_not_found"},
			{method: "GET", path: "/v1/kv/a?revision=5", status: 400, want: "future_revision"},
			{method: "GET", path: "/v1/kv/a?revision=0", status: 400, want: "bad_request"},
			{method: "GET", path: "/v1/kv/a?revision=-1", status: 400, want: "bad_request"},
		},
		"leases that are not there": {
			{method: "PUT", path: "/v1/kv/a?lease=7", body: "1", status: 404, want: "lease_not_found"},
			{method: "PUT", path: "/v1/kv/a?lease=0", body: "1", status: 201},
			{method: "PUT", path: "/v1/kv/a?lease=x", body: "1", status: 400, want: "bad_request"},
			{method: "PUT", path: "/v1/leases/7", status: 404, want: "lease_not_found"},
			{method: "GET", path: "/v1/leases/7", status: 404, want: "lease_not_found"},
			{method: "DELETE", path: "/v1/leases/7", status: 404, want: "lease_not_found"},
			{method: "POST", path: "/v1/txn", body: `{"then":[{"op":"put","key":"a","value":"2"},{"op":"put","key":"b","value":"2","lease":7}]}`, status: 404, want: "lease_not_found"},
			{method: "GET", path: "/v1/kv/a", status: 200, want: "1"},
		},
		"paths that are not there": {
			{method: "GET", path: "/ui/", status: 404, want: "not_found"},
		},
	} {
		t.Run(name, func(t *testing.T) { play(t, steps) })
	}
}

// A precondition that fails says what the key's revision is, 0 for a missing key.
func TestPreconditionFailedNamesTheRevision(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	p := d.do("PUT", "/v1/kv/a", "1", `If-Match: "7"`).requireProblem(t, trivetpb.Code_PRECONDITION_FAILED)
	require.EqualValues(t, 0, *p.ModRevision)
	d.node.put(t, "a", "1")
	p = d.do("PUT", "/v1/kv/a", "1", `If-Match: "7"`).requireProblem(t, trivetpb.Code_PRECONDITION_FAILED)
	require.EqualValues(t, 2, *p.ModRevision)
	require.Equal(t, "not_applied", p.Outcome)
}

func TestMatchHeadersThatAreRefused(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.node.put(t, "a", "1")
	for _, headers := range [][]string{
		{"If-Match: 2"},
		{`If-Match: W/"2"`},
		{`If-Match: "2", "3"`},
		{`If-Match: "2"`, `If-Match: "2"`},
		{`If-Match: "x"`},
		{`If-Match: ""`},
		{`If-Match: "0"`},
		{`If-Match: "02"`},
		{`If-Match: "+2"`},
		{`If-Match: "99999999999999999999"`},
		{`If-Match: "2"`, "If-None-Match: *"},
		{`If-None-Match: W/"2"`},
	} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			p := d.do(method, "/v1/kv/a", "", headers...).requireProblem(t, trivetpb.Code_BAD_REQUEST)
			require.Contains(t, p.Detail, "Match")
		}
	}
	d.do("PUT", "/v1/kv/a", "", `If-None-Match: "2"`).requireProblem(t, trivetpb.Code_BAD_REQUEST)
	d.do("DELETE", "/v1/kv/a", "", "If-None-Match: *").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	d.do("DELETE", "/v1/kv?prefix=a", "", "If-Match: *").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Equal(t, "1", d.do("GET", "/v1/kv/a", "").body)
}

// Paths reach the store as they were sent: the client library would not even
// send most of these.
func TestKeysInPathsAreNotCleaned(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	for i, row := range []struct{ target, key string }{
		{"/v1/kv/a/b", "a/b"},
		{"/v1/kv//", "/"},
		{"/v1/kv/a//b", "a//b"},
		{"/v1/kv/a/", "a/"},
		{"/v1/kv/.", "."},
		{"/v1/kv/..", ".."},
		{"/v1/kv/../../etc/passwd", "../../etc/passwd"},
		{"/v1/kv/a/./b/../c", "a/./b/../c"},
		{"/v1/kv/a%2Fb%2f", "a/b/"},
		{"/v1/kv/%2e%2E", ".."},
		{"/v1/kv/a%20b+c", "a b+c"},
		{"/v1/kv/%25%32%35", "%25"},
		{"/v1/kv/%00%ff", "\x00\xff"},
		{"/v1/kv/a?timeout=1s", "a"},
		{"/v1/kv/a%3Fb", "a?b"},
		{"/v1/kv/a;b=c&d", "a;b=c&d"},
		{"/v1/kv/caf\xc3\xa9", "café"},
		{"http://other/v1/kv/absolute", "absolute"},
		{"/v1/kv/v1/kv/", "v1/kv/"},
		{"/v1/kv/" + strings.Repeat("%41", maxKeyBytes), strings.Repeat("A", maxKeyBytes)},
	} {
		value := itoa(i)
		r := d.raw("PUT", row.target, value)
		require.Contains(t, []int{200, 201}, r.status, "%s: %s", row.target, r.body)
		it, ok, _ := d.node.data.Get([]byte(row.key))
		require.True(t, ok, "%s did not write %q", row.target, row.key)
		require.Equal(t, value, string(it.Value))
		require.Equal(t, value, d.raw("GET", row.target, "").body)
		require.Equal(t, `"deleted":1`, d.raw("DELETE", row.target, "").body[1:12])
	}
	require.EqualValues(t, 0, d.node.data.Stats().Keys)
}

func TestPathsThatAreNone(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	for _, target := range []string{"/", "//v1/kv/a", "/v1//kv/a", "/v1/%6bv/a", "/v1%2Fkv/a", "/v1/./kv/a", "/v1/kv/../../livez/", "/V1/kv/a", "/v1", "/v1/txn/", "/livez/x", "*"} {
		r := d.raw("OPTIONS", target, "")
		if strings.HasPrefix(target, "/v1/kv/") {
			r.requireProblem(t, trivetpb.Code_METHOD_NOT_ALLOWED)
			continue
		}
		r.requireProblem(t, trivetpb.Code_NOT_FOUND)
	}
	for _, target := range []string{"/v1/kv/", "/v1/kv/" + strings.Repeat("A", maxKeyBytes+1)} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			d.raw(method, target, "").requireProblem(t, trivetpb.Code_BAD_KEY)
		}
	}
	d.raw("CONNECT", "other:80", "").requireProblem(t, trivetpb.Code_NOT_FOUND)
}

func TestMethodsThatAreNotAllowed(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	for _, row := range []struct{ method, path, allow string }{
		{"PATCH", "/v1/kv/a", "DELETE, GET, HEAD, POST, PUT"},
		{"OPTIONS", "/v1/kv/a", "DELETE, GET, HEAD, POST, PUT"},
		{"PUT", "/v1/kv", "DELETE, GET, HEAD"},
		{"POST", "/v1/kv", "DELETE, GET, HEAD"},
		{"GET", "/v1/txn", "POST"},
		{"HEAD", "/v1/batch", "POST"},
		{"POST", "/livez", "GET, HEAD"},
	} {
		r := d.do(row.method, row.path, "")
		require.Equal(t, 405, r.status)
		require.Equal(t, row.allow, r.header.Get("Allow"), "%s %s", row.method, row.path)
	}
}

func TestQueriesThatAreRefused(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	for _, row := range []struct{ method, target, names string }{
		{"GET", "/v1/kv/a?consistancy=stale", "consistancy"},
		{"GET", "/v1/kv/a?prev=true", "prev"},
		{"PUT", "/v1/kv/a?revision=2", "revision"},
		{"DELETE", "/v1/kv/a?lease=1", "lease"},
		{"GET", "/v1/kv/a?revision=2&revision=2", "revision"},
		{"GET", "/v1/kv/a?revision=2&revisio%6e=3", "revision"},
		{"GET", "/v1/kv/a?revision=%zz", "revision"},
		{"GET", "/v1/kv/a?%zz=1", "query"},
		{"GET", "/v1/kv/a?revision=1;timeout=1s", ";"},
		{"PUT", "/v1/kv/a?prev=yes", "prev"},
		{"PUT", "/v1/kv/a?prev", "prev"},
		{"GET", "/v1/kv/a?timeout=0s", "timeout"},
		{"GET", "/v1/kv/a?timeout=0", "timeout"},
		{"GET", "/v1/kv/a?timeout=-1s", "timeout"},
		{"GET", "/v1/kv/a?timeout=5", "timeout"},
		{"GET", "/v1/kv/a?timeout=", "timeout"},
		{"GET", "/v1/kv/a?timeout=61s", "timeout"},
		{"GET", "/v1/kv/a?timeout=9999999h", "timeout"},
		{"GET", "/v1/kv/a?timeout=99999999999999h", "timeout"},
		{"GET", "/livez?verbose=1", "verbose"},
		{"GET", "/readyz?max_lag=0", "max_lag"},
		{"GET", "/readyz?max_lag=many", "max_lag"},
	} {
		p := d.raw(row.method, row.target, "").requireProblem(t, trivetpb.Code_BAD_REQUEST)
		require.Contains(t, p.Detail, row.names, row.target)
		require.Equal(t, "not_applied", p.Outcome)
	}
	require.EqualValues(t, 1, d.node.data.Revision())
	require.Equal(t, 404, d.raw("GET", "/v1/kv/a?timeout=1m&&", "").status)
}

// The parts of an item are those of the store, whatever its bytes are.
func TestItemJSON(t *testing.T) {
	it := store.Item{Key: "k\x7f\u2028", Value: []byte{0, '\\', '/'}, CreateRevision: 1, ModRevision: 2, Version: 3, Lease: 4}
	require.Equal(t, `{"key":"k`+"\x7f\u2028"+`","value":"\u0000\\/","create_revision":1,"mod_revision":2,"version":3,"lease":4}`, string(appendItem(nil, it, false)))
	require.Equal(t, string(appendItem(nil, it, false)), string(appendProtoItem(nil, it.Proto(), false)))
	require.Equal(t, string(appendItem(nil, it, true)), string(appendProtoItem(nil, it.Proto(), true)))
}
