package store

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// TestAVersionSaysWhatItWasGiven: whichever parts of it are left out, and where
// its value is.
func TestAVersionSaysWhatItWasGiven(t *testing.T) {
	const mod = 1 << 40
	require.Less(t, HardMaxValueBytes, 1<<lengthBits)
	lengths := []int{0, 1, 63, 64, 65, 1000, HardMaxValueBytes}
	for at := maxRecord - int(versionBytes) - twoNumbers - oneNumber - 1; at <= maxRecord-int(versionBytes)+1; at++ {
		lengths = append(lengths, at)
	}
	all := []numbers{
		{mod, 1, 0}, {mod, 1, 7}, {mod, 2, 0}, {2, 1, 0}, {2, 9, 0}, {2, 9, math.MaxUint64}, {2, math.MaxUint64, 1},
	}
	for _, length := range lengths {
		value := bytes.Repeat([]byte{0xa5}, length)
		for _, n := range all {
			v, name := newVersion(mod, math.MaxUint32, n, value), fmt.Sprint(length, n)
			v.hash = math.MaxUint64 // what is beside it stays as it was
			require.Equal(t, Item{Key: "k", Value: value, CreateRevision: n.create, ModRevision: mod, Version: n.number, Lease: n.lease}, v.item("k"), name)
			require.Equal(t, length, v.valueLen(), name)
			require.Equal(t, length, cap(v.bytes()), name)
			require.True(t, v.live() && !v.expired(), name)
			require.EqualValues(t, math.MaxUint32, v.sub, name)
			require.Nil(t, v.prev, name)
		}
	}
	for _, expired := range []bool{false, true} {
		v := newTombstone(mod, 3, expired)
		require.False(t, v.live())
		require.Equal(t, expired, v.expired())
		require.Equal(t, Item{Value: []byte{}, ModRevision: mod}, v.item(""))
	}
	require.False(t, (*version)(nil).live() || (*version)(nil).expired())
}

// TestAChainHasItsKey: of every length, and a copy of it.
func TestAChainHasItsKey(t *testing.T) {
	for length := range MaxKeyBytes + 1 {
		key := bytes.Repeat([]byte{'k'}, length)
		c := newChain(keyString(key))
		clear(key)
		require.Equal(t, strings.Repeat("k", length), c.key())
		require.Nil(t, c.newest())
	}
}

// TestRecordsAreOfTheirSize: no smaller than asked, in the next size class of the
// allocator, and the collector knows that the first word is a pointer, and the
// others are none.
func TestRecordsAreOfTheirSize(t *testing.T) {
	var kept []unsafe.Pointer
	for size := 1; size <= maxRecord; size++ {
		for range 100 {
			r := newRecord(size)
			b := unsafe.Slice((*byte)(r), size)
			require.Equal(t, make([]byte, size), b, "%d", size)
			if size <= 8 {
				continue
			}
			n := new([4]int)
			n[0] = size
			*(*unsafe.Pointer)(r) = unsafe.Pointer(n)
			for i := 8; i < size; i++ {
				b[i] = 0xff
			}
			kept = append(kept, r)
		}
	}
	runtime.GC()
	for _, r := range kept {
		require.Less(t, 8, (*(**[4]int)(r))[0])
	}
}
