package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"trivet/trivetpb"
)

// The snapshot file:
//
//	0         8          12                        end-8       end
//	+---------+----------+-------------------------+-----------+
//	|TRIVETSN | format   | zstd: records           | checksum  |
//	+---------+----------+-------------------------+-----------+
//
// format is a uint32 and checksum a uint64, little endian. The checksum is the
// xxhash64 of everything before it. (CRC-32C would be sure to find one short
// burst of errors, but of what else goes wrong in a file of gigabytes it misses
// one in 2^32, and xxhash64 one in 2^64 at a higher speed. Neither resists
// somebody who alters a file on purpose: who may restore a snapshot may write
// anything.) zstd's own checksum is off.
//
// A record is a uvarint, the length in bytes, and a SnapshotRecord of that
// length. In this order:
//
//   - one SnapshotHeader;
//   - the SnapshotLeases, by id;
//   - the SnapshotVersions: keys in byte order, a key's versions oldest first.
//     Of each key those of revisions after the compact revision C, and before
//     them the one that C saw, where there was one: with them every revision
//     from C on can be read, and all changes after C are there (history.go).
//     What physically lags behind compaction is left out, so equal states have
//     equal records;
//   - the SnapshotClocks, oldest first: when the revisions after C were made;
//   - the SnapshotLocks, by name; where one does not hold all of the queue, more
//     of the same name and without a holder go on with it;
//   - the SnapshotSessions, by id, each with its SnapshotAnswers, by seq;
//   - the SnapshotAnswers of idempotency keys, by deadline, then key;
//   - the SnapshotUploads, one for each chunk that is staged;
//   - one SnapshotFooter, and then nothing.
//
// A file of format 1 has no leases, locks, sessions, answers and uploads, one of
// format 2 no level. The state's level says which format is written (formatOf):
// one that every member reads, since a member may be sent another one's.
//
// The format's number changes where an older reader would misread; records and
// fields that are added need a new number as well, as a reader that does not
// know them cannot restore all of the state.
const (
	snapshotMagic        = "TRIVETSN"
	snapshotPreludeBytes = len(snapshotMagic) + 4
	snapshotTrailerBytes = 8

	// maxRecordBytes bounds a record. The largest is a remembered answer: what
	// budget lets through, and the frames of as many results as a txn has.
	maxRecordBytes = MaxResultBytes + HardMaxTxnOps*128 + 64<<10
)

var (
	// ErrSnapshotCorrupt: the file is no snapshot, or was truncated or altered.
	ErrSnapshotCorrupt = errors.New("store: the snapshot is corrupt")
	// ErrSnapshotVersion: the file is of a format that this version cannot read.
	ErrSnapshotVersion = errors.New("store: the snapshot is of another format version")
)

// WriteSnapshot writes the whole state as it stood when the View was opened, at
// whatever revision the View reads: the present of then and its retained
// history. Applying goes on meanwhile. The error is w's.
func (v *View) WriteSnapshot(w io.Writer) error {
	v.mustBeOpen()
	defer runtime.KeepAlive(v)
	sum := xxhash.New()
	file := io.MultiWriter(w, sum)
	prelude := binary.LittleEndian.AppendUint32([]byte(snapshotMagic), formatOf(v.stats.Settings.Level))
	if _, err := file.Write(prelude); err != nil {
		return fmt.Errorf("store: write snapshot: %w", err)
	}
	// One goroutine and the fastest level: a snapshot is taken beside the
	// writer, and most of what it saves is in the first level already.
	enc, err := zstd.NewWriter(file,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false))
	if err != nil {
		return fmt.Errorf("store: write snapshot: %w", err)
	}
	if err := v.writeRecords(enc); err != nil {
		_ = enc.Close() // the first error is the one to tell
		return fmt.Errorf("store: write snapshot: %w", err)
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("store: write snapshot: %w", err)
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, sum.Sum64())); err != nil {
		return fmt.Errorf("store: write snapshot: %w", err)
	}
	return nil
}

