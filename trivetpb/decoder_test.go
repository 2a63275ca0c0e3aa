package trivetpb

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func put(key, value string) *Op {
	return &Op{Op: &Op_Put{Put: &PutOp{Key: []byte(key), Value: []byte(value)}}}
}

func txn(op *TxnOp) *Op { return &Op{Op: &Op_Txn{Txn: op}} }

// allOps are operations of all shapes.
func allOps() []*Op {
	full := put("k", "v")
	full.GetPut().Lease, full.GetPut().Prev, full.GetPut().TtlMs = 1<<53, true, 300
	full.GetPut().Precondition = &Precondition{Kind: Precondition_MOD_REVISION, ModRevision: 7}
	get := &Op{Op: &Op_Get{Get: &GetOp{Key: []byte("k")}}}
	return []*Op{
		{}, {Op: &Op_Put{Put: &PutOp{}}}, put("k", "v"), full, put("long", string(make([]byte, 3000))), get,
		{Op: &Op_Delete{Delete: &DeleteOp{Range: &KeyRange{Start: []byte("a")}}}},
		{Op: &Op_Add{Add: &AddOp{Key: []byte("k"), Delta: -1}}},
		{Op: &Op_Range{Range: &RangeOp{Range: &KeyRange{}, Limit: 3}}},
		txn(&TxnOp{}),
		txn(&TxnOp{
			If:   []*Compare{{Key: []byte("k"), Target: Compare_VERSION, Relation: Compare_GREATER, Number: 3}, {Key: []byte("k"), Value: []byte("v")}},
			Then: []*Op{put("a", "b"), full}, Else: []*Op{get},
		}),
		txn(&TxnOp{If: []*Compare{{}, {Range: &KeyRange{Start: []byte("k")}, Target: -1}}, Then: []*Op{{}, txn(&TxnOp{Then: []*Op{full}})}}),
	}
}

func encoded(t testing.TB, m interface{ MarshalVT() ([]byte, error) }) []byte {
	b, err := m.MarshalVT()
	require.NoError(t, err)
	return b
}

// allEntries are data of entries of all shapes, some broken.
func allEntries(t testing.TB) [][]byte {
	var commands []*Command
	for i, op := range allOps() {
		commands = append(commands, &Command{Command: &Command_Op{Op: op}})
		if i%2 == 0 {
			commands[i].Session, commands[i].Seq, commands[i].Ack = 7, uint64(i+1), uint64(i)
		}
	}
	guarded := &Command{Command: &Command_Op{Op: put("k", "v")}, Guards: []*Guard{{}}}
	keyed := &Command{Command: &Command_Op{Op: put("k", "v")}, IdempotencyKey: []byte("i"), Fingerprint: []byte("f")}
	marker := &Command{Command: &Command_Marker{Marker: &Marker{Term: 3}}}
	entry := func(commands ...*Command) []byte { return encoded(t, &Entry{ClockMs: 300, Commands: commands}) }
	whole := entry(append(commands, guarded, &Command{}, keyed, marker)...)
	many := make([]*Command, arenaKept+1) // more than are laid out together
	for i := range many {
		many[i] = commands[2+i%2]
	}
	all := [][]byte{
		nil, entry(), whole, entry(many...),
		whole[:len(whole)-1], append(whole[:len(whole):len(whole)], 0xff),
		protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1),
		protowire.AppendTag(nil, entryCommand, protowire.VarintType),
	}
	// The same member of a oneof again, another after it, and a command that ends early.
	first, again, other := encoded(t, commands[2]), encoded(t, commands[3]), encoded(t, marker)
	for _, bodies := range [][][]byte{{first, again}, {first, other}, {other, first}, {first, other, again}, {first, {0xff}}, {first[:len(first)-1]}} {
		all = append(all, protowire.AppendBytes(protowire.AppendTag(nil, entryCommand, protowire.BytesType), bytes.Join(bodies, nil)))
	}
	return all
}

