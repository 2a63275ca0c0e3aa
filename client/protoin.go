package client

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"unsafe"

	"trivet/trivetpb"
)

// Items, pages and the frames of watches out of protobuf, as trivet.proto has them,
// field by field: the generated code makes a message for each and copies its bytes
// one by one, which would be most of what a list or a watch costs. Fields that are not
// known are of a newer server, and are passed over.
//
// What is decoded never points into the buffer that it was decoded from, which is used
// again. Keys and values of a page or a frame are copied together: see arena.

var errMalformed = errors.New("it is malformed")

// protoField takes the next field off b: its number, and the number or the bytes
// that it holds. ok is false where b is malformed.
func protoField(b []byte) (field int, number uint64, data, rest []byte, ok bool) {
	tag, n := uvarint(b)
	if n <= 0 || tag>>3 == 0 || tag>>3 > 1<<29 {
		return 0, 0, nil, nil, false
	}
	b = b[n:]
	field = int(tag >> 3)
	switch tag & 7 {
	case 0:
		if number, n = uvarint(b); n <= 0 {
			return 0, 0, nil, nil, false
		}
		return field, number, nil, b[n:], true
	case 2:
		size, n := uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return 0, 0, nil, nil, false
		}
		end := n + int(size)
		return field, 0, b[n:end:end], b[end:], true
	case 1:
		if len(b) >= 8 {
			return -field, 0, nil, b[8:], true
		}
	case 5:
		if len(b) >= 4 {
			return -field, 0, nil, b[4:], true
		}
	}
	return 0, 0, nil, nil, false
}

// uvarint is binary.Uvarint, at once for the numbers of one byte that most are, and
// without a loop for those of up to four.
func uvarint(b []byte) (uint64, int) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), 1
	}
	return longUvarint(b)
}

func longUvarint(b []byte) (uint64, int) {
	const highs = 0x80808080
	if len(b) >= 4 {
		x := binary.LittleEndian.Uint32(b)
		// The last byte is the first whose high bit is not set; what is behind it goes.
		if last := bits.TrailingZeros32(^x & highs); last < 32 {
			x &= 1<<(last+1) - 1
			return uint64(x&0x7f | x>>1&(0x7f<<7) | x>>2&(0x7f<<14) | x>>3&(0x7f<<21)), last/8 + 1
		}
	}
	return binary.Uvarint(b)
}

// arena is memory for the keys and values of one answer. Values are their caller's to
// change and to append to, so each has its own bytes and no room behind them. Keys are
// apart from them: strings over memory that is never written again.
//
// It is cut into blocks, so that who keeps one item of many keeps a block and not all
// of them.
type arena struct {
	keys, values []byte
	// left is no less than what the values still to come take, where that is known.
	left int
}

const arenaBlock = 16 << 10

// room makes room for what is known to come.
func (a *arena) room(keys, values int) {
	a.keys, a.values = make([]byte, 0, min(keys, arenaBlock)), make([]byte, 0, min(values, arenaBlock))
	a.left = values
}

func (a *arena) key(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if cap(a.keys)-len(a.keys) < len(b) {
		a.keys = make([]byte, 0, max(len(b), min(cap(a.keys), arenaBlock)))
	}
	at := len(a.keys)
	a.keys = append(a.keys, b...)
	return unsafe.String(&a.keys[at], len(b)) // nothing writes there any more
}

// value copies a value, which is not nil where it is empty.
func (a *arena) value(b []byte) []byte {
	if len(b) > arenaBlock/4 {
		return append(make([]byte, 0, len(b)), b...)
	}
	if cap(a.values)-len(a.values) < len(b) {
		a.values = make([]byte, 0, max(len(b), min(cap(a.values), a.left, arenaBlock)))
	}
	at := len(a.values)
	a.values = append(a.values, b...)
	return a.values[at:len(a.values):len(a.values)]
}

// rawItem is an item whose key and value still are in the buffer.
type rawItem struct {
	key, value []byte
	Item
}

// plainItemTags has a bit for each tag of what every item has.
const plainItemTags = 1<<(1<<3|2) | 1<<(2<<3|2) | 1<<(3<<3) | 1<<(4<<3) | 1<<(5<<3)

// read takes an item apart. missing is what it lacks of what every item has, nil for
// nothing.
func (it *rawItem) read(b []byte) (err, lacks error) {
	for len(b) > 0 {
		// What it has is told by one byte each, and its length or number mostly takes one
		// or two: protoField would be half of what it takes to read an item.
		if tag := b[0]; tag < 64 && plainItemTags>>tag&1 != 0 && len(b) > 1 {
			number, n := uint64(b[1]), 1
			if number >= 0x80 {
				if len(b) > 2 && b[2] < 0x80 {
					number, n = number&0x7f|uint64(b[2])<<7, 2
				} else if number, n = longUvarint(b[1:]); n <= 0 {
					return errMalformed, nil
				}
			}
			b = b[1+n:]
			switch tag {
			case 3 << 3:
				it.CreateRevision = number
				continue
			case 4 << 3:
				it.ModRevision = number
				continue
			case 5 << 3:
				it.Version = number
				continue
			}
			if number > uint64(len(b)) {
				return errMalformed, nil
			}
			if tag == 1<<3|2 {
				it.key = b[:number:number]
			} else {
				it.value = b[:number:number]
			}
			b = b[number:]
			continue
		}
		field, number, data, rest, ok := protoField(b)
		if !ok {
			return errMalformed, nil
		}
		b = rest
		switch field {
		case 1: // in a tag of more bytes than it takes
			it.key = data
		case 2:
			it.value = data
		case 3:
			it.CreateRevision = number
		case 4:
			it.ModRevision = number
		case 5:
			it.Version = number
		case 6:
			it.Lease = number
		}
	}
	switch {
	case len(it.key) == 0:
		lacks = missing("key")
	case it.ModRevision == 0 || it.CreateRevision == 0 || it.Version == 0:
		lacks = errNoRevisions
	}
	return nil, lacks
}

