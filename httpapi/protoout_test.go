package httpapi

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/store"
	"trivet/trivetpb"
)

// protoFrame reads a frame of a watch in protobuf, by the generated code.
func protoFrame(t testing.TB, in *bufio.Reader) *trivetpb.WatchFrame {
	t.Helper()
	f, err := readProtoFrame(in)
	require.NoError(t, err)
	return f
}

// readProtoFrame is protoFrame for other goroutines than the test's.
func readProtoFrame(in *bufio.Reader) (*trivetpb.WatchFrame, error) {
	size, err := binary.ReadUvarint(in)
	if err != nil {
		return nil, err
	}
	text := make([]byte, size)
	if _, err = io.ReadFull(in, text); err != nil {
		return nil, err
	}
	f := &trivetpb.WatchFrame{}
	return f, f.UnmarshalVT(text)
}

// said is what a frame says, in the words of its JSON.
func said(f *trivetpb.WatchFrame) watchFrame {
	types := map[trivetpb.WatchFrame_Type]string{
		trivetpb.WatchFrame_CHANGE: "change", trivetpb.WatchFrame_ITEMS: "items", trivetpb.WatchFrame_SYNCED: "synced",
		trivetpb.WatchFrame_PROGRESS: "progress", trivetpb.WatchFrame_ERROR: "error",
	}
	out := watchFrame{Type: types[f.Type], Revision: f.Revision}
	for _, it := range f.Items {
		out.Items = append(out.Items, struct{ Key, Value string }{string(it.Key), string(it.Value)})
	}
	for _, e := range f.Events {
		event := struct {
			Type, Key, Value, Reason string
			ModRevision              uint64 `json:"mod_revision"`
		}{Type: "put", Key: string(e.Item.Key), Value: string(e.Item.Value), ModRevision: e.Item.ModRevision}
		if e.Deleted {
			event.Type, event.Reason = "delete", "delete"
			if e.Expired {
				event.Reason = "expired"
			}
		}
		out.Events = append(out.Events, event)
	}
	return out
}

// A watch in protobuf says what one in JSON says.
func TestWatchInProtobuf(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	for i := range 2000 {
		d.do("PUT", fmt.Sprintf("/v1/kv/k/%04d", i), fmt.Sprintf("value %050d", i))
	}
	for _, query := range []string{"prefix=k/&initial=true&prev=true", "prefix=k/&from_revision=1990", "prefix=k/", "prefix=k/&from_revision=1990&prev=true"} {
		lines, coded := d.watch(query), d.watch(query, "Accept: application/x-protobuf")
		require.Equal(t, "application/x-protobuf", coded.resp.Header.Get("Content-Type"))
		frames := 0
		var last *trivetpb.WatchFrame
		both := func() string {
			want := lines.next()
			last = protoFrame(t, coded.in)
			got := said(last)
			want.line, want.id, want.event = "", "", ""
			require.Equal(t, want, got, query)
			frames++
			return want.Type
		}
		// Frames of items are cut by their bytes, and JSON has more of them.
		if query == "prefix=k/&initial=true&prev=true" {
			var a, b []string
			for f := lines.next(); f.Type != "synced"; f = lines.next() {
				for _, it := range f.Items {
					a = append(a, it.Key+it.Value)
				}
			}
			for f := protoFrame(t, coded.in); f.Type != trivetpb.WatchFrame_SYNCED; f = protoFrame(t, coded.in) {
				for _, it := range f.Items {
					require.NotZero(t, it.ModRevision*it.CreateRevision*it.Version)
					b = append(b, string(it.Key)+string(it.Value))
				}
			}
			require.Len(t, a, 2000)
			require.Equal(t, a, b)
		} else {
			for both() != "synced" {
			}
		}
		d.do("PUT", "/v1/kv/k/0001", "new")
		d.do("DELETE", "/v1/kv/k/0002", "")
		d.do("PUT", "/v1/kv/k/0002", "")
		d.do("POST", "/v1/txn", `{"then":[{"op":"put","key":"k/1","value":"a"},{"op":"delete","key":"k/1999"},{"op":"put","key":"other","value":"a"}]}`)
		require.Equal(t, "change", both())
		if query == "prefix=k/" {
			require.Nil(t, last.Events[0].Prev)
		} else if query != "prefix=k/&from_revision=1990" {
			require.NotEmpty(t, last.Events[0].Prev.Value)
		}
		for range 3 {
			require.Equal(t, "change", both())
		}
		require.Len(t, last.Events, 2)
		d.do("PUT", "/v1/kv/k/1999", "again")
		d.do("DELETE", "/v1/kv/k/1", "")
	}
	// The last word.
	coded := d.watch("prefix=k/", "Accept: application/x-protobuf")
	require.Equal(t, trivetpb.WatchFrame_SYNCED, protoFrame(t, coded.in).Type)
	d.srv.stop()
	f := protoFrame(t, coded.in)
	require.Equal(t, trivetpb.WatchFrame_ERROR, f.Type)
	require.Equal(t, trivetpb.Code_DRAINING, f.Problem.Code)
	_, err := coded.in.ReadByte()
	require.Equal(t, io.EOF, err)
}

