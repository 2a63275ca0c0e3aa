package client

import "trivet/trivetpb"

// KeyRange is a set of neighbouring keys, in byte order. It is made by Prefix,
// Between, From or All; the zero value is no range, and is refused wherever it
// is used, so that a forgotten one never means every key.
type KeyRange struct {
	kind       rangeKind
	start, end string
}

type rangeKind int

const (
	rangeNone rangeKind = iota
	rangePrefix
	rangeBetween
	rangeAll
)

// Prefix is the keys that start with prefix. An empty prefix is all keys, which
// List and Count take and deleting refuses: say All where that is meant.
func Prefix(prefix string) KeyRange { return KeyRange{kind: rangePrefix, start: prefix} }

// Between is the keys k with start <= k < end. It is refused where end is empty:
// say From where there is none.
func Between(start, end string) KeyRange {
	return KeyRange{kind: rangeBetween, start: start, end: end}
}

// From is the keys k with start <= k. It is refused where start is empty: say
// All.
func From(start string) KeyRange { return KeyRange{kind: rangeBetween, start: start} }

// All is every key.
func All() KeyRange { return KeyRange{kind: rangeAll} }

// check refuses a range that cannot be meant.
func (r KeyRange) check(op string, deleting bool) *Error {
	switch {
	case r.kind == rangeNone:
		return refusal(op, trivetpb.Code_BAD_REQUEST, "the zero KeyRange is no range: use Prefix, Between, From or All")
	case r.kind == rangeBetween && r.start == "" && r.end == "":
		return refusal(op, trivetpb.Code_BAD_REQUEST, "a range without start and end is every key: use All if that is meant")
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
	case rangeBetween:
		if r.start != "" {
			q.addBytes("start", r.start)
		}
		if r.end != "" {
			q.addBytes("end", r.end)
		}
	}
}

// String describes the range for errors: `prefix "a/"`.
func (r KeyRange) String() string {
	switch r.kind {
	case rangePrefix:
		return "prefix " + shown(r.start)
	case rangeBetween:
		if r.end == "" {
			return "from " + shown(r.start)
		}
		return shown(r.start) + " to " + shown(r.end)
	case rangeAll:
		return "all keys"
	}
	return "no range"
}
