package httpapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// writes are the requests that make a single command each.
var writes = []struct{ method, path, body string }{
	{"PUT", "/v1/kv/a", "1"},
	{"DELETE", "/v1/kv/a", ""},
	{"POST", "/v1/kv/a?add=1", ""},
	{"DELETE", "/v1/kv?prefix=a", ""},
	{"POST", "/v1/txn", `{"then":[{"op":"put","key":"a","value":"1"}]}`},
}

// What a caller says of a write is on the command of every kind of write.
func TestWritesCarryTheirIdentityAndGuards(t *testing.T) {
	node := newScribe(nil)
	d := openDoor(t, node.soloNode, Config{})
	for _, w := range writes {
		d.do(w.method, w.path, w.body)
		plain := node.taken()[0]
		require.Zero(t, plain.Session+plain.Seq+plain.Ack)
		require.Empty(t, plain.IdempotencyKey)
		require.Empty(t, plain.Guards)

		d.do(w.method, w.path, w.body, "Trivet-Session: 5;seq=3;ack=2", "Trivet-Guard: b%2Fc=7, a=6", "Trivet-Guard: d=e=8")
		c := node.taken()[0]
		require.Equal(t, []uint64{5, 3, 2}, []uint64{c.Session, c.Seq, c.Ack}, w.path)
		var guards []string
		for _, g := range c.Guards {
			guards = append(guards, string(g.Lock)+"="+itoa(int(g.Token)))
		}
		require.Equal(t, []string{"a=6", "b/c=7", "d=e=8"}, guards, w.path)

		d.do(w.method, w.path, w.body, "Idempotency-Key: k-1")
		c = node.taken()[0]
		require.Equal(t, "k-1", string(c.IdempotencyKey), w.path)
		require.Len(t, c.Fingerprint, 16)
		require.Zero(t, c.Session)
	}
}

