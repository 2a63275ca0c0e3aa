package store

import "unsafe"

// newRecord returns zeroed memory for at least size bytes, of which the first
// word is a pointer, for the collector too, and nothing else is; size is at most
// maxRecord. A chain is the beginning of such memory, and the bytes of its key are
// the rest: one allocation instead of two, one line of the cache instead of two, and
// no pointer between them.
//
// Go has no types of a size that is known later, so there is one for each of the
// allocator's size classes, and this picks the smallest that is large enough.
func newRecord(size int) unsafe.Pointer { return recordMakers[units(size)].record() }

// newUnscanned is newRecord for memory that the collector does not look into: what a
// pointer in it points to lives only where somebody else says so. A version is the
// beginning of such memory (see version.prev).
func newUnscanned(size int) unsafe.Pointer { return recordMakers[units(size)].unscanned() }

// units is a size in units of 16 bytes, rounded up.
func units(size int) int { return (size + 15) / 16 }

// maxRecord is the largest record: above, the allocator puts a word of its own
// before memory with pointers in it, and the classes are far apart, of memory without
// too.
const maxRecord = 512

// record is a pointer and bytes behind it, which hold numbers too.
type record[Rest any] struct {
	_    unsafe.Pointer
	rest Rest
}

type recordMaker struct {
	size              int
	record, unscanned func() unsafe.Pointer
}

// maker makes records of size bytes, of which rest are behind the pointer.
func maker[Rest any](size int) recordMaker {
	return recordMaker{
		size:      size,
		record:    func() unsafe.Pointer { return unsafe.Pointer(new(record[Rest])) },
		unscanned: func() unsafe.Pointer { return unsafe.Pointer(new(unscanned[Rest])) },
	}
}

// unscanned is a record whose first word is a number to the collector.
type unscanned[Rest any] struct {
	_    uintptr
	rest Rest
}

// recordMakers is by size in units.
var recordMakers = func() (by [maxRecord/16 + 1]recordMaker) {
	at := 0
	for _, class := range []recordMaker{
		maker[[1]uint64](16),
		maker[[3]uint64](32),
		maker[[5]uint64](48),
		maker[[7]uint64](64),
		maker[[9]uint64](80),
		maker[[11]uint64](96),
		maker[[13]uint64](112),
		maker[[15]uint64](128),
		maker[[17]uint64](144),
		maker[[19]uint64](160),
		maker[[21]uint64](176),
		maker[[23]uint64](192),
		maker[[25]uint64](208),
		maker[[27]uint64](224),
		maker[[29]uint64](240),
		maker[[31]uint64](256),
		maker[[35]uint64](288),
		maker[[39]uint64](320),
		maker[[43]uint64](352),
		maker[[47]uint64](384),
		maker[[51]uint64](416),
		maker[[55]uint64](448),
		maker[[59]uint64](480),
		maker[[63]uint64](maxRecord),
	} {
		for ; at <= class.size/16; at++ {
			by[at] = class
		}
	}
	return by
}()