var errNoRevisions = missing("mod_revision, create_revision or version")

// whole moves key and value into an arena.
func (it *rawItem) whole(a *arena, keysOnly bool) Item {
	it.Key = a.key(it.key)
	if !keysOnly {
		it.Value = a.value(it.value)
	}
	return it.Item
}

// What the shortest item and the shortest event take that have all they must have, with
// tag and length. What is announced in less is none, and gets no memory: a frame is
// held in a few times its size, whatever it says.
const (
	leastItem  = 2 + 3 + 3*2
	leastEvent = 2 + 2 + 3 + 2
)

// protoItems takes apart the n items that b holds under a field, which is well-formed.
func protoItems(b []byte, in, n int) ([]Item, error) {
	items := make([]Item, 0, min(n, len(b)/leastItem))
	var mem arena
	// An estimate of the keys is enough: what is missing is made when it is.
	mem.room(n*32, len(b))
	for len(b) > 0 {
		field, _, data, rest, _ := protoField(b)
		b = rest
		if field != in {
			continue
		}
		var it rawItem
		err, lacks := it.read(data)
		if err == nil {
			err = lacks
		}
		if err != nil {
			return nil, err
		}
		mem.left = len(it.value) + len(b)
		items = append(items, it.whole(&mem, false))
	}
	return items, nil
}

// protoFrame takes a WatchFrame apart.
func protoFrame(b []byte) (f wireFrame, err error) {
	f.kind = wireNone
	events, items := 0, 0
	for rest := b; len(rest) > 0; {
		field, number, data, after, ok := protoField(rest)
		if !ok {
			return f, errMalformed
		}
		rest = after
		switch field {
		case 1:
			if f.kind = wireUnknown; number < uint64(len(wireKinds)) {
				f.kind = wireKinds[number]
			}
		case 2:
			f.revision = number
		case 3:
			events++
		case 4:
			items++
		case 5:
			f.proto = &trivetpb.Problem{}
			if err := f.proto.UnmarshalVT(data); err != nil {
				return f, errMalformed
			}
		}
	}
	switch {
	case f.kind == wireChange:
		f.events, err = protoEvents(b, events)
	case f.kind == wireItems:
		f.items, err = protoItems(b, 4, items)
	}
	return f, err
}

var wireKinds = [...]wireKind{
	trivetpb.WatchFrame_UNSPECIFIED: wireNone, trivetpb.WatchFrame_CHANGE: wireChange, trivetpb.WatchFrame_ITEMS: wireItems,
	trivetpb.WatchFrame_SYNCED: wireSynced, trivetpb.WatchFrame_PROGRESS: wireProgress, trivetpb.WatchFrame_ERROR: wireError,
}

// protoEvents takes the n events of a frame apart.
func protoEvents(b []byte, n int) ([]Event, error) {
	if n == 0 {
		return nil, missing("events")
	}
	events := make([]Event, 0, min(n, len(b)/leastEvent))
	var mem arena
	for len(b) > 0 {
		field, _, data, rest, _ := protoField(b)
		if b = rest; field != 3 {
			continue
		}
		var e Event
		if err := e.read(data, &mem); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}

func (e *Event) read(b []byte, mem *arena) error {
	e.Type = EventPut
	var it, prev rawItem
	var lacks error
	hasItem, hasPrev := false, false
	for len(b) > 0 {
		field, number, data, rest, ok := protoField(b)
		if !ok {
			return errMalformed
		}
		b = rest
		var err error
		switch field {
		case 1:
			hasItem = true
			err, lacks = it.read(data)
		case 2:
			if number != 0 {
				e.Type = EventDelete
			}
		case 3:
			e.Expired = number != 0
		case 4:
			hasPrev = true
			var lacking error
			if err, lacking = prev.read(data); err == nil {
				err = lacking
			}
		}
		if err != nil {
			return err
		}
	}
	switch {
	case !hasItem:
		return missing("item")
	case e.Type == EventDelete && (len(it.key) == 0 || it.ModRevision == 0):
		return missing("key or mod_revision")
	case e.Type == EventPut && lacks != nil:
		return lacks
	}
	e.Item = it.whole(mem, e.Type == EventDelete)
	if hasPrev {
		before := prev.whole(mem, false)
		e.Prev = &before
	}
	return nil
}
