package disk

import "math/rand/v2"

// pageBytes is what is written whole or not at all.
const pageBytes = 4096

type page [pageBytes]byte

// reserved is a page that has room on the disk and no content yet.
var reserved = new(page)

// content is what is in a file, now and after a loss of power. A page that is in
// both is not written to any more, but replaced.
type content struct {
	pages []*page // nil is a hole
	size  int64

	synced     []*page
	syncedSize int64

	dirty  map[int]struct{} // pages that were written since the last sync
	shrunk bool             // since the last sync
}

// room is how many pages a write to [off, off+n) takes that have no room yet.
func (c *content) room(off, n int64) (pages int64) {
	if n == 0 {
		return 0
	}
	for i := off / pageBytes; i <= (off+n-1)/pageBytes; i++ {
		if i >= int64(len(c.pages)) {
			return pages + (off+n-1)/pageBytes - i + 1
		}
		if c.pages[i] == nil {
			pages++
		}
	}
	return pages
}

// own returns page i for writing.
func (c *content) own(i int) *page {
	c.stretch(i + 1)
	p := c.pages[i]
	switch {
	case p == nil || p == reserved:
		p = new(page)
	case i < len(c.synced) && c.synced[i] == p:
		clone := *p
		p = &clone
	}
	c.pages[i] = p
	if c.dirty == nil {
		c.dirty = map[int]struct{}{}
	}
	c.dirty[i] = struct{}{}
	return p
}

func (c *content) stretch(pages int) {
	for len(c.pages) < pages {
		c.pages = append(c.pages, nil)
	}
}

func (c *content) write(off int64, b []byte) {
	for len(b) > 0 {
		n := copy(c.own(int(off / pageBytes))[off%pageBytes:], b)
		b, off = b[n:], off+int64(n)
	}
	c.size = max(c.size, off)
}

// read returns how much of b it filled.
func (c *content) read(off int64, b []byte) int {
	b = b[:max(0, min(int64(len(b)), c.size-off))]
	for done := 0; done < len(b); {
		at := off + int64(done)
		i, from := int(at/pageBytes), at%pageBytes
		n := min(len(b)-done, int(pageBytes-from))
		if i < len(c.pages) && c.pages[i] != nil {
			copy(b[done:done+n], c.pages[i][from:])
		} else {
			clear(b[done : done+n])
		}
		done += n
	}
	return len(b)
}

// resize cuts the file or makes it longer, and returns how many pages got free.
func (c *content) resize(size int64) (freed int64) {
	if size < c.size {
		c.shrunk = true
		keep := int((size + pageBytes - 1) / pageBytes)
		for i := keep; i < len(c.pages); i++ {
			if c.pages[i] != nil {
				freed++
			}
			delete(c.dirty, i)
		}
		c.pages = c.pages[:min(keep, len(c.pages))]
		if rest := size % pageBytes; rest > 0 && keep <= len(c.pages) && c.pages[keep-1] != nil {
			clear(c.own(keep - 1)[rest:]) // what comes behind it later begins with zeros
		}
	}
	c.size = size
	return freed
}

// reserve gives [off, off+n) room.
func (c *content) reserve(off, n int64) {
	end := int((off + n + pageBytes - 1) / pageBytes)
	c.stretch(end)
	for i := int(off / pageBytes); i < end; i++ {
		if c.pages[i] == nil {
			c.pages[i] = reserved
		}
	}
}

// sync makes it what survives; one that failed takes it for that and is wrong.
func (c *content) sync(fails bool) {
	if !fails {
		c.synced = c.synced[:min(len(c.synced), len(c.pages))]
		for len(c.synced) < len(c.pages) {
			c.synced = append(c.synced, nil)
		}
		for i := range c.dirty {
			c.synced[i] = c.pages[i]
		}
		c.syncedSize = c.size
	}
	c.dirty, c.shrunk = nil, false
}

// losePower leaves what survives, and of the rest what chance takes; nothing
// where it is nil.
func (c *content) losePower(chance *rand.Rand) {
	pages, size := append([]*page(nil), c.synced...), c.syncedSize
	switch {
	case chance == nil:
	case c.shrunk:
		if chance.IntN(2) == 0 {
			pages, size = c.pages, c.size
		}
	default:
		for i := range len(c.pages) { // in their order: a seed is a fate
			if _, is := c.dirty[i]; is && chance.IntN(2) == 0 {
				for len(pages) <= i {
					pages = append(pages, nil)
				}
				pages[i] = c.pages[i]
			}
		}
		if chance.IntN(2) == 0 {
			size = c.size
		}
	}
	for i := int((size + pageBytes - 1) / pageBytes); i < len(pages); i++ {
		pages[i] = nil // behind the end there is nothing
	}
	if rest := size % pageBytes; rest > 0 && int(size/pageBytes) < len(pages) {
		if last := pages[size/pageBytes]; last != nil {
			clone := *last
			clear(clone[rest:])
			pages[size/pageBytes] = &clone
		}
	}
	*c = content{pages: pages, size: size, synced: append([]*page(nil), pages...), syncedSize: size}
}

// used is how many pages it has room for.
func (c *content) used() (pages int64) {
	for _, p := range c.pages {
		if p != nil {
			pages++
		}
	}
	return pages
}
