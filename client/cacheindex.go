package client

import (
	"iter"
	"slices"
	"sort"
)

// index is a sorted set of items that does not change: with and without return
// another, which shares what is the same. So whoever has one reads it without a lock,
// at one revision, for as long as it likes, while the cache goes on.
//
// It is an array of arrays: of chunks, each of up to chunkItems items. A change copies
// one chunk and the array of chunks: of ten thousand items that is some 4 KiB, of a
// million some 200. Reading is a binary search in either. A hash map finds one key
// faster, and cannot go through a range, nor be read while it is written; a balanced
// tree copies less where there are millions of items, which nobody caches in a
// service, and takes three times the code and more cache misses below that.
type index struct {
	chunks []chunk
	count  int
}

// chunk is items in the order of their keys, at least one. first is the key of the
// first, beside the others' so that a search touches no item.
type chunk struct {
	first string
	items []*Item
}

const chunkItems = 256

// indexOf makes an index of items that are in the order of their keys.
func indexOf(items []*Item) *index {
	x := &index{count: len(items)}
	for part := range slices.Chunk(items, chunkItems/2) {
		x.chunks = append(x.chunks, chunk{part[0].Key, slices.Clone(part)})
	}
	return x
}

// chunkOf is the position of the chunk that has the key, if any has; -1 where the key
// is before all.
func (x *index) chunkOf(key string) int {
	return sort.Search(len(x.chunks), func(i int) bool { return x.chunks[i].first > key }) - 1
}

// at is where the key is in a chunk, or would be.
func (c *chunk) at(key string) (int, bool) {
	i := sort.Search(len(c.items), func(i int) bool { return c.items[i].Key >= key })
	return i, i < len(c.items) && c.items[i].Key == key
}

// get returns the item at a key, nil for none.
func (x *index) get(key string) *Item {
	n := x.chunkOf(key)
	if n < 0 {
		return nil
	}
	c := &x.chunks[n]
	if i, ok := c.at(key); ok {
		return c.items[i]
	}
	return nil
}

// between goes through the items with start <= key < end; an empty end is none.
func (x *index) between(start, end string) iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		n, i := max(x.chunkOf(start), 0), 0
		if len(x.chunks) > 0 {
			i, _ = x.chunks[n].at(start)
		}
		for ; n < len(x.chunks); n, i = n+1, 0 {
			for _, it := range x.chunks[n].items[i:] {
				if (end != "" && it.Key >= end) || !yield(it) {
					return
				}
			}
		}
	}
}

// with returns the index with the item in the place of the one of its key.
func (x *index) with(it *Item) *index {
	n := max(x.chunkOf(it.Key), 0)
	if len(x.chunks) == 0 {
		return indexOf([]*Item{it})
	}
	old := &x.chunks[n]
	i, there := old.at(it.Key)
	items := make([]*Item, 0, len(old.items)+1)
	items = append(append(items, old.items[:i]...), it)
	if there {
		i++
	}
	items = append(items, old.items[i:]...)
	next := &index{count: x.count}
	if !there {
		next.count++
	}
	if len(items) <= chunkItems {
		next.chunks = slices.Clone(x.chunks)
		next.chunks[n] = chunk{items[0].Key, items}
		return next
	}
	half := len(items) / 2
	next.chunks = make([]chunk, 0, len(x.chunks)+1)
	next.chunks = append(next.chunks, x.chunks[:n]...)
	next.chunks = append(next.chunks,
		chunk{items[0].Key, items[:half:half]}, chunk{items[half].Key, items[half:]})
	next.chunks = append(next.chunks, x.chunks[n+1:]...)
	return next
}

// without returns the index without the key. A chunk goes with its last item; two
// neighbours that have become small are joined.
func (x *index) without(key string) *index {
	n := x.chunkOf(key)
	if n < 0 {
		return x
	}
	old := &x.chunks[n]
	i, there := old.at(key)
	if !there {
		return x
	}
	items := slices.Concat(old.items[:i], old.items[i+1:])
	next := &index{count: x.count - 1, chunks: make([]chunk, 0, len(x.chunks))}
	next.chunks = append(next.chunks, x.chunks[:n]...)
	if last := len(next.chunks) - 1; last >= 0 && len(next.chunks[last].items)+len(items) <= chunkItems/2 {
		items = slices.Concat(next.chunks[last].items, items)
		next.chunks = next.chunks[:last]
	}
	if len(items) > 0 {
		next.chunks = append(next.chunks, chunk{items[0].Key, items})
	}
	next.chunks = append(next.chunks, x.chunks[n+1:]...)
	return next
}
