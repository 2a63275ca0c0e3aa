package store

import "unsafe"

// newRecord returns zeroed memory for at least size bytes, of which the first
// word is a pointer, for the collector too, and nothing else is; size is at most
// maxRecord. A chain and a version are the beginning of such memory, and the
// bytes of a key or a value are the rest: one allocation instead of two, one line
// of the cache instead of two, and no pointer between them.
//
// Go has no types of a size that is known later, so there is one for each of the
// allocator's size classes, and this picks the smallest that is large enough.
func newRecord(size int) unsafe.Pointer { return recordMakers[(size+15)/16]() }

// maxRecord is the largest record: above, the allocator puts a word of its own
// before memory with pointers in it, and the classes are far apart.
const maxRecord = 512

// record is a pointer and bytes behind it, which hold numbers too.
type record[Rest any] struct {
	_    unsafe.Pointer
	rest Rest
}

func makeRecord[Rest any]() unsafe.Pointer { return unsafe.Pointer(new(record[Rest])) }

// recordMakers is by size in units of 16 bytes, rounded up.
var recordMakers = func() (by [maxRecord/16 + 1]func() unsafe.Pointer) {
	at := 0
	for _, class := range []struct {
		size int
		make func() unsafe.Pointer
	}{
		{16, makeRecord[[1]uint64]},
		{32, makeRecord[[3]uint64]},
		{48, makeRecord[[5]uint64]},
		{64, makeRecord[[7]uint64]},
		{80, makeRecord[[9]uint64]},
		{96, makeRecord[[11]uint64]},
		{112, makeRecord[[13]uint64]},
		{128, makeRecord[[15]uint64]},
		{144, makeRecord[[17]uint64]},
		{160, makeRecord[[19]uint64]},
		{176, makeRecord[[21]uint64]},
		{192, makeRecord[[23]uint64]},
		{208, makeRecord[[25]uint64]},
		{224, makeRecord[[27]uint64]},
		{240, makeRecord[[29]uint64]},
		{256, makeRecord[[31]uint64]},
		{288, makeRecord[[35]uint64]},
		{320, makeRecord[[39]uint64]},
		{352, makeRecord[[43]uint64]},
		{384, makeRecord[[47]uint64]},
		{416, makeRecord[[51]uint64]},
		{448, makeRecord[[55]uint64]},
		{480, makeRecord[[59]uint64]},
		{maxRecord, makeRecord[[63]uint64]},
	} {
		for ; at <= class.size/16; at++ {
			by[at] = class.make
		}
	}
	return by
}()
