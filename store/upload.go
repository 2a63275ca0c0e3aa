package store

import (
	"bytes"
	"io"

	"github.com/cespare/xxhash/v2"

	"trivet/trivetpb"
)

// Bounds of uploads. Apply keeps them: they must never change.
const (
	// MaxChunkBytes is the most that one RestoreChunk carries; an empty one is
	// refused.
	MaxChunkBytes = 4 << 20
	// MaxUploadBytes is the largest file that can be restored through the log.
	// It is in the memory of every node, and in its snapshots, until then.
	MaxUploadBytes = 4 << 30
	// UploadMS is how long a staged upload is kept after its last chunk.
	UploadMS = 60 * 1000
)

// upload is the snapshot file that is being restored, as far as it came. There
// is one at a time.
type upload struct {
	id         uint64
	deadlineMS uint64
	size       uint64
	// chunks is as they came. Views hold the ones that there were: chunks are
	// only added.
	chunks []chunk
	// sum is that of the chunks' hashes.
	sum uint64
}

type chunk struct {
	offset uint64
	data   []byte
}

func (u *upload) hash() uint64 { return u.sum + mix(hashUpload, u.id, u.size, u.deadlineMS) }

func (c *chunk) hash() uint64 {
	return mix(hashChunk, c.offset, uint64(len(c.data)), xxhash.Sum64(c.data))
}

func (u *upload) add(data []byte) {
	c := chunk{u.size, data}
	u.chunks = append(u.chunks, c)
	u.size += uint64(len(data))
	u.sum += c.hash()
}

// has says whether the bytes are staged at the offset.
func (u *upload) has(offset uint64, data []byte) bool {
	if offset > u.size || uint64(len(data)) > u.size-offset {
		return false
	}
	for _, c := range u.chunks {
		if end := c.offset + uint64(len(c.data)); offset >= end {
			continue
		}
		part := c.data[offset-c.offset:]
		n := min(len(part), len(data))
		if !bytes.Equal(part[:n], data[:n]) {
			return false
		}
		if data = data[n:]; len(data) == 0 {
			return true
		}
		offset += uint64(n)
	}
	return len(data) == 0
}

// file reads what is staged. It may be read while more is added.
func (u *upload) file() io.Reader {
	readers := make([]io.Reader, len(u.chunks))
	for i, c := range u.chunks {
		readers[i] = bytes.NewReader(c.data)
	}
	return io.MultiReader(readers...)
}

// restoreChunk stages a part of a snapshot file. Whoever sends one chunk twice,
// not knowing whether it arrived, does no harm.
func (a *applier) restoreChunk(c *trivetpb.RestoreChunk) *trivetpb.Problem {
	u := a.upload
	if u != nil && u.id == c.Upload && u.has(c.Offset, c.Data) {
		u.deadlineMS = after(a.clockMS, UploadMS)
		return nil
	}
	if c.Offset == 0 && (u == nil || u.id != c.Upload) {
		if u != nil && u.deadlineMS > a.clockMS {
			return problemf(trivetpb.Code_OVERLOADED, "another upload is under way, with %d bytes so far", u.size)
		}
		u = &upload{id: c.Upload}
		a.upload = u
	}
	switch {
	case u == nil || u.id != c.Upload:
		return problemf(trivetpb.Code_BAD_REQUEST, "there is no upload %d, or it was given up", c.Upload)
	case c.Offset != u.size:
		return problemf(trivetpb.Code_BAD_REQUEST, "the chunk is for offset %d, and %d bytes are staged", c.Offset, u.size)
	case uint64(len(c.Data)) > MaxUploadBytes-u.size:
		p := problemf(trivetpb.Code_TOO_LARGE, "the file has more than %d bytes", uint64(MaxUploadBytes))
		p.Limit = MaxUploadBytes
		return p
	}
	u.add(c.Data)
	u.deadlineMS = after(a.clockMS, UploadMS)
	return nil
}

// restoreAbort gives an upload up. One that is not there has been.
func (a *applier) restoreAbort(c *trivetpb.RestoreAbort) {
	if a.upload != nil && a.upload.id == c.Upload {
		a.upload = nil
	}
}

func checkChunk(c *trivetpb.RestoreChunk) *trivetpb.Problem {
	switch n := len(c.Data); {
	case n == 0:
		return problemf(trivetpb.Code_BAD_REQUEST, "the chunk is empty")
	case n > MaxChunkBytes:
		p := problemf(trivetpb.Code_TOO_LARGE, "the chunk has %d bytes, and may have %d", n, MaxChunkBytes)
		p.Limit = MaxChunkBytes
		return p
	}
	return nil
}
