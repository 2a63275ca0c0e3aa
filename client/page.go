package client

import (
	"bytes"
	"unsafe"
)

// listPage is a part of a range.
//
// One that came in protobuf is kept as it came: it is looked through when its answer is
// taken apart, so that what is malformed fails as a whole, and each item is made when
// its turn comes, where the caller runs. One copy of the bytes is all that a page costs
// beside: keys and values are parts of it. Items of their own, and a copy of each key
// and value, were half of what a list cost its caller.
type listPage struct {
	// blocks are the fields of the message, copied, of which those with the number
	// field are items; or items is the items, of a page in JSON. n is how many.
	blocks   [][]byte
	field    int
	items    []Item
	n        int
	keysOnly bool
	one      [1][]byte // backs blocks: most pages have one

	revision uint64
	count    uint64
	// more says that there is more behind it, next how to go on where its server says
	// it.
	more bool
	next string
	// last is the key that each came to.
	last string
}

// pageBlock is how large a block may be: who keeps one item of a page keeps a block. An
// item that is larger has a block of its own. It is a size of the allocator's, the
// largest that it has ready.
const pageBlock = 32 << 10

// each calls visit with the items, in order, until it returns false; then so does each.
// It may be called once: the values are the caller's to change.
func (p *listPage) each(visit func(Item) bool) bool {
	for i := range p.items {
		p.last = p.items[i].Key
		if !visit(p.items[i]) {
			return false
		}
	}
	for _, b := range p.blocks {
		for len(b) > 0 {
			field, _, data, rest, _ := protoField(b)
			if b = rest; field != p.field {
				continue
			}
			var it rawItem
			_, _ = it.read(data) // it has been read before
			item := it.inPlace(p.keysOnly)
			p.last = item.Key
			if !visit(item) {
				return false
			}
		}
	}
	return true
}

// inPlace is the item over the memory that it was read from, which is nobody else's and
// is not written again: but for the values, each by its caller. A value has no room
// behind it, and is not nil where it is empty.
func (it *rawItem) inPlace(keysOnly bool) Item {
	it.Key = unsafe.String(unsafe.SliceData(it.key), len(it.key))
	if !keysOnly {
		if it.Value = it.value; it.Value == nil {
			it.Value = []byte{}
		}
	}
	return it.Item
}

// take looks through the fields of b, of which those with the number are items, and
// copies them.
func (p *listPage) take(b []byte, itemField int) error {
	p.field, p.blocks = itemField, p.one[:0]
	block := b // where the block begins that is being looked through
	for rest := b; len(rest) > 0; {
		field, _, data, after, ok := protoField(rest)
		if !ok {
			return errMalformed
		}
		if field == itemField {
			var it rawItem
			err, lacks := it.read(data)
			if err == nil {
				err = lacks
			}
			if err != nil {
				return err
			}
			p.n++
		}
		if before := len(block) - len(rest); before > 0 && len(block)-len(after) > pageBlock {
			p.blocks = append(p.blocks, bytes.Clone(block[:before]))
			block = rest
		}
		rest = after
	}
	if len(block) > 0 {
		p.blocks = append(p.blocks, bytes.Clone(block))
	}
	return nil
}

// protoPage takes a RangePage apart.
func protoPage(b []byte, keysOnly bool) (*listPage, error) {
	p := &listPage{keysOnly: keysOnly}
	if err := p.take(b, 2); err != nil {
		return nil, err
	}
	for len(b) > 0 {
		field, number, data, rest, _ := protoField(b)
		b = rest
		switch field {
		case 1:
			p.revision = number
		case 3:
			p.count = number
		case 4:
			p.next = string(data)
		}
	}
	if p.more = p.next != ""; p.revision == 0 {
		return nil, missing("revision")
	}
	return p, nil
}

// protoRange takes a RangeResult apart, which is of a Result at the revision.
func protoRange(b []byte, revision uint64, keysOnly bool) (*listPage, error) {
	p := &listPage{revision: revision, keysOnly: keysOnly}
	if err := p.take(b, 1); err != nil {
		return nil, err
	}
	for len(b) > 0 {
		field, number, _, rest, _ := protoField(b)
		b = rest
		switch field {
		case 2:
			p.count = number
		case 3:
			p.more = number != 0
		}
	}
	return p, nil
}
