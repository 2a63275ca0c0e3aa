package httpapi

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"trivet/trivetpb"
)

// The same batch has the same results on two equal stores, one asked in JSON and
// one in protobuf, whichever of them the answers come in.
func TestBatchesMeanTheSameInBothForms(t *testing.T) {
	d1, d2 := openDoor(t, newSoloNode(), Config{}), openDoor(t, newSoloNode(), Config{})
	rapid.Check(t, func(rt *rapid.T) {
		ops := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) jsonAndOp { return genOp(rt, false) }), 0, 8).Draw(rt, "ops")
		var texts []string
		var protos []*trivetpb.Op
		writes := false
		for _, op := range ops {
			// A read may or may not see the writes beside it, so they come apart.
			if isRead := strings.Contains(op.text, `"op":"get"`) || strings.Contains(op.text, `"op":"range"`); isRead && writes {
				continue
			} else if !isRead {
				writes = true
			}
			texts, protos = append(texts, op.text), append(protos, op.op)
		}
		if writes {
			texts, protos = dropReads(texts, protos)
		}
		body := `{"ops":[` + strings.Join(texts, ",") + `]}`
		fromJSON, p := decodeBatch([]byte(body))
		require.Nil(t, p, "%v: %s", p, body)
		for i := range protos {
			require.True(t, proto.Equal(fromJSON.Ops[i].Op, protos[i]), "%s\n%v\n%v", texts[i], fromJSON.Ops[i].Op, protos[i])
		}
		asJSON := d1.do("POST", "/v1/batch", body, "Accept: application/x-protobuf")
		require.Equal(t, 200, asJSON.status, asJSON.body)
		want := &trivetpb.BatchResponse{}
		require.NoError(t, want.UnmarshalVT([]byte(asJSON.body)))
		got := d2.protoBatch(protos)
		require.Equal(t, want.String(), got.String())
		require.True(t, proto.Equal(want, got))
		require.Equal(t, d1.node.data.Stats(), d2.node.data.Stats())

		// And the answer in JSON is that of the results in protobuf.
		again := d1.do("POST", "/v1/batch", `{"ops":[{"op":"range","prefix":""},{"op":"get","key":"a"}]}`)
		through := d2.protoBatch([]*trivetpb.Op{
			{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{Range: &trivetpb.KeyRange{}}}},
			{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: []byte("a")}}},
		})
		var read struct {
			Results []struct{ Items []json.RawMessage }
		}
		require.NoError(t, json.Unmarshal([]byte(again.body), &read))
		items := through.Results[0].GetRange().Items
		require.Len(t, read.Results[0].Items, len(items))
		for i, it := range items {
			require.Equal(t, string(read.Results[0].Items[i]), string(appendProtoItem(nil, it, false)))
		}
	})
}

func dropReads(texts []string, ops []*trivetpb.Op) (t []string, o []*trivetpb.Op) {
	for i, op := range ops {
		if op.GetGet() == nil && op.GetRange() == nil && op.GetTxn() == nil {
			t, o = append(t, texts[i]), append(o, op)
		}
	}
	return
}

// jsonAndOp is an operation in both forms.
type jsonAndOp struct {
	text string
	op   *trivetpb.Op
}

func genOp(rt *rapid.T, inTxn bool) jsonAndOp {
	key := rapid.SampledFrom([]string{"a", "b", "n", "k/\xff", "", "é\"\n"}).Draw(rt, "key")
	value := rapid.SampledFrom([]string{"", "1", "text", "\xff\x00", "9223372036854775807"}).Draw(rt, "value")
	keyJSON := string(appendBytes(nil, "key", []byte(key)))
	kinds := []string{"put", "delete", "get", "range", "add", "deleteRange"}
	if !inTxn {
		kinds = append(kinds, "txn")
	}
	switch kind := rapid.SampledFrom(kinds).Draw(rt, "kind"); kind {
	case "put":
		op := &trivetpb.PutOp{Key: []byte(key), Value: []byte(value), Prev: rapid.Bool().Draw(rt, "prev")}
		text := fmt.Sprintf(`{"op":"put",%s,%s,"prev":%v`, keyJSON, appendBytes(nil, "value", []byte(value)), op.Prev)
		if rapid.IntRange(0, 9).Draw(rt, "leased") == 0 {
			op.Lease = 7
			text += `,"lease":7`
		} else if rapid.IntRange(0, 9).Draw(rt, "mortal") == 0 {
			op.TtlMs = 1500
			text += `,"ttl":"1.5s"`
		}
		if !inTxn {
			op.Precondition, text = genPrecondition(rt, text)
		}
		return jsonAndOp{text + "}", &trivetpb.Op{Op: &trivetpb.Op_Put{Put: op}}}
	case "delete":
		op := &trivetpb.DeleteOp{Key: []byte(key), Prev: true}
		text := `{"op":"delete","prev":true,` + keyJSON
		if !inTxn {
			op.Precondition, text = genPrecondition(rt, text)
		}
		return jsonAndOp{text + "}", &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: op}}}
	case "deleteRange":
		return jsonAndOp{`{"start":"b","end":"c","op":"delete"}`, &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{
			Range: &trivetpb.KeyRange{Start: []byte("b"), End: []byte("c")}}}}}
	case "get":
		return jsonAndOp{`{"op":"get",` + keyJSON + `}`, &trivetpb.Op{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: []byte(key)}}}}
	case "range":
		limit := rapid.SampledFrom([]uint32{0, 1, 2, 10_001}).Draw(rt, "limit")
		op := &trivetpb.RangeOp{Range: &trivetpb.KeyRange{Start: []byte("a"), End: []byte("b")}, Limit: limit, KeysOnly: true}
		return jsonAndOp{fmt.Sprintf(`{"op":"range","prefix":"a","limit":%d,"keys_only":true,"count_only":false}`, limit), &trivetpb.Op{Op: &trivetpb.Op_Range{Range: op}}}
	case "add":
		delta := rapid.SampledFrom([]int64{0, 1, -7, math.MaxInt64, math.MinInt64}).Draw(rt, "delta")
		return jsonAndOp{fmt.Sprintf(`{"op":"add",%s,"delta":%d}`, keyJSON, delta), &trivetpb.Op{Op: &trivetpb.Op_Add{Add: &trivetpb.AddOp{Key: []byte(key), Delta: delta}}}}
	default:
		ops := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) jsonAndOp { return genOp(rt, true) }), 0, 3).Draw(rt, "ops")
		txn := &trivetpb.TxnOp{If: []*trivetpb.Compare{{Key: []byte("n"), Target: trivetpb.Compare_VERSION, Relation: trivetpb.Compare_LESS, Number: 3}}}
		var texts []string
		for _, op := range ops {
			txn.Then = append(txn.Then, op.op)
			texts = append(texts, op.text)
		}
		return jsonAndOp{`{"op":"txn","if":[{"key":"n","target":"version","op":"<","number":3}],"then":[` + strings.Join(texts, ",") + `]}`,
			&trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: txn}}}
	}
}

func genPrecondition(rt *rapid.T, text string) (*trivetpb.Precondition, string) {
	switch rapid.IntRange(0, 3).Draw(rt, "precondition") {
	case 0:
		return &trivetpb.Precondition{Kind: trivetpb.Precondition_ABSENT}, text + `,"if_none_match":true`
	case 1:
		return &trivetpb.Precondition{Kind: trivetpb.Precondition_MOD_REVISION, ModRevision: 2}, text + `,"if_match":2`
	}
	return nil, text
}
