package store

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"os"
	"reflect"
	"testing"
	"testing/iotest"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

func snapshotOf(t testing.TB, s *Store) *bytes.Buffer {
	t.Helper()
	v, err := s.View(0)
	require.NoError(t, err)
	defer v.Close()
	var file bytes.Buffer
	require.NoError(t, v.WriteSnapshot(&file))
	return &file
}

// sampleStore has live keys, a tombstone, a txn, compacted and retained history.
func sampleStore(t testing.TB) *Store {
	s := New()
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 4, QuotaBytes: 1 << 20}))
	apply(t, s, entryOf(1000, putOp("a", "compacted"), putOp("a", "base"), putOp("gone", "x"), deleteOp("gone")))
	apply(t, s, entryOf(2000, putOp("b", ""), txnOp(putOp("\xff", "ff"), addOp("n", 41), deleteOp("b"))))
	apply(t, s, entryOf(3000, addOp("n", 1), putOp("a", "new")))
	s.Advance(9)
	return s
}

func TestSnapshotRoundTrip(t *testing.T) {
	s := sampleStore(t)
	file := snapshotOf(t, s).Bytes()

	header, err := ReadSnapshotHeader(bytes.NewReader(file))
	require.NoError(t, err)
	require.Equal(t, s.Stats().Hash, header.StateHash)
	require.EqualValues(t, 9, header.Index)
	info, err := VerifySnapshot(iotest.OneByteReader(bytes.NewReader(file)))
	require.NoError(t, err)
	require.True(t, proto.Equal(header, info.Header))
	st := s.Stats()
	require.Equal(t, []uint64{st.Keys, st.Bytes, uint64(len(file))}, []uint64{info.Keys, info.Bytes, info.FileBytes})
	require.EqualValues(t, 7, info.Versions)

	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(file), "byte by byte": iotest.OneByteReader(bytes.NewReader(file)),
		"with the end": iotest.DataErrReader(bytes.NewReader(file)),
	} {
		restored := New()
		do(t, restored, putOp("other", "1"))
		require.NoError(t, restored.Restore(r), name)
		require.Equal(t, st, restored.Stats())
		require.Equal(t, rawRecords(t, view(t, s, 0)), rawRecords(t, view(t, restored, 0)))
		require.Equal(t, st.Index, restored.Index())
		require.Equal(t, st.Revision, restored.Revision())
	}

	empty := New()
	require.NoError(t, empty.Restore(snapshotOf(t, New())))
	require.Equal(t, New().Stats(), empty.Stats())
}

// TestEveryBrokenSnapshotIsRefused: each truncation, each flipped bit, and more
// at the end.
func TestEveryBrokenSnapshotIsRefused(t *testing.T) {
	file := snapshotOf(t, sampleStore(t)).Bytes()
	s := New()
	do(t, s, putOp("a", "untouched"))
	before, raw := s.Stats(), rawRecords(t, view(t, s, 0))
	refused := func(b []byte, what string, at int) {
		err := s.Restore(bytes.NewReader(b))
		if !errors.Is(err, ErrSnapshotCorrupt) && !errors.Is(err, ErrSnapshotVersion) {
			t.Fatalf("%s at %d: %v", what, at, err)
		}
		if _, err := VerifySnapshot(bytes.NewReader(b)); err == nil {
			t.Fatalf("%s at %d: verified", what, at)
		}
	}
	for n := range file {
		refused(file[:n], "cut", n)
		for bit := range 8 {
			b := bytes.Clone(file)
			b[n] ^= 1 << bit
			refused(b, "flipped", 8*n+bit)
		}
	}
	refused(append(bytes.Clone(file), 0), "a byte more", 0)
	refused(append(bytes.Clone(file), file...), "twice", 0)
	require.Equal(t, before, s.Stats())
	require.Equal(t, raw, rawRecords(t, view(t, s, 0)))

	newer := bytes.Clone(file)
	newer[8]++
	err := s.Restore(bytes.NewReader(newer))
	require.ErrorIs(t, err, ErrSnapshotVersion)
	require.ErrorContains(t, err, "format 2")
	broken := errors.New("connection lost")
	err = s.Restore(io.MultiReader(bytes.NewReader(file[:50]), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken, "not the snapshot's fault")
	require.NotErrorIs(t, err, ErrSnapshotCorrupt)
}

func TestWriteSnapshotReturnsTheWritersError(t *testing.T) {
	s := sampleStore(t)
	size := snapshotOf(t, s).Len()
	v := view(t, s, 0)
	for n := range size {
		require.ErrorIs(t, v.WriteSnapshot(&fullWriter{n}), errFull, "after %d bytes", n)
	}
	require.NoError(t, v.WriteSnapshot(&fullWriter{size}))
}

var errFull = errors.New("full")

type fullWriter struct{ left int }

func (w *fullWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

// fileOf puts a stream of records into a file as WriteSnapshot does, with a
// checksum that is right.
func fileOf(t testing.TB, records []byte) []byte {
	t.Helper()
	file := bytes.NewBufferString(snapshotMagic)
	_ = binary.Write(file, binary.LittleEndian, uint32(snapshotFormat))
	enc, err := zstd.NewWriter(file, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<16))
	require.NoError(t, err)
	_, err = enc.Write(records)
	require.NoError(t, err)
	require.NoError(t, enc.Close())
	return binary.LittleEndian.AppendUint64(file.Bytes(), xxhash.Sum64(file.Bytes()))
}

func decodeRecords(t testing.TB, b []byte) (records []*trivetpb.SnapshotRecord) {
	t.Helper()
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		m := &trivetpb.SnapshotRecord{}
		require.NoError(t, m.UnmarshalVT(b[n:n+int(size)]))
		records = append(records, m)
		b = b[n+int(size):]
	}
	return records
}

