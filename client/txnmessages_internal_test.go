package client

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// A txn is encoded from messages that its call keeps. Whatever they held before, what
// goes out is the txn, and nothing of it stays.
func TestTxnIsEncodedWhole(t *testing.T) {
	put := func(key, value string) *trivetpb.Op {
		return &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte(key), Value: []byte(value)}}}
	}
	exists := &trivetpb.Compare{Key: []byte("k"), Target: trivetpb.Compare_VERSION, Relation: trivetpb.Compare_GREATER}
	steps := []struct {
		name   string
		txn    *Txn
		guards []guard
		want   *trivetpb.TxnOp
	}{
		{"compares and puts, more than there is room for",
			new(Txn).If(slices.Repeat([]Compare{Exists("k")}, 3*keptTxnOps)...).Then(slices.Repeat([]Op{OpPut("a", []byte("1"))}, 3*keptTxnOps)...),
			[]guard{{lock: "l", token: 7}},
			&trivetpb.TxnOp{If: slices.Repeat([]*trivetpb.Compare{exists}, 3*keptTxnOps), Then: slices.Repeat([]*trivetpb.Op{put("a", "1")}, 3*keptTxnOps)}},
		{"a compare and two puts",
			new(Txn).If(Exists("k")).Then(OpPut("a", []byte("1")), OpPut("b", nil)), nil,
			&trivetpb.TxnOp{If: []*trivetpb.Compare{exists}, Then: []*trivetpb.Op{put("a", "1"), put("b", "")}}},
		{"all that a put and a compare may have",
			new(Txn).If(ValueOf("p").OfPrefix().NotEqual([]byte("v")), LeaseOf("k").LessOrEqual(9)).
				Then(OpPut("a", []byte("1"), WithLease(4), WithPrev()), OpGet("g"), OpPut("b", []byte("2"), WithTTL(time.Second))).
				Else(OpPut("c", []byte("3")), OpAdd("n", -2)), nil,
			&trivetpb.TxnOp{
				If: []*trivetpb.Compare{
					{Range: &trivetpb.KeyRange{Start: []byte("p"), End: []byte("q")}, Target: trivetpb.Compare_VALUE, Relation: trivetpb.Compare_NOT_EQUAL, Value: []byte("v")},
					{Key: []byte("k"), Target: trivetpb.Compare_LEASE, Relation: trivetpb.Compare_LESS_OR_EQUAL, Number: 9},
				},
				Then: []*trivetpb.Op{
					{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte("a"), Value: []byte("1"), Lease: 4, Prev: true}}},
					{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: []byte("g")}}},
					{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: []byte("b"), Value: []byte("2"), TtlMs: 1000}}},
				},
				Else: []*trivetpb.Op{put("c", "3"), {Op: &trivetpb.Op_Add{Add: &trivetpb.AddOp{Key: []byte("n"), Delta: -2}}}},
			}},
		{"nothing", new(Txn), nil, &trivetpb.TxnOp{}},
		{"a put of many bytes", new(Txn).Then(OpPut("a", []byte(strings.Repeat("v", 1000)))), nil,
			&trivetpb.TxnOp{Then: []*trivetpb.Op{put("a", strings.Repeat("v", 1000))}}},
	}
	a := &call{kind: txnCall}
	for _, step := range append(steps, steps...) {
		a.encodeTxn(step.txn, step.guards)
		var got trivetpb.BatchOp
		require.NoError(t, got.UnmarshalVT(a.wire), step.name)
		want := &trivetpb.BatchOp{Op: &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: step.want}}}
		for _, g := range step.guards {
			want.Guards = append(want.Guards, &trivetpb.Guard{Lock: []byte(g.lock), Token: g.token})
		}
		require.True(t, proto.Equal(want, &got), "%s: %v\nand not %v", step.name, &got, want)

		require.Nil(t, a.txn.puts[0].put.Value, "the value is its caller's")
		require.LessOrEqual(t, cap(a.txn.txn.Then), 2*keptTxnOps)
		for _, op := range a.txn.txn.Then[:cap(a.txn.txn.Then)] {
			require.Nil(t, op, step.name)
		}
	}
}
