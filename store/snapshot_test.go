package store

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

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
	for name, s := range map[string]*Store{"keys alone": sampleStore(t), "everything": fullStore(t)} {
		t.Run(name, func(t *testing.T) { testRoundTrip(t, s) })
	}
	empty := New()
	require.NoError(t, empty.Restore(snapshotOf(t, New())))
	require.Equal(t, New().Stats(), empty.Stats())
}

func testRoundTrip(t *testing.T, s *Store) {
	file := snapshotOf(t, s).Bytes()

	header, err := ReadSnapshotHeader(bytes.NewReader(file))
	require.NoError(t, err)
	require.Equal(t, s.Stats().Hash, header.StateHash)
	require.Equal(t, s.Index(), header.Index)
	info, err := VerifySnapshot(iotest.OneByteReader(bytes.NewReader(file)))
	require.NoError(t, err)
	require.True(t, proto.Equal(header, info.Header))
	st := s.Stats()
	require.Equal(t, []uint64{st.Keys, st.Bytes, uint64(len(file))}, []uint64{info.Keys, info.Bytes, info.FileBytes})
	require.Equal(t, []uint64{st.Leases, st.Answers, 2}, []uint64{info.Leases, info.Answers, uint64(info.Format)})
	require.GreaterOrEqual(t, info.Versions, st.Keys)

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
}

