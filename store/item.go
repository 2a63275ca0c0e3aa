package store

import (
	"unsafe"

	"trivet/trivetpb"
)

// ItemOverheadBytes is what each live item counts towards Stats.Bytes and the
// quota beside its key and value. What it takes in memory beside them is some 85
// bytes (version.go, chain.go, table.go, tree.go; BenchmarkMillion measures it),
// and was 155 when the number was chosen. It is part of the state machine: it
// must never change.
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

// itemBytes is what a live item counts.
func itemBytes(key string, v *version) uint64 {
	return uint64(len(key)) + uint64(v.valueLen()) + ItemOverheadBytes
}

// keyString is b as a string without a copy: b must never change while the
// string is in use. Of the keys of operations and readers only a copy may be kept.
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
