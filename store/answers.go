package store

import (
	"slices"
	"sort"

	"trivet/trivetpb"
)

// answers is the remembered answers of a session by seq, in pages. Seqs mostly
// come in order, and go in order with the ack, so that one is added to the last
// page and taken from the first; but they may come in any order and leave gaps,
// at a cost of a page for each. Pages are sorted by number, and none is empty.
type answers struct {
	pages []*answerPage
	count uint32
	// bytes is what the answers count, sum what they do in the state's.
	bytes, sum uint64
}

const pageAnswers = 16

// answerPage is the answers to seqs from number*pageAnswers on.
type answerPage struct {
	number     uint64
	generation uint64
	used       int
	of         [pageAnswers]answer
	// text is the plain answers, encoded. What a View has of it stays as it is: only
	// a page of the writer's own is appended to or emptied.
	text []byte
	next *answerPage // in the list of free ones
}

// answer is one result, or the place of one that is plain; the zero value is none.
//
// Every write of a client with a session is remembered, on every member. As messages
// an answer to a put is three, one to a txn of two puts nine: most of what applying
// them allocates. Encoded they take some ten bytes, and thirty.
type answer struct {
	result   *trivetpb.Result
	at, size uint16 // in the page's text, where size is not 0
	bytes    uint64
}

// longestText is the longest plain answer that a page holds as text, so that all of
// its places can be told by an answer.
const longestText = 1 << 10

// textSize is how long a result is as text; 0 where it is not kept as such.
func textSize(r *trivetpb.Result) int {
	if !plainAnswer(r) {
		return 0
	}
	if size := r.SizeVT(); size <= longestText {
		return size
	}
	return 0
}

// plainAnswer says that a result is an answer without items: that of a put without
// prev, of an add, or of a txn of such.
func plainAnswer(r *trivetpb.Result) bool {
	if r.Problem != nil || r.Replayed {
		return false
	}
	switch o := r.Result.(type) {
	case *trivetpb.Result_Put:
		return o.Put.Prev == nil
	case *trivetpb.Result_Add:
		return true
	case *trivetpb.Result_Txn:
		return !slices.ContainsFunc(o.Txn.Results, func(r *trivetpb.Result) bool { return !plainAnswer(r) })
	}
	return false
}

// answer is the remembered result at a place of the page, nil for none.
func (p *answerPage) answer(i uint64) *trivetpb.Result {
	a := &p.of[i]
	if a.size == 0 {
		return a.result
	}
	r := &trivetpb.Result{}
	if err := r.UnmarshalVT(p.text[a.at : a.at+a.size]); err != nil {
		panic(err) // put encoded it
	}
	return r
}

// put remembers a result at a place where there is none.
func (p *answerPage) put(i uint64, r *trivetpb.Result, bytes uint64) {
	a := &p.of[i]
	a.bytes = bytes
	size := textSize(r)
	if size == 0 {
		a.result = r
		return
	}
	at := len(p.text)
	p.text = slices.Grow(p.text, size)[:at+size]
	if _, err := r.MarshalToSizedBufferVT(p.text[at:]); err != nil {
		panic(err) // it has no way to fail for a message that is whole
	}
	a.at, a.size = uint16(at), uint16(size)
}

// What an answer counts is a function of what a snapshot holds of it, so that it
// counts the same once it was restored: what is refused for want of room is part
// of the state. The overhead is about what a small one takes in memory beside
// what it says. Part of the state machine: they must never change.
const (
	answerOverheadBytes = 192
	// smallAnswerBytes stands for the size of what a put without prev, or an
	// add, answers: every plain write does, and need not be measured.
	smallAnswerBytes = 32
)

func answerBytes(r *trivetpb.Result) uint64 {
	if r.Problem == nil {
		switch o := r.Result.(type) {
		case *trivetpb.Result_Put:
			if o.Put.Prev == nil {
				return answerOverheadBytes + smallAnswerBytes
			}
		case *trivetpb.Result_Add:
			return answerOverheadBytes + smallAnswerBytes
		}
	}
	return answerOverheadBytes + uint64(r.SizeVT())
}

// answerHash is of which answer is remembered and how large it is, not of what
// it says: that follows from the entries as the items do, which are hashed.
func answerHash(session, seq, bytes uint64) uint64 {
	return scramble(scramble(session^hashAnswer<<idBits) + seq*goldenRatio ^ bytes)
}

// find returns the answer to the seq, nil for none.
func (s *answers) find(seq uint64) *trivetpb.Result {
	i := s.page(seq / pageAnswers)
	if i == len(s.pages) || s.pages[i].number != seq/pageAnswers {
		return nil
	}
	return s.pages[i].answer(seq % pageAnswers)
}

