package client

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// What is decoded is what the generated code has encoded, belongs to nobody else, and
// does not change with the buffer.
func TestProtoFramesAndPages(t *testing.T) {
	item := func(key, value string, n uint64) *trivetpb.Item {
		return &trivetpb.Item{Key: []byte(key), Value: []byte(value), CreateRevision: n, ModRevision: n + 1, Version: 2, Lease: n << 40}
	}
	long := strings.Repeat("v", 100_000)
	frame := &trivetpb.WatchFrame{Type: trivetpb.WatchFrame_CHANGE, Revision: 1 << 50, Events: []*trivetpb.WatchEvent{
		{Item: item("a", "1", 5), Prev: item("a", long, 3)},
		{Item: &trivetpb.Item{Key: []byte("b\xff"), ModRevision: 6}, Deleted: true, Expired: true},
		{Item: item("c", "", 9)},
	}}
	text, err := frame.MarshalVT()
	require.NoError(t, err)
	// Fields of a newer server are passed over.
	text = append(text, 15<<3|2, 2, 'x', 'y', 14<<3|5, 1, 2, 3, 4, 13<<3|1, 1, 2, 3, 4, 5, 6, 7, 8)
	f, err := protoFrame(text)
	require.NoError(t, err)
	require.NoError(t, f.check())
	clear(text)
	want := []Event{
		{
			Type: EventPut, Item: Item{Key: "a", Value: []byte("1"), CreateRevision: 5, ModRevision: 6, Version: 2, Lease: 5 << 40},
			Prev: &Item{Key: "a", Value: []byte(long), CreateRevision: 3, ModRevision: 4, Version: 2, Lease: 3 << 40},
		},
		{Type: EventDelete, Item: Item{Key: "b\xff", ModRevision: 6}, Expired: true},
		{Type: EventPut, Item: Item{Key: "c", Value: []byte{}, CreateRevision: 9, ModRevision: 10, Version: 2, Lease: 9 << 40}},
	}
	require.Equal(t, want, f.events)
	require.Equal(t, wireChange, f.kind)
	require.EqualValues(t, 1<<50, f.revision)

	page := &trivetpb.RangePage{Revision: 7, Count: 9, Next: "cursor"}
	ranged := &trivetpb.RangeResult{Count: 9, More: true}
	for i := range 300 {
		it := item(strings.Repeat("k", i+1), strings.Repeat("v", i*20), uint64(i+1))
		page.Items, ranged.Items = append(page.Items, it), append(ranged.Items, it)
	}
	text, err = page.MarshalVT()
	require.NoError(t, err)
	p, err := protoPage(text, false)
	require.NoError(t, err)
	clear(text)
	requirePage(t, page.Items, p.items)
	require.Equal(t, listPage{items: p.items, revision: 7, count: 9, more: true, next: "cursor"}, p)
	text, err = ranged.MarshalVT()
	require.NoError(t, err)
	r, err := protoRange(text, 7, false)
	require.NoError(t, err)
	requirePage(t, page.Items, r.items)
	require.True(t, r.more)
	r, err = protoRange(text, 7, true)
	require.NoError(t, err)
	require.Nil(t, r.items[5].Value)

	for _, bad := range []*trivetpb.WatchFrame{
		{}, {Type: trivetpb.WatchFrame_CHANGE, Revision: 1}, {Type: trivetpb.WatchFrame_SYNCED}, {Type: trivetpb.WatchFrame_ERROR},
		{Type: trivetpb.WatchFrame_CHANGE, Revision: 1, Events: []*trivetpb.WatchEvent{{}}},
		{Type: trivetpb.WatchFrame_CHANGE, Revision: 1, Events: []*trivetpb.WatchEvent{{Item: &trivetpb.Item{Key: []byte("k")}}}},
		{Type: trivetpb.WatchFrame_CHANGE, Revision: 1, Events: []*trivetpb.WatchEvent{{Item: &trivetpb.Item{ModRevision: 1}, Deleted: true}}},
		{Type: trivetpb.WatchFrame_ITEMS, Revision: 1, Items: []*trivetpb.Item{{Key: []byte("k")}}},
	} {
		text, err := bad.MarshalVT()
		require.NoError(t, err)
		f, err := protoFrame(text)
		if err == nil {
			err = f.check()
		}
		require.Error(t, err, "%v", bad)
	}
}

func requirePage(t *testing.T, want []*trivetpb.Item, got []Item) {
	t.Helper()
	require.Equal(t, itemsOfProto(want, false), got)
	for i := range got {
		// Each may be appended to and changed.
		_ = append(got[i].Value, "tail"...)
		for j := range got[i].Value {
			got[i].Value[j] = 'w'
		}
	}
	for i := range got {
		require.Equal(t, string(want[i].Key), got[i].Key)
		require.Equal(t, strings.Repeat("w", len(want[i].Value)), string(got[i].Value))
	}
}

// Bytes that make no sense are an error, and nothing else.
func FuzzProtoFrames(f *testing.F) {
	frame := &trivetpb.WatchFrame{Type: trivetpb.WatchFrame_CHANGE, Revision: 9, Events: []*trivetpb.WatchEvent{
		{Item: &trivetpb.Item{Key: []byte("k"), Value: []byte("v"), CreateRevision: 1, ModRevision: 9, Version: 1}, Prev: &trivetpb.Item{}},
	}}
	text, err := frame.MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append([]byte{byte(len(text))}, text...))
	f.Add([]byte("{\"type\":\"synced\",\"revision\":9}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, mediaType := range []string{protobufType, ndjsonType} {
			in := newFrameReader(bytes.NewReader(data), mediaType, 1<<20)
			for {
				whole := in.buffered()
				_, err := in.next()
				if err != nil {
					break
				}
				_ = whole
			}
			in.free()
		}
		_, _ = protoPage(data, false)
		_, _ = protoRange(data, 1, true)
	})
}
