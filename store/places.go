package store

// places is where the versions after the compact revision have their place among
// the changes, in the order of the file, which is by key. It is in blocks as a
// changeList is: to grow a slice to millions takes more time, in memory that is
// touched and moved, than to read what goes into it.
type places struct {
	blocks []*[changeBlockLen]place
	n      int
}

type place struct {
	mod uint64
	sub uint32
}

func (p *places) add(at place) {
	if p.n == len(p.blocks)*changeBlockLen {
		p.blocks = append(p.blocks, new([changeBlockLen]place))
	}
	p.blocks[p.n/changeBlockLen][p.n%changeBlockLen] = at
	p.n++
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
		o.starts[at.mod-compact]++
	}
	for i := 1; i < len(o.starts); i++ {
		if o.starts[i] == 0 {
			return o, corruptf("the changes of revision %d are missing", compact+uint64(i))
		}
		o.starts[i] += o.starts[i-1]
	}
	taken := make([]uint64, p.n/64+1) // a bit for each
	for at := range p.all {
		r := at.mod - compact
		i := o.place(at)
		if uint64(at.sub) >= uint64(o.starts[r]-o.starts[r-1]) || taken[i/64]&(1<<(i%64)) != 0 {
			return o, corruptf("the changes of revision %d are not complete", at.mod)
		}
		taken[i/64] |= 1 << (i % 64)
	}
	return o, nil
}

// place is how many changes stand before one.
func (o changeOrder) place(at place) int { return o.starts[at.mod-o.compact-1] + int(at.sub) }
