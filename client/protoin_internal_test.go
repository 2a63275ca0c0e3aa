package client

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
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
	for i := range 301 {
		if i == 150 {
			page.Items = append(page.Items, item("large", long, 5))
			ranged.Items = append(ranged.Items, page.Items[i])
			continue
		}
		it := item(strings.Repeat("k", i+1), strings.Repeat("v", i*20), uint64(i+1))
		page.Items, ranged.Items = append(page.Items, it), append(ranged.Items, it)
	}
	text, err = page.MarshalVT()
	require.NoError(t, err)
	p, err := protoPage(text, false)
	require.NoError(t, err)
	clear(text)
	require.Equal(t, []any{301, uint64(7), uint64(9), true, "cursor"}, []any{p.n, p.revision, p.count, p.more, p.next})
	requirePage(t, page.Items, p)
	text, err = ranged.MarshalVT()
	require.NoError(t, err)
	r, err := protoRange(text, 7, false)
	require.NoError(t, err)
	clear(text)
	requirePage(t, page.Items, r)
	require.True(t, r.more)
	text, err = ranged.MarshalVT()
	require.NoError(t, err)
	r, err = protoRange(text, 7, true)
	require.NoError(t, err)
	r.each(func(it Item) bool {
		require.Nil(t, it.Value)
		return true
	})

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

// requirePage goes through a page as its callers may.
func requirePage(t *testing.T, want []*trivetpb.Item, p *listPage) {
	t.Helper()
	wanted := itemsOfProto(want, false)
	var got []Item
	require.True(t, p.each(func(it Item) bool {
		require.Equal(t, wanted[len(got)], it)
		got = append(got, it)
		// Each may be appended to and changed, while the page is being gone through too.
		_ = append(it.Value, "tail"...)
		for j := range it.Value {
			it.Value[j] = 'w'
		}
		return true
	}))
	require.Len(t, got, p.n)
	require.Equal(t, got[len(got)-1].Key, p.last)
	// Who keeps one item keeps a block, which holds the item alone where it is larger.
	require.Greater(t, len(p.blocks), 1)
	for _, b := range p.blocks {
		_, _, _, rest, ok := protoField(b)
		require.True(t, ok && (len(b) <= pageBlock || len(rest) == 0), "%d bytes", len(b))
	}
	for i := range got {
		require.Equal(t, string(want[i].Key), got[i].Key)
		require.Equal(t, strings.Repeat("w", len(want[i].Value)), string(got[i].Value))
	}
}

// What is announced and not there costs a few times what has come, and no more.
func TestProtoAnnouncedForNothing(t *testing.T) {
	const n = 1 << 20
	item := []byte{1<<3 | 2, 1, 'k', 3 << 3, 1, 4 << 3, 1, 5 << 3, 1}
	one := append([]byte{4<<3 | 2, byte(len(item))}, item...)
	require.Len(t, one, leastItem)
	event := []byte{3<<3 | 2, 7, 1<<3 | 2, 5, 1<<3 | 2, 1, 'k', 4 << 3, 1}
	require.Len(t, event, leastEvent)
	_, err := protoFrame(append([]byte{1 << 3, byte(trivetpb.WatchFrame_ITEMS), 2 << 3, 1}, bytes.Repeat(one, 3)...))
	require.NoError(t, err)
	_, err = protoFrame(append([]byte{1 << 3, byte(trivetpb.WatchFrame_CHANGE), 2 << 3, 1}, event...))
	require.ErrorIs(t, err, errNoRevisions, "it is no shortest put")
	for name, text := range map[string][]byte{
		"events": append([]byte{1 << 3, byte(trivetpb.WatchFrame_CHANGE), 2 << 3, 1}, bytes.Repeat([]byte{3<<3 | 2, 0}, n)...),
		"items":  append([]byte{1 << 3, byte(trivetpb.WatchFrame_ITEMS), 2 << 3, 1}, bytes.Repeat([]byte{4<<3 | 2, 0}, n)...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := protoFrame(text)
		runtime.ReadMemStats(&after)
		require.Error(t, err, name)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(24*len(text)), name)
	}
}

