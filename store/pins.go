package store

import (
	"sync"

	"github.com/tidwall/btree"
)

// pins is the compact revisions that open Views found when they were opened.
// History after the oldest of them is not cut, whatever the compact revision is
// by now: the logical state never depends on who is reading, only the memory
// does.
type pins struct {
	mu sync.Mutex
	// held counts the Views by revision. It has a place for each revision at
	// which a View is open, no more.
	held btree.Map[uint64, int]
}

func (p *pins) add(revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, _ := p.held.Get(revision)
	p.held.Set(revision, n+1)
}

func (p *pins) drop(revision uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n, _ := p.held.Get(revision); n > 1 {
		p.held.Set(revision, n-1)
	} else {
		p.held.Delete(revision)
	}
}

// oldest is the least revision held, or none where that is lower.
func (p *pins) oldest(none uint64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if revision, _, ok := p.held.Min(); ok {
		return min(revision, none)
	}
	return none
}
