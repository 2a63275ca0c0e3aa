package store

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// The state hash is for comparing replicas: equal logs give equal hashes, and
// what differs in any live item, or in the counters beside them, gives another
// hash but for one chance in 2^64. It defends against bugs and flipped bits,
// not against somebody who looks for collisions.
//
// It has two layers. Each live item has an xxhash64 over everything that a
// reader can see of it; their sum mod 2^64 does not depend on order, so a write
// costs one hash and two additions, and a whole store can be checked in one
// scan. The state's hash mixes that sum with the revision, the compact revision,
// the replicated clock and the settings: all of them are functions of the log,
// and a store that compacts at another point is as wrong as one that lost a
// write. Leases, locks, sessions and remembered answers have a sum of their own
// (restHash), of hashes over a few numbers each. The index is left out, because nodes compare hashes of equal indexes,
// and because a backup restored into another cluster keeps its hash.

// Each kind of thing hashed starts with a byte of its own, so that one kind can
// never pass for another.
const (
	hashState   = 'S'
	hashItem    = 'I'
	hashLease   = 'L'
	hashLock    = 'K'
	hashWaiter  = 'W'
	hashSession = 'N'
	hashAnswer  = 'A'
	hashKeyed   = 'D'
	hashUpload  = 'U'
	hashChunk   = 'C'
	hashDraws   = 'R'
)

// itemHash covers the key, the value and all of the version's numbers but sub
// and prev. Lengths come first: no two items have the same bytes.
func itemHash(key string, v *version) uint64 {
	var header [1 + 4 + 4 + 4*8]byte
	header[0] = hashItem
	binary.LittleEndian.PutUint32(header[1:], uint32(len(key)))
	binary.LittleEndian.PutUint32(header[5:], uint32(v.valueLen()))
	binary.LittleEndian.PutUint64(header[9:], v.create())
	binary.LittleEndian.PutUint64(header[17:], v.mod)
	binary.LittleEndian.PutUint64(header[25:], v.number())
	binary.LittleEndian.PutUint64(header[33:], v.lease())
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(header[:])
	_, _ = d.WriteString(key)
	_, _ = d.Write(v.bytes())
	return d.Sum64()
}

// stateHash is the hash that Stats returns and a snapshot's header holds: of the
// items' sum, that of the rest (restHash), and of those parts of stats that are
// not counted from items. What is 0 in the states of earlier versions is left out
// where it is: members of two versions compare their hashes.
func stateHash(sum, rest uint64, stats Stats) uint64 {
	b := make([]byte, 0, 80)
	b = append(b, hashState)
	for _, n := range [...]uint64{
		sum, stats.Revision, stats.CompactRevision, stats.ClockMS,
		stats.Settings.HistoryMS, stats.Settings.HistoryRevisions, stats.Settings.QuotaBytes,
	} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	if rest != 0 || stats.Settings.Level != 0 {
		b = binary.LittleEndian.AppendUint64(b, rest)
	}
	if stats.Settings.Level != 0 {
		b = binary.LittleEndian.AppendUint64(b, stats.Settings.Level)
	}
	return xxhash.Sum64(b)
}

// restHash is what of the state's hash is beside the items: a sum over leases,
// locks, those who wait, sessions, remembered answers and the upload, and the
// numbers that ids and tokens are drawn from. It is 0 where there is none of
// these, and then no part of the state's hash, which is what it was before
// there were any.
func (st *state) restHash() uint64 {
	rest := st.totals.rest
	if st.upload != nil {
		rest += st.upload.hash()
	}
	if st.seed|st.nextID|st.nextToken != 0 {
		rest += mix(hashDraws, st.seed, st.nextID, st.nextToken)
	}
	return rest
}

func textHash(s string) uint64 { return xxhash.Sum64String(s) }

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
