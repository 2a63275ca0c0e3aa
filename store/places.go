package store

import "math"

// places is where the versions after the compact revision have their place among
// the changes, in the order of the file, which is by key. It is in blocks as a
// changeList is: to grow a slice to millions takes more time, in memory that is
// touched and moved, than to read what goes into it.
type places struct {
	blocks []*[changeBlockLen]place
	n      int
}

// place is that of a version: which revision after the compact one made it, and
// the version's sub. 32 bits for each, as this is memory that a restore touches for
// nothing that stays.
type place struct{ revision, sub uint32 }

// add takes the place of a version of revision compact + revision. It says whether
// there can be so many revisions: each has a change in memory, and MaxHistoryBytes
// of changes are four million.
func (p *places) add(revision uint64, sub uint32) bool {
	if revision > math.MaxUint32 {
		return false
	}
	if p.n == len(p.blocks)*changeBlockLen {
		p.blocks = append(p.blocks, new([changeBlockLen]place))
	}
	p.blocks[p.n/changeBlockLen][p.n%changeBlockLen] = place{uint32(revision), sub}
	p.n++
	return true
}

func (p *places) all(yield func(place) bool) {
	for i := range p.n {
		if !yield(p.blocks[i/changeBlockLen][i%changeBlockLen]) {
			return
		}
	}
}

// changeOrder says where changes stand that are ordered by revision, then sub.
type changeOrder struct {
	compact uint64
	// starts is the number of changes before those of revision compact + 1, + 2 and
	// so on, and of all at its end.
	starts []int
}

// order verifies that every revision after the compact one has changes, numbered
// from 0 without a gap. Because of that they are put into order by counting, where
// to sort them would compare each with twenty others. All places are of those
// revisions.
func (p *places) order(compact, revision uint64) (changeOrder, error) {
	o := changeOrder{compact: compact}
	revisions := revision - compact
	if revisions > uint64(p.n) { // before memory is made for as many as the file says
		return o, corruptf("there are %d revisions after the compact one, and %d changes", revisions, p.n)
	}
	o.starts = make([]int, revisions+1)
	for at := range p.all {
		o.starts[at.revision]++
	}
	for i := 1; i < len(o.starts); i++ {
		if o.starts[i] == 0 {
			return o, corruptf("the changes of revision %d are missing", compact+uint64(i))
		}
		o.starts[i] += o.starts[i-1]
	}
	taken := make([]uint64, p.n/64+1) // a bit for each
	for at := range p.all {
		r := at.revision
		i := o.starts[r-1] + int(at.sub)
		if uint64(at.sub) >= uint64(o.starts[r]-o.starts[r-1]) || taken[i/64]&(1<<(i%64)) != 0 {
			return o, corruptf("the changes of revision %d are not complete", compact+uint64(r))
		}
		taken[i/64] |= 1 << (i % 64)
	}
	return o, nil
}

// len is the number of changes.
func (o changeOrder) len() int { return o.starts[len(o.starts)-1] }

// place is how many changes stand before one.
func (o changeOrder) place(mod uint64, sub uint32) int { return o.starts[mod-o.compact-1] + int(sub) }
