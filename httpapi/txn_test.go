package httpapi

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/raftnode"
	"trivet/trivetpb"
)

func TestTxns(t *testing.T) {
	post := func(body string, status int, want string) step {
		return step{method: "POST", path: "/v1/txn", body: body, status: status, want: want}
	}
	for name, steps := range map[string][]step{
		"compare and swap": {
			post(`{"if":[{"key":"a","target":"mod_revision","op":"==","number":0}],"then":[{"op":"put","key":"a","value":"1"}],"else":[{"op":"get","key":"a"}]}`, 200,
				`{"revision":2,"succeeded":true,"results":[{"status":201,"version":1,"created":true}]}`),
			post(`{"if":[{"key":"a","target":"mod_revision","op":"==","number":0}],"then":[{"op":"put","key":"a","value":"1"}],"else":[{"op":"get","key":"a"}]}`, 200,
				`{"revision":2,"succeeded":false,"results":[{"status":200,"key":"a","value":"1","create_revision":2,"mod_revision":2,"version":1,"lease":0}]}`),
			post(`{"if":[{"key":"a","target":"value","op":"==","value":"1"}],"then":[{"op":"put","key":"a","value64":"/w==","prev":true},{"op":"get","key64":"YQ=="}]}`, 200,
				`{"revision":3,"succeeded":true,"results":[{"status":200,"version":2,"created":false,"prev":{"key":"a","value":"1","create_revision":2,"mod_revision":2,"version":1,"lease":0}},`+
					`{"status":200,"key":"a","value64":"/w==","create_revision":2,"mod_revision":3,"version":2,"lease":0}]}`),
		},
		"every kind of op": {
			post(`{"then":[{"op":"put","key":"p/1","value":"x"},{"op":"add","key":"n","delta":-5},{"op":"get","key":"none"},`+
				`{"op":"range","prefix":"p/","limit":1,"keys_only":true},{"op":"range","start":"a","end":"z","count_only":true},{"op":"delete","key":"none","prev":true}]}`, 200,
				`{"revision":2,"succeeded":true,"results":[{"status":201,"version":1,"created":true},{"status":200,"value":-5},`+
					`{"status":404,"problem":{"type":"urn:trivet:problem:key_not_found","title":"There is no such key","status":404,"code":"key_not_found","outcome":"not_applied","retryable":false}},`+
					`{"status":200,"items":[{"key":"p/1","create_revision":2,"mod_revision":2,"version":1,"lease":0}],"count":1,"more":false},`+
					`{"status":200,"items":[],"count":2,"more":false},{"status":200,"deleted":0}]}`),
			post(`{"then":[{"op":"delete","prefix":"p/","prev":true},{"op":"delete","start":"zz","prev":true},{"op":"delete","key":"n","prev":true}]}`, 200,
				`{"revision":3,"succeeded":true,"results":[{"status":200,"deleted":1,"prev":[{"key":"p/1","value":"x","create_revision":2,"mod_revision":2,"version":1,"lease":0}]},`+
					`{"status":200,"deleted":0,"prev":[]},{"status":200,"deleted":1,"prev":{"key":"n","value":"-5","create_revision":2,"mod_revision":2,"version":1,"lease":0}}]}`),
		},
		"an op that fails leaves nothing behind": {
			{method: "PUT", path: "/v1/kv/text", body: "abc", status: 201},
			post(`{"then":[{"op":"put","key":"a","value":"1"},{"op":"add","key":"text","delta":1}]}`, 409, "not_a_number"),
			post(`{"then":[{"op":"put","key":"a","value":"1","lease":5}]}`, 404, "lease_not_found"),
			post(`{"then":[{"op":"put","key":"a","value":"1"},{"op":"delete","start":"","end":""}]}`, 400, "duplicate_key"),
			post(`{"then":[{"op":"delete","prefix":""}]}`, 400, "bad_request"), // an empty variable, most likely
			post(`{"then":[{"op":"put","key":"","value":"1"}]}`, 400, "bad_key"),
			{method: "GET", path: "/v1/kv/a", status: 404},
		},
		"an empty txn": {
			post(`{}`, 200, `{"revision":1,"succeeded":true,"results":[]}`),
			post(` {"if" : [ ] , "then":[],"else":[]} `, 200, `{"revision":1,"succeeded":true,"results":[]}`),
		},
		"media types": {
			{method: "POST", path: "/v1/txn", body: `{}`, headers: []string{"Content-Type: application/json; charset=UTF-8"}, status: 200},
			{method: "POST", path: "/v1/txn", body: `{}`, headers: []string{"Content-Type: application/x-www-form-urlencoded"}, status: 200},
			{method: "POST", path: "/v1/txn", body: `{}`, headers: []string{"Content-Type: text/plain"}, status: 415, want: "unsupported_media_type"},
			{method: "POST", path: "/v1/txn", body: `{}`, headers: []string{"Content-Type: application/x-protobuf"}, status: 415, want: "unsupported_media_type"},
			{method: "POST", path: "/v1/txn", body: `{}`, headers: []string{"Content-Type: application/json; charset=latin1"}, status: 415, want: "unsupported_media_type"},
			{method: "POST", path: "/v1/txn", body: `{}`, headers: []string{"Content-Type: ;"}, status: 415, want: "unsupported_media_type"},
			{method: "POST", path: "/v1/txn", body: `{}`, headers: []string{"Content-Encoding: gzip"}, status: 415, want: "unsupported_media_type"},
			{method: "PUT", path: "/v1/kv/a", body: `{}`, headers: []string{"Content-Encoding: gzip"}, status: 415, want: "unsupported_media_type"},
			{method: "PUT", path: "/v1/kv/a", body: `{}`, headers: []string{"Content-Type: image/png"}, status: 201},
			{method: "POST", path: "/v1/txn", body: `{}`, headers: []string{"If-Match: *"}, status: 400, want: "bad_request"},
		},
	} {
		t.Run(name, func(t *testing.T) { play(t, steps) })
	}
}

