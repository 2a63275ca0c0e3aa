package raftnode

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"trivet/store"
	"trivet/trivetpb"
)

// decodedEntries are data of entries of all shapes, some broken.
func decodedEntries(t testing.TB) [][]byte {
	stamped := put("k", "v")
	stamped.Session, stamped.Seq, stamped.Ack = 7, 8, 9
	guarded := put("k", "v")
	guarded.Guards = []*trivetpb.Guard{{}}
	guarded.GetOp().GetPut().Precondition = &trivetpb.Precondition{}
	var all [][]byte
	add := func(commands ...*trivetpb.Command) []byte {
		b, err := (&trivetpb.Entry{ClockMs: 300, Commands: commands}).MarshalVT()
		require.NoError(t, err)
		all = append(all, b)
		return b
	}
	add()
	whole := add(stamped, put("", ""), guarded, put("long", string(make([]byte, 300))))
	add(&trivetpb.Command{}, &trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{}}},
		&trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{}}}}},
		&trivetpb.Command{Command: &trivetpb.Command_Marker{Marker: &trivetpb.Marker{Term: 3}}},
		&trivetpb.Command{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{}}}}})
	// More of them than are laid out together.
	many := make([]*trivetpb.Command, maxGroupCommands+1)
	for i := range many {
		many[i] = put(fmt.Sprint(i), "v")
	}
	add(many[1:]...)
	add(many...)

	all = append(all, whole[:len(whole)-1], append(whole[:len(whole):len(whole)], 0xff),
		protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1),
		protowire.AppendTag(nil, entryCommand, protowire.VarintType))
	// The same member of a oneof again, and another one after it, inside a command.
	again, err := put("other", "").MarshalVT()
	require.NoError(t, err)
	first, err := put("k", "v").MarshalVT()
	require.NoError(t, err)
	marker, err := (&trivetpb.Command{Command: &trivetpb.Command_Marker{Marker: &trivetpb.Marker{}}}).MarshalVT()
	require.NoError(t, err)
	for _, bodies := range [][][]byte{{first, again}, {first, marker}, {marker, first}, {first, marker, again}} {
		var body []byte
		for _, b := range bodies {
			body = append(body, b...)
		}
		all = append(all, protowire.AppendBytes(protowire.AppendTag(nil, entryCommand, protowire.BytesType), body))
	}
	return all
}

// requireDecodes checks that an entry decodes to what UnmarshalVT makes of it.
func requireDecodes(t *testing.T, d *entryDecoder, data []byte) {
	t.Helper()
	var want trivetpb.Entry
	wantErr := want.UnmarshalVT(data)
	got, err := d.decode(data)
	require.Equal(t, wantErr == nil, err == nil, "%v, %v", wantErr, err)
	if err == nil {
		require.True(t, proto.Equal(&want, got), "%v\n%v", &want, got)
	}
	d.done()
}

// An entry is decoded to the same whatever was decoded before, and nothing of it
// is left behind.
func TestDecodeEntry(t *testing.T) {
	var d entryDecoder
	entries := decodedEntries(t)
	for range 2 {
		for _, data := range entries {
			for _, before := range entries {
				requireDecodes(t, &d, before)
				requireDecodes(t, &d, data)
			}
		}
	}
	require.LessOrEqual(t, len(d.puts), maxGroupCommands, "what is kept is bounded")
	for i := range d.puts {
		require.Zero(t, d.puts[i].commandOp.Op)
		require.Empty(t, d.puts[i].put.Value)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, data := range decodedEntries(f) {
		f.Add(data, data)
	}
	f.Fuzz(func(t *testing.T, before, data []byte) {
		var d entryDecoder
		requireDecodes(t, &d, before)
		requireDecodes(t, &d, data)
	})
}

// The state is the same where messages are used again: the store keeps none.
func TestStateKeepsNoMessage(t *testing.T) {
	var d entryDecoder
	again, anew := store.New(), store.New()
	for i := range uint64(200) {
		commands := []*trivetpb.Command{put(fmt.Sprint("k", i%7), fmt.Sprint("v", i)), put(fmt.Sprint("n", i), "w")}
		if i%3 == 0 {
			commands = commands[:1]
			commands[0].GetOp().GetPut().Prev = true
		}
		data, err := (&trivetpb.Entry{ClockMs: i, Commands: commands}).MarshalVT()
		require.NoError(t, err)
		var e trivetpb.Entry
		require.NoError(t, e.UnmarshalVT(data))
		want, err := anew.Apply(i+1, &e)
		require.NoError(t, err)
		decoded, err := d.decode(data)
		require.NoError(t, err)
		got, err := again.Apply(i+1, decoded)
		require.NoError(t, err)
		d.done()
		for k := range want {
			require.True(t, proto.Equal(want[k], got[k]))
		}
	}
	require.Equal(t, anew.Stats(), again.Stats())
	for i := range 7 {
		want, _, _ := anew.Get(fmt.Append(nil, "k", i))
		got, ok, _ := again.Get(fmt.Append(nil, "k", i))
		require.True(t, ok)
		require.Equal(t, want, got)
	}
}

func BenchmarkDecodeEntry(b *testing.B) {
	for _, n := range []int{1, 64, 1024} {
		var commands []*trivetpb.Command
		for i := range n {
			commands = append(commands, put(fmt.Sprintf("key-%026d", i), string(make([]byte, 256))))
		}
		data, err := (&trivetpb.Entry{ClockMs: 1, Commands: commands}).MarshalVT()
		require.NoError(b, err)
		b.Run(fmt.Sprintf("commands=%d", n), func(b *testing.B) {
			var d entryDecoder
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.decode(data); err != nil {
					b.Fatal(err)
				}
				d.done()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/put")
		})
	}
}