// page is the index of the first page whose number is not less.
func (s *answers) page(number uint64) int {
	n := len(s.pages)
	switch {
	case n == 0 || s.pages[n-1].number < number:
		return n
	case s.pages[n-1].number == number:
		return n - 1
	}
	return sort.Search(n, func(i int) bool { return s.pages[i].number >= number })
}

// addAnswer remembers the answer to a seq that has none. The session is the
// writer's own.
func (st *state) addAnswer(s *session, seq uint64, r *trivetpb.Result, bytes uint64) {
	number := seq / pageAnswers
	i := s.page(number)
	switch {
	case i == len(s.pages):
		s.pages = append(s.pages, st.newPage(number))
	case s.pages[i].number != number:
		s.pages = append(s.pages, nil)
		copy(s.pages[i+1:], s.pages[i:])
		s.pages[i] = st.newPage(number)
	default:
		st.ownPage(&s.pages[i])
	}
	p := s.pages[i]
	p.put(seq%pageAnswers, r, bytes)
	p.used++
	s.count++
	s.bytes += bytes
	hash := answerHash(s.id, seq, bytes)
	s.sum += hash
	st.countAnswers(s, 1, bytes, hash)
}

// forget makes ack the session's, which is greater than the present one, and
// drops the answers up to it. The session is the writer's own.
func (st *state) forget(s *session, ack uint64) {
	next := s.ack + 1 // nothing before it is left
	s.ack = ack
	var count int
	var bytes, sum uint64
	for len(s.pages) > 0 && s.pages[0].number <= ack/pageAnswers {
		st.ownPage(&s.pages[0])
		p := s.pages[0]
		first := p.number * pageAnswers
		for i := max(next, first) - first; i < pageAnswers && first+i <= ack; i++ {
			if a := &p.of[i]; *a != (answer{}) {
				count++
				bytes += a.bytes
				sum += answerHash(s.id, first+i, a.bytes)
				*a = answer{}
				p.used--
			}
		}
		if p.used > 0 {
			break
		}
		s.pages[0] = nil // the array outlives its front
		s.pages = s.pages[1:]
		st.freePage(p)
	}
	s.count -= uint32(count)
	s.bytes -= bytes
	s.sum -= sum
	st.countAnswers(s, -count, -bytes, -sum)
}

// ownPage makes the page one that no View has.
func (st *state) ownPage(p **answerPage) {
	if (*p).generation == st.generation {
		return
	}
	c := **p
	c.text = slices.Clone(c.text)
	c.generation = st.generation
	*p = &c
}

// newPage returns an empty page, the writer's own.
func (st *state) newPage(number uint64) *answerPage {
	p := st.freePages
	if p == nil {
		return &answerPage{number: number, generation: st.generation}
	}
	st.freePages, p.next = p.next, nil
	st.freeCount--
	p.number, p.generation = number, st.generation
	return p
}

// maxFreePages is as many as a full window of a node's session has.
const maxFreePages = 4096

// maxFreeText is the longest text that a free page keeps: of sixteen answers to
// small txns.
const maxFreeText = 512

// freePage keeps an empty page of the writer's own for the next newPage.
func (st *state) freePage(p *answerPage) {
	if p.text = p.text[:0]; cap(p.text) > maxFreeText {
		p.text = nil
	}
	if st.freeCount < maxFreePages {
		p.next, st.freePages = st.freePages, p
		st.freeCount++
	}
}

// keepAnswer is the result as it is to be remembered, where it is not text. Results
// come from arrays for all commands of an entry: one that was kept as it is would keep
// them all, a hundred kilobytes for an idle session's last answer, and would be another
// entry's once the memory is used again (Reuse).
func keepAnswer(r *trivetpb.Result) *trivetpb.Result {
	kept := &trivetpb.Result{Revision: r.Revision, Problem: r.Problem, Result: r.Result}
	switch o := r.Result.(type) {
	case *trivetpb.Result_Put:
		kept.Result = &trivetpb.Result_Put{Put: &trivetpb.PutResult{
			Version: o.Put.Version, Created: o.Put.Created, Prev: o.Put.Prev,
		}}
	case *trivetpb.Result_Add:
		kept.Result = &trivetpb.Result_Add{Add: &trivetpb.AddResult{Value: o.Add.Value}}
	case *trivetpb.Result_Txn:
		results := make([]*trivetpb.Result, len(o.Txn.Results))
		for i, r := range o.Txn.Results {
			results[i] = keepAnswer(r)
		}
		kept.Result = &trivetpb.Result_Txn{Txn: &trivetpb.TxnResult{Succeeded: o.Txn.Succeeded, Results: results}}
	}
	return kept
}
