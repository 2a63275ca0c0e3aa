package raftnode

import (
	"errors"
	"io"
)

// Direct, durable writes of the log.
//
// Written through the page cache, a batch is copied into it, written from it by
// fdatasync, and an operating system thread waits meanwhile. Go's runtime lets the
// thread keep its processor, to be handed on by the runtime's monitor, which finds out by
// looking. A node works on one or two processors (cmd/trivet/processors.go), and whatever
// else it has to do, a read for one, waits for that.
//
// So where the system has it (directio_linux.go), a batch goes to the disk from a buffer
// of our own (O_DIRECT), with the sync as part of the write (RWF_DSYNC), and what waits for
// it is a goroutine, as for a message.
//
// The disk takes whole blocks then. The batches lie in the file as they do otherwise, so the
// block that a batch begins in is written again, with what was there before: the same
// bytes, which no crash in the middle can change.

// blockBytes is a multiple of what disks want the place, the length and the memory of
// a direct write to be multiples of.
const blockBytes = 4096

// directFile is a file that is written past the page cache. One goroutine uses it at
// a time.
type directFile interface {
	// write writes the parts, one behind the other, from at on, and zeros behind
	// them up to end. Both are multiples of blockBytes. Once it returns nil, what it has
	// written is durable, and so is what it takes to read it back, as after
	// fdatasync. After an error it is not known what of it was written. After errNoDirectIO
	// it is to be written some other way.
	write(at, end int64, parts ...[]byte) error
	io.Closer
}

// directIO opens files for direct writes.
type directIO interface {
	// open opens a file that is there. The error may be errNoDirectIO.
	open(path string) (directFile, error)
	io.Closer
}

// errNoDirectIO says that the system, or the file system, has no such writes, or none
// that are known to do as they should.
var errNoDirectIO = errors.New("no durable direct writes here")

// blocks is a segment file that is written in whole blocks.
type blocks struct {
	directFile
	was io.ReaderAt // the file, for what is in it as it is opened

	// last is what the block holds that the last batch ended in, up to end, where it
	// did. 0 is not known, or the beginning.
	last []byte
	end  int64
}

// writeAt writes a batch, and zeros behind it up to the end of its last block, or to
// zeros, a multiple of blockBytes, where that is further. See directFile.write for the
// error.
func (f *blocks) writeAt(b []byte, at, zeros int64) error {
	start := at - at%blockBytes
	if at != f.end { // the first batch after a start
		last := make([]byte, at-start, blockBytes)
		if _, err := io.ReadFull(io.NewSectionReader(f.was, start, at-start), last); err != nil {
			return err
		}
		f.last, f.end = last, at
	}
	end := at + int64(len(b))
	stop := (end + blockBytes - 1) / blockBytes * blockBytes
	if err := f.write(start, max(stop, zeros), f.last, b); err != nil {
		return err // the next batch is one in place of this one
	}
	if in := int(end % blockBytes); in <= len(b) {
		f.last = append(f.last[:0], b[len(b)-in:]...)
	} else { // it ends in the block that it began in
		f.last = append(f.last, b...)
	}
	f.end = end
	return nil
}
