package store

import "trivet/trivetpb"

// resultMemory is what the results of an entry are made of: they are answered and
// dropped together, and where nobody wants them, as on each member but the one that
// proposed the entry, they are memory for those of the next (Reuse). Of what applying
// allocates, results are a third for puts and a half for txns; the rest is what the
// store keeps.
type resultMemory struct {
	results slab[*trivetpb.Result]
	of      slab[trivetpb.Result]
	puts    slab[putAnswer]
	adds    slab[addAnswer]
	txns    slab[txnAnswer]
}

type putAnswer struct {
	oneof trivetpb.Result_Put
	put   trivetpb.PutResult
}

type addAnswer struct {
	oneof trivetpb.Result_Add
	add   trivetpb.AddResult
}

// txnAnswer is the answer to a txn, with room for what most have.
type txnAnswer struct {
	oneof   trivetpb.Result_Txn
	txn     trivetpb.TxnResult
	slab    [2]trivetpb.Result
	results [2]*trivetpb.Result
}

// Reuse takes back the results of the Apply right before, all of them, for those of the
// next: nobody may look at one any more. It is for who calls Apply, and may be left out; then
// they live as long as anybody has one. Behind anything but an Apply there is nothing to
// take back.
func (s *Store) Reuse() {
	m := &s.memory
	m.results.reset()
	m.of.reset()
	m.puts.reset()
	m.adds.reset()
	m.txns.reset()
	s.takenBack = true
}

// resultsOfNext returns memory for the results of an entry: what was taken back, or new.
func (s *Store) resultsOfNext() *resultMemory {
	s.leaveResults()
	s.takenBack = false
	return &s.memory
}

// leaveResults leaves the results of the last Apply to its caller for good.
func (s *Store) leaveResults() {
	if !s.takenBack {
		s.memory = resultMemory{}
	}
	s.takenBack = true
}

// slab hands out zero values from arrays, many at a time.
type slab[T any] struct {
	of   []T // the last array
	used int // of it
	// handed is how many were handed out in all.
	handed int
}

const (
	// slabLen is the most values that are allocated at a time before it is known how
	// many an entry takes.
	slabLen = 64
	// slabKept is the most that are kept: an entry of group commit has 1,024 commands.
	slabKept = 2048
)

// next returns the next value; left is how many more may be wanted at most.
func (s *slab[T]) next(left int) *T {
	if s.used == len(s.of) {
		s.of, s.used = make([]T, max(1, min(left, slabLen))), 0
	}
	s.used++
	s.handed++
	return &s.of[s.used-1]
}

// all returns n values, side by side.
func (s *slab[T]) all(n int) []T {
	if len(s.of)-s.used < n {
		s.of, s.used = make([]T, n), 0
	}
	s.used += n
	s.handed += n
	return s.of[s.used-n : s.used : s.used]
}

// reset takes all values back. Where they were in several arrays there is one from now
// on that would have been enough, up to slabKept.
func (s *slab[T]) reset() {
	if s.handed > len(s.of) && len(s.of) < slabKept || len(s.of) > slabKept {
		s.of = make([]T, min(max(s.handed, 2*len(s.of)), slabKept))
	} else {
		clear(s.of[:s.used])
	}
	s.used, s.handed = 0, 0
}