// TestEveryBrokenSnapshotIsRefused: each truncation, each flipped bit, and more
// at the end.
func TestEveryBrokenSnapshotIsRefused(t *testing.T) {
	file := snapshotOf(t, fullStore(t)).Bytes()
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
	newer[8] = 9
	err := s.Restore(bytes.NewReader(newer))
	require.ErrorIs(t, err, ErrSnapshotVersion)
	require.ErrorContains(t, err, "format 9")
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
// checksum that is right, in the format of the level that they are of: that of
// level 0 where they do not begin with a header.
func fileOf(t testing.TB, records []byte) []byte {
	t.Helper()
	first := &trivetpb.SnapshotRecord{}
	if size, n := binary.Uvarint(records); n > 0 && size <= uint64(len(records)-n) {
		_ = first.UnmarshalVT(records[n : n+int(size)])
	}
	file := bytes.NewBufferString(snapshotMagic)
	_ = binary.Write(file, binary.LittleEndian, formatOf(first.GetHeader().GetSettings().GetLevel()))
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

// TestAWrongRestIsRefused is the same for what stands beside keys and their
// history.
func TestAWrongRestIsRefused(t *testing.T) {
	raw := rawRecords(t, view(t, fullStore(t), 0))
	require.NoError(t, New().Restore(bytes.NewReader(fileOf(t, raw))))
	type records = []*trivetpb.SnapshotRecord
	header := func(r records) *trivetpb.SnapshotHeader { return r[0].GetHeader() }
	// find is the index of the nth record of which the message is not nil.
	find := func(r records, n int, is func(m *trivetpb.SnapshotRecord) bool) int {
		for i, m := range r {
			if is(m) {
				if n == 0 {
					return i
				}
				n--
			}
		}
		panic("no such record")
	}
	leaseAt := func(r records, n int) int {
		return find(r, n, func(m *trivetpb.SnapshotRecord) bool { return m.GetLease() != nil })
	}
	lockAt := func(r records, n int) int {
		return find(r, n, func(m *trivetpb.SnapshotRecord) bool { return m.GetLock() != nil })
	}
	sessionAt := func(r records, n int) int {
		return find(r, n, func(m *trivetpb.SnapshotRecord) bool { return m.GetSession() != nil })
	}
	answerAt := func(r records, n int) int {
		return find(r, n, func(m *trivetpb.SnapshotRecord) bool { return m.GetAnswer().GetSession() != 0 })
	}
	keyedAt := func(r records, n int) int {
		return find(r, n, func(m *trivetpb.SnapshotRecord) bool { return len(m.GetAnswer().GetIdempotencyKey()) != 0 })
	}
	uploadAt := func(r records, n int) int {
		return find(r, n, func(m *trivetpb.SnapshotRecord) bool { return m.GetUpload() != nil })
	}
	lease := func(r records, n int) *trivetpb.SnapshotLease { return r[leaseAt(r, n)].GetLease() }
	plain := func(r records) *trivetpb.SnapshotLease { // the one that a client was granted
		for i := 0; ; i++ {
			if l := lease(r, i); !l.Own && len(l.Lock) == 0 {
				return l
			}
		}
	}
	own := func(r records) *trivetpb.SnapshotLease {
		for i := 0; ; i++ {
			if l := lease(r, i); l.Own {
				return l
			}
		}
	}
	lock := func(r records, n int) *trivetpb.SnapshotLock { return r[lockAt(r, n)].GetLock() }
	session := func(r records, n int) *trivetpb.SnapshotSession { return r[sessionAt(r, n)].GetSession() }
	answer := func(r records, n int) *trivetpb.SnapshotAnswer { return r[answerAt(r, n)].GetAnswer() }
	keyed := func(r records, n int) *trivetpb.SnapshotAnswer { return r[keyedAt(r, n)].GetAnswer() }
	upload := func(r records, n int) *trivetpb.SnapshotUpload { return r[uploadAt(r, n)].GetUpload() }
	without := func(r records, i int) records { return slices.Delete(r, i, i+1) }
	moved := func(r records, from, to int) records {
		m := r[from]
		return slices.Insert(slices.Delete(r, from, from+1), to, m)
	}
	for name, change := range map[string]func(r records) records{
		"the seed":                       func(r records) records { header(r).Seed++; return r },
		"the next id":                    func(r records) records { header(r).NextId++; return r },
		"the last token":                 func(r records) records { header(r).NextToken++; return r },
		"a last token past all":          func(r records) records { header(r).NextToken = 1 << 63; return r },
		"a last token before others":     func(r records) records { header(r).NextToken = 1; return r },
		"no lease of a key":              func(r records) records { plain(r).Id++; return r },
		"a lease less":                   func(r records) records { return without(r, leaseAt(r, 0)) },
		"a lease twice":                  func(r records) records { return slices.Insert(r, 1, r[leaseAt(r, 0)]) },
		"leases in another order":        func(r records) records { return moved(r, leaseAt(r, 0), leaseAt(r, 1)) },
		"a lease after the versions":     func(r records) records { return moved(r, leaseAt(r, 1), len(r)-4) },
		"a lease 0":                      func(r records) records { lease(r, 0).Id = 0; return r },
		"a lease's large id":             func(r records) records { lease(r, 3).Id = 1 << 52; return r },
		"a lease's ttl":                  func(r records) records { plain(r).TtlMs++; return r },
		"a lease's short ttl":            func(r records) records { plain(r).TtlMs = 1; return r },
		"a lease's deadline":             func(r records) records { plain(r).DeadlineMs--; return r },
		"a lease's late deadline":        func(r records) records { plain(r).DeadlineMs += 1e6; return r },
		"whose a lease is":               func(r records) records { plain(r).Own = true; return r },
		"a single put's lease, no key":   func(r records) records { lease(r, 0).Own, lease(r, 0).Lock = true, nil; return r },
		"a single put's lease of a lock": func(r records) records { own(r).Lock = []byte("lock/a"); return r },
		"a lease of no lock":             func(r records) records { plain(r).Lock = []byte("lock/x"); return r },
		"a lease's new field":            func(r records) records { withUnknown(lease(r, 0)); return r },
		"an empty lease":                 func(r records) records { r[leaseAt(r, 0)].GetLease().Reset(); return r },
		"a live version that expired": func(r records) records {
			r[find(r, 0, func(m *trivetpb.SnapshotRecord) bool { return m.GetVersion().GetVersion() == 1 })].GetVersion().Expired = true
			return r
		},
		"a tombstone's version": func(r records) records {
			r[find(r, 0, func(m *trivetpb.SnapshotRecord) bool { return m.GetVersion().GetExpired() })].GetVersion().Version = 1
			return r
		},
		"a lock less":                  func(r records) records { return without(r, lockAt(r, 1)) },
		"a lock twice":                 func(r records) records { return slices.Insert(r, lockAt(r, 0), r[lockAt(r, 0)]) },
		"locks in another order":       func(r records) records { return moved(r, lockAt(r, 0), lockAt(r, 1)) },
		"a lock before the versions":   func(r records) records { return moved(r, lockAt(r, 0), leaseAt(r, 0)) },
		"a lock's name":                func(r records) records { lock(r, 1).Name = []byte("lock/c"); return r },
		"a lock without a name":        func(r records) records { lock(r, 0).Name = nil; return r },
		"a lock without a holder":      func(r records) records { lock(r, 0).Holder = nil; return r },
		"a lock's lease":               func(r records) records { lock(r, 0).Holder.Lease = plain(r).Id; return r },
		"a lock's ttl":                 func(r records) records { lock(r, 0).Holder.TtlMs++; return r },
		"a lock's owner":               func(r records) records { lock(r, 0).Holder.Owner = "another"; return r },
		"an owner that is no text":     func(r records) records { lock(r, 0).Holder.Owner = "\xff"; return r },
		"a long owner":                 func(r records) records { lock(r, 0).Holder.Owner = strings.Repeat("o", MaxOwnerBytes+1); return r },
		"a lock's token":               func(r records) records { lock(r, 1).Holder.Token = 1; return r },
		"a lock's token 0":             func(r records) records { lock(r, 1).Holder.Token = 0; return r },
		"a lock's new field":           func(r records) records { withUnknown(lock(r, 0)); return r },
		"a holder's new field":         func(r records) records { withUnknown(lock(r, 0).Holder); return r },
		"a rest of a queue":            func(r records) records { lock(r, 1).Holder, lock(r, 1).Name = nil, lock(r, 0).Name; return r },
		"a waiter less":                func(r records) records { lock(r, 0).Queue = lock(r, 0).Queue[1:]; return r },
		"waiters in another order":     func(r records) records { slices.Reverse(lock(r, 0).Queue); return r },
		"a waiter before the holder":   func(r records) records { lock(r, 0).Holder.Token = 4; return r },
		"a waiter's lease":             func(r records) records { lock(r, 0).Queue[0].Waiter.Lease = 1; return r },
		"a waiter's ttl":               func(r records) records { lock(r, 0).Queue[0].Waiter.TtlMs = 0; return r },
		"a waiter's late deadline":     func(r records) records { lock(r, 0).Queue[0].DeadlineMs += MaxWaitMS; return r },
		"a waiter's deadline":          func(r records) records { lock(r, 0).Queue[0].DeadlineMs--; return r },
		"an empty waiter":              func(r records) records { lock(r, 0).Queue[0].Waiter = nil; return r },
		"a waiter's new field":         func(r records) records { withUnknown(lock(r, 0).Queue[0]); return r },
		"a session less":               func(r records) records { return without(r, sessionAt(r, 1)) },
		"a session twice":              func(r records) records { return slices.Insert(r, sessionAt(r, 0), r[sessionAt(r, 0)]) },
		"sessions in another order":    func(r records) records { return moved(r, sessionAt(r, 0), sessionAt(r, 1)) },
		"a session before the locks":   func(r records) records { return moved(r, sessionAt(r, 0), lockAt(r, 0)) },
		"a session with a lease's id":  func(r records) records { session(r, 0).Id = lease(r, 0).Id; return r },
		"a session's ttl":              func(r records) records { session(r, 0).TtlMs = 1; return r },
		"a session's deadline":         func(r records) records { session(r, 0).DeadlineMs--; return r },
		"a session's late deadline":    func(r records) records { session(r, 0).DeadlineMs += 1e9; return r },
		"a session's ack":              func(r records) records { session(r, 0).Ack++; return r },
		"a session's kind":             func(r records) records { session(r, 0).Node = !session(r, 0).Node; return r },
		"a session's new field":        func(r records) records { withUnknown(session(r, 0)); return r },
		"an answer less":               func(r records) records { return without(r, answerAt(r, 0)) },
		"an answer twice":              func(r records) records { return slices.Insert(r, answerAt(r, 0), r[answerAt(r, 0)]) },
		"an answer of another session": func(r records) records { answer(r, 0).Session++; return r },
		"an answer before its session": func(r records) records { return moved(r, answerAt(r, 0), sessionAt(r, 0)) },
		"an answer's seq":              func(r records) records { answer(r, 0).Seq++; return r },
		"an acknowledged answer":       func(r records) records { answer(r, 0).Seq = 0; return r },
		"an answer past the window":    func(r records) records { answer(r, 0).Seq += MaxOpenSeqs; return r },
		"an answer of two identities":  func(r records) records { answer(r, 0).IdempotencyKey = []byte("key"); return r },
		"an answer that ends":          func(r records) records { answer(r, 0).DeadlineMs = 1; return r },
		"an answer without a result":   func(r records) records { answer(r, 0).Result = nil; return r },
		"an answer of a repeat":        func(r records) records { answer(r, 0).Result.Replayed = true; return r },
		"another answer": func(r records) records {
			answer(r, 0).Result = &trivetpb.Result{Problem: &trivetpb.Problem{Detail: "longer or shorter"}}
			return r
		},
		"an answer's new field":     func(r records) records { withUnknown(answer(r, 0)); return r },
		"a result's new field":      func(r records) records { withUnknown(answer(r, 0).Result); return r },
		"a key less":                func(r records) records { return without(r, keyedAt(r, 0)) },
		"a key twice":               func(r records) records { return slices.Insert(r, keyedAt(r, 0), r[keyedAt(r, 0)]) },
		"keys in another order":     func(r records) records { return moved(r, keyedAt(r, 0), keyedAt(r, 1)) },
		"keys before the sessions":  func(r records) records { return moved(r, keyedAt(r, 0), sessionAt(r, 0)) },
		"a key's name":              func(r records) records { keyed(r, 0).IdempotencyKey = []byte("another ident. key"); return r },
		"a long key":                func(r records) records { keyed(r, 0).IdempotencyKey = make([]byte, 129); return r },
		"a key's fingerprint":       func(r records) records { keyed(r, 0).Fingerprint[0]++; return r },
		"a key's short fingerprint": func(r records) records { keyed(r, 0).Fingerprint = keyed(r, 0).Fingerprint[:15]; return r },
		"a key's deadline":          func(r records) records { keyed(r, 0).DeadlineMs--; return r },
		"a key's late deadline":     func(r records) records { keyed(r, 2).DeadlineMs += 1e6; return r },
		"a key with a seq":          func(r records) records { keyed(r, 0).Seq = 1; return r },
		"an item's new field": func(r records) records {
			i := find(r, 0, func(m *trivetpb.SnapshotRecord) bool { return m.GetAnswer().GetResult().GetRange() != nil })
			withUnknown(r[i].GetAnswer().Result.GetRange().Items[0])
			return r
		},
		"a chunk less":                  func(r records) records { return without(r, uploadAt(r, 1)) },
		"the first chunk less":          func(r records) records { return without(r, uploadAt(r, 0)) },
		"a chunk twice":                 func(r records) records { return slices.Insert(r, uploadAt(r, 0), r[uploadAt(r, 0)]) },
		"chunks in another order":       func(r records) records { return moved(r, uploadAt(r, 0), uploadAt(r, 1)) },
		"a chunk before the keys":       func(r records) records { return moved(r, uploadAt(r, 0), keyedAt(r, 0)) },
		"a chunk of another upload":     func(r records) records { upload(r, 1).Upload++; return r },
		"a chunk's offset":              func(r records) records { upload(r, 1).Offset++; return r },
		"a chunk's data":                func(r records) records { upload(r, 1).Data[0]++; return r },
		"a chunk without data":          func(r records) records { upload(r, 1).Data = nil; return r },
		"a chunk's deadline":            func(r records) records { upload(r, 1).DeadlineMs++; return r },
		"an upload's late deadline":     func(r records) records { upload(r, 0).DeadlineMs += 1e6; upload(r, 1).DeadlineMs += 1e6; return r },
		"a chunk's new field":           func(r records) records { withUnknown(upload(r, 0)); return r },
		"another header":                func(r records) records { return slices.Insert(r, uploadAt(r, 0), r[0]) },
		"a version among the rest":      func(r records) records { return moved(r, leaseAt(r, 0)+10, uploadAt(r, 0)) },
		"an empty record among the end": func(r records) records { return slices.Insert(r, uploadAt(r, 0), &trivetpb.SnapshotRecord{}) },
	} {
		t.Run(name, func(t *testing.T) {
			r := change(decodeRecords(t, raw))
			if f := r[len(r)-1].GetFooter(); f != nil {
				f.Records = uint64(len(r) - 1)
			}
			file := fileOf(t, encodeRecords(t, r))
			s := New()
			require.ErrorIs(t, s.Restore(bytes.NewReader(file)), ErrSnapshotCorrupt)
			require.Equal(t, New().Stats(), s.Stats())
			_, err := VerifySnapshot(bytes.NewReader(file))
			require.ErrorIs(t, err, ErrSnapshotCorrupt)
		})
	}
}

func deleteRecord(v *trivetpb.SnapshotVersion) {
	v.Deleted, v.CreateRevision, v.Version, v.Value = true, 0, 0, nil
}

// TestSnapshotHoldsEveryField: who adds a field to the state, or to what is in
// it, has to say here how it comes back, and to put it into the snapshot unless
// it is derived.
func TestSnapshotHoldsEveryField(t *testing.T) {
	for _, c := range []struct {
		of      reflect.Type
		held    string            // fields that records have, in whatever form
		derived map[string]string // the others
	}{
		{reflect.TypeFor[state](), "index revision compactRevision clockMS settings tree history seed nextID nextToken " +
			"leases locks waiters sessions keyed upload", map[string]string{
			"table":            "the chains of tree, by hash",
			"tombstones":       "keys whose head is a tombstone",
			"totals":           "sums over what the records hold",
			"keys":             "keyed, by idempotency key",
			"dues":             "the deadlines of leases, waits and sessions",
			"nodeSessions":     "counts sessions",
			"answerCount":      "counts answers",
			"answerBytes":      "a sum over answers",
			"clientBytes":      "a sum over answers",
			"keyedBytes":       "a sum over answers",
			"generation":       "of Views, no state",
			"freePages":        "memory to use again, no state",
			"freeCount":        "as freePages",
			"namedBefore":      "as freePages",
			"frozenTree":       "a copy of tree",
			"frozenTombstones": "a copy of tombstones",
			"pins":             "open Views, no state",
			"watches":          "who watches, no state",
		}},
		{reflect.TypeFor[history](), "runs", map[string]string{
			"changes": "versions after the compact revision, by revision and sub",
			"done":    "0: nothing waits to be cut",
			"bytes":   "a sum over changes",
		}},
		{reflect.TypeFor[version](), "mod sub flags", map[string]string{
			"prev": "the version before in the file",
			"hash": "of the item",
		}},
		{reflect.TypeFor[versionApart](), "value numbers", map[string]string{"version": "as any"}},
		{reflect.TypeFor[numbers](), "create number lease", nil},
		{reflect.TypeFor[clockRun](), "revision clockMS", nil},
		{reflect.TypeFor[Settings](), "HistoryMS HistoryRevisions QuotaBytes Level", nil},
		{reflect.TypeFor[lease](), "ttlMS deadlineMS lock own", map[string]string{"run": "see leaseRun"}},
		{reflect.TypeFor[leaseRun](), "", map[string]string{
			"due":  "deadlineMS and the id",
			"keys": "the keys whose newest version names the lease",
		}},
		{reflect.TypeFor[lock](), "token lease owner", map[string]string{"queue": "the waiters of the lock"}},
		{reflect.TypeFor[waiter](), "lock owner ttlMS deadlineMS", map[string]string{"due": "deadlineMS and the token"}},
		{reflect.TypeFor[session](), "id ttlMS deadlineMS ack node answers", map[string]string{
			"generation": "of Views, no state",
			"hash":       "of the numbers",
			"closed":     "false: it is in the state",
			"due":        "deadlineMS and the id",
		}},
		{reflect.TypeFor[answers](), "pages", map[string]string{
			"count": "counts the answers", "bytes": "a sum over them", "sum": "a sum over them",
		}},
		{reflect.TypeFor[answerPage](), "number of text", map[string]string{
			"generation": "of Views, no state", "used": "counts the answers", "next": "nil in a session",
		}},
		{reflect.TypeFor[answer](), "result at size", map[string]string{"bytes": "a function of the result"}},
		{reflect.TypeFor[keyed](), "key fingerprint deadlineMS result", map[string]string{"bytes": "a function of key and result"}},
		{reflect.TypeFor[upload](), "id deadlineMS chunks", map[string]string{"size": "a sum over chunks", "sum": "a sum over chunks"}},
		{reflect.TypeFor[chunk](), "offset data", nil},
	} {
		held := strings.Fields(c.held)
		for i := range c.of.NumField() {
			name := c.of.Field(i).Name
			_, derived := c.derived[name]
			require.True(t, slices.Contains(held, name) != derived, "%s.%s is neither in the snapshot nor derived", c.of.Name(), name)
		}
		require.Equal(t, c.of.NumField(), len(held)+len(c.derived), "a field of %s that is listed does not exist", c.of.Name())
	}

	// The other way round: each field of each record is set in the sample, where
	// it is not one that goes with another kind of the same record.
	seen := map[protoreflect.FullName]bool{}
	for _, s := range []*Store{fullStore(t), leveled(t)} {
		for _, r := range decodeRecords(t, rawRecords(t, view(t, s, 0))) {
			noteFields(r.ProtoReflect(), seen)
		}
	}
	for _, m := range []proto.Message{
		&trivetpb.SnapshotRecord{}, &trivetpb.SnapshotHeader{}, &trivetpb.Settings{}, &trivetpb.SnapshotVersion{}, &trivetpb.SnapshotClock{},
		&trivetpb.SnapshotLease{}, &trivetpb.SnapshotLock{}, &trivetpb.LockHolder{}, &trivetpb.SnapshotWaiter{},
		&trivetpb.SnapshotSession{}, &trivetpb.SnapshotAnswer{}, &trivetpb.SnapshotUpload{}, &trivetpb.SnapshotFooter{},
	} {
		fields := m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			require.True(t, seen[fields.Get(i).FullName()], "%s is set nowhere in the sample", fields.Get(i).FullName())
		}
	}
}

func noteFields(m protoreflect.Message, seen map[protoreflect.FullName]bool) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		seen[f.FullName()] = true
		if f.Message() != nil && f.IsList() {
			for i := range v.List().Len() {
				noteFields(v.List().Get(i).Message(), seen)
			}
		} else if f.Message() != nil {
			noteFields(v.Message(), seen)
		}
		return true
	})
}

