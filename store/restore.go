package store

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"

	"github.com/klauspost/compress/zstd"

	"trivet/trivetpb"
)

// SnapshotInfo is what VerifySnapshot found in a file.
type SnapshotInfo struct {
	Header *trivetpb.SnapshotHeader
	// Format is the file's format version.
	Format uint32
	// Keys and Bytes are those of Stats; Versions counts the retained versions
	// of all keys, tombstones included.
	Keys, Bytes, Versions uint64
	// Leases and Answers are those of Stats.
	Leases, Answers uint64
	// FileBytes is the length of the file.
	FileBytes uint64
}

// ReadSnapshotHeader reads the header alone, from the beginning of r. It
// verifies nothing after it.
func ReadSnapshotHeader(r io.Reader) (*trivetpb.SnapshotHeader, error) {
	in, err := openSnapshot(r, Level)
	if err != nil {
		return nil, err
	}
	defer in.close()
	if err := in.readHeader(); err != nil {
		return nil, in.explain(err)
	}
	return in.header, nil
}

// VerifySnapshot reads a whole snapshot, up to the end of r, and verifies all
// that Restore verifies, without building the state: it needs 8 bytes of
// memory for each change in the retained history and 8 for each revision, so
// some 16 for each change at most, and some hundred for each lease, each of a
// lease's keys, each session and each remembered answer. The errors are Restore's.
func VerifySnapshot(r io.Reader) (*SnapshotInfo, error) {
	in, err := openSnapshot(r, Level)
	if err != nil {
		return nil, err
	}
	defer in.close()
	if err := in.readAll(func(*chain, *version) {}); err != nil {
		return nil, in.explain(err)
	}
	return &SnapshotInfo{
		Header:    in.header,
		Format:    in.format,
		Keys:      in.totals.keys,
		Bytes:     in.totals.bytes,
		Versions:  in.versions,
		Leases:    uint64(in.rest.leases.len()),
		Answers:   in.rest.answerCount,
		FileBytes: in.file.bytes,
	}, nil
}

// readState builds the state that a snapshot holds, of a level up to level. It is
// complete and verified, or there is an error.
func readState(r io.Reader, level uint64) (*state, error) {
	in, err := openSnapshot(r, level)
	if err != nil {
		return nil, err
	}
	defer in.close()
	in.keep = true
	st := in.rest
	var last *chain
	var older versionList // keeps versions that are no head until the history does
	finishKey := func() {
		if last == nil {
			return
		}
		st.tree.addLast(last)
		st.table.expect(last)
		if !last.newest().live() {
			st.tombstones.Load(last.key(), struct{}{})
		}
	}
	err = in.readAll(func(c *chain, v *version) {
		if c != last {
			finishKey()
			last = c
		}
		if v.prev = c.newest(); v.prev != nil {
			older.add(v.prev)
		}
		c.head.Store(v)
	})
	if err != nil {
		return nil, in.explain(err)
	}
	finishKey()
	st.table.fill(st.tree)
	st.history.fill(st.tree, in.order)
	runtime.KeepAlive(older)
	st.history.runs = in.runs
	st.totals.keys, st.totals.bytes, st.totals.sum = in.totals.keys, in.totals.bytes, in.totals.sum
	st.index, st.revision = in.header.Index, in.header.Revision
	st.compactRevision, st.settings = in.header.CompactRevision, in.settings
	return st, nil
}

// versionList is versions, in blocks as a changeList is.
type versionList struct {
	last  *versionBlock
	taken int // of it
}

type versionBlock struct {
	before *versionBlock
	of     [1023]*version
}

func (l *versionList) add(v *version) {
	if l.last == nil || l.taken == len(l.last.of) {
		l.last, l.taken = &versionBlock{before: l.last}, 0
	}
	l.last.of[l.taken] = v
	l.taken++
}

// snapshotReader reads a snapshot's records and verifies what they say. Memory
// is bounded by what it returns: a record by maxRecordBytes, the decoder's
// window by maxWindowBytes. How much a file can make of the state is not bounded:
// that is for whoever may restore one.
type snapshotReader struct {
	file *tailReader
	zstd *zstd.Decoder
	in   *bufio.Reader
	buf  []byte

	header   *trivetpb.SnapshotHeader
	settings Settings
	runs     []clockRun
	places   places      // of the versions after the compact revision
	order    changeOrder // of places, once all was read
	totals   totals
	records  uint64
	versions uint64

	format uint32
	level  uint64 // the newest that is read
	restReader
}