func TestIdentityHeaders(t *testing.T) {
	node := newScribe(nil)
	d := openDoor(t, node.soloNode, Config{})
	for _, row := range []struct {
		headers []string
		says    string // what the refusal says; empty: it is taken
	}{
		{[]string{"Trivet-Session: 5;seq=1"}, ""},
		{[]string{"Trivet-Session: 5;seq=1;ack=0"}, ""},
		{[]string{"Trivet-Session: 9007199254740991;seq=9007199254740991;ack=9007199254740990"}, ""},
		{[]string{"Trivet-Session: "}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 5"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 5;seq="}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 5;seq=1;ack="}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 5;seq=1;"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 5;seq=2;ack=1;ack=1"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 5; seq=1"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 5;ack=0;seq=1"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 5;Seq=1"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 05;seq=1"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 5;seq=+1"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: -5;seq=1"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 9007199254740992;seq=1"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 5;seq=1, 5;seq=2"}, "Trivet-Session takes"},
		{[]string{"Trivet-Session: 0;seq=1"}, "the session's id is 0"},
		{[]string{"Trivet-Session: 5;seq=0"}, "seq is 0"},
		{[]string{"Trivet-Session: 5;seq=4;ack=4"}, "seq 4 is not above ack"},
		{[]string{"Trivet-Session: 5;seq=4;ack=5"}, "seq 4 is not above ack"},
		{[]string{"Trivet-Session: 5;seq=1", "Trivet-Session: 5;seq=1"}, "more than once"},
		{[]string{"Idempotency-Key: " + strings.Repeat("~", 128)}, ""},
		{[]string{`Idempotency-Key: "8e03978e-40d5-43dd-bc93-6894a57f9324"`}, ""},
		{[]string{"Idempotency-Key: " + strings.Repeat("k", 129)}, "129 characters"},
		{[]string{"Idempotency-Key: "}, "0 characters"},
		{[]string{"Idempotency-Key: a b"}, "visible ASCII"},
		{[]string{"Idempotency-Key: é"}, "visible ASCII"},
		{[]string{"Idempotency-Key: a", "Idempotency-Key: a"}, "more than once"},
		{[]string{"Idempotency-Key: a", "Trivet-Session: 5;seq=1"}, "exclude each other"},
		{[]string{"Trivet-Guard: a=1"}, ""},
		{[]string{"Trivet-Guard: " + strings.Repeat("x", 1024) + "=9007199254740991"}, ""},
		{[]string{"Trivet-Guard: a%2Cb=1,c=2 ,\td=3"}, ""},
		{[]string{"Trivet-Guard: "}, "Trivet-Guard takes"},
		{[]string{"Trivet-Guard: a"}, "Trivet-Guard takes"},
		{[]string{"Trivet-Guard: a=1,"}, "Trivet-Guard takes"},
		{[]string{"Trivet-Guard: =1"}, "the name of the lock is empty"},
		{[]string{"Trivet-Guard: a=0"}, "token 0"},
		{[]string{"Trivet-Guard: a="}, "no whole number"},
		{[]string{"Trivet-Guard: a=1.5"}, "no whole number"},
		{[]string{"Trivet-Guard: a= 1"}, "no whole number"},
		{[]string{"Trivet-Guard: a=9007199254740992"}, "must be from 1"},
		{[]string{"Trivet-Guard: a b=1"}, "percent-encoded"},
		{[]string{"Trivet-Guard: é=1"}, "percent-encoded"},
		{[]string{"Trivet-Guard: %zz=1"}, "malformed percent-escape"},
		{[]string{"Trivet-Guard: " + strings.Repeat("x", 1025) + "=1"}, "1025 bytes"},
		{[]string{"Trivet-Guard: a=1, %61=2"}, `two guards name lock "a"`},
		{[]string{"Trivet-Guard: a=1", "Trivet-Guard: a=1"}, `two guards name lock "a"`},
		{[]string{"Trivet-Guard: a=1" + strings.Repeat(",a=1", 16)}, "more than 16 guards"},
	} {
		for _, w := range writes {
			r := d.do(w.method, w.path, w.body, row.headers...)
			if row.says == "" {
				require.Less(t, r.status, 300, "%s: %s", row.headers, r.body)
				require.Len(t, node.taken(), 1)
				continue
			}
			p := r.requireProblem(t, trivetpb.Code_BAD_REQUEST)
			require.Contains(t, p.Detail, row.says, row.headers)
			require.Equal(t, "not_applied", p.Outcome)
			require.Empty(t, node.taken(), row.headers)
		}
	}
}

// The answer to a repeat says so, whether it is one of success or of failure,
// and has the status of the first.
func TestReplays(t *testing.T) {
	node := newScribe(func(c *trivetpb.Command) *trivetpb.Result {
		switch {
		case string(c.IdempotencyKey) == "reused":
			return &trivetpb.Result{Revision: 9, Problem: &trivetpb.Problem{Code: trivetpb.Code_IDEMPOTENCY_KEY_REUSED}}
		case c.GetOp().GetPut() != nil:
			return &trivetpb.Result{Revision: 4, Replayed: c.Seq == 1, Result: &trivetpb.Result_Put{Put: &trivetpb.PutResult{Version: 1, Created: true}}}
		}
		return &trivetpb.Result{Revision: 5, Replayed: c.Seq == 1, Problem: &trivetpb.Problem{Code: trivetpb.Code_NOT_A_NUMBER}}
	})
	d := openDoor(t, node.soloNode, Config{})
	r := d.do("PUT", "/v1/kv/a", "1", "Trivet-Session: 5;seq=1")
	require.Equal(t, 201, r.status)
	require.Equal(t, "true", r.header.Get("Trivet-Replayed"))
	require.Equal(t, "4", r.header.Get("Trivet-Revision"))
	r = d.do("POST", "/v1/kv/a?add=1", "", "Trivet-Session: 5;seq=1")
	r.requireProblem(t, trivetpb.Code_NOT_A_NUMBER)
	require.Equal(t, "true", r.header.Get("Trivet-Replayed"))
	r = d.do("PUT", "/v1/kv/a", "1", "Trivet-Session: 5;seq=2")
	require.Empty(t, r.header["Trivet-Replayed"])
	p := d.do("PUT", "/v1/kv/a", "1", "Idempotency-Key: reused").requireProblem(t, trivetpb.Code_IDEMPOTENCY_KEY_REUSED)
	require.Equal(t, "not_applied", p.Outcome)

	r = d.do("POST", "/v1/batch", `{"session":5,"ops":[{"op":"put","key":"a","value":"1","seq":1},{"op":"add","key":"a","delta":1,"seq":2}]}`)
	require.Contains(t, r.body, `{"status":201,"revision":4,"replayed":true,"version":1,"created":true}`)
	require.NotContains(t, strings.SplitN(r.body, `{"status":409`, 2)[1], "replayed")
	require.Empty(t, r.header["Trivet-Replayed"])
}

