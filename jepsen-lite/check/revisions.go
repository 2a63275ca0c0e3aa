package check

import (
	"slices"

	"trivet/jepsen-lite/history"
)

// Seen is the revision that an answer showed: that of the write that it made, or
// of the state that it read linearizably.
type Seen struct {
	Call     *history.Call
	Revision uint64
	Write    bool // it made the revision
	// Late says that the answer itself may be of any age, as a frame of a watch;
	// what comes after it must not be older all the same.
	Late bool
}

// Revisions checks that the revisions that answers show go the way of real time:
// what began after another call had returned shows no lower one, and a write a
// higher one. That is what linearizability says of a clock that counts writes;
// unlike porcupine it looks at all keys together, and costs nothing.
func Revisions(seen []Seen) *Result {
	r := NewResult("revisions: never back in real time")
	r.figure("answers", len(seen))
	byInvoked := slices.Clone(seen)
	slices.SortFunc(byInvoked, func(a, b Seen) int { return int(a.Call.Invoked - b.Call.Invoked) })
	byReturned := slices.Clone(seen)
	slices.SortFunc(byReturned, func(a, b Seen) int { return int(a.Call.Returned - b.Call.Returned) })
	made := map[uint64]*history.Call{}
	var highest Seen
	next := 0
	for _, s := range byInvoked {
		for ; next < len(byReturned) && byReturned[next].Call.Returned < s.Call.Invoked; next++ {
			if highest.Call == nil || byReturned[next].Revision > highest.Revision {
				highest = byReturned[next]
			}
		}
		if highest.Call != nil && !s.Late && (s.Revision < highest.Revision || (s.Write && s.Revision == highest.Revision)) {
			r.violated("%s at %s by process %d on %s showed revision %d, after %s on %s had shown %d until %s",
				s.Call.F, at(s.Call.Invoked), s.Call.Process, s.Call.Node, s.Revision,
				highest.Call.F, highest.Call.Node, highest.Revision, at(highest.Call.Returned))
		}
		if s.Write {
			if other := made[s.Revision]; other != nil {
				r.violated("revision %d was made by two writes: process %d at %s and process %d at %s",
					s.Revision, other.Process, at(other.Invoked), s.Call.Process, at(s.Call.Invoked))
			}
			made[s.Revision] = s.Call
		}
	}
	return r
}
