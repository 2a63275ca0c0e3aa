package httpapi

import (
	"google.golang.org/protobuf/encoding/protowire"

	"trivet/store"
	"trivet/trivetpb"
)

// Items, pages and the frames of watches in protobuf, as trivet.proto has them,
// appended field by field: messages in between would be most of what they cost. A
// test reads them back with the generated code.

// The fields by their numbers.
const (
	itemKey, itemValue, itemCreate, itemMod, itemVersion, itemLease = 1, 2, 3, 4, 5, 6

	frameType, frameRevision, frameEvents, frameItems, frameProblem = 1, 2, 3, 4, 5
	eventItem, eventDeleted, eventExpired, eventPrev                = 1, 2, 3, 4

	pageRevision, pageItems, pageCount, pageNext, pagePrefixes = 1, 2, 3, 4, 5

	resultRevision, resultRange          = 1, 6
	rangedItems, rangedCount, rangedMore = 1, 2, 3
)

// sizeUint is what appendUint appends.
func sizeUint(n uint64) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(n)
}

// appendUint appends a number, which is left out where it is 0. Field numbers here
// are below 16: a tag is a byte.
func appendUint(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(append(b, byte(field)<<3), n)
}

// sizeLen is what appendLen appends, with the bytes that follow it.
func sizeLen(n int) int { return 1 + protowire.SizeBytes(n) }

// appendLen appends the tag and length of bytes, a text or a message.
func appendLen(b []byte, field protowire.Number, n int) []byte {
	return protowire.AppendVarint(append(b, byte(field)<<3|byte(protowire.BytesType)), uint64(n))
}

func appendContent[T ~string | ~[]byte](b []byte, field protowire.Number, s T) []byte {
	if len(s) == 0 {
		return b
	}
	return append(appendLen(b, field, len(s)), s...)
}

func sizeContent(n int) int {
	if n == 0 {
		return 0
	}
	return sizeLen(n)
}

func sizeItem(it *store.Item, keysOnly bool) int {
	n := sizeContent(len(it.Key)) + sizeUint(it.CreateRevision) + sizeUint(it.ModRevision) + sizeUint(it.Version) + sizeUint(it.Lease)
	if !keysOnly {
		n += sizeContent(len(it.Value))
	}
	return n
}

// appendItemField appends an item as a field of the message around it.
func appendItemField(b []byte, field protowire.Number, it *store.Item, keysOnly bool) []byte {
	b = appendLen(b, field, sizeItem(it, keysOnly))
	b = appendContent(b, itemKey, it.Key)
	if !keysOnly {
		b = appendContent(b, itemValue, it.Value)
	}
	b = appendUint(b, itemCreate, it.CreateRevision)
	b = appendUint(b, itemMod, it.ModRevision)
	b = appendUint(b, itemVersion, it.Version)
	return appendUint(b, itemLease, it.Lease)
}

// lengthRoom is what a length takes that is written before it is known: a varint
// with zeros behind it, which every decoder takes.
const lengthRoom = 5

// appendRoom leaves room for a length; setLength writes it, of all that was
// appended since.
func appendRoom(b []byte) []byte { return append(b, 0x80, 0x80, 0x80, 0x80, 0) }

func setLength(b []byte, at int) {
	n := uint64(len(b) - at - lengthRoom)
	for i := range lengthRoom - 1 {
		b[at+i] = byte(n>>(7*i)) | 0x80
	}
	b[at+lengthRoom-1] = byte(n >> (7 * (lengthRoom - 1)))
}

// appendFrameHead appends what every frame begins with, behind its length.
func appendFrameHead(b []byte, kind trivetpb.WatchFrame_Type, revision uint64) []byte {
	return appendUint(appendUint(b, frameType, uint64(kind)), frameRevision, revision)
}

// appendProtoChange appends a frame of changes with its length.
func appendProtoChange(b []byte, frame *store.Frame, prev bool) []byte {
	at := len(b)
	b = appendFrameHead(appendRoom(b), trivetpb.WatchFrame_CHANGE, frame.Revision)
	for i := range frame.Events {
		e := &frame.Events[i]
		it := e.Item()
		before, hasPrev := store.Item{}, false
		if prev {
			before, hasPrev = e.Prev()
		}
		n := sizeLen(sizeItem(&it, false))
		if e.Deleted() {
			n += 2
		}
		if e.Expired() {
			n += 2
		}
		if hasPrev {
			n += sizeLen(sizeItem(&before, false))
		}
		b = appendLen(b, frameEvents, n)
		b = appendItemField(b, eventItem, &it, false)
		if e.Deleted() {
			b = appendUint(b, eventDeleted, 1)
		}
		if e.Expired() {
			b = appendUint(b, eventExpired, 1)
		}
		if hasPrev {
			b = appendItemField(b, eventPrev, &before, false)
		}
	}
	setLength(b, at)
	return b
}

// appendProtoError appends the last frame of a watch that cannot go on.
func appendProtoError(b []byte, p *trivetpb.Problem) []byte {
	text, err := p.MarshalVT()
	if err != nil {
		panic(err) // it has no way to fail for a message that is whole
	}
	at := len(b)
	b = appendFrameHead(appendRoom(b), trivetpb.WatchFrame_ERROR, 0)
	b = appendContent(b, frameProblem, text)
	setLength(b, at)
	return b
}
