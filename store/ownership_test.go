package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// The store keeps nothing of an entry's operations: what they were decoded from is
// written over right after, and the state is that of another store all the same.
func TestApplyKeepsNothingOfOperations(t *testing.T) {
	var d trivetpb.Decoder
	again, anew := New(), New()
	var kept, want []*trivetpb.Result
	for i := range uint64(300) {
		key := fmt.Sprint("key", i%7)
		put := putOp(key, strings.Repeat(fmt.Sprint(i%10), int(i)*5)) // short and long values
		put.GetPut().Prev = i%3 == 0
		if i%5 == 0 {
			put.GetPut().TtlMs = 1000 + i
		}
		cas := txnOp(put, putOp(fmt.Sprint("new", i), "x"), getOp(key+"x"), deleteOp(fmt.Sprint("new", i-20)))
		cas.GetTxn().If = []*trivetpb.Compare{{Key: []byte(key), Target: trivetpb.Compare_VERSION, Relation: trivetpb.Compare_GREATER}}
		cas.GetTxn().Else = []*trivetpb.Op{put}
		e := entryOf(i, addOp("n", 1), put, cas, getOp(key), rangeOp("key", "kez"), putOp(strings.Repeat("k", 1000)+key, "long key"))
		data, err := e.MarshalVT()
		require.NoError(t, err)

		var copied trivetpb.Entry
		require.NoError(t, copied.UnmarshalVT(data))
		want = append(want, apply(t, anew, &copied)...)
		aliased, err := d.Entry(data)
		require.NoError(t, err)
		kept = append(kept, apply(t, again, aliased)...)
		d.Reset()
		for k := range data {
			data[k] = 0xff
		}
	}
	require.Equal(t, anew.Stats(), again.Stats())
	require.Equal(t, contents(view(t, anew, 0)), contents(view(t, again, 0)))
	// Old versions, leases and what tells of them too.
	require.Equal(t, snapshotOf(t, anew).Bytes(), snapshotOf(t, again).Bytes())
	for i := range want {
		require.True(t, proto.Equal(want[i], kept[i]), "result %d:\n%v\n%v", i, want[i], kept[i])
	}
}