// Repeats of a request have one fingerprint however long their callers wait, and
// whatever matters makes another.
func TestFingerprints(t *testing.T) {
	node := newScribe(nil)
	d := openDoor(t, node.soloNode, Config{})
	print := func(method, path, body string, headers ...string) string {
		r := d.do(method, path, body, append(headers, "Idempotency-Key: k")...)
		require.Less(t, r.status, 300, r.body)
		commands := node.taken()
		require.NotEmpty(t, commands)
		return string(commands[0].Fingerprint)
	}
	first := print("PUT", "/v1/kv/a", "1")
	require.Equal(t, first, print("PUT", "/v1/kv/a?timeout=1s", "1", "Accept: text/plain"))
	require.Equal(t, print("PUT", "/v1/kv/a", "1", "Trivet-Guard: a=1,b=2"), print("PUT", "/v1/kv/a", "1", "Trivet-Guard: b=2", "Trivet-Guard: a=1"))
	seen := map[string]string{}
	for _, row := range []struct{ method, path, body, header string }{
		{"PUT", "/v1/kv/a", "1", "Accept: */*"},
		{"PUT", "/v1/kv/a", "2", ""},
		{"PUT", "/v1/kv/b", "1", ""},
		{"PUT", "/v1/kv/a?ttl=2s", "1", ""},
		{"PUT", "/v1/kv/a?ttl=3s", "1", ""},
		{"PUT", "/v1/kv/a?lease=3", "1", ""},
		{"PUT", "/v1/kv/a?prev=true", "1", ""},
		{"PUT", "/v1/kv/a", "1", `If-Match: "7"`},
		{"PUT", "/v1/kv/a", "1", "If-Match: *"},
		{"PUT", "/v1/kv/a", "1", "Trivet-Guard: a=1"},
		{"PUT", "/v1/kv/a", "1", "Trivet-Guard: a=2"},
		{"DELETE", "/v1/kv/a", "", ""},
		{"POST", "/v1/kv/a?add=1", "", ""},
		{"POST", "/v1/kv/a?add=2", "", ""},
		{"POST", "/v1/txn", `{"then":[{"op":"put","key":"a","value":"1"}]}`, ""},
		{"POST", "/v1/batch", `{"ops":[{"op":"put","key":"a","value":"1"}]}`, ""},
		{"POST", "/v1/batch", `{"ops":[{"op":"put","key":"a","value":"1"},{"op":"get","key":"a"}]}`, ""},
		{"POST", "/v1/batch", `{"ops":[{"op":"put","key":"a","value":"1","guard":[{"lock":"a","token":1}]}]}`, ""},
	} {
		headers := []string{"Accept: */*"}
		if row.header != "" {
			headers = []string{row.header}
		}
		what := row.method + " " + row.path + " " + row.body + " " + row.header
		p := print(row.method, row.path, row.body, headers...)
		require.Empty(t, seen[p], what)
		seen[p] = what
	}
}

