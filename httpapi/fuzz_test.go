package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/raftnode"
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
		`{"session":7,"ack":2,"ops":[{"op":"put","key":"a","value":"","ttl":"30s","seq":3,"guard":[{"lock":"l","token":5},{"lock64":"/w==","token":1}]},{"op":"get","key":"a"},{"op":"txn","then":[],"seq":9,"guard":[]}]}`,
		`{"ops":[{"op":"get","key":"a","key":"b"}]}`, `{"ops":[{"op":"get","key":"\ud800"}]}`, `{"ops":[`, `[`, "\ufeff{}", `{"ops":[]}x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		given := bytes.Clone(data)
		req, p := decodeBatch(data)
		require.Equal(t, given, data, "the input belongs to the caller")
		if p != nil {
			require.Contains(t, []trivetpb.Code{trivetpb.Code_BAD_REQUEST, trivetpb.Code_TOO_LARGE}, p.Code)
			require.False(t, p.Unknown)
			require.True(t, utf8.ValidString(p.Detail))
			return
		}
		require.True(t, json.Valid(data), "taken, and no JSON: %q", data)
		require.True(t, utf8.Valid(data))
		for _, op := range req.Ops {
			store.Check(op.Op, store.Limits{}) // must not panic
		}
		encoded, err := req.MarshalVT()
		require.NoError(t, err)
		again, p := decodeProtoBatch(new(trivetpb.Decoder), encoded)
		require.Nil(t, p, "%v", p)
		require.True(t, proto.Equal(req, again))
		var want struct {
			Ops []struct{ Op, Key, Value *string }
		}
		require.NoError(t, json.Unmarshal(data, &want))
		for i, op := range req.Ops {
			if put := op.Op.GetPut(); put != nil && want.Ops[i].Key != nil && want.Ops[i].Value != nil {
				require.Equal(t, *want.Ops[i].Key, string(put.Key))
				require.Equal(t, *want.Ops[i].Value, string(put.Value))
			}
		}
	})
}

func FuzzTxnJSON(f *testing.F) {
	f.Add([]byte(`{"if":[{"key":"a","target":"version","op":"<","number":1}],"then":[{"op":"put","key":"a","value":"1"}],"else":[{"op":"get","key64":"YQ=="}]}`))
	f.Add([]byte(`{"then":[{"op":"txn"}]}`))
	f.Add([]byte(`{"guard":[{"lock":"a/b","token":7}],"then":[{"op":"put","key":"a","value":"1","ttl":"1m"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		txn, guards, p := decodeTxn(data)
		if p != nil {
			return
		}
		require.LessOrEqual(t, len(guards), maxGuards)
		require.True(t, json.Valid(data))
		require.LessOrEqual(t, max(len(txn.If), len(txn.Then), len(txn.Else)), maxTxnOps+1)
		store.Check(&trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: txn}}, store.Limits{})
	})
}

// A batch in protobuf is refused, or it is what its operations make again.
func FuzzBatchProtobuf(f *testing.F) {
	req, p := decodeBatch([]byte(`{"session":7,"ops":[{"op":"put","key":"a","value":"1","if_match":2,"seq":1,"guard":[{"lock":"l","token":2}]},{"op":"txn","if":[{"key":"a","target":"value","op":"!=","value64":""}],"then":[{"op":"get","key":"a"}]},{"op":"range","prefix":"b"},{"op":"add","key":"n","delta":-5,"seq":2}]}`))
	require.Nil(f, p)
	seed, err := req.MarshalVT()
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte{0x0a, 0x00})
	f.Add([]byte{0x0a, 0x04, 0x0a, 0x02, 0x32, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		req, p := decodeProtoBatch(new(trivetpb.Decoder), data)
		if p != nil {
			require.Contains(t, []trivetpb.Code{trivetpb.Code_BAD_REQUEST, trivetpb.Code_TOO_LARGE}, p.Code)
			require.True(t, utf8.ValidString(p.Detail))
			return
		}
		require.LessOrEqual(t, len(req.Ops), maxBatchOps)
		for _, op := range req.Ops {
			store.Check(op.Op, store.Limits{})
			require.LessOrEqual(t, len(op.Guards), maxGuards)
		}
		encoded, err := req.MarshalVT()
		require.NoError(t, err)
		_, p = decodeProtoBatch(new(trivetpb.Decoder), encoded)
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

// A session header that is taken has one text, and its numbers are in order.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{"5;seq=2;ack=1", "5;seq=1", "5;seq=1;ack=0", "05;seq=1", "5; seq=1", "5;ack=1;seq=2", "5;seq=1;ack=1", ";;", "9007199254740992;seq=1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, p := parseSession(text)
		if p != nil {
			require.Equal(t, trivetpb.Code_BAD_REQUEST, p.Code)
			require.Equal(t, identity{}, id)
			return
		}
		require.Greater(t, id.seq, id.ack)
		require.Positive(t, id.session)
		again := fmt.Sprintf("%d;seq=%d", id.session, id.seq)
		if strings.Contains(text, "ack") {
			again += fmt.Sprintf(";ack=%d", id.ack)
		}
		require.Equal(t, again, text)
	})
}