func allBatches(t testing.TB) [][]byte {
	req := &BatchRequest{Session: 7, Ack: 1}
	for i, op := range allOps() {
		req.Ops = append(req.Ops, &BatchOp{Op: op, Seq: uint64(i)})
	}
	req.Ops = append(req.Ops, &BatchOp{}, &BatchOp{Op: put("k", "v"), Guards: []*Guard{{Token: 1}}})
	whole := encoded(t, req)
	twice := protowire.AppendBytes(protowire.AppendTag(nil, batchOp, protowire.BytesType), bytes.Repeat(encoded(t, req.Ops[2]), 2))
	return [][]byte{whole, whole[:len(whole)-1], twice, protowire.AppendTag(whole[:len(whole):len(whole)], 9, protowire.VarintType)}
}

// requireDecodes checks that data decodes to what UnmarshalVT makes of it, as an
// entry and as a batch.
func requireDecodes(t *testing.T, d *Decoder, data []byte) {
	t.Helper()
	var entry Entry
	wantErr := entry.UnmarshalVT(data)
	gotEntry, err := d.Entry(data)
	require.Equal(t, wantErr == nil, err == nil, "%v, %v", wantErr, err)
	if err == nil {
		require.True(t, proto.Equal(&entry, gotEntry), "%v\n%v", &entry, gotEntry)
	}
	d.Reset()
	var batch BatchRequest
	wantErr = batch.UnmarshalVT(data)
	gotBatch, err := d.Batch(data)
	require.Equal(t, wantErr == nil, err == nil, "%v, %v", wantErr, err)
	if err == nil {
		require.True(t, proto.Equal(&batch, gotBatch), "%v\n%v", &batch, gotBatch)
	}
	d.Reset()
}

// What is decoded is the same whatever was decoded before, and nothing of it is left
// behind.
func TestDecoder(t *testing.T) {
	var d Decoder
	all := append(allEntries(t), allBatches(t)...)
	for range 2 {
		for _, data := range all {
			for _, before := range all {
				requireDecodes(t, &d, before)
				requireDecodes(t, &d, data)
			}
		}
	}
	require.LessOrEqual(t, len(d.puts.of), arenaKept, "what is kept is bounded")
	require.LessOrEqual(t, len(d.commandLists.of), arenaKept)
	for i := range d.puts.of {
		require.Nil(t, d.puts.of[i].op.Op)
		require.Nil(t, d.puts.of[i].put.Value)
	}
	for _, op := range d.opLists.of {
		require.Nil(t, op)
	}
}

// Who appends to a list or to bytes writes over nothing else.
func TestDecoderClipsCapacities(t *testing.T) {
	var d Decoder
	op := txn(&TxnOp{Then: []*Op{put("a", "b")}, Else: []*Op{put("c", "d")}})
	data := encoded(t, &Entry{Commands: []*Command{{Command: &Command_Op{Op: op}}}})
	before := bytes.Clone(data)
	e, err := d.Entry(data)
	require.NoError(t, err)
	got := e.Commands[0].GetOp().GetTxn()
	_ = append(got.Then, nil)
	_ = append(got.Then[0].GetPut().Key, '!')
	require.True(t, proto.Equal(op.GetTxn(), got))
	require.Equal(t, before, data)
}

func FuzzDecoder(f *testing.F) {
	for _, data := range append(allEntries(f), allBatches(f)...) {
		f.Add(data, data)
	}
	f.Fuzz(func(t *testing.T, before, data []byte) {
		var d Decoder
		requireDecodes(t, &d, before)
		requireDecodes(t, &d, data)
	})
}

func BenchmarkDecodeEntry(b *testing.B) {
	value := string(make([]byte, 256))
	for _, kind := range []string{"put", "txn"} {
		for _, n := range []int{1, 64, 1024} {
			var e Entry
			for i := range n {
				key := fmt.Sprintf("key-%026d", i)
				op := put(key, value)
				if kind == "txn" {
					op = txn(&TxnOp{If: []*Compare{{Key: []byte(key), Target: Compare_VERSION, Relation: Compare_GREATER}}, Then: []*Op{op, put(key+"2", value)}})
				}
				e.Commands = append(e.Commands, &Command{Command: &Command_Op{Op: op}, Session: 1, Seq: uint64(i + 1)})
			}
			data := encoded(b, &e)
			b.Run(fmt.Sprintf("%s/commands=%d", kind, n), func(b *testing.B) {
				var d Decoder
				b.ReportAllocs()
				for b.Loop() {
					if _, err := d.Entry(data); err != nil {
						b.Fatal(err)
					}
					d.Reset()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/command")
			})
		}
	}
}