// maxWindowBytes is well above the window that the writer's level has.
const maxWindowBytes = 32 << 20

// openSnapshot reads what stands before the records, of a file that a version may
// have written that knows the levels up to level.
func openSnapshot(r io.Reader, level uint64) (*snapshotReader, error) {
	in := &snapshotReader{file: newTailReader(r), level: level, restReader: restReader{rest: newState()}}
	var prelude [snapshotPreludeBytes]byte
	if _, err := io.ReadFull(in.file, prelude[:]); err != nil {
		return nil, in.explain(err)
	}
	if string(prelude[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: it does not begin as a snapshot does", ErrSnapshotCorrupt)
	}
	format := binary.LittleEndian.Uint32(prelude[len(snapshotMagic):])
	switch newest := formatOf(level); {
	case format > newest:
		return nil, fmt.Errorf("%w: it is of format %d, and this version of Trivet reads up to %d: a newer one wrote it",
			ErrSnapshotVersion, format, newest)
	case format < 1:
		return nil, fmt.Errorf("%w: there is no format %d", ErrSnapshotVersion, format)
	}
	in.format = format
	dec, err := zstd.NewReader(in.file,
		zstd.WithDecoderConcurrency(1), // no goroutines to end
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindowBytes))
	if err != nil {
		return nil, in.explain(err)
	}
	in.zstd, in.in = dec, bufio.NewReaderSize(dec, 64<<10)
	return in, nil
}

func (in *snapshotReader) close() { in.zstd.Close() }

// explain makes err the caller's: the file's own read error as it is, all else
// a corrupt snapshot.
func (in *snapshotReader) explain(err error) error {
	if in.file.err != nil && in.file.err != io.EOF {
		return fmt.Errorf("store: read snapshot: %w", in.file.err)
	}
	if errors.Is(err, ErrSnapshotCorrupt) || errors.Is(err, ErrSnapshotVersion) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrSnapshotCorrupt, err)
}

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrSnapshotCorrupt}, args...)...)
}

// next reads the next record into m, whose fields it replaces.
func (in *snapshotReader) next(m *trivetpb.SnapshotRecord) error {
	size, err := binary.ReadUvarint(in.in)
	if err != nil {
		return fmt.Errorf("the length of record %d: %w", in.records, err)
	}
	if size > maxRecordBytes {
		return corruptf("record %d has %d bytes", in.records, size)
	}
	if uint64(cap(in.buf)) < size {
		in.buf = make([]byte, max(size, 4096))
	}
	in.buf = in.buf[:size]
	if _, err := io.ReadFull(in.in, in.buf); err != nil {
		return fmt.Errorf("record %d: %w", in.records, err)
	}
	// The decoder keeps a version that is there already, with the memory of its key
	// and value: that and the two messages around it are reused for millions of
	// records.
	version, reuse := m.Record.(*trivetpb.SnapshotRecord_Version)
	m.Reset()
	if reuse {
		v := version.Version
		key, value := v.Key[:0], v.Value[:0]
		v.Reset()
		v.Key, v.Value = key, value
		m.Record = version
	}
	if err := m.UnmarshalVT(in.buf); err != nil {
		return fmt.Errorf("record %d: %w", in.records, err)
	}
	if hasUnknown(m) {
		return corruptf("record %d has a field that is not known", in.records)
	}
	in.records++
	return nil
}

