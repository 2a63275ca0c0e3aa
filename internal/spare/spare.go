// Package spare keeps buffers that are done with for those who need one next. What
// a write passes through, a request's body, commands as they are encoded, a frame to
// the followers, is tens of kilobytes each that nobody reads half a millisecond
// later: made anew each time, that was most of what the collector had to do.
//
// Rules for who uses it:
//
//   - A buffer is given back by its one owner, once, when it is certain that nobody
//     reads it any more. Where it is not certain (a caller gave up, a panic), it is
//     not given back: the collector has it then, and nothing is lost but time.
//   - Tests have buffers overwritten the moment that they come back (Overwrite), so
//     that whoever reads one too late reads rubbish: each test of the package is then
//     a test of that.
package spare

import (
	"math/bits"
	"sync"
)

// Buffers are kept by size, each for up to twice what was asked for at most: so a
// small need never ties up a large buffer. How many are kept is up to the collector
// (sync.Pool). The zero value is ready, for any number of goroutines.
type Buffers struct {
	sizes [maxBits - minBits + 1]sync.Pool
}

// Buffer is one of them.
type Buffer struct{ B []byte }

// Needs of 1 KiB to 256 KiB are met from what is kept. Smaller buffers cost as little anew;
// larger ones are rare, and would stay for long.
const (
	minBits, maxBits = 10, 18
	// Max is the largest need, in bytes, that one which was kept is for. What is kept for
	// it may be up to twice as large.
	Max = 1 << maxBits
)

// Overwrite says that buffers are overwritten as they come back. For tests, which
// set it before they begin.
var Overwrite bool

// Get returns a buffer with size bytes, which say nothing.
func (p *Buffers) Get(size int) *Buffer {
	if size > Max || size <= 1<<(minBits-1) {
		return &Buffer{make([]byte, size)}
	}
	class := max(bits.Len(uint(size-1)), minBits)
	b, _ := p.sizes[class-minBits].Get().(*Buffer)
	if b == nil {
		b = &Buffer{make([]byte, 1<<class)}
	}
	b.B = b.B[:size]
	return b
}

// Put gives a buffer back. Nobody may use it from here on.
func (p *Buffers) Put(b *Buffer) {
	b.B = b.B[:cap(b.B)]
	if Overwrite {
		for i := range b.B {
			b.B[i] = 0xa5
		}
	}
	// One that its user let grow is kept by what it is good for.
	if class := bits.Len(uint(len(b.B))) - 1; class >= minBits && class <= maxBits {
		p.sizes[class-minBits].Put(b)
	}
}