// A batch under one idempotency key: each write has a key of its own, the first
// goes ahead, and where the key belongs to another request nothing is done.
func TestBatchesWithAnIdempotencyKey(t *testing.T) {
	reused := false
	node := newScribe(func(c *trivetpb.Command) *trivetpb.Result {
		if reused {
			return &trivetpb.Result{Revision: 9, Problem: &trivetpb.Problem{Code: trivetpb.Code_IDEMPOTENCY_KEY_REUSED}}
		}
		return &trivetpb.Result{Revision: 4, Result: &trivetpb.Result_Delete{Delete: &trivetpb.DeleteResult{Deleted: 1}}}
	})
	d := openDoor(t, node.soloNode, Config{})
	const body = `{"ops":[{"op":"get","key":"a"},{"op":"delete","key":"a"},{"op":"delete","key":""},{"op":"delete","key":"b"},{"op":"txn"},{"op":"txn","guard":[{"lock":"l","token":1}]}]}`
	r := d.do("POST", "/v1/batch", body, "Idempotency-Key: k")
	require.Equal(t, 200, r.status, r.body)
	var keys []string
	for _, c := range node.taken() {
		keys = append(keys, string(c.IdempotencyKey))
		require.Len(t, c.Fingerprint, 16)
	}
	require.Equal(t, []string{"k", "k 3", "k 5"}, keys)
	reused = true
	d.do("POST", "/v1/batch", body, "Idempotency-Key: k").requireProblem(t, trivetpb.Code_IDEMPOTENCY_KEY_REUSED)
	require.Len(t, node.taken(), 1, "the others were not proposed")
	require.Equal(t, 200, d.do("POST", "/v1/batch", `{"ops":[{"op":"get","key":"a"}]}`, "Idempotency-Key: k").status)
	require.Empty(t, node.taken())
}

func TestBatchesWithASession(t *testing.T) {
	node := newScribe(nil)
	d := openDoor(t, node.soloNode, Config{})
	r := d.do("POST", "/v1/batch", `{"session":7,"ack":2,"ops":[{"op":"get","key":"a"},{"op":"put","key":"a","value":"1","seq":4},{"op":"delete","key":"a","seq":3,"guard":[{"lock":"l","token":1}]},{"op":"txn","then":[{"op":"get","key":"a"}]}]}`,
		"Trivet-Guard: m=2")
	require.Equal(t, 200, r.status, r.body)
	commands := node.taken()
	require.Len(t, commands, 2)
	for i, want := range [][]uint64{{7, 4, 2}, {7, 3, 2}} {
		require.Equal(t, want, []uint64{commands[i].Session, commands[i].Seq, commands[i].Ack})
	}
	require.Len(t, commands[0].Guards, 1)
	require.Equal(t, "l", string(commands[1].Guards[0].Lock))
	require.Equal(t, "m", string(commands[1].Guards[1].Lock))

	p := d.do("POST", "/v1/batch", `{"ops":[]}`, "Trivet-Session: 5;seq=1").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Contains(t, p.Detail, "in its document")
	p = d.do("POST", "/v1/batch", `{"session":5,"ops":[]}`, "Idempotency-Key: k").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Contains(t, p.Detail, "exclude each other")
	p = d.do("POST", "/v1/batch", `{"ops":[{"op":"delete","key":"a","guard":[{"lock":"m","token":3}]}]}`, "Trivet-Guard: m=2").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	require.Contains(t, p.Detail, `ops[0]: two guards name lock "m"`)
	require.Empty(t, node.taken())
}