// A txn that only reads does not go into the log.
func TestTxnsThatOnlyReadAreNotProposed(t *testing.T) {
	node := newSoloNode()
	node.put(t, "a", "1")
	node.onPropose = func(context.Context, []*trivetpb.Command) ([]*trivetpb.Result, error) {
		return nil, errors.New("it was proposed")
	}
	d := openDoor(t, node, Config{})
	r := d.do("POST", "/v1/txn?consistency=stale", `{"if":[{"prefix":"a","target":"version","op":"<=","number":1}],"then":[{"op":"get","key":"a"}]}`)
	require.Equal(t, 200, r.status, r.body)
	require.Contains(t, r.body, `"succeeded":true`)
	require.Equal(t, raftnode.Stale, node.lastRead().Consistency)
	require.Equal(t, "2", r.header.Get("Trivet-Revision"))
}

func TestDocumentsThatAreRefused(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	get := `{"op":"get","key":"a"}`
	for _, row := range []struct{ path, body, says string }{
		{"/v1/txn", ``, "the document: expected an object, found the end"},
		{"/v1/txn", `[]`, "expected an object"},
		{"/v1/txn", `null`, "expected an object"},
		{"/v1/txn", "\ufeff{}", "expected an object"},
		{"/v1/txn", `{} {}`, "behind the document"},
		{"/v1/txn", `{"than":[]}`, `unknown field "than"`},
		{"/v1/txn", `{"then":[],"then":[]}`, "field then is given more than once"},
		{"/v1/txn", `{"then":null}`, "then: expected an array"},
		{"/v1/txn", `{"then":[` + get + `,]}`, "then[1]: expected an object"},
		{"/v1/txn", `{"then":[` + get + `}`, "then: expected a comma or the end of the array"},
		{"/v1/txn", `{"then":[` + get, "found the end"},
		{"/v1/txn", `{"then":[{"op":"get","key":"a","key":"b"}]}`, "then[0]: field key is given more than once"},
		{"/v1/txn", `{"then":[{"op":"get","key":"a","k\u0065y":"b"}]}`, "then[0]: field key is given more than once"},
		{"/v1/txn", `{"then":[{"op":"get","key":"a","key64":"YQ=="}]}`, "then[0]: fields key and key64 exclude each other"},
		{"/v1/txn", `{"then":[{"op":"get","key":null}]}`, "then[0].key: expected a string"},
		{"/v1/txn", `{"then":[{"op":"get"}]}`, "then[0]: field key is missing"},
		{"/v1/txn", `{"then":[{"key":"a"}]}`, "then[0]: field op is missing"},
		{"/v1/txn", `{"then":[{"op":"set","key":"a"}]}`, `then[0]: unknown op "set"`},
		{"/v1/txn", `{"then":[{"op":"get","key":"a","prev":true}]}`, "then[0]: field prev does not go with op get"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a"}]}`, "then[0]: field value is missing"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","value64":""}]}`, "exclude each other"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","if_match":2}]}`, "field if_match does not go with op put"},
		{"/v1/txn", `{"then":[{"op":"put","key64":"YQ","value":""}]}`, "then[0].key64: is not standard base64"},
		{"/v1/txn", `{"then":[{"op":"put","key64":"YQ==\n","value":""}]}`, "then[0].key64: is not standard base64"},
		{"/v1/txn", `{"then":[{"op":"put","key64":"YWJj\r\nYWJj","value":""}]}`, "then[0].key64: is not standard base64"},
		{"/v1/txn", `{"then":[{"op":"put","key64":"YR==","value":""}]}`, "is not standard base64"},
		{"/v1/txn", "{\"then\":[{\"op\":\"put\",\"key64\":\"YQ=\n=\",\"value\":\"\"}]}", "control character"},
		{"/v1/txn", `{"then":[{"op":"put","key64":"YQ=\n=","value":""}]}`, "is not standard base64"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"` + "\xff" + `"}]}`, "not valid UTF-8"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"\n` + "\xff" + `"}]}`, "not valid UTF-8"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"\ud800"}]}`, "half a surrogate pair"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"\udc00\ud800"}]}`, "half a surrogate pair"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"\ud800x"}]}`, "half a surrogate pair"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"\x00"}]}`, "unknown escape"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"\u00g0"}]}`, "malformed"},
		{"/v1/txn", "{\"then\":[{\"op\":\"put\",\"key\":\"a\",\"value\":\"\x01\"}]}", "control character"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":7}]}`, "then[0].value: expected a string"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","lease":-1}]}`, "then[0].lease: must be an integer from 0 to 9007199254740991"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","lease":9007199254740992}]}`, "must be an integer"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","lease":1.0}]}`, "must be an integer"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","lease":1e2}]}`, "must be an integer"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","lease":01}]}`, "must be an integer"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","lease":"1"}]}`, "expected an integer"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","prev":1}]}`, "expected true or false"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","prev":tru}]}`, "expected true or false"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","prev":truefalse}]}`, "a comma or the end"},
		{"/v1/txn", `{"then":[{"op":"add","key":"a"}]}`, "field delta is missing"},
		{"/v1/txn", `{"then":[{"op":"add","key":"a","delta":9223372036854775808}]}`, "integer of 64 bits"},
		{"/v1/txn", `{"then":[{"op":"add","key":"a","delta":-00}]}`, "integer of 64 bits"},
		{"/v1/txn", `{"then":[{"op":"add","key":"a","delta":-}]}`, "expected an integer"},
		{"/v1/txn", `{"then":[{"op":"add","key":"a","delta":1-2}]}`, "integer of 64 bits"},
		{"/v1/txn", `{"then":[{"op":"range"}]}`, "field prefix, start or end is missing"},
		{"/v1/txn", `{"then":[{"op":"range","prefix":"a","end":"b"}]}`, "prefix and start or end exclude each other"},
		{"/v1/txn", `{"then":[{"op":"range","prefix":"a","limit":4294967296}]}`, "limit: must be an integer"},
		{"/v1/txn", `{"then":[{"op":"range","prefix":"a","limit":10001}]}`, "limit"},
		{"/v1/txn", `{"then":[{"op":"delete"}]}`, "field key, prefix, start or end is missing"},
		{"/v1/txn", `{"then":[{"op":"delete","key":"a","prefix":"b"}]}`, "a key and a range exclude each other"},
		{"/v1/txn", `{"then":[{"op":"txn"}]}`, `unknown op "txn"`},
		{"/v1/txn", `{"then":[{"op":"txn","then":[]}]}`, "a txn inside a txn"},
		{"/v1/txn", `{"if":[{"key":"a","op":"==","number":0}]}`, "if[0]: field target is missing"},
		{"/v1/txn", `{"if":[{"key":"a","target":"version","number":0}]}`, "if[0]: field op is missing"},
		{"/v1/txn", `{"if":[{"target":"version","op":"==","number":0}]}`, "if[0]: field key or prefix is missing"},
		{"/v1/txn", `{"if":[{"key":"a","prefix":"b","target":"version","op":"==","number":0}]}`, "exclude each other"},
		{"/v1/txn", `{"if":[{"key":"a","target":"version","op":"==","value":"x"}]}`, "does not go with"},
		{"/v1/txn", `{"if":[{"key":"a","target":"value","op":"==","number":1}]}`, "does not go with"},
		{"/v1/txn", `{"if":[{"key":"a","target":"version","op":"=="}]}`, "field number is missing"},
		{"/v1/txn", `{"if":[{"key":"a","target":"value","op":"=="}]}`, "field value is missing"},
		{"/v1/txn", `{"if":[{"key":"a","target":"value","op":"==","value":"","value64":""}]}`, "exclude each other"},
		{"/v1/txn", `{"if":[{"key":"a","target":"size","op":"==","number":1}]}`, "target: must be"},
		{"/v1/txn", `{"if":[{"key":"a","target":"lease","op":"=","number":1}]}`, "op: must be"},
		{"/v1/txn", `{"guard":{}}`, "guard: expected an array"},
		{"/v1/txn", `{"guard":[{"lock":"a"}]}`, "guard[0]: field token is missing"},
		{"/v1/txn", `{"guard":[{"token":1}]}`, "guard[0]: field lock is missing"},
		{"/v1/txn", `{"guard":[{"lock":"a","lock64":"YQ==","token":1}]}`, "guard[0]: fields lock and lock64 exclude each other"},
		{"/v1/txn", `{"guard":[{"lock":"a","token":0}]}`, `guard: a guard on lock "a" has token 0`},
		{"/v1/txn", `{"guard":[{"lock":"a","token":"1"}]}`, "guard[0].token: expected an integer"},
		{"/v1/txn", `{"guard":[{"lock":"a","token":9007199254740992}]}`, "guard[0].token: must be an integer"},
		{"/v1/txn", `{"guard":[{"lock":"","token":1}]}`, "guard: the name of the lock is empty"},
		{"/v1/txn", `{"guard":[{"lock":"a","token":1},{"lock64":"YQ==","token":1}]}`, `guard: two guards name lock "a"`},
		{"/v1/txn", `{"guard":[{"lock":"a","token":1,"ttl":"1s"}]}`, `guard[0]: unknown field "ttl"`},
		{"/v1/txn", `{"guard":[` + strings.Repeat(`,{"lock":"a","token":1}`, 17)[1:] + `]}`, "guard: a write has more than 16 guards"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","guard":[]}]}`, "then[0]: field guard does not go with op put"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","seq":1}]}`, "then[0]: field seq does not go with op put"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","ttl":"30s","lease":4}]}`, "then[0]: fields lease and ttl exclude each other"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","ttl":30}]}`, "then[0].ttl: expected a string"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","ttl":"0s"}]}`, "then[0].ttl: must be from 1s to 24h0m0s"},
		{"/v1/txn", `{"then":[{"op":"put","key":"a","value":"","ttl":"1e9s"}]}`, "then[0].ttl: is no duration"},
		{"/v1/txn", `{"then":[{"op":"add","key":"a","delta":1,"ttl":"3s"}]}`, "then[0]: field ttl does not go with op add"},
		{"/v1/batch", `{}`, "field ops is missing"},
		{"/v1/batch", `{"ops":{}}`, "ops: expected an array"},
		{"/v1/batch", `{"ops":[` + get + `],"session":0}`, "session: must be the id of a session"},
		{"/v1/batch", `{"ops":[` + get + `],"session":"1"}`, "session: expected an integer"},
		{"/v1/batch", `{"ops":[` + get + `],"ack":0}`, "field ack goes with session"},
		{"/v1/batch", `{"ops":[{"op":"get","key":"a","seq":1}],"session":1}`, "ops[0]: field seq does not go with op get"},
		{"/v1/batch", `{"ops":[{"op":"range","prefix":"a","guard":[]}]}`, "ops[0]: field guard does not go with op range"},
		{"/v1/batch", `{"ops":[` + get + `,{"op":"add","key":"a","delta":1}],"session":1}`, "ops[1]: a write of a batch with a session needs a seq"},
		{"/v1/batch", `{"ops":[{"op":"add","key":"a","delta":1,"seq":1}]}`, "ops[0]: seq goes with a batch that names a session"},
		{"/v1/batch", `{"ops":[{"op":"add","key":"a","delta":1,"seq":0}],"session":1}`, "ops[0].seq: must be from 1 on"},
		{"/v1/batch", `{"ops":[{"op":"add","key":"a","delta":1,"seq":4}],"session":1,"ack":4}`, "ops[0]: seq 4 is not above ack"},
		{"/v1/batch", `{"session":1,"ops":[{"op":"add","key":"a","delta":1,"seq":4},{"op":"delete","key":"a","seq":3},{"op":"delete","key":"b","seq":4}]}`, "ops[2]: seq 4 is given more than once"},
		{"/v1/batch", `{"ops":[{"op":"add","key":"a","delta":1,"guard":[{"lock":"a"}]}]}`, "ops[0].guard[0]: field token is missing"},
		{"/v1/batch", `{"ops":[{"op":"put","key":"a","value":"","if_match":1,"if_none_match":true}]}`, "exclude each other"},
		{"/v1/batch", `{"ops":[{"op":"put","key":"a","value":"","if_match":0}]}`, "if_match: must be a revision"},
		{"/v1/batch", `{"ops":[{"op":"delete","prefix":"a","if_match":1}]}`, "go with a key"},
		{"/v1/batch", `{"ops":[` + get + `,{"op":"txn","then":[{"op":"get","key":7}]}]}`, "ops[1].then[0].key: expected a string"},
		{"/v1/batch", `{"ops":[{"op":"put","key":"a","value":"x"},{"op":"get","ky":"a"}]}`, `ops[1]: unknown field "ky"`},
	} {
		p := d.do("POST", row.path, row.body)
		require.Equal(t, 400, p.status, "%s: %s", row.body, p.body)
		require.Contains(t, p.problem(t).Detail, row.says, row.body)
	}
	require.EqualValues(t, 1, d.node.data.Revision(), "nothing of a malformed document was done")
}

func TestNegotiation(t *testing.T) {
	for accept, want := range map[string]string{
		"":                            octetStream,
		"*/*":                         octetStream,
		"application/json":            jsonType,
		"Application/JSON":            jsonType,
		"application/json, */*":       jsonType,
		"*/*, application/json;q=0.5": octetStream,
		"application/json;q=0":        octetStream,
		"application/*":               octetStream,
		"application/*, application/octet-stream;q=0.1": jsonType,
		"text/html,application/xhtml+xml,*/*;q=0.8":     octetStream,
		"application/json;q=x":                          octetStream,
		"application/json;v=1;q=0.9":                    jsonType,
		",;,/*,":                                        octetStream,
		"application/octet-stream, application/json":    octetStream,
	} {
		h := map[string][]string{"Accept": {accept}}
		require.Equal(t, want, negotiate(h, octetStream, jsonType), accept)
	}
}
