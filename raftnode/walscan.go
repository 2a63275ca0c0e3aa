package raftnode

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	walsegment "github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// scan reads entries first to last, which the log has, in order, and calls visit
// with each, whose Data and Extensions are good until visit returns. It is for the
// start, before anything is written.
//
// raft-wal reads an entry by two reads of the file, into memory that it makes for
// it, and copies it from there: two thirds of what it took a start to verify a
// log. Here a segment is read from its first entry to its last in large steps,
// and an entry lies in the buffer as it is in the file. What raft-wal goes by when
// it reads one later is verified too: in a sealed segment the entry must be where
// the index says.
func (l *walLog) scan(first, last uint64, visit func(*raft.Log) error) error {
	in := bufio.NewReaderSize(nil, scanBuffer)
	next := first
	for _, s := range l.segments.now() {
		if to := min(last, lastOf(s)); s.MinIndex <= next && next <= to {
			if err := l.scanSegment(in, s, next, to, visit); err != nil {
				return err
			}
			next = to + 1
		}
	}
	if next <= last {
		return fmt.Errorf("log entry %d in %s: is in no segment", next, l.dir)
	}
	return nil
}

const (
	// scanBuffer is what is read at a time. Most entries fit: a group of commands
	// has 256 KiB.
	scanBuffer = 1 << 20

	// What a segment file begins with, and a frame.
	segmentHeader, frameHeader = 32, 8
)

// The kinds of frames (raft-wal, segment/format.go).
const (
	frameEntry = 1 + iota
	frameIndex
	frameCommit
)

// lastOf is the last entry that a segment can have.
func lastOf(s types.SegmentInfo) uint64 {
	if s.SealTime.IsZero() {
		return math.MaxUint64
	}
	return s.MaxIndex
}

func (l *walLog) scanSegment(in *bufio.Reader, s types.SegmentInfo, first, last uint64, visit func(*raft.Log) error) error {
	name := walsegment.FileName(s)
	f, err := l.files.OpenReader(l.dir, name)
	if err != nil {
		return fmt.Errorf("log entry %d in %s: %w", first, l.dir, err)
	}
	defer f.Close()
	w := segmentWalk{in: in, file: f, next: s.BaseIndex, at: segmentHeader}
	if !s.SealTime.IsZero() {
		// What is before the first entry was deleted, and need not make sense.
		if w.index, err = readSegmentIndex(f, s, first, last); err != nil {
			return fmt.Errorf("log segment %s, its index: %w", filepath.Join(l.dir, name), err)
		}
		w.next, w.at = first, int64(binary.LittleEndian.Uint32(w.index))
	}
	in.Reset(io.NewSectionReader(f, w.at, math.MaxInt64-w.at))
	var entry raft.Log
	for w.next <= last {
		index := w.next
		b, err := w.entry()
		if err == nil && index >= first {
			err = decodeInPlace(b, &entry)
		}
		if err != nil {
			return fmt.Errorf("log entry %d in %s: %w", index, l.dir, err)
		}
		if index < first {
			continue
		}
		if err := visit(&entry); err != nil {
			return err
		}
	}
	return nil
}

// readSegmentIndex reads where a sealed segment's entries are, of 4 bytes each.
func readSegmentIndex(f io.ReaderAt, s types.SegmentInfo, first, last uint64) ([]byte, error) {
	b := make([]byte, 4*(last-first+1))
	_, err := f.ReadAt(b, int64(s.IndexStart+4*(first-s.BaseIndex)))
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// segmentWalk goes through a segment file, from frame to frame.
type segmentWalk struct {
	in    *bufio.Reader
	file  io.ReaderAt
	next  uint64 // the next entry
	at    int64  // where in comes from
	index []byte // what is left of it, from next on; nil where there is none
	large []byte // for what does not fit into in's buffer
}

// entry returns the next entry as it is in the file, until it is called again.
func (w *segmentWalk) entry() ([]byte, error) {
	for {
		head, err := w.in.Peek(frameHeader)
		if err != nil {
			return nil, unexpected(err)
		}
		size := int(binary.LittleEndian.Uint32(head[4:]))
		switch head[0] {
		case frameCommit:
			if err := w.skip(frameHeader); err != nil {
				return nil, err
			}
			continue
		case frameEntry:
		default:
			return nil, fmt.Errorf("a frame of type %d is in its place", head[0])
		}
		switch {
		case size > walsegment.MaxEntrySize:
			return nil, fmt.Errorf("its frame has %d bytes", size)
		case w.index != nil && int64(binary.LittleEndian.Uint32(w.index)) != w.at:
			return nil, fmt.Errorf("is at offset %d of its segment, and the index says %d", w.at, binary.LittleEndian.Uint32(w.index))
		}
		w.next++
		if w.index != nil {
			w.index = w.index[4:]
		}
		return w.payload(size)
	}
}

// payload returns what follows the header of a frame, and goes on behind it. The
// bytes stay as they are until more is asked for.
func (w *segmentWalk) payload(size int) ([]byte, error) {
	padded := frameHeader + (size+7)&^7
	if padded > w.in.Size() {
		if cap(w.large) < size {
			w.large = make([]byte, size)
		}
		if _, err := w.file.ReadAt(w.large[:size], w.at+frameHeader); err != nil {
			return nil, unexpected(err)
		}
		return w.large[:size], w.skip(padded)
	}
	b, err := w.in.Peek(padded)
	if err != nil {
		return nil, unexpected(err)
	}
	return b[frameHeader : frameHeader+size], w.skip(padded)
}

func (w *segmentWalk) skip(n int) error {
	w.at += int64(n)
	_, err := w.in.Discard(n)
	return unexpected(err)
}

// unexpected makes the end of a file what it is where an entry should be.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

var errEntryShort = errors.New("is shorter than it says")

// decodeInPlace is raft-wal's BinaryCodec.Decode, but that the entry's Data and
// Extensions are part of b.
func decodeInPlace(b []byte, l *raft.Log) error {
	var numbers [3]uint64
	for i := range numbers {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			return errEntryShort
		}
		numbers[i], b = n, b[size:]
	}
	*l = raft.Log{Index: numbers[0], Term: numbers[1], Type: raft.LogType(numbers[2])}
	for _, field := range []*[]byte{&l.Data, &l.Extensions} {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return errEntryShort
		}
		b = b[size:]
		if n > 0 {
			*field = b[:n:n]
		}
		b = b[n:]
	}
	var t time.Time
	if err := t.UnmarshalBinary(b); err != nil {
		return err
	}
	l.AppendedAt = t
	return nil
}