// The same rules hold for batches in protobuf.
func TestProtobufBatchesWithASession(t *testing.T) {
	node := newScribe(nil)
	d := openDoor(t, node.soloNode, Config{})
	put, get := putOp("a", "1"), &trivetpb.Op{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: []byte("a")}}}
	guard := func(name string, token uint64) []*trivetpb.Guard {
		return []*trivetpb.Guard{{Lock: []byte(name), Token: token}}
	}
	for _, row := range []struct {
		req  *trivetpb.BatchRequest
		says string
	}{
		{&trivetpb.BatchRequest{Session: 7, Ack: 1, Ops: []*trivetpb.BatchOp{{Op: get}, {Op: put, Seq: 2, Guards: guard("l", 3)}, {Op: put, Seq: 5}, {Op: put, Seq: 3}}}, ""},
		{&trivetpb.BatchRequest{Session: 7, Ops: []*trivetpb.BatchOp{{}, {Op: &trivetpb.Op{}}}}, ""},
		{&trivetpb.BatchRequest{Ack: 1}, "ack goes with session"},
		{&trivetpb.BatchRequest{Session: 1 << 53}, "below 2^53"},
		{&trivetpb.BatchRequest{Session: 7, Ops: []*trivetpb.BatchOp{{Op: put}}}, "ops[0]: a write of a batch with a session needs a seq"},
		{&trivetpb.BatchRequest{Ops: []*trivetpb.BatchOp{{Op: put, Seq: 1}}}, "ops[0]: seq goes with a batch that names a session"},
		{&trivetpb.BatchRequest{Session: 7, Ack: 5, Ops: []*trivetpb.BatchOp{{Op: put, Seq: 5}}}, "ops[0]: seq 5 is not above ack"},
		{&trivetpb.BatchRequest{Session: 7, Ops: []*trivetpb.BatchOp{{Op: put, Seq: 5}, {Op: put, Seq: 5}}}, "ops[1]: seq 5 is given more than once"},
		{&trivetpb.BatchRequest{Session: 7, Ops: []*trivetpb.BatchOp{{Op: get, Seq: 5}}}, "ops[0]: guards and seq go with a write"},
		{&trivetpb.BatchRequest{Ops: []*trivetpb.BatchOp{{Op: get, Guards: guard("l", 1)}}}, "ops[0]: guards and seq go with a write"},
		{&trivetpb.BatchRequest{Ops: []*trivetpb.BatchOp{{Op: put, Guards: guard("", 1)}}}, "ops[0]: the name of the lock is empty"},
		{&trivetpb.BatchRequest{Ops: []*trivetpb.BatchOp{{Op: put, Guards: guard("l", 0)}}}, "token 0"},
	} {
		body, err := row.req.MarshalVT()
		require.NoError(t, err)
		r := d.do("POST", "/v1/batch", string(body), "Content-Type: application/x-protobuf")
		if row.says == "" {
			require.Equal(t, http.StatusOK, r.status, r.body)
			node.taken()
			continue
		}
		require.Contains(t, r.requireProblem(t, trivetpb.Code_BAD_REQUEST).Detail, row.says)
		require.Empty(t, node.taken())
	}
}

