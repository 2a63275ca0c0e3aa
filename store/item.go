package store

import (
	"unsafe"

	"trivet/trivetpb"
)

// ItemOverheadBytes is what each live item counts towards Stats.Bytes and the
// quota beside its key and value. What it takes in memory is a version of 64
// bytes, a chain of 24, a place of 24 in the tree and one of 16 in the table,
// each fuller than three eighths: some 155 bytes. The number is part of the state
// machine: it must never change.
const ItemOverheadBytes = 128

// Item is a key as it stands at some revision. The words are etcd's.
type Item struct {
	Key string
	// Value aliases the store and must not be changed. It is never nil.
	Value []byte
	// CreateRevision is the revision that created the key after its last
	// deletion, ModRevision that of its last write.
	CreateRevision, ModRevision uint64
	// Version counts the writes since creation; 1 at creation.
	Version uint64
	// Lease is 0 for none.
	Lease uint64
}

// Proto returns the item as a message. Its bytes alias the item's and must not
// be changed.
func (i Item) Proto() *trivetpb.Item {
	return &trivetpb.Item{
		Key:            keyBytes(i.Key),
		Value:          i.Value,
		CreateRevision: i.CreateRevision,
		ModRevision:    i.ModRevision,
		Version:        i.Version,
		Lease:          i.Lease,
	}
}

// version is what one write made of a key: a value, or a tombstone. It is 64
// bytes, one size class of the allocator, so that ten million keys fit: the key
// is in the chain, the value is a pointer and a length instead of a slice, and a
// tombstone is told by its create revision of 0.
//
// A version is immutable once it is the head of its chain, but for prev, which
// compaction cuts (see chain for why that needs no atomic).
type version struct {
	prev     *version // the key's version before, nil where none is retained
	value    *byte
	valueLen uint32
	sub      uint32 // the place among the changes of revision mod, from 0
	create   uint64 // 0: a tombstone
	mod      uint64
	number   uint64 // the item's Version; of a tombstone, see expired
	lease    uint64
	hash     uint64 // of the item; 0 for a tombstone
}

// live says that there is a version and that it is no tombstone.
func (v *version) live() bool { return v != nil && v.create != 0 }

// expiredTombstone is the number of a tombstone of a key whose lease expired.
const expiredTombstone = 1

// expired says of a tombstone that the key's lease expired, and that nobody
// deleted it.
func (v *version) expired() bool { return !v.live() && v.number == expiredTombstone }

func (v *version) setValue(b []byte) {
	v.value, v.valueLen = unsafe.SliceData(b), uint32(len(b))
}

// bytes is the value; the capacity is clipped, so that a caller's append
// cannot write into what the store holds.
func (v *version) bytes() []byte {
	if v.valueLen == 0 {
		return []byte{}
	}
	return unsafe.Slice(v.value, v.valueLen)
}

func (v *version) item(key string) Item {
	return Item{
		Key:            key,
		Value:          v.bytes(),
		CreateRevision: v.create,
		ModRevision:    v.mod,
		Version:        v.number,
		Lease:          v.lease,
	}
}

// fill writes the item into a message that is still empty.
func (v *version) fill(m *trivetpb.Item, key string) {
	m.Key, m.Value = keyBytes(key), v.bytes()
	m.CreateRevision, m.ModRevision, m.Version, m.Lease = v.create, v.mod, v.number, v.lease
}

// itemBytes is what a live item counts.
func itemBytes(key string, v *version) uint64 {
	return uint64(len(key)) + uint64(v.valueLen) + ItemOverheadBytes
}

// keyString is b as a string without a copy: b must never change while the
// string is in use. Keys of applied entries belong to the store, so they live
// on as they are; of a reader's keys only string(b) may be kept.
func keyString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// keyBytes is s as bytes without a copy; they must not be changed.
func keyBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// PrefixRange is the range of all keys that begin with prefix; of all keys
// where prefix is empty. The range does not alias prefix.
func PrefixRange(prefix []byte) *trivetpb.KeyRange {
	r := &trivetpb.KeyRange{Start: append([]byte(nil), prefix...)}
	for n := len(prefix); n > 0; n-- {
		if prefix[n-1] != 0xff {
			r.End = append([]byte(nil), prefix[:n]...)
			r.End[n-1]++
			return r
		}
	}
	return r // nothing but 0xff: up to the end of the key space
}
