package spare

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBuffers(t *testing.T) {
	var p Buffers
	for _, size := range []int{0, 1, 512, 513, 1024, 1025, 3000, 4096, 65536, 65537, Max - 1, Max, Max + 1, 8 * Max} {
		for range 3 {
			b := p.Get(size)
			require.Len(t, b.B, size)
			if size > 1024 {
				require.LessOrEqual(t, cap(b.B), 2*size)
			}
			p.Put(b)
		}
	}
}

// A buffer is never handed out for more than it holds, whatever its user made of it.
func TestBuffersOfAnySize(t *testing.T) {
	var p Buffers
	for _, size := range []int{0, 100, 1023, 1024, 1500, 2047, 100_000, 3 * Max} {
		p.Put(&Buffer{make([]byte, size)})
	}
	for class := minBits; class <= maxBits; class++ {
		for range 4 {
			require.Len(t, p.Get(1<<class).B, 1<<class)
		}
	}
}

func TestOverwrite(t *testing.T) {
	Overwrite = true
	defer func() { Overwrite = false }()
	var p Buffers
	b := p.Get(2000)
	kept := b.B
	copy(kept, "still read")
	p.Put(b)
	require.Equal(t, byte(0xa5), kept[0])
	require.Equal(t, byte(0xa5), kept[:cap(kept)][cap(kept)-1])
}

func TestGetAllocatesNothing(t *testing.T) {
	var p Buffers
	p.Put(p.Get(20_000))
	// The race detector has sync.Pool drop some.
	require.Less(t, testing.AllocsPerRun(100, func() { p.Put(p.Get(20_000)) }), 1.5)
}
