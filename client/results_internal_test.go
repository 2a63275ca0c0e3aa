package client

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// The results of a batch are decoded into what the calls hold already. Whatever the
// bytes are, that comes to the same as the generated decoder's, and nothing of the
// answer before is left.
func FuzzResults(f *testing.F) {
	add := func(results ...*trivetpb.Result) {
		body, err := (&trivetpb.BatchResponse{Revision: 9, Results: results}).MarshalVT()
		require.NoError(f, err)
		f.Add(body)
	}
	item := &trivetpb.Item{Key: []byte("k"), Value: []byte("v"), CreateRevision: 1, ModRevision: 2, Version: 3, Lease: 4}
	get := &trivetpb.Result{Revision: 8, Result: &trivetpb.Result_Get{Get: &trivetpb.GetResult{Item: item}}}
	put := &trivetpb.Result{Revision: 7, Replayed: true, Result: &trivetpb.Result_Put{Put: &trivetpb.PutResult{Version: 3, Created: true, Prev: item}}}
	add(get, put)
	add(put, get)
	add(&trivetpb.Result{Revision: 8, Result: &trivetpb.Result_Get{Get: &trivetpb.GetResult{}}}, &trivetpb.Result{Revision: 7})
	add(&trivetpb.Result{Problem: &trivetpb.Problem{Code: 3}}, &trivetpb.Result{Result: &trivetpb.Result_Add{Add: &trivetpb.AddResult{Value: 1}}})
	txn := &trivetpb.Result{Revision: 7, Replayed: true, Result: &trivetpb.Result_Txn{Txn: &trivetpb.TxnResult{Succeeded: true, Results: []*trivetpb.Result{
		put, get, put, {Result: &trivetpb.Result_Add{Add: &trivetpb.AddResult{Value: 1}}}, put, {Revision: 3, Problem: &trivetpb.Problem{Code: 3}},
	}}}}
	add(get, put, &trivetpb.Result{Result: &trivetpb.Result_Txn{Txn: &trivetpb.TxnResult{Results: []*trivetpb.Result{
		{Result: &trivetpb.Result_Put{Put: &trivetpb.PutResult{Version: 1}}}, {Result: &trivetpb.Result_Get{Get: &trivetpb.GetResult{}}}, {},
	}}}})
	add(txn, put)
	add(get, put, txn)
	add(get, put, put)
	add(get, put, &trivetpb.Result{Result: &trivetpb.Result_Txn{Txn: &trivetpb.TxnResult{Results: []*trivetpb.Result{put}}}})
	add()
	f.Add([]byte{0x40, 0x01, 0x42, 0x00})
	f.Add([]byte{0x0a, 0x01, 0x05, 0x42, 0x00})
	f.Add([]byte{0x42, 0x00, 0x2a, 0x00})
	f.Add([]byte{0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	dirty, err := (&trivetpb.BatchResponse{Results: []*trivetpb.Result{get, put, txn}}).MarshalVT()
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte) {
		calls := []*call{{kind: getCall}, {kind: putCall}, {kind: txnCall}}
		b := &batch{calls: calls}
		_, _, err := b.results(dirty, 3)
		require.NoError(t, err)
		var want trivetpb.BatchResponse
		wrong := want.UnmarshalVT(body)
		alone := &call{kind: txnCall}
		if res := alone.decode(body); res != nil && !hasField(body, 2) {
			w := &trivetpb.Result{}
			require.NoError(t, w.UnmarshalVT(body))
			require.True(t, proto.Equal(w, res), "%v\nand not %v", res, w)
		}
		_, got, err := b.results(body, min(len(want.Results), 3))
		if err != nil || wrong != nil {
			return
		}
		for i, res := range got {
			w := want.Results[i]
			require.Equal(t, w.Revision, res.Revision)
			require.Equal(t, w.Replayed, res.Replayed)
			require.Equal(t, w.Problem.GetCode(), res.Problem.GetCode())
			require.Equal(t, w.GetPut().GetVersion(), res.GetPut().GetVersion())
			require.Equal(t, w.GetPut().GetPrev().GetValue(), res.GetPut().GetPrev().GetValue())
			require.Equal(t, w.GetAdd().GetValue(), res.GetAdd().GetValue())
			if i == 2 {
				require.True(t, proto.Equal(w, res), "%v\nand not %v", res, w)
			}
			if it := w.GetGet().GetItem(); it != nil && it.ModRevision != 0 {
				require.Equal(t, string(it.Value), string(res.GetGet().GetItem().GetValue()))
				require.Equal(t, it.ModRevision, res.GetGet().GetItem().GetModRevision())
				require.Equal(t, it.Lease, res.GetGet().GetItem().GetLease())
			}
		}
	})
}