// A revision that none follows would have the watch begin anew.
func TestTheLastRevisionThereCanBe(t *testing.T) {
	for _, kind := range []wireKind{wireChange, wireProgress, wireSynced, wireItems} {
		require.Error(t, (&wireFrame{kind: kind, revision: math.MaxUint64}).check())
	}
}

// What comes late does not take back what was told.
func TestProgressDoesNotGoBack(t *testing.T) {
	w := &watch{next: 101, told: true}
	w.progress = true
	for _, kind := range []wireKind{wireProgress, wireSynced} {
		f, err := w.take(&wireFrame{kind: kind, revision: 95})
		require.NoError(t, err)
		require.Equal(t, WatchFrame{Kind: FrameProgress, Revision: 100}, f)
		require.EqualValues(t, 101, w.next)
	}
	f, err := w.take(&wireFrame{kind: wireProgress, revision: 120})
	require.NoError(t, err)
	require.EqualValues(t, 120, f.Revision)
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
		page, _ := protoPage(data, false)
		ranged, _ := protoRange(data, 1, true)
		for _, p := range []*listPage{page, ranged} {
			if p == nil {
				continue
			}
			n := 0
			p.each(func(it Item) bool {
				require.NotEmpty(t, it.Key)
				require.Equal(t, len(it.Value), cap(it.Value))
				n++
				return true
			})
			require.Equal(t, p.n, n)
		}
	})
}

// An item is read as the generated code reads it, wherever it ends, with lengths and
// numbers of every size and with the fields of a newer server, of every type.
func TestItemsAreReadAsTheGeneratedCodeDoes(t *testing.T) {
	newer := [][]byte{nil}
	for _, tail := range []string{"\xff\xff\xff\xff\xff\xff\xff\xff", "\x00\x80\xff\x7f\x01\x00\x00\x00"} {
		newer = append(newer,
			append([]byte{7<<3 | 1}, tail...), append([]byte{7<<3 | 5}, tail[:4]...),
			append([]byte{0x80 | 4<<3 | 1, 1}, tail...), // of two bytes
		)
	}
	newer = append(newer, []byte{7 << 3, 0xff, 0x01}, []byte{7<<3 | 2, 2, 0xff, 0xff})
	for _, size := range []int{0, 1, 127, 128, 300, 1<<14 - 1, 1 << 14} {
		for _, number := range []uint64{1, 127, 128, 1<<14 - 1, 1 << 14, 1 << 35, math.MaxUint64} {
			for _, field := range newer {
				want := &trivetpb.Item{
					Key: bytes.Repeat([]byte("k"), size), Value: bytes.Repeat([]byte("v"), size),
					CreateRevision: number, ModRevision: number, Version: number, Lease: number,
				}
				text, err := want.MarshalVT()
				require.NoError(t, err)
				text = append(append([]byte{}, field...), text...)
				var it rawItem
				err, lacks := it.read(text)
				require.NoError(t, err, "%d bytes, number %d, behind %x", size, number, field)
				require.Equal(t, size == 0, lacks != nil)
				require.Equal(t, string(want.Key), string(it.key))
				require.Equal(t, string(want.Value), string(it.value))
				require.Equal(t, Item{CreateRevision: number, ModRevision: number, Version: number, Lease: number}, it.Item)
				for end := range min(len(text), 400) {
					var part rawItem
					err, _ := part.read(text[:end])
					require.Equal(t, new(trivetpb.Item).UnmarshalVT(text[:end]) == nil, err == nil, "%d of %x", end, text[:min(len(text), 20)])
				}
			}
		}
	}
}

// BenchmarkPageOfList takes apart a page of a hundred items, as most lists are answered.
func BenchmarkPageOfList(b *testing.B) {
	var r trivetpb.RangeResult
	for i := range 100 {
		r.Items = append(r.Items, &trivetpb.Item{
			Key: fmt.Appendf(nil, "key/%028d", i), Value: bytes.Repeat([]byte{byte(i)}, 256),
			CreateRevision: 70_000, ModRevision: uint64(100_000 + i), Version: 3,
		})
	}
	text, err := r.MarshalVT()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		p, err := protoRange(text, 7, false)
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		p.each(func(it Item) bool {
			n += len(it.Value)
			return true
		})
		if n != 256*100 {
			b.Fatal(n)
		}
	}
}
