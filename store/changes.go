package store

import "sort"

// changeList is a queue of changes in blocks of a fixed size. While a View is
// open nothing is cut, and millions of changes may gather: in one slice, an
// append that has to move all of them would hold up the writer for a tenth of a
// second.
type changeList struct {
	blocks []*changeBlock
	// first is the place of the first change in blocks[0]; n is how many follow.
	first, n int
}

// A block has, with the word that the allocator puts before memory with pointers in it,
// 32 KiB, the largest size of which it keeps a stock.
const changeBlockLen = 1023

type changeBlock [changeBlockLen]change

func (l *changeList) at(i int) *change {
	i += l.first
	return &l.blocks[i/changeBlockLen][i%changeBlockLen]
}

func (l *changeList) push(c change) {
	if l.first+l.n == len(l.blocks)*changeBlockLen {
		l.blocks = append(l.blocks, new(changeBlock))
	}
	l.n++
	*l.at(l.n - 1) = c
}

// newChangeList returns a list of n changes, which are still to be set.
func newChangeList(n int) changeList {
	l := changeList{n: n, blocks: make([]*changeBlock, (n+changeBlockLen-1)/changeBlockLen)}
	for i := range l.blocks {
		l.blocks[i] = new(changeBlock)
	}
	return l
}

// pop drops the first change. It clears its place, as the block may outlive it
// by far.
func (l *changeList) pop() {
	*l.at(0) = change{}
	l.first++
	l.n--
	if l.first == changeBlockLen {
		l.blocks[0] = nil // the array outlives its front
		l.blocks, l.first = l.blocks[1:], 0
	}
}

// truncate drops the changes from the nth on.
func (l *changeList) truncate(n int) {
	for ; l.n > n; l.n-- {
		*l.at(l.n - 1) = change{}
	}
}

// after is the changes after the revision. It stays as it is whatever is pushed
// to l or popped from it before those changes, and may be read meanwhile: it
// shares only places that are not written to.
func (l *changeList) after(revision uint64) changeList {
	i := sort.Search(l.n, func(i int) bool { return l.at(i).v.mod > revision })
	if i == l.n {
		return changeList{}
	}
	n := l.n - i
	i += l.first
	return changeList{blocks: l.blocks[i/changeBlockLen:], first: i % changeBlockLen, n: n}
}
