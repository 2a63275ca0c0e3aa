package raftnode

import "github.com/hashicorp/raft"

// entryCache holds the newest entries, contiguous, bounded by bytes and count.
type entryCache struct {
	entries [cacheEntries]*raft.Log // by index modulo its length
	first   uint64                  // index of the oldest held; next where none is
	next    uint64                  // index after the newest held
	bytes   int
}

const (
	cacheEntries = 1024
	cacheBytes   = 16 << 20
)

func (c *entryCache) get(index uint64) *raft.Log {
	if index < c.first || index >= c.next {
		return nil
	}
	return c.entries[index%cacheEntries]
}

func (c *entryCache) add(l *raft.Log) {
	if l.Index != c.next {
		c.clear()
		c.first, c.next = l.Index, l.Index
	}
	c.entries[c.next%cacheEntries] = l
	c.bytes += len(l.Data)
	c.next++
	for c.next-c.first >= cacheEntries || (c.bytes > cacheBytes && c.next-c.first > 1) {
		c.drop(c.first)
		c.first++
	}
}

func (c *entryCache) drop(index uint64) {
	slot := &c.entries[index%cacheEntries]
	c.bytes -= len((*slot).Data)
	*slot = nil
}

func (c *entryCache) clear() {
	for ; c.first < c.next; c.first++ {
		c.drop(c.first)
	}
}

// remove forgets everything where a held entry is among those removed at the
// log's end, and what is removed where it is at the front.
func (c *entryCache) remove(from, to uint64) {
	switch {
	case to < c.first || from >= c.next:
	case from <= c.first && to < c.next:
		for ; c.first <= to; c.first++ {
			c.drop(c.first)
		}
	default:
		c.clear()
	}
}

// sizeIndex knows how large the log's entries are, sampled: a mark for every
// markBytes. raft counts entries where it decides how many to keep after a
// snapshot; entries here hold from one byte to 256 KiB and more.
type sizeIndex struct {
	marks []sizeMark // ascending
	last  uint64
	total int64 // bytes of all entries ever added
}

type sizeMark struct {
	index uint64
	total int64 // up to and with index
}

const markBytes = 256 << 10

func (s *sizeIndex) add(index uint64, size int) {
	s.last = index
	s.total += int64(size) + entryMetaLen
	if n := len(s.marks); n == 0 || s.total-s.marks[n-1].total >= markBytes {
		s.marks = append(s.marks, sizeMark{index, s.total})
	}
}

func (s *sizeIndex) remove(from, to uint64) {
	i := 0
	for i < len(s.marks) && s.marks[i].index < from {
		i++
	}
	j := i
	for j < len(s.marks) && s.marks[j].index <= to {
		j++
	}
	s.marks = append(s.marks[:i], s.marks[j:]...)
}

func (s *sizeIndex) newest(bytes int64) uint64 {
	for _, m := range s.marks {
		if s.total-m.total <= bytes {
			return s.last - min(m.index, s.last)
		}
	}
	return 0
}
