package raftnode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"
)

// checkWALTail looks for committed entries behind the end that raft-wal found
// when it opened the log in dir.
//
// raft-wal's recovery reads the newest segment file up to the first frame that
// makes no sense and takes everything from there for a write that a crash tore.
// A flipped bit in a frame's header makes no sense either; all acknowledged
// entries behind it would be gone in silence. But at most one batch can be
// torn: StoreLogs syncs each before it begins the next. So a whole batch behind
// the end, one whose checksum holds, shows that something before it was
// damaged later.
//
// What this cannot see is damage to the very last batch: it looks exactly like
// a torn one. The leader then sends those entries again.
//
// The format of a segment file (raft-wal, segment/format.go): a header of 32
// bytes, then frames, each 8 bytes of header (type, three zero bytes, length or
// CRC, little endian) and a payload padded to 8 bytes. A commit frame has no
// payload; its CRC-32C covers everything since the previous commit frame.
func checkWALTail(dir string, log raft.LogStore) error {
	path, base, err := newestSegment(dir)
	if path == "" || err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	b, err := readUntilZeros(path)
	if err != nil {
		return err
	}
	return checkSegmentTail(path, b, walEnd(b, base, last), last)
}

// checkSegmentTail looks for a whole batch behind end in what was written of a
// segment file.
func checkSegmentTail(path string, b []byte, end int, last uint64) error {
	const commit = 3
	previous := -1
	for at := end; at+8 <= len(b); at += 8 {
		if b[at] != commit || b[at+1] != 0 || b[at+2] != 0 || b[at+3] != 0 {
			continue
		}
		if previous >= 0 && crc32.Checksum(b[previous+8:at], castagnoli) == binary.LittleEndian.Uint32(b[at+4:]) {
			return fmt.Errorf("log segment %s is damaged at offset %d, after entry %d: whole entries follow", path, end, last)
		}
		previous = at
	}
	return nil
}

// zeros is how long a run of zeros ends what was written of a segment file,
// which is made at its full length of 64 MiB: longer than the longest value.
const zeros = 8 << 20

// readUntilZeros reads a segment file as far as it was written. It has room for
// all of the file from the beginning, of which only what is read takes memory:
// to grow into tens of megabytes took a quarter of a start's processor time.
func readUntilZeros(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	const chunk, most = 1 << 20, 128 << 20 // a file that is longer is grown into
	none := make([]byte, chunk)
	b := make([]byte, 0, min(info.Size(), most)+chunk)
	for run := 0; run < zeros; {
		b = slices.Grow(b, chunk)
		b = b[:len(b)+chunk]
		read := b[len(b)-chunk:]
		n, err := io.ReadFull(f, read)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return b[:len(b)-chunk+n], nil
		}
		if err != nil {
			return nil, err
		}
		if run += chunk; !bytes.Equal(read, none) {
			run = 0
		}
	}
	return b, nil
}

// newestSegment finds the segment file that is being written, "" for none. Its
// name says its first index, and its number among all segments ever made.
func newestSegment(dir string) (path string, base uint64, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		return "", 0, err
	}
	var newest uint64
	for _, f := range files {
		var first, number uint64
		if _, err := fmt.Sscanf(filepath.Base(f), "%020d-%016x.wal", &first, &number); err != nil {
			return "", 0, fmt.Errorf("%s is no log segment", f)
		}
		if path == "" || number > newest {
			path, base, newest = f, first, number
		}
	}
	return path, base, nil
}

// walEnd returns the offset behind the commit frame that follows entry last.
func walEnd(b []byte, base, last uint64) int {
	const (
		header       = 32
		entry, index = 1, 2
	)
	at, next := header, base
	for at+8 <= len(b) {
		size := int(binary.LittleEndian.Uint32(b[at+4:]))
		switch b[at] {
		case entry:
			if next > last {
				return at // of a batch that was not whole
			}
			next++
		case index:
		default: // a commit, or nothing
			size = 0
			if next > last {
				if b[at] == 3 {
					at += 8
				}
				return at
			}
			if b[at] != 3 {
				return at
			}
		}
		at += 8 + (size+7)&^7
	}
	return at
}
