package client

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestKeyPath(t *testing.T) {
	for key, want := range map[string]string{
		"a":         "/v1/kv/a",
		"carts/7":   "/v1/kv/carts/7",
		"a.b/c..d":  "/v1/kv/a.b/c..d",
		"/a":        "/v1/kv/%2Fa",
		"a/":        "/v1/kv/a%2F",
		"a//b/c":    "/v1/kv/a%2F%2Fb%2Fc",
		"a/../b":    "/v1/kv/a%2F..%2Fb",
		"..":        "/v1/kv/%2E%2E",
		".":         "/v1/kv/%2E",
		"%2F":       "/v1/kv/%252F",
		"a b+c?#&":  "/v1/kv/a%20b%2Bc%3F%23%26",
		"ü\xff\x00": "/v1/kv/%C3%BC%FF%00",
	} {
		require.Equal(t, want, keyPath(key))
		c := &Client{}
		n := &node{base: &url.URL{Scheme: "http", Host: "h", Path: "/a b", RawPath: "/a%20b"}}
		req := c.httpRequest(t.Context(), n, &request{method: "GET", path: keyPath(key)}, newBody(nil), time.Second)
		require.Equal(t, "/a%20b"+want+"?timeout=900ms", req.URL.RequestURI())
		require.Equal(t, "/a b"+kvPrefix+key, req.URL.Path)
		require.Nil(t, req.GetBody)
	}
}

func TestReadOptions(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options []GetOption
		want    string
	}{
		{"default", nil, ""},
		{"linearizable", []GetOption{Linearizable()}, ""},
		{"any state", []GetOption{AnyState()}, "consistency=stale"},
		{"stale", []GetOption{Stale()}, "consistency=session&min_revision=1"},
		{"bounded", []GetOption{MaxStaleness(200 * time.Millisecond)}, "consistency=bounded&max_staleness=200ms"},
		{"session", []GetOption{MinRevision(7)}, "consistency=session&min_revision=7"},
		{"session from nothing", []GetOption{MinRevision(0)}, "consistency=session&min_revision=1"},
		{"bounded and session", []GetOption{MinRevision(7), MaxStaleness(time.Second)}, "consistency=bounded&max_staleness=1s&min_revision=7"},
		{"linearizable and session", []GetOption{Linearizable(), MinRevision(7)}, "min_revision=7"},
		{"at", []GetOption{AtRevision(3), Stale()}, "revision=3&consistency=session&min_revision=1"},
		{"the later one counts", []GetOption{AtRevision(3), AtRevision(4)}, "revision=4"},
		{"stale and session", []GetOption{Stale(), MinRevision(7)}, "consistency=session&min_revision=7"},
		{"any state and session", []GetOption{AnyState(), MinRevision(7)}, "refused"},
		{"any state and stale", []GetOption{AnyState(), Stale()}, "refused"},
		{"any state and linearizable", []GetOption{AnyState(), Linearizable()}, "refused"},
		{"stale and bounded", []GetOption{Stale(), MaxStaleness(1)}, "refused"},
		{"linearizable and stale", []GetOption{Linearizable(), Stale()}, "refused"},
		{"linearizable and bounded", []GetOption{Linearizable(), MaxStaleness(1)}, "refused"},
		{"bounded by nothing", []GetOption{MaxStaleness(0)}, "refused"},
		{"at nothing", []GetOption{AtRevision(0)}, "refused"},
	} {
		var p params
		var q queryOf
		for _, o := range tt.options {
			o.toGet(&p)
		}
		if e := p.addRead("get", 0, &q); tt.want == "refused" {
			require.NotNil(t, e, tt.name)
			require.ErrorIs(t, e, ErrBadRequest)
		} else {
			require.Nil(t, e, tt.name)
			require.Equal(t, tt.want, q.String(), tt.name)
		}
	}
}

func TestWriteOptions(t *testing.T) {
	for _, tt := range []struct {
		option PutOption
		want   http.Header
	}{
		{IfRevision(7), http.Header{"If-Match": {`"7"`}}},
		{IfRevision(0), http.Header{"If-None-Match": {"*"}}},
		{IfAbsent(), http.Header{"If-None-Match": {"*"}}},
		{IfExists(), http.Header{"If-Match": {"*"}}},
		{WithPrev(), http.Header{}},
	} {
		p, h := params{}, http.Header{}
		tt.option.toPut(&p)
		p.condition.addTo(h)
		require.Equal(t, tt.want, h)
	}
}

func TestRangesInAQuery(t *testing.T) {
	for _, tt := range []struct {
		keys KeyRange
		want string
	}{
		{Prefix("a b/"), "prefix=a+b%2F"},
		{Prefix(""), "prefix="},
		{Prefix("\xff"), "prefix64=%2Fw%3D%3D"},
		{Between("a", "b\xff"), "start=a&end64=Yv8%3D"},
		{Between("", "b"), "start=&end=b"},
		{From("a"), "start=a"},
		{All(), ""},
	} {
		var q queryOf
		tt.keys.addTo(&q)
		require.Equal(t, tt.want, q.String())
	}
}