func encodeRecords(t testing.TB, records []*trivetpb.SnapshotRecord) []byte {
	t.Helper()
	var out bytes.Buffer
	w := recordWriter{w: &out}
	for _, r := range records {
		w.write(r)
	}
	require.NoError(t, w.flush())
	return out.Bytes()
}

// TestAWrongStateIsRefused: files whose checksum is right and whose content is
// not, as a bug in a writer would leave them.
func TestAWrongStateIsRefused(t *testing.T) {
	raw := rawRecords(t, view(t, sampleStore(t), 0))
	require.NoError(t, New().Restore(bytes.NewReader(fileOf(t, raw))))
	type records = []*trivetpb.SnapshotRecord
	header := func(r records) *trivetpb.SnapshotHeader { return r[0].GetHeader() }
	versionOf := func(r records, key string, n int) *trivetpb.SnapshotVersion {
		for _, m := range r {
			if v := m.GetVersion(); v != nil && string(v.Key) == key {
				if n == 0 {
					return v
				}
				n--
			}
		}
		panic(key)
	}
	clock := func(r records) *trivetpb.SnapshotClock { return r[len(r)-2].GetClock() }
	for name, change := range map[string]func(r records) records{
		"no header":                   func(r records) records { return r[1:] },
		"two headers":                 func(r records) records { return append(r[:1:1], r...) },
		"no footer":                   func(r records) records { return r[:len(r)-1] },
		"after the footer":            func(r records) records { return append(r, r[len(r)-1]) },
		"a version less":              func(r records) records { return append(r[:1:1], r[2:]...) },
		"a clock before the versions": func(r records) records { return append(append(r[:1:1], r[len(r)-2]), r[1:]...) },
		"another order of keys":       func(r records) records { r[1], r[4] = r[4], r[1]; return r },
		"another order of versions":   func(r records) records { r[1], r[2] = r[2], r[1]; return r },
		"a version twice":             func(r records) records { return append(r[:2:2], r[1:]...) },
		"the hash":                    func(r records) records { header(r).StateHash++; return r },
		"the clock":                   func(r records) records { header(r).ClockMs = 1; return r },
		"the clock, a little":         func(r records) records { header(r).ClockMs++; return r },
		"the revision":                func(r records) records { header(r).Revision++; return r },
		"a low revision":              func(r records) records { header(r).Revision--; return r },
		"the compact revision":        func(r records) records { header(r).CompactRevision--; return r },
		"a high compact revision":     func(r records) records { header(r).CompactRevision = 99; return r },
		"no compact revision":         func(r records) records { header(r).CompactRevision = 0; return r },
		"no settings":                 func(r records) records { header(r).Settings = nil; return r },
		"zero settings":               func(r records) records { header(r).Settings.HistoryMs = 0; return r },
		"other settings":              func(r records) records { header(r).Settings.QuotaBytes++; return r },
		"a header's new field":        func(r records) records { withUnknown(header(r)); return r },
		"a version's new field":       func(r records) records { withUnknown(r[1].GetVersion()); return r },
		"a clock's new field":         func(r records) records { withUnknown(clock(r)); return r },
		"a footer's new field":        func(r records) records { withUnknown(r[len(r)-1].GetFooter()); return r },
		"a record's new field":        func(r records) records { withUnknown(r[1]); return r },
		"an empty record":             func(r records) records { r[1] = &trivetpb.SnapshotRecord{}; return r },
		"a live value":                func(r records) records { versionOf(r, "a", 1).Value[0]++; return r },
		"a base's version":            func(r records) records { versionOf(r, "a", 0).Version++; return r },
		"a base's creation":           func(r records) records { versionOf(r, "a", 0).CreateRevision = 0; return r },
		"a base's tombstone":          func(r records) records { deleteRecord(versionOf(r, "a", 0)); return r },
		"a place":                     func(r records) records { versionOf(r, "n", 0).Sub++; return r },
		"a key too long":              func(r records) records { versionOf(r, "n", 0).Key = make([]byte, MaxKeyBytes+1); return r },
		"no key":                      func(r records) records { r[1].GetVersion().Key = nil; return r },
		"a value too long":            func(r records) records { versionOf(r, "n", 1).Value = make([]byte, HardMaxValueBytes+1); return r },
		"a tombstone with a value":    func(r records) records { versionOf(r, "b", 1).Value = []byte("x"); return r },
		"a clock out of order":        func(r records) records { clock(r).Revision = 4; return r },
		"a clock that stands":         func(r records) records { clock(r).ClockMs = 2000; return r },
		"a clock ahead":               func(r records) records { clock(r).ClockMs = 4000; return r },
		"no clocks":                   func(r records) records { return append(r[:len(r)-3:len(r)-3], r[len(r)-1]) },
	} {
		t.Run(name, func(t *testing.T) {
			r := change(decodeRecords(t, raw))
			if f := r[len(r)-1].GetFooter(); f != nil {
				f.Records = uint64(len(r) - 1) // wrong for another reason than its count
			}
			file := fileOf(t, encodeRecords(t, r))
			s := New()
			require.ErrorIs(t, s.Restore(bytes.NewReader(file)), ErrSnapshotCorrupt)
			require.Equal(t, New().Stats(), s.Stats())
		})
	}
	r := decodeRecords(t, raw)
	r[len(r)-1].GetFooter().Records++
	require.ErrorContains(t, New().Restore(bytes.NewReader(fileOf(t, encodeRecords(t, r)))), "footer")
	// A length that nothing of that size follows is not allocated.
	huge := binary.AppendUvarint(nil, 1<<40)
	require.ErrorIs(t, New().Restore(bytes.NewReader(fileOf(t, huge))), ErrSnapshotCorrupt)
	// Nor is the window of a frame.
	window := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0}
	file := append(fileOf(t, nil)[:snapshotPreludeBytes], window...)
	file = binary.LittleEndian.AppendUint64(file, xxhash.Sum64(file))
	require.ErrorIs(t, New().Restore(bytes.NewReader(file)), ErrSnapshotCorrupt)
}