// Guards that are taken come back the same from what they are written as.
func FuzzGuards(f *testing.F) {
	for _, seed := range []string{"a=1", "a/b%2C%3D=1, c=d=2", "a=1,a=1", "=1", "a=0", "a=01", "%zz=1", ",", "\xff=1", "a=9007199254740992"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		guards, p := parseGuards([]string{text})
		if p != nil {
			require.Equal(t, trivetpb.Code_BAD_REQUEST, p.Code)
			require.True(t, utf8.ValidString(p.Detail))
			return
		}
		var parts []string
		for _, g := range guards {
			parts = append(parts, url.PathEscape(string(g.Lock))+"="+strconv.FormatUint(g.Token, 10))
		}
		again, p := parseGuards(parts)
		require.Nil(t, p)
		require.Equal(t, len(guards), len(again))
		for i := range guards {
			require.True(t, proto.Equal(guards[i], again[i]))
		}
	})
}

// A duration that is taken is written as one that is taken for the same.
func FuzzDuration(f *testing.F) {
	for _, seed := range []string{"10s", "1.5s", "24h", "1500ms", "1e9s", "-1s", "0s", "1s1us", "25h", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ms, wrong := parseDuration(text, minTTL, maxTTL)
		if wrong != "" {
			return
		}
		written, err := strconv.Unquote(string(appendDuration(nil, "", ms)))
		require.NoError(t, err)
		again, wrong := parseDuration(written, minTTL, maxTTL)
		require.Empty(t, wrong)
		require.Equal(t, ms, again)
	})
}

// The small documents are taken as JSON has them, each field by the calls that
// have it.
func FuzzSmallDocuments(f *testing.F) {
	for _, seed := range []string{`{"ttl":"10s"}`, `{"wait":"1h","owner":"\u0000é","ttl":"1.5s"}`, `{"token":9007199254740991}`, `{}`, `{"ttl":"1s","ttl":"1s"}`, `{"owner":"\ud800"}`, `[]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, known := range []fieldSet{fields(smallTTL), fields(smallToken), fields(smallTTL, smallWait, smallOwner)} {
			v, p := decodeSmall(data, known, 0)
			if p != nil {
				require.Equal(t, trivetpb.Code_BAD_REQUEST, p.Code)
				require.True(t, utf8.ValidString(p.Detail))
				continue
			}
			require.True(t, json.Valid(data))
			require.True(t, known.has(smallToken) || v.token == 0)
			require.True(t, known.has(smallWait) || v.waitMS == 0)
			require.True(t, utf8.ValidString(v.owner))
			require.Nil(t, store.CheckCommand(&trivetpb.Command{Command: &trivetpb.Command_LockAcquire{LockAcquire: &trivetpb.LockAcquire{
				Name: []byte("l"), TtlMs: max(v.ttlMS, store.MinTTLMS), WaitMs: v.waitMS, Owner: v.owner,
			}}}, store.Limits{}), "what is taken here is taken there")
		}
	})
}

func FuzzMemberDocuments(f *testing.F) {
	for _, seed := range []string{`{"id":"n4","peer":"10.0.0.4:7171","role":"replica","incarnation":"ab"}`, `{"to":"n2"}`, `{}`, `{"id":"n4","id":"n4"}`, `{"role":"leader"}`, `{"peer":"\ud800"}`, `[]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, known := range []fieldSet{fields(memberTo), fields(memberID, memberPeer, memberRole, memberIncarnation)} {
			v, p := decodeMember(data, known, 0)
			if p != nil {
				require.Equal(t, trivetpb.Code_BAD_REQUEST, p.Code)
				require.True(t, utf8.ValidString(p.Detail))
				continue
			}
			require.True(t, json.Valid(data))
			require.True(t, known.has(memberTo) || v.to == "")
			require.True(t, known.has(memberID) || v.NewMember == (raftnode.NewMember{}))
			require.True(t, utf8.ValidString(v.ID+v.Peer+v.Incarnation+v.to))
		}
	})
}
