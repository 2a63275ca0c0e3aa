package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"trivet/store"
	"trivet/trivetpb"
)

// What the decoders take is JSON in the eyes of encoding/json too, has the same
// strings in it, and means the same when it is decoded again from what the
// operations are in protobuf.
func FuzzBatchJSON(f *testing.F) {
	for _, seed := range []string{
		`{"ops":[]}`,
		`{"ops":[{"op":"put","key":"a","value":"\ud83d\ude00\n","lease":1,"prev":true,"if_match":2}]}`,
		`{"ops":[{"op":"delete","prefix64":"/w==","prev":false},{"op":"delete","key":"a","if_none_match":true}]}`,
		`{"ops":[{"op":"range","start":"a","end":"b","limit":5,"keys_only":true,"count_only":false},{"op":"add","key":"n","delta":-5}]}`,
		`{"ops":[{"op":"txn","if":[{"key":"a","target":"value","op":"!=","value64":""}],"then":[{"op":"get","key":"a"}],"else":[]}]}`,
		`{"ops":[{"op":"txn","if":[{"prefix":"a","target":"lease","op":">=","number":9007199254740991}]}]}`,
		`{"ops":[{"op":"get","key":"a","key":"b"}]}`, `{"ops":[{"op":"get","key":"\ud800"}]}`, `{"ops":[`, `[`, "\ufeff{}", `{"ops":[]}x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		given := bytes.Clone(data)
		ops, p := decodeBatch(data)
		require.Equal(t, given, data, "the input belongs to the caller")
		if p != nil {
			require.Contains(t, []trivetpb.Code{trivetpb.Code_BAD_REQUEST, trivetpb.Code_TOO_LARGE}, p.Code)
			require.False(t, p.Unknown)
			require.True(t, utf8.ValidString(p.Detail))
			return
		}
		require.True(t, json.Valid(data), "taken, and no JSON: %q", data)
		require.True(t, utf8.Valid(data))
		req := &trivetpb.BatchRequest{}
		for _, op := range ops {
			store.Check(op, store.Limits{}) // must not panic
			req.Ops = append(req.Ops, &trivetpb.BatchOp{Op: op})
		}
		encoded, err := req.MarshalVT()
		require.NoError(t, err)
		again, p := decodeProtoBatch(encoded)
		require.Nil(t, p, "%v", p)
		require.Len(t, again, len(ops))
		var want struct {
			Ops []struct{ Op, Key, Value *string }
		}
		require.NoError(t, json.Unmarshal(data, &want))
		for i, op := range ops {
			if put := op.GetPut(); put != nil && want.Ops[i].Key != nil && want.Ops[i].Value != nil {
				require.Equal(t, *want.Ops[i].Key, string(put.Key))
				require.Equal(t, *want.Ops[i].Value, string(put.Value))
			}
		}
	})
}

func FuzzTxnJSON(f *testing.F) {
	f.Add([]byte(`{"if":[{"key":"a","target":"version","op":"<","number":1}],"then":[{"op":"put","key":"a","value":"1"}],"else":[{"op":"get","key64":"YQ=="}]}`))
	f.Add([]byte(`{"then":[{"op":"txn"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		txn, p := decodeTxn(data)
		if p != nil {
			return
		}
		require.True(t, json.Valid(data))
		require.LessOrEqual(t, max(len(txn.If), len(txn.Then), len(txn.Else)), maxTxnOps+1)
		store.Check(&trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: txn}}, store.Limits{})
	})
}

// A batch in protobuf is refused, or it is what its operations make again.
func FuzzBatchProtobuf(f *testing.F) {
	ops, p := decodeBatch([]byte(`{"ops":[{"op":"put","key":"a","value":"1","if_match":2},{"op":"txn","if":[{"key":"a","target":"value","op":"!=","value64":""}],"then":[{"op":"get","key":"a"}]},{"op":"range","prefix":"b"},{"op":"add","key":"n","delta":-5}]}`))
	require.Nil(f, p)
	req := &trivetpb.BatchRequest{}
	for _, op := range ops {
		req.Ops = append(req.Ops, &trivetpb.BatchOp{Op: op})
	}
	seed, err := req.MarshalVT()
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte{0x0a, 0x00})
	f.Add([]byte{0x0a, 0x04, 0x0a, 0x02, 0x32, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		ops, p := decodeProtoBatch(data)
		if p != nil {
			require.Contains(t, []trivetpb.Code{trivetpb.Code_BAD_REQUEST, trivetpb.Code_TOO_LARGE}, p.Code)
			require.True(t, utf8.ValidString(p.Detail))
			return
		}
		require.LessOrEqual(t, len(ops), maxBatchOps)
		again := &trivetpb.BatchRequest{}
		for _, op := range ops {
			store.Check(op, store.Limits{})
			again.Ops = append(again.Ops, &trivetpb.BatchOp{Op: op})
		}
		encoded, err := again.MarshalVT()
		require.NoError(t, err)
		_, p = decodeProtoBatch(encoded)
		require.Nil(t, p)
	})
}