// A page in protobuf has what one in JSON has, and its cursor goes on in either.
func TestRangeInProtobuf(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	for i := range 50 {
		d.do("PUT", fmt.Sprintf("/v1/kv/k/%d/%02d", i%3, i), fmt.Sprint(i))
	}
	for _, query := range []string{
		"", "prefix=k/&limit=7", "prefix=k/&limit=7&reverse=true", "keys_only=true&limit=60", "prefix=k/&delimiter=/",
		"prefix=k/&count_only=true", "prefix=none",
	} {
		for next := ""; ; {
			q := query
			if next != "" {
				q += "&cursor=" + next
			}
			want := d.list(q)
			r := d.do("GET", "/v1/kv?"+q, "", "Accept: application/x-protobuf, application/json;q=0.9")
			require.Equal(t, http.StatusOK, r.status)
			require.Equal(t, "application/x-protobuf", r.header.Get("Content-Type"))
			got := &trivetpb.RangePage{}
			require.NoError(t, got.UnmarshalVT([]byte(r.body)))
			require.EqualValues(t, want.Revision, got.Revision)
			require.EqualValues(t, want.Count, got.Count)
			require.Equal(t, want.Next, got.Next)
			require.Len(t, got.Items, len(want.Items))
			for i, it := range got.Items {
				require.Equal(t, want.Items[i].Key, string(it.Key))
				require.EqualValues(t, want.Items[i].ModRevision, it.ModRevision)
			}
			require.Len(t, got.Prefixes, len(want.Prefixes))
			if next = got.Next; next == "" {
				break
			}
		}
	}
}

// A range in a batch ends where its caller says, and says so.
func TestPartsOfARangeInABatch(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	for i := range 50 {
		d.do("PUT", fmt.Sprintf("/v1/kv/k/%02d", i), "ninety bytes of a value, or near to it, in this place: nobody need count them, as it happens")
	}
	ranged := func(limit uint32, keysOnly bool) *trivetpb.BatchOp {
		return &trivetpb.BatchOp{Op: &trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{
			Range: &trivetpb.KeyRange{Start: []byte("k/10"), End: []byte("k/40")}, Limit: limit, KeysOnly: keysOnly,
		}}}}
	}
	req := &trivetpb.BatchRequest{Ops: []*trivetpb.BatchOp{ranged(0, false), ranged(5, false), ranged(30, true), ranged(29, true),
		{Op: &trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{Range: &trivetpb.KeyRange{}, CountOnly: true}}}},
		{Op: &trivetpb.Op{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: []byte("k/10")}}}},
	}}
	body, err := req.MarshalVT()
	require.NoError(t, err)
	answer := func(headers ...string) *trivetpb.BatchResponse {
		r := d.do("POST", "/v1/batch", string(body), append(headers, "Content-Type: application/x-protobuf")...)
		require.Equal(t, http.StatusOK, r.status, r.body)
		resp := &trivetpb.BatchResponse{}
		require.NoError(t, resp.UnmarshalVT([]byte(r.body)))
		require.Len(t, resp.Results, len(req.Ops))
		return resp
	}
	whole, parts := answer(), answer("Trivet-Part-Bytes: 1000")
	require.Len(t, whole.Results[0].GetRange().Items, 30)
	require.False(t, whole.Results[0].GetRange().More)
	part := parts.Results[0].GetRange()
	require.Less(t, len(part.Items), 15)
	require.Greater(t, len(part.Items), 5)
	require.True(t, part.More)
	require.EqualValues(t, 30, part.Count)
	require.Equal(t, whole.Results[0].Revision, parts.Results[0].Revision)
	for i, it := range part.Items {
		require.True(t, proto.Equal(it, whole.Results[0].GetRange().Items[i]))
	}
	for i := range req.Ops[1:] {
		require.True(t, proto.Equal(parts.Results[1+i], whole.Results[1+i]), "%v\n%v", parts.Results[1+i], whole.Results[1+i])
	}
	for _, ignored := range []string{"x", "-1", "0", "01"} {
		require.True(t, proto.Equal(answer("Trivet-Part-Bytes: "+ignored), whole))
	}
}

// Many lists go out as one piece, with its length: each piece wakes the one who reads it.
// What is longer than listsBytes goes out in pieces of no less.
func TestListsGoOutTogether(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	value := strings.Repeat("v", 1<<10)
	for i := range 60 {
		d.node.put(t, fmt.Sprintf("k/%02d", i), value)
	}
	list := &trivetpb.BatchOp{Op: &trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{Range: store.PrefixRange([]byte("k/"))}}}}
	c := d.dial()
	for _, lists := range []int{1, 8, 20} {
		body, err := (&trivetpb.BatchRequest{Ops: slices.Repeat([]*trivetpb.BatchOp{list}, lists)}).MarshalVT()
		require.NoError(t, err)
		c.send(fmt.Sprintf("POST /v1/batch HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-protobuf\r\n"+
			"Trivet-Part-Bytes: 262144\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		resp, err := http.ReadResponse(c.in, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		if lists < 20 {
			require.Positive(t, resp.ContentLength, "%d lists", lists)
		} else {
			require.Equal(t, []string{"chunked"}, resp.TransferEncoding)
		}
		all, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		answer := &trivetpb.BatchResponse{}
		require.NoError(t, answer.UnmarshalVT(all))
		require.Len(t, answer.Results, lists)
		for _, r := range answer.Results {
			require.Len(t, r.GetRange().Items, 60)
		}
	}
}

// A buffer of lists does not become one of those that others hold.
func TestLongBuffersAreApart(t *testing.T) {
	b := takeLongBuffer()
	b.b = append(b.b, make([]byte, mostKept+1)...)
	b.release()
	for range 100 {
		require.LessOrEqual(t, cap(takeBuffer().b), mostKept)
	}
}