func deleteRecord(v *trivetpb.SnapshotVersion) {
	v.Deleted, v.CreateRevision, v.Version, v.Value = true, 0, 0, nil
}

// TestSnapshotHoldsEveryField: who adds a field to the state has to say here
// how it comes back, and to put it into the snapshot unless it is derived.
func TestSnapshotHoldsEveryField(t *testing.T) {
	held := map[string]string{
		"index": "header", "revision": "header", "compactRevision": "header", "clockMS": "header", "settings": "header",
		"tree": "versions",
	}
	derived := map[string]string{
		"table":            "the chains of tree, by hash",
		"tombstones":       "keys whose head is a tombstone",
		"totals":           "sums over the live items",
		"frozenTree":       "a copy of tree",
		"frozenTombstones": "a copy of tombstones",
		"pins":             "open Views, no state",
		"watches":          "who watches, no state",
		"history.changes":  "versions after the compact revision, by revision and sub",
		"history.done":     "0: nothing waits to be cut",
		"history.bytes":    "a sum over changes",
	}
	held["history.runs"] = "clocks"
	fields := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[state]()) {
		if f.Name != "history" {
			fields[f.Name] = true
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[history]()) {
		fields["history."+f.Name] = true
	}
	for name := range fields {
		_, isHeld := held[name]
		_, isDerived := derived[name]
		require.True(t, isHeld != isDerived, "state.%s is neither in the snapshot nor derived", name)
	}
	require.Len(t, fields, len(held)+len(derived), "a field that is listed does not exist")

	// The records have no place that the writer leaves empty or the reader drops.
	for _, m := range []struct {
		message proto.Message
		from    any
		extra   int // fields of the message that are derived
	}{
		{&trivetpb.Settings{}, Settings{}, 0},
		{&trivetpb.SnapshotClock{}, clockRun{}, 0},
		{&trivetpb.SnapshotVersion{}, version{}, 0}, // key, deleted and expired for prev, hash and valueLen
	} {
		fields := m.message.ProtoReflect().Descriptor().Fields().Len()
		switch m.from.(type) {
		case version:
			require.Equal(t, fields-3, reflect.TypeOf(m.from).NumField()-3, "SnapshotVersion and version differ")
		default:
			require.Equal(t, fields, reflect.TypeOf(m.from).NumField(), "%T and %T differ", m.message, m.from)
		}
	}
}