func golden(t *testing.T, name string, now []byte) []byte {
	t.Helper()
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile("testdata/"+name, []byte(hex.Dump(now)+hex.EncodeToString(now)+"\n"), 0o644))
	}
	return stored(t, name)
}

// stored is a golden file, which is never written anew.
func stored(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
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

// goldenHash2 is the state hash after the second golden entry.
const goldenHash2 uint64 = 0xd013c5bb1eeb11b1

// TestGoldenEntryOfEveryCommand is the same for what is no operation on keys,
// with identities and guards. An id, a token and a deadline are drawn as ever.
func TestGoldenEntryOfEveryCommand(t *testing.T) {
	const lease, session = 0x61327cda7d247, 0x5e73ff6c1e17b
	chunk := restoreChunk(5, 0, []byte("chunk"))
	e := &trivetpb.Entry{ClockMs: 10_000, Commands: []*trivetpb.Command{
		seedMarker(0xfeed), grant(60_000), openSession(5000, true), openSession(2000, false),
		opCommand(leasePut("leased", "1", lease)), opCommand(ttlPut("ttl", "2", 1500)), keepAlive(lease),
		acquire("lock", "one", 3000, 0), acquire("lock", "two", 4000, 9000), acquire("lock", "three", 4000, 9000),
		keepLock("lock", 1), cancel("lock", 2, true), release("lock", 1),
		guarded(in(opCommand(addOp("n", 1)), session, 2, 1), "lock", 3), keepSession(session), in(opCommand(addOp("n", 1)), session, 2, 0),
		under(grant(1000), "key", "grant"), expire(), chunk, restoreAbort(6), restoreCommit(7, 1),
		closeSession(1), revoke(1),
	}}
	now, err := e.MarshalVT()
	require.NoError(t, err)
	data := golden(t, "entry2.golden", now)
	require.Equal(t, data, now)

	old := &trivetpb.Entry{}
	require.NoError(t, old.UnmarshalVT(data))
	s := New()
	codes := ""
	for _, r := range apply(t, s, old) {
		if r.Problem != nil {
			codes += fmt.Sprint(r.Problem.Code, " ")
		}
	}
	require.Equal(t, "BAD_REQUEST SESSION_EXPIRED LEASE_NOT_FOUND ", codes)
	require.Equal(t, map[string]string{"leased": "1", "ttl": "2", "n": "1"}, contents(view(t, s, 0)))
	got := withoutHash(s.Stats())
	require.Equal(t, Stats{
		Index: 1, Revision: 4, CompactRevision: 1, ClockMS: 10_000, Keys: 3, Bytes: 3*ItemOverheadBytes + 13,
		HistoryRevisions: 3, HistoryBytes: 3*ItemOverheadBytes + 13,
		Leases: 4, Locks: 1, Sessions: 2, Answers: 2, AnswerBytes: got.AnswerBytes, Settings: got.Settings,
	}, got)
	require.EqualValues(t, 691, got.AnswerBytes, "what an answer counts is part of the state")
	require.Equal(t, goldenHash2, s.Stats().Hash, "%#x", s.Stats().Hash)
	restored(t, s)
}

func withoutHash(s Stats) Stats { s.Hash = 0; return s }

// TestGoldenSnapshot: a file of this format can be read, and says what it said.
// The compressed bytes may be others in another version of the library; the
// records may not.
func TestGoldenSnapshot(t *testing.T) {
	s := fullStore(t)
	records := golden(t, "records2.golden", rawRecords(t, view(t, s, 0)))
	file := golden(t, "snapshot2.golden", snapshotOf(t, s).Bytes())
	require.Equal(t, records, rawRecords(t, view(t, s, 0)))
	old := New()
	require.NoError(t, old.Restore(bytes.NewReader(file)))
	require.Equal(t, s.Stats(), old.Stats())
	require.Equal(t, records, rawRecords(t, view(t, old, 0)))
	requireSound(t, old, false)
}

// TestGoldenSnapshotOfFormat1: a file from before leases can still be read, its
// hash included, and a state without any has the same records as then.
func TestGoldenSnapshotOfFormat1(t *testing.T) {
	s := sampleStore(t)
	records, file := stored(t, "records1.golden"), stored(t, "snapshot1.golden")
	require.Equal(t, records, rawRecords(t, view(t, s, 0)))
	old := New()
	require.NoError(t, old.Restore(bytes.NewReader(file)))
	require.Equal(t, s.Stats(), old.Stats())
	require.Equal(t, records, rawRecords(t, view(t, old, 0)))
	info, err := VerifySnapshot(bytes.NewReader(file))
	require.NoError(t, err)
	require.EqualValues(t, 1, info.Format)
	// What it did not have is not taken in it.
	later := bytes.Clone(snapshotOf(t, fullStore(t)).Bytes())
	later[8] = 1
	later = binary.LittleEndian.AppendUint64(later[:len(later)-8], xxhash.Sum64(later[:len(later)-8]))
	require.ErrorIs(t, New().Restore(bytes.NewReader(later)), ErrSnapshotCorrupt)
}