// writeRecords writes the records as they are before compression.
func (v *View) writeRecords(w io.Writer) error {
	out := recordWriter{w: w}
	out.write(&trivetpb.SnapshotRecord{Record: &trivetpb.SnapshotRecord_Header{Header: v.snapshotHeader()}})

	v.writeLeases(&out)

	record := &trivetpb.SnapshotRecord{}
	oneof := &trivetpb.SnapshotRecord_Version{Version: &trivetpb.SnapshotVersion{}}
	record.Record = oneof
	var versions []*version // of a key, newest first
	v.tree.scan(func(c *chain) bool {
		versions = v.retained(c, versions[:0])
		for i := len(versions) - 1; i >= 0; i-- {
			fillSnapshotVersion(oneof.Version, c.key(), versions[i])
			out.write(record)
		}
		return out.err == nil
	})

	first := v.stats.CompactRevision + 1
	for _, run := range v.runs {
		// The first run may begin with revisions that are not retained.
		clock := &trivetpb.SnapshotClock{Revision: max(run.revision, first), ClockMs: run.clockMS}
		out.write(&trivetpb.SnapshotRecord{Record: &trivetpb.SnapshotRecord_Clock{Clock: clock}})
	}
	v.writeRest(&out)
	footer := &trivetpb.SnapshotFooter{Records: out.records}
	out.write(&trivetpb.SnapshotRecord{Record: &trivetpb.SnapshotRecord_Footer{Footer: footer}})
	return out.flush()
}

func (v *View) snapshotHeader() *trivetpb.SnapshotHeader {
	return &trivetpb.SnapshotHeader{
		Index:           v.stats.Index,
		Revision:        v.stats.Revision,
		CompactRevision: v.stats.CompactRevision,
		ClockMs:         v.stats.ClockMS,
		StateHash:       stateHash(v.sum, v.rest.hash, v.stats),
		Settings: &trivetpb.Settings{
			HistoryMs:        v.stats.Settings.HistoryMS,
			HistoryRevisions: v.stats.Settings.HistoryRevisions,
			QuotaBytes:       v.stats.Settings.QuotaBytes,
			Level:            v.stats.Settings.Level,
		},
		Seed:      v.rest.seed,
		NextId:    v.rest.nextID,
		NextToken: v.rest.nextToken,
	}
}

// retained appends the versions of a key that the logical history held when the
// View was opened, newest first: those after the compact revision, then the one
// that it saw. There may be newer ones, and older ones physically; the prev of
// those may be cut at any time and is not looked at.
func (v *View) retained(c *chain, versions []*version) []*version {
	at := c.at(v.stats.Revision)
	for ; at != nil && at.mod > v.stats.CompactRevision; at = at.prev {
		versions = append(versions, at)
	}
	if at.live() {
		versions = append(versions, at)
	}
	return versions
}

// fillSnapshotVersion sets every field of m.
func fillSnapshotVersion(m *trivetpb.SnapshotVersion, key string, v *version) {
	m.Key, m.Value = keyBytes(key), nil
	if v.valueLen() > 0 {
		m.Value = v.bytes()
	}
	m.CreateRevision, m.ModRevision, m.Version, m.Lease = v.create(), v.mod, v.number(), v.lease()
	m.Deleted, m.Sub, m.Expired = !v.live(), v.sub, false
	if m.Deleted {
		m.Expired = v.expired()
	}
}

// recordWriter writes length-delimited records through a buffer; after an error
// it does nothing more.
type recordWriter struct {
	w       io.Writer
	buf     []byte
	records uint64
	err     error
}

func (w *recordWriter) write(r *trivetpb.SnapshotRecord) {
	if w.err != nil {
		return
	}
	size := r.SizeVT()
	w.buf = binary.AppendUvarint(w.buf, uint64(size))
	at := len(w.buf)
	w.buf = append(w.buf, make([]byte, size)...) // extends in place, allocates nothing of its own
	if _, err := r.MarshalToSizedBufferVT(w.buf[at:]); err != nil {
		w.err = err
		return
	}
	w.records++
	if len(w.buf) >= 64<<10 {
		_ = w.flush() // kept in w.err
	}
}

func (w *recordWriter) flush() error {
	if w.err == nil {
		_, w.err = w.w.Write(w.buf)
		w.buf = w.buf[:0]
	}
	return w.err
}
