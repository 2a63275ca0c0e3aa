package store

import (
	"unsafe"

	"trivet/trivetpb"
)

// version is what one write made of a key: a value, or a tombstone. It is the
// beginning of a record. What most versions need not say is left out of it: the
// creation and the number of one that made its key, and the lease of one that
// has none. Behind these 32 bytes follow, as flags says:
//
//	isRewritten: create and number, 8 bytes each
//	hasLease:    lease, 8 bytes
//	the value
//
// so that a key of 32 bytes with a value of 64 takes 48 and 96 bytes, a size class
// of the allocator each. A value that is too long for that is where it was, and
// the version is the beginning of a versionApart.
//
// A version is immutable once it is the head of its chain, but for prev, which
// compaction cuts (see chain for why that needs no atomic).
type version struct {
	// prev is the key's version before, nil where none is retained. The collector does
	// not see it (newUnscanned): it would look into each retained version, a line of
	// memory that is in no cache, to find there what it knows from elsewhere. What keeps
	// prev alive is the change that made this version (change.prev), for as long as
	// anybody may follow prev: both are taken at once (cut), and what a View may follow
	// is not cut before it is closed. That of a version that was undone has no change any
	// more, and a View that caught the version may follow it still. It is the chain's head
	// again then, and once the chain is written to, that change has it, which is newer than
	// the View and so not cut. It is the head, and not another version that was undone,
	// because no command writes a key twice.
	prev *version
	mod  uint64
	hash uint64 // of the item; 0 for a tombstone
	sub  uint32 // the place among the changes of revision mod, from 0
	// flags and the value's length, of lengthBits.
	flags uint32
}

const (
	lengthBits = 24 // HardMaxValueBytes is less than 1<<lengthBits
	lengthMask = 1<<lengthBits - 1
)

// The flags.
const (
	isTombstone = 1 << (lengthBits + iota) // nothing follows
	isExpired                              // of a tombstone: the key's lease expired, and nobody deleted it
	isRewritten
	hasLease
	isApart
)

// versionApart is a version whose value is too long for a record. It has all
// numbers.
type versionApart struct {
	version
	value   *byte
	numbers numbers
}

// numbers are those of a live version that many do not need. An item's Version
// is number.
type numbers struct{ create, number, lease uint64 }

const (
	versionBytes = unsafe.Sizeof(version{})
	// createOffset and the next are from the version where both are there.
	createOffset = versionBytes
	numberOffset = createOffset + 8
	twoNumbers   = 16
	oneNumber    = 8
	// longestCopied is the longest value that newVersion copies in any case.
	longestCopied = maxRecord - int(versionBytes) - twoNumbers - oneNumber
)

// newVersion returns a live version of revision mod, without prev and hash. The
// value is copied, unless it is too long for a record (longestCopied): then the
// version keeps it as it is, and it must be the version's alone.
func newVersion(mod uint64, sub uint32, n numbers, value []byte) *version {
	flags := uint32(len(value))
	size := int(versionBytes) + len(value)
	if n.create != mod || n.number != 1 {
		flags |= isRewritten
		size += twoNumbers
	}
	if n.lease != 0 {
		flags |= hasLease
		size += oneNumber
	}
	if size > maxRecord {
		v := &versionApart{value: unsafe.SliceData(value), numbers: n}
		v.mod, v.sub, v.flags = mod, sub, uint32(len(value))|isApart
		return &v.version
	}
	v := (*version)(newUnscanned(size))
	v.mod, v.sub, v.flags = mod, sub, flags
	at := versionBytes
	if flags&isRewritten != 0 {
		*v.word(createOffset), *v.word(numberOffset) = n.create, n.number
		at += twoNumbers
	}
	if flags&hasLease != 0 {
		*v.word(at) = n.lease
		at += oneNumber
	}
	if len(value) > 0 { // else at may be the record's end
		copy(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(v), at)), len(value)), value)
	}
	return v
}

// newTombstone returns a tombstone of revision mod, without prev.
func newTombstone(mod uint64, sub uint32, hasExpired bool) *version {
	v := (*version)(newUnscanned(int(versionBytes)))
	v.mod, v.sub, v.flags = mod, sub, isTombstone
	if hasExpired {
		v.flags |= isExpired
	}
	return v
}

func (v *version) word(offset uintptr) *uint64 {
	return (*uint64)(unsafe.Add(unsafe.Pointer(v), offset))
}

func (v *version) apart() *versionApart { return (*versionApart)(unsafe.Pointer(v)) }

// live says that there is a version and that it is no tombstone.
func (v *version) live() bool { return v != nil && v.flags&isTombstone == 0 }

// expired says of a tombstone that the key's lease expired, and that nobody
// deleted it.
func (v *version) expired() bool { return v != nil && v.flags&isExpired != 0 }

// create is the revision that created the key; 0 of a tombstone.
func (v *version) create() uint64 {
	switch {
	case v.flags&(isRewritten|isApart|isTombstone) == 0:
		return v.mod
	case v.flags&isRewritten != 0:
		return *v.word(createOffset)
	case v.flags&isTombstone != 0:
		return 0
	}
	return v.apart().numbers.create
}

// number is the item's Version; 0 of a tombstone.
func (v *version) number() uint64 {
	switch {
	case v.flags&(isRewritten|isApart|isTombstone) == 0:
		return 1
	case v.flags&isRewritten != 0:
		return *v.word(numberOffset)
	case v.flags&isTombstone != 0:
		return 0
	}
	return v.apart().numbers.number
}

// lease is the lease, 0 for none.
func (v *version) lease() uint64 {
	switch {
	case v.flags&(hasLease|isApart) == 0:
		return 0
	case v.flags&isApart != 0:
		return v.apart().numbers.lease
	case v.flags&isRewritten != 0:
		return *v.word(versionBytes + twoNumbers)
	}
	return *v.word(versionBytes)
}

// valueLen is the value's length.
func (v *version) valueLen() int { return int(v.flags & lengthMask) }

// bytes is the value; the capacity is clipped, so that a caller's append
// cannot write into what the store holds.
func (v *version) bytes() []byte {
	if v.valueLen() == 0 {
		return []byte{}
	}
	if v.flags&isApart != 0 {
		return unsafe.Slice(v.apart().value, v.valueLen())
	}
	at := versionBytes
	if v.flags&isRewritten != 0 {
		at += twoNumbers
	}
	if v.flags&hasLease != 0 {
		at += oneNumber
	}
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(v), at)), v.valueLen())
}

func (v *version) item(key string) Item {
	return Item{
		Key:            key,
		Value:          v.bytes(),
		CreateRevision: v.create(),
		ModRevision:    v.mod,
		Version:        v.number(),
		Lease:          v.lease(),
	}
}

// fill writes the item into a message that is still empty.
func (v *version) fill(m *trivetpb.Item, key string) {
	m.Key, m.Value = keyBytes(key), v.bytes()
	m.CreateRevision, m.ModRevision, m.Version, m.Lease = v.create(), v.mod, v.number(), v.lease()
}
