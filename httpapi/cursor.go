package httpapi

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"

	"trivet/trivetpb"
)

// cursor is where a page of a range ended and the next one goes on. It is given
// to callers as opaque text:
//
//	byte 0      the format, 1
//	uvarint     revision: that of the first page, hence of all
//	uvarint     count: the keys in the whole range then
//	4 bytes     the CRC-32C of the range asked for (rangeQuery.identity)
//	…           position
//	4 bytes     CRC-32C of all before it
//
// in base64 for URLs, without padding. The checksum catches what was cut or
// mistyped. It is no seal, and need be none: whoever makes up a cursor learns
// nothing that a range would not have told.
type cursor struct {
	revision uint64
	count    uint64
	identity uint32
	// position is where the next page starts (inclusive) or, in reverse, where
	// it ends (exclusive).
	position []byte
}

const cursorFormat = 1

// maxCursorText is more than any cursor has: a position is a key and one byte.
const maxCursorText = (1+2*binary.MaxVarintLen64+4+maxKeyBytes+1+4)*4/3 + 3

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (cur cursor) String() string {
	b := make([]byte, 0, 32+len(cur.position))
	b = append(b, cursorFormat)
	b = binary.AppendUvarint(b, cur.revision)
	b = binary.AppendUvarint(b, cur.count)
	b = binary.BigEndian.AppendUint32(b, cur.identity)
	b = append(b, cur.position...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor takes what String made, and nothing else.
func parseCursor(text string) (cursor, *trivetpb.Problem) {
	malformed := badRequest("parameter cursor is not one that a page gave as next")
	if len(text) > maxCursorText {
		return cursor{}, malformed
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 1+1+1+4+4 || b[0] != cursorFormat {
		return cursor{}, malformed
	}
	b, sum := b[:len(b)-4], b[len(b)-4:]
	if binary.BigEndian.Uint32(sum) != crc32.Checksum(b, castagnoli) {
		return cursor{}, malformed
	}
	var cur cursor
	rest := b[1:]
	for _, n := range []*uint64{&cur.revision, &cur.count} {
		v, size := binary.Uvarint(rest)
		if size <= 0 || v > maxNumber {
			return cursor{}, malformed
		}
		*n, rest = v, rest[size:]
	}
	if len(rest) < 4 || cur.revision == 0 {
		return cursor{}, malformed
	}
	cur.identity, cur.position = binary.BigEndian.Uint32(rest), rest[4:]
	if cur.String() != text {
		return cursor{}, malformed
	}
	return cur, nil
}