func (in *snapshotReader) readHeader() error {
	m := &trivetpb.SnapshotRecord{}
	if err := in.next(m); err != nil {
		return err
	}
	h := m.GetHeader()
	s := h.GetSettings()
	switch {
	case h == nil:
		return corruptf("the first record is not the header")
	case s == nil || s.HistoryMs == 0 || s.HistoryRevisions == 0:
		return corruptf("the header has no settings")
	case hasUnknown(h) || hasUnknown(s):
		return corruptf("the header has a field that is not known")
	case h.CompactRevision < 1 || h.CompactRevision > h.Revision:
		return corruptf("compact revision %d and revision %d", h.CompactRevision, h.Revision)
	case max(h.Revision, h.NextToken) > math.MaxInt64:
		// No cluster came so far; and what is counted on from there must not
		// begin at 0 again.
		return corruptf("revision %d and token %d", h.Revision, h.NextToken)
	case in.format < 2 && h.Seed|h.NextId|h.NextToken != 0:
		return corruptf("the header has what format %d has not", in.format)
	case in.format != formatOf(s.Level) && (in.format > 2 || s.Level != 0):
		return corruptf("format %d and level %d", in.format, s.Level)
	case s.Level > in.level:
		return fmt.Errorf("%w: its state is of level %d, and this version of Trivet knows up to %d: a newer one wrote it",
			ErrSnapshotVersion, s.Level, in.level)
	}
	in.header = h
	in.settings = Settings{HistoryMS: s.HistoryMs, HistoryRevisions: s.HistoryRevisions, QuotaBytes: s.QuotaBytes, Level: s.Level}
	in.rest.clockMS = h.ClockMs
	in.rest.seed, in.rest.nextID, in.rest.nextToken = h.Seed, h.NextId, h.NextToken
	return nil
}

// readAll reads and verifies everything, and gives each version to visit, in
// the order of the file and with its hash, and with the chain of its key, which is
// one for all versions of a key. The versions' prev is not set, nor a chain's head.
func (in *snapshotReader) readAll(visit func(c *chain, v *version)) error {
	if err := in.readHeader(); err != nil {
		return err
	}
	m := &trivetpb.SnapshotRecord{Record: &trivetpb.SnapshotRecord_Version{Version: &trivetpb.SnapshotVersion{}}}
	keys := keyOrder{in: in}
	for {
		if err := in.next(m); err != nil {
			return err
		}
		switch r := m.Record.(type) {
		case *trivetpb.SnapshotRecord_Version:
			if err := in.enter(sectionVersions); err != nil {
				return err
			}
			c, v, err := keys.add(r.Version)
			if err != nil {
				return err
			}
			visit(c, v)
		case *trivetpb.SnapshotRecord_Clock:
			if err := in.enter(sectionClocks); err != nil {
				return err
			}
			if err := in.addRun(r.Clock); err != nil {
				return err
			}
		case *trivetpb.SnapshotRecord_Footer:
			if err := keys.finishKey(); err != nil {
				return err
			}
			return in.finish(r.Footer)
		default:
			if err := in.addRest(m); err != nil {
				return err
			}
		}
	}
}

func (in *snapshotReader) addRun(m *trivetpb.SnapshotClock) error {
	run := clockRun{m.Revision, m.ClockMs}
	ok := !hasUnknown(m) && run.revision <= in.header.Revision && run.clockMS <= in.header.ClockMs
	if n := len(in.runs); n == 0 {
		ok = ok && run.revision == in.header.CompactRevision+1
	} else {
		ok = ok && run.revision > in.runs[n-1].revision && run.clockMS > in.runs[n-1].clockMS
	}
	if !ok {
		return corruptf("record %d, a clock: revision %d, %d ms", in.records-1, run.revision, run.clockMS)
	}
	in.runs = append(in.runs, run)
	return nil
}

// finish verifies the footer, what only the whole can show, and that nothing
// follows; last the checksum, which the whole file has been read for by then.
func (in *snapshotReader) finish(footer *trivetpb.SnapshotFooter) error {
	if hasUnknown(footer) || footer.Records != in.records-1 {
		return corruptf("the footer counts %d records, and there are %d", footer.Records, in.records-1)
	}
	if _, err := in.in.ReadByte(); err != io.EOF {
		if err != nil {
			return err
		}
		return corruptf("there is more after the footer")
	}
	if err := in.file.verify(); err != nil {
		return err
	}
	h, err := in.header, error(nil)
	if in.order, err = in.places.order(h.CompactRevision, h.Revision); err != nil {
		return err
	}
	in.places = places{} // what is made of them needs the memory
	if (len(in.runs) == 0) != (h.Revision == h.CompactRevision) {
		return corruptf("the clocks of the retained revisions are missing")
	}
	if err := in.finishRest(); err != nil {
		return err
	}
	hash := stateHash(in.totals.sum, in.rest.restHash(), Stats{
		Revision:        h.Revision,
		CompactRevision: h.CompactRevision,
		ClockMS:         h.ClockMs,
		Settings:        in.settings,
	})
	if hash != h.StateHash {
		return corruptf("the state's hash is %016x, and the header says %016x", hash, h.StateHash)
	}
	return nil
}