func FuzzQuery(f *testing.F) {
	known := with(readParams, "prefix", "prefix64", "start", "start64", "end", "end64", "limit", "cursor", "revision", "delimiter", "keys_only", "count_only", "reverse")
	next := cursor{revision: 7, count: 3, position: []byte("b")}
	for _, seed := range []string{
		"", "prefix=a&limit=5", "start=a&end64=Yg%3D%3D&reverse=true", "timeout=1s&consistency=bounded&max_staleness=1s",
		"prefix=%zz", "a=b;c=d", "prefix=a&prefix=b", "cursor=" + next.String(), "min_revision=9007199254740993", "&&&=&",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, p := parseQuery(raw, known)
		if p != nil {
			require.Equal(t, trivetpb.Code_BAD_REQUEST, p.Code)
			require.True(t, utf8.ValidString(p.Detail))
			return
		}
		require.Positive(t, q.timeout)
		require.LessOrEqual(t, q.timeout, maxTimeout)
		for _, stream := range []bool{false, true} {
			rq, p := parseRange(&q, stream)
			if p != nil {
				require.Contains(t, []trivetpb.Code{trivetpb.Code_BAD_REQUEST, trivetpb.Code_BAD_KEY}, p.Code)
				continue
			}
			require.True(t, stream || (rq.limit >= 1 && rq.limit <= maxLimit))
			require.True(t, bytes.HasPrefix(rq.from.Start, rq.prefix) || rq.cursor != nil)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add(cursor{revision: 7, count: 300, identity: 1, position: []byte("k\x00")}.String())
	f.Add("")
	f.Add("AQesAt6tvu9rAECkhTg=")
	f.Fuzz(func(t *testing.T, text string) {
		cur, p := parseCursor(text)
		if p != nil {
			return
		}
		require.Equal(t, text, cur.String(), "one cursor, one text")
		require.Positive(t, cur.revision)
	})
}

func FuzzMatch(f *testing.F) {
	for _, seed := range []string{`"7"`, `*`, `W/"7"`, `"7","8"`, ``, `"`, `""`, `"00"`, `"18446744073709551616"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, p := parseMatch(http.Header{"If-Match": {text}}, "If-Match")
		switch {
		case p != nil:
			require.Equal(t, trivetpb.Code_BAD_REQUEST, p.Code)
		case m.any:
			require.Equal(t, "*", text)
		default:
			require.Equal(t, text, entityTag(m.revision), "one revision, one text")
		}
	})
}

func FuzzAccept(f *testing.F) {
	f.Add("application/json;q=0.5, */*;q=0.1, text/html")
	f.Add(",;=/*")
	f.Fuzz(func(t *testing.T, accept string) {
		got := negotiate(http.Header{"Accept": {accept}}, octetStream, jsonType)
		require.Contains(t, []string{octetStream, jsonType}, got)
		if got == jsonType {
			require.Contains(t, strings.ToLower(accept), "json")
		}
	})
}

// Every string is written as JSON that reads back as the same.
func FuzzStringJSON(f *testing.F) {
	f.Add([]byte("a\"\\\n\x00\x7f\u2028"))
	f.Add([]byte("\xff\xfe"))
	f.Fuzz(func(t *testing.T, s []byte) {
		b := append(appendBytes([]byte("{"), "v", s), '}')
		var got struct {
			V   *string
			V64 []byte
		}
		require.NoError(t, json.Unmarshal(b, &got), "%s", b)
		if utf8.Valid(s) {
			require.Equal(t, string(s), *got.V)
			d := &decoder{data: b[len(`{"v":`) : len(b)-1]}
			text, err := d.text()
			require.Nil(t, err)
			require.Equal(t, string(s), text)
		} else {
			require.Equal(t, s, got.V64)
		}
	})
}