func golden(t *testing.T, name string, now []byte) []byte {
	t.Helper()
	path := "testdata/" + name
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(hex.Dump(now)+hex.EncodeToString(now)+"\n"), 0o644))
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	b, err := hex.DecodeString(string(lines[len(lines)-1]))
	require.NoError(t, err)
	return b
}

// goldenHash is the state hash after the golden entry.
const goldenHash uint64 = 0xccf2c64dc7c9352b

// TestGoldenEntry: a log entry is the same bytes, and means the same, as ever.
func TestGoldenEntry(t *testing.T) {
	put := putOp("k", "v")
	put.GetPut().Precondition = &trivetpb.Precondition{Kind: trivetpb.Precondition_MOD_REVISION}
	txn := txnOp(addOp("n", -5), deleteRangeOp("x", "y"), rangeOp("", ""))
	txn.GetTxn().If = []*trivetpb.Compare{{Key: []byte("k"), Target: trivetpb.Compare_VERSION, Relation: trivetpb.Compare_GREATER, Number: 0}}
	txn.GetTxn().Else = []*trivetpb.Op{getOp("k")}
	e := entryOf(1234, put, txn, deleteOp("k"))
	e.Commands = append(e.Commands, settingsEntry(&trivetpb.Settings{HistoryMs: 1000, HistoryRevisions: 10, QuotaBytes: 1 << 30}).Commands...)
	now, err := e.MarshalVT()
	require.NoError(t, err)
	data := golden(t, "entry.golden", now)
	require.Equal(t, data, now)

	old := &trivetpb.Entry{}
	require.NoError(t, old.UnmarshalVT(data))
	s := New()
	apply(t, s, old)
	require.Equal(t, map[string]string{"n": "-5"}, contents(view(t, s, 0)))
	require.Equal(t, Stats{
		Index: 1, Revision: 4, CompactRevision: 1, ClockMS: 1234,
		Hash: 0x0, Keys: 1, Bytes: 131, HistoryRevisions: 3, HistoryBytes: 130 + 131 + 129,
		Settings: Settings{HistoryMS: 1000, HistoryRevisions: 10, QuotaBytes: 1 << 30},
	}, withoutHash(s.Stats()))
	require.Equal(t, goldenHash, s.Stats().Hash, "%#x", s.Stats().Hash)
}

func withoutHash(s Stats) Stats { s.Hash = 0; return s }

// TestGoldenSnapshot: a file of the first format can be read, and says what it
// said. The compressed bytes may be others in another version of the library;
// the records may not.
func TestGoldenSnapshot(t *testing.T) {
	s := sampleStore(t)
	records := golden(t, "records.golden", rawRecords(t, view(t, s, 0)))
	file := golden(t, "snapshot.golden", snapshotOf(t, s).Bytes())
	require.Equal(t, records, rawRecords(t, view(t, s, 0)))
	old := New()
	require.NoError(t, old.Restore(bytes.NewReader(file)))
	require.Equal(t, s.Stats(), old.Stats())
	require.Equal(t, records, rawRecords(t, view(t, old, 0)))
}
