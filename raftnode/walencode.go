package raftnode

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/types"
)

// batchEncoder encodes the entries of a batch into memory that is used again for
// the next. raft-wal makes a buffer for each entry and lets it grow, and an entry
// of many puts is tens of kilobytes: that was a third of all that a put allocated
// on a follower. Its codec cannot be another one for the format in use.
//
// So raft-wal is given the entries without their data, which it encodes to a few
// bytes (walLog.StoreLogs), and what it then asks a segment to append
// (encodedSegment.Append) is replaced by the entries as they are, encoded by
// raft-wal's own codec: the format stays the library's.
//
// # Who has the memory
//
// The entries are raft's, and are only read. buf and what is cut from it are the
// encoder's, between two batches nobody else's: a segment that appends copies the
// data into a buffer of its own before it writes (segment.Writer.appendFrame),
// and what it keeps of an entry is where in the file it is. raft-wal in turn keeps
// nothing of the entries that it encodes.
type batchEncoder struct {
	codec wal.BinaryCodec

	// storing says that raft-wal stores a batch: whoever appends meanwhile is that call.
	// raft stores from one goroutine, so a second batch at the same time is a mistake.
	storing atomic.Bool
	// Of the batch that is stored:
	batch  []*raft.Log // nil where there is none, or it was appended
	bare   []raft.Log  // the same without data
	bares  []*raft.Log
	buf    bytes.Buffer
	record []types.LogEntry // cut from buf
}

// keptBatchBytes is how large buf may be between two batches. An entry of group
// commit has 256 KiB at most; a batch of those, or of larger commands, is rare.
const keptBatchBytes = 1 << 20

var (
	errOtherBatch = errors.New("raftnode: raft-wal appends other entries than it was given")
	errTwoBatches = errors.New("raftnode: two batches are stored at once")
	errNotEncoded = errors.New("raftnode: raft-wal took entries and appended none")
)

// store has raft-wal store a batch.
func (e *batchEncoder) store(logs []*raft.Log, store func([]*raft.Log) error) error {
	if !e.storing.CompareAndSwap(false, true) {
		return errTwoBatches
	}
	defer e.storing.Store(false)
	defer e.release()
	e.batch = logs
	for _, l := range logs {
		e.bare = append(e.bare, raft.Log{Index: l.Index, Term: l.Term, Type: l.Type, AppendedAt: l.AppendedAt})
	}
	for i := range e.bare {
		e.bares = append(e.bares, &e.bare[i])
	}
	err := store(e.bares)
	if err == nil && e.batch != nil && len(logs) > 0 {
		return errNotEncoded // they may be in a file without their data
	}
	return err
}

// release forgets the batch.
func (e *batchEncoder) release() {
	clear(e.record)
	e.batch, e.bare, e.bares, e.record = nil, e.bare[:0], e.bares[:0], e.record[:0]
	if e.buf.Reset(); e.buf.Cap() > keptBatchBytes {
		e.buf = bytes.Buffer{}
	}
}

// encode returns what is to be written in the place of the batch's entries without
// their data. They are the encoder's, until the batch is stored. An error where
// those are not the batch's, one by one: nothing is to be written then.
func (e *batchEncoder) encode(bare []types.LogEntry) ([]types.LogEntry, error) {
	logs := e.batch
	e.batch = nil // appended once
	if len(bare) != len(logs) {
		return nil, fmt.Errorf("%w: %d, and not %d", errOtherBatch, len(bare), len(logs))
	}
	size := 0
	for _, l := range logs {
		size += len(l.Data) + len(l.Extensions) + 64 // more than all the rest
	}
	e.buf.Grow(size)
	for i, l := range logs {
		from := e.buf.Len()
		if err := e.codec.Encode(e.bares[i], &e.buf); err != nil {
			return nil, err
		}
		if bare[i].Index != l.Index || !bytes.Equal(bare[i].Data, e.buf.Bytes()[from:]) {
			return nil, fmt.Errorf("%w: entry %d in the place of %d", errOtherBatch, bare[i].Index, l.Index)
		}
		e.buf.Truncate(from)
		if err := e.codec.Encode(l, &e.buf); err != nil {
			return nil, err
		}
		// Cut below: buf may move as it grows.
		e.record = append(e.record, types.LogEntry{Index: l.Index, Data: e.buf.Bytes()[from:]})
	}
	from := 0
	for i := range e.record {
		to := from + len(e.record[i].Data)
		e.record[i].Data = e.buf.Bytes()[from:to:to]
		from = to
	}
	return e.record, nil
}

// encodedSegment is the segment that is written to.
type encodedSegment struct {
	types.SegmentWriter
	encoder *batchEncoder
}

func (s encodedSegment) Append(bare []types.LogEntry) error {
	entries, err := s.encoder.encode(bare)
	if err != nil {
		return err
	}
	return s.SegmentWriter.Append(entries)
}
