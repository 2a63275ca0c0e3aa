package raftnode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

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
	_, err = checkSegmentTail(path, base, last)
	return err
}

// checkSegmentTail finds where in a segment file the batch ends that holds entry
// last, and looks for a whole batch behind that.
func checkSegmentTail(path string, base, last uint64) (end int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if end, err = walEnd(f, base, last); err != nil {
		return 0, err
	}
	b, err := readUntilZeros(f, end)
	if err != nil {
		return 0, err
	}
	previous := -1
	for at := 0; at+frameHeader <= len(b); at += 8 {
		if b[at] != frameCommit || b[at+1] != 0 || b[at+2] != 0 || b[at+3] != 0 {
			continue
		}
		if previous >= 0 && crc32.Checksum(b[previous+frameHeader:at], castagnoli) == binary.LittleEndian.Uint32(b[at+4:]) {
			return 0, fmt.Errorf("log segment %s is damaged at offset %d, after entry %d: whole entries follow", path, end, last)
		}
		previous = at
	}
	return end, nil
}

// zeros is how long a run of zeros ends what was written of a segment file,
// which is made at its full length of 64 MiB: longer than the longest value.
const zeros = 8 << 20

// readUntilZeros reads a segment file from an offset on, as far as it was written:
// up to the end of the file or a run of zeros, of which it returns no more than
// those in the same chunk. Mostly there is nothing but zeros, and it takes no more
// memory than to see that.
func readUntilZeros(f io.ReaderAt, at int64) ([]byte, error) {
	const chunk = 256 << 10
	read, none := make([]byte, chunk), make([]byte, chunk)
	var b []byte
	for run := 0; run < zeros; at += chunk {
		n, err := f.ReadAt(read, at)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if bytes.Equal(read[:n], none[:n]) {
			run += n
		} else {
			b = append(b, make([]byte, run)...)
			b = append(b, read[:n]...)
			run = 0
		}
		if err == io.EOF {
			break
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

// walEnd returns the offset behind the commit frame that follows entry last, or
// where what makes sense ends before. It reads the frames' headers, and skips most
// of what is long between them.
func walEnd(f io.ReaderAt, base, last uint64) (int64, error) {
	at, next := int64(segmentHeader), base
	buf, from := make([]byte, 0, 16<<10), int64(0) // what was read, and where
	for {
		if at < from || at+frameHeader > from+int64(len(buf)) {
			n, err := f.ReadAt(buf[:cap(buf)], at)
			if err != nil && err != io.EOF {
				return 0, err
			}
			if buf, from = buf[:n], at; n < frameHeader {
				return at, nil
			}
		}
		head := buf[at-from:]
		size := int64(binary.LittleEndian.Uint32(head[4:]))
		switch head[0] {
		case frameEntry:
			if next > last {
				return at, nil // of a batch that was not whole
			}
			next++
		case frameIndex:
		default: // a commit, or nothing
			size = 0
			if next > last {
				if head[0] == frameCommit {
					at += frameHeader
				}
				return at, nil
			}
			if head[0] != frameCommit {
				return at, nil
			}
		}
		at += frameHeader + (size+7)&^7
	}
}