// A txn that only reads is a read, whatever its caller calls it; with a guard it
// is done where guards are checked.
func TestTxnsThatOnlyReadWithAPromise(t *testing.T) {
	node := newScribe(func(*trivetpb.Command) *trivetpb.Result {
		return &trivetpb.Result{Revision: 3, Result: &trivetpb.Result_Txn{Txn: &trivetpb.TxnResult{Succeeded: true, Results: []*trivetpb.Result{{Result: &trivetpb.Result_Get{Get: &trivetpb.GetResult{}}}}}}}
	})
	d := openDoor(t, node.soloNode, Config{})
	const then = `"then":[{"op":"get","key":"a"}]`
	require.Equal(t, 200, d.do("POST", "/v1/txn", `{`+then+`}`, "Idempotency-Key: k").status)
	require.Equal(t, 200, d.do("POST", "/v1/txn", `{`+then+`}`, "Trivet-Session: 5;seq=1").status)
	require.Equal(t, 200, d.do("GET", "/v1/kv", "", "Trivet-Session: nonsense", "Idempotency-Key: k", "Trivet-Guard: ").status, "a read is no write")
	require.Empty(t, node.taken())
	r := d.do("POST", "/v1/txn", `{`+then+`,"guard":[{"lock":"l","token":3}]}`)
	require.Equal(t, 200, r.status)
	require.Len(t, node.taken()[0].Guards, 1)
	var got struct{ Revision int }
	require.NoError(t, json.Unmarshal([]byte(r.body), &got))
	require.Equal(t, 3, got.Revision)
	d.do("POST", "/v1/txn", `{`+then+`}`, "Trivet-Guard: l=3")
	require.Len(t, node.taken()[0].Guards, 1)
	d.do("POST", "/v1/txn?consistency=stale", `{`+then+`}`, "Trivet-Guard: l=3").requireProblem(t, trivetpb.Code_BAD_REQUEST)
	d.do("POST", "/v1/txn", `{`+then+`,"guard":[{"lock":"l","token":3}]}`, "Trivet-Guard: l=3").requireProblem(t, trivetpb.Code_BAD_REQUEST)
}

func TestLeasesAndTTLsOfAPut(t *testing.T) {
	node := newScribe(nil)
	d := openDoor(t, node.soloNode, Config{})
	for target, says := range map[string]string{
		"?ttl=30s": "", "?ttl=1s": "", "?ttl=24h": "", "?ttl=1.5s": "", "?lease=7": "", "?lease=0": "",
		"?ttl=0s": "from 1s to 24h0m0s", "?ttl=999ms": "from 1s", "?ttl=24h0m1s": "from 1s", "?ttl=25h": "from 1s", "?ttl=-1s": "from 1s",
		"?ttl=1e9s": "no duration", "?ttl=30": "no duration", "?ttl=": "no duration", "?ttl=99999999999h": "no duration",
		"?ttl=1000.5ms": "whole milliseconds", "?ttl=30s&lease=7": "exclude each other", "?lease=x": "whole number",
		"?lease=9007199254740992": "whole number",
	} {
		r := d.do("PUT", "/v1/kv/a"+target, "1")
		if says != "" {
			require.Contains(t, r.requireProblem(t, trivetpb.Code_BAD_REQUEST).Detail, says, target)
			require.Empty(t, node.taken())
			continue
		}
		require.Less(t, r.status, 300, r.body)
		put := node.taken()[0].GetOp().GetPut()
		require.EqualValues(t, map[string]int{"?ttl=30s": 30_000, "?ttl=1s": 1000, "?ttl=24h": 86_400_000, "?ttl=1.5s": 1500}[target], put.TtlMs)
		require.EqualValues(t, map[string]int{"?lease=7": 7}[target], put.Lease)
	}
	d.do("POST", "/v1/txn", `{"then":[{"op":"put","key":"a","value":"","ttl":"1m"}]}`)
	require.EqualValues(t, 60_000, node.taken()[0].GetOp().GetTxn().Then[0].GetPut().TtlMs)
	d.do("POST", "/v1/batch", `{"ops":[{"op":"put","key":"a","value":"","ttl":"1500ms"}]}`)
	require.EqualValues(t, 1500, node.taken()[0].GetOp().GetPut().TtlMs)
}

// The keys of a batch's writes are all different, and none is longer than a
// caller's may be.
func TestKeysOfParts(t *testing.T) {
	seen := map[string]bool{}
	for n := 1; n <= maxIdempotencyKey; n++ {
		key := strings.Repeat("k", n)
		require.Equal(t, key, string(keyOfPart(key, true, 7)))
		for _, part := range []string{key, string(keyOfPart(key, false, 0)), string(keyOfPart(key, false, maxBatchOps-1))} {
			require.LessOrEqual(t, len(part), maxIdempotencyKey)
			require.False(t, seen[part], part)
			seen[part] = true
		}
	}
}
