package store

import (
	"encoding/binary"
	"io"

	"github.com/cespare/xxhash/v2"
)

// tailReader reads a file but for its last bytes, the trailer, which it holds
// back until it knows that nothing follows; and sums what it gives out.
type tailReader struct {
	r     io.Reader
	sum   *xxhash.Digest
	bytes uint64 // read of the file, the trailer included
	// buf[at:end] was read and not given out; its last bytes may be the trailer.
	buf     []byte
	at, end int
	err     error // what r ended with
}

func newTailReader(r io.Reader) *tailReader {
	return &tailReader{r: r, sum: xxhash.New(), buf: make([]byte, 64<<10)}
}

func (t *tailReader) Read(p []byte) (int, error) {
	for t.end-t.at <= snapshotTrailerBytes {
		if t.err != nil {
			if t.err == io.EOF && t.end-t.at < snapshotTrailerBytes {
				return 0, io.ErrUnexpectedEOF
			}
			return 0, t.err
		}
		t.end = copy(t.buf, t.buf[t.at:t.end])
		t.at = 0
		var n int
		n, t.err = t.r.Read(t.buf[t.end:])
		t.end += n
		t.bytes += uint64(n)
	}
	n := copy(p, t.buf[t.at:t.end-snapshotTrailerBytes])
	_, _ = t.sum.Write(p[:n])
	t.at += n
	return n, nil
}

// verify compares the trailer with the sum, once Read returned io.EOF.
func (t *tailReader) verify() error {
	if t.err != io.EOF || t.end-t.at != snapshotTrailerBytes {
		return corruptf("there is more after the records")
	}
	if want := binary.LittleEndian.Uint64(t.buf[t.at:t.end]); want != t.sum.Sum64() {
		return corruptf("its checksum is %016x, and it should be %016x", t.sum.Sum64(), want)
	}
	return nil
}