func TestTxnDocument(t *testing.T) {
	txn := (&Client{}).Txn().
		If(Absent("a"), Exists("b"), Unchanged(Item{Key: "c", ModRevision: 9}), ValueOf("d\xff").NotEqual([]byte("<\xff")),
			LeaseOf("p/").OfPrefix().GreaterOrEqual(1), ValueOf("e").Equal(nil)).
		Then(OpPut("a", nil, WithPrev(), WithTTL(90*time.Second)), OpPut("b", []byte("\xff"), WithLease(7)), OpAdd("n", 0), OpDelete("c"),
			OpDeleteRange(All()), OpDeleteRange(Prefix("\xff"), WithPrev())).
		Else(OpGet("a"), OpRange(Between("a", "b"), Limit(3), KeysOnly()), OpRange(From("a")), OpCount(Prefix("")))
	got, err := txn.encode()
	require.NoError(t, err)
	require.Nil(t, txn.check("txn"))
	require.JSONEq(t, `{
		"if": [
			{"key":"a","target":"version","op":"==","number":0},
			{"key":"b","target":"version","op":">","number":0},
			{"key":"c","target":"mod_revision","op":"==","number":9},
			{"key64":"ZP8=","target":"value","op":"!=","value64":"PP8="},
			{"prefix":"p/","target":"lease","op":">=","number":1},
			{"key":"e","target":"value","op":"==","value":""}
		],
		"then": [
			{"op":"put","key":"a","value":"","prev":true,"ttl":"1m30s"},
			{"op":"put","key":"b","value64":"/w==","lease":7},
			{"op":"add","key":"n","delta":0},
			{"op":"delete","key":"c"},
			{"op":"delete","start":""},
			{"op":"delete","prefix64":"/w==","prev":true}
		],
		"else": [
			{"op":"get","key":"a"},
			{"op":"range","start":"a","end":"b","limit":3,"keys_only":true},
			{"op":"range","start":"a"},
			{"op":"range","prefix":"","count_only":true}
		]}`, string(got))
	require.True(t, json.Valid(got))
}

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Endpoints: []string{"127.0.0.1:7071"}}, "127.0.0.1:7071"},
		{Config{Endpoints: []string{"ftp://h"}}, "need a URL"},
		{Config{Endpoints: []string{"http://"}}, "the host is missing"},
		{Config{Endpoints: []string{"http://u:p@h"}}, "use Token"},
		{Config{Endpoints: []string{"http://h?x=1"}}, "query"},
		{Config{Endpoints: []string{"http://h", "http://H/"}}, "given twice"},
		{Config{Endpoints: []string{""}}, "need a URL"},
		{Config{Token: "s3cret\r\nX: y"}, "visible ASCII"},
		{Config{Timeout: -1}, "Timeout is negative"},
		{Config{MaxResponseBytes: -1}, "MaxResponseBytes is negative"},
		{Config{Transport: http.DefaultTransport, MaxConnsPerNode: 1}, "exclude each other"},
		{Config{Transport: http.DefaultTransport, DialContext: new(net.Dialer).DialContext}, "exclude each other"},
	} {
		_, err := Open(t.Context(), tt.cfg)
		require.ErrorContains(t, err, tt.want)
		require.NotContains(t, err.Error(), "s3cret")
	}
	c, err := Open(t.Context(), Config{})
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func TestMemberURL(t *testing.T) {
	for _, tt := range []struct{ asked, api, want string }{
		{"http://h:1", "10.0.0.2:7071", "http://10.0.0.2:7071"},
		{"https://h", "10.0.0.2:7071", "https://10.0.0.2:7071"},
		{"http://h:1/behind/proxy", "http://10.0.0.2:7071/", "http://10.0.0.2:7071"},
		{"http://h", "https://n2", "https://n2"},
		{"https://h", "http://n2", ""}, // the token would go out in the clear
		{"http://h", "", ""},
		{"http://h", "unix:///x", ""},
		{"http://h", "http://[::1]:7071", "http://[::1]:7071"},
	} {
		asked, err := parseEndpoint(tt.asked)
		require.NoError(t, err)
		got := ""
		if u := memberURL(asked, tt.api); u != nil {
			got = u.String()
		}
		require.Equal(t, tt.want, got, "%+v", tt)
	}
}

// A write that was begun before the seal is counted by it; one that comes later
// writes nothing, and counts for nothing.
func TestSeal(t *testing.T) {
	c := &countedConn{}
	c.begun.Add(1) // a write that is under way
	require.EqualValues(t, 1, c.seal())
	_, err := c.Write([]byte("x"))
	require.Error(t, err) // and no nil connection was written to
	s := &sending{conns: []*countedConn{c}, before: []int64{1}}
	require.True(t, s.nothingSent())
	s.before[0] = 0
	require.False(t, s.nothingSent())
	require.False(t, (&sending{blind: true}).nothingSent())
	require.True(t, (&sending{}).nothingSent())
}

func TestErrorStrings(t *testing.T) {
	e := &Error{op: `put "k"`, Code: "precondition_failed", ModRevision: 7, Outcome: NotApplied, Node: "n2"}
	require.EqualError(t, e, `trivet: put "k": precondition_failed: the key is at revision 7 (node n2)`)
	require.EqualError(t, &Error{Code: "timeout"}, `trivet: timeout (outcome unknown)`)
	require.ErrorIs(t, &Error{}, ErrUnknown)
	require.Equal(t, "not_applied", NotApplied.String())
	require.Equal(t, "unknown", Unknown.String())
}

// A write that ends before it is sent is certainly not applied, whatever is not known of
// an attempt to do what comes before.
func TestTheOutcomeOfAnAttemptIsNotTheCalls(t *testing.T) {
	cut := errors.New("the connection was cut")
	attempt := &Error{Code: "no_leader", Outcome: Unknown, causes: []error{cut}}
	err := (&request{op: "put", write: true}).ended(context.DeadlineExceeded, &course{attempts: 1, last: attempt})
	require.NotErrorIs(t, err, ErrUnknown)
	for _, kind := range []error{ErrNoLeader, ErrUnavailable, context.DeadlineExceeded, cut} {
		require.ErrorIs(t, err, kind)
	}
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, NotApplied, e.Outcome)
}
