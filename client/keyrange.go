package client

import (
	"strconv"

	"trivet/trivetpb"
)

// KeyRange is a set of neighbouring keys, in byte order. It is made by Key,
// Prefix, Between, From or All; the zero value is no range, and is refused wherever it
// is used, so that a forgotten one never means every key.
type KeyRange struct {
	kind       rangeKind
	start, end string
}

type rangeKind int

const (
	rangeNone rangeKind = iota
	rangeKey
	rangePrefix
	rangeBetween
	rangeFrom
	rangeAll
)

// Key is one key alone.
func Key(key string) KeyRange { return KeyRange{kind: rangeKey, start: key, end: key + "\x00"} }

// Prefix is the keys that start with prefix. An empty prefix is all keys, which
// List and Count take and deleting refuses: say All where that is meant.
func Prefix(prefix string) KeyRange { return KeyRange{kind: rangePrefix, start: prefix} }

// Between is the keys k with start <= k < end. An empty end is refused: say From
// where there is none.
func Between(start, end string) KeyRange {
	return KeyRange{kind: rangeBetween, start: start, end: end}
}

// From is the keys k with start <= k. An empty start is refused: say All.
func From(start string) KeyRange { return KeyRange{kind: rangeFrom, start: start} }

// All is every key.
func All() KeyRange { return KeyRange{kind: rangeAll} }

// check refuses a range that cannot be meant.
func (r KeyRange) check(op string, deleting bool) *Error {
	switch {
	case r.kind == rangeNone:
		return refusal(op, trivetpb.Code_BAD_REQUEST, "the zero KeyRange is no range: use Key, Prefix, Between, From or All")
	case r.kind == rangeKey:
		return checkKey(op, r.start)
	case r.kind == rangeBetween && r.end == "":
		return refusal(op, trivetpb.Code_BAD_REQUEST, "Between has no end: use From if that is meant")
	case r.kind == rangeFrom && r.start == "":
		return refusal(op, trivetpb.Code_BAD_REQUEST, "From has no start: use All if every key is meant")
	case deleting && r.kind == rangePrefix && r.start == "":
		return refusal(op, trivetpb.Code_BAD_REQUEST, "an empty prefix would delete every key: use All if that is meant")
	}
	return nil
}

// addTo adds the range to a query.
func (r KeyRange) addTo(q *queryOf) {
	switch r.kind {
	case rangePrefix:
		q.addBytes("prefix", r.start)
	case rangeBetween, rangeKey:
		q.addBytes("start", r.start)
		q.addBytes("end", r.end)
	case rangeFrom:
		q.addBytes("start", r.start)
	}
}

// String describes the range: `prefix "a/"`.
func (r KeyRange) String() string {
	switch r.kind {
	case rangeKey:
		return shown(r.start)
	case rangePrefix:
		return "prefix " + shown(r.start)
	case rangeBetween:
		return shown(r.start) + " to " + shown(r.end)
	case rangeFrom:
		return "from " + shown(r.start)
	case rangeAll:
		return "all keys"
	}
	return "no range"
}

// shown is a key in an error: quoted, and cut where it is long.
func shown(key string) string {
	const most = 64
	if len(key) > most {
		return strconv.Quote(key[:most]) + "…"
	}
	return strconv.Quote(key)
}
