package store

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"unsafe"
	"weak"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
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
// others are none. Of what it does not look into it keeps what is pointed to from
// elsewhere alone.
func TestRecordsAreOfTheirSize(t *testing.T) {
	var kept []unsafe.Pointer
	hidden := map[unsafe.Pointer]weak.Pointer[[4]int]{}
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
		r := newUnscanned(size)
		require.Equal(t, make([]byte, size), unsafe.Slice((*byte)(r), size), "%d", size)
		if size >= 8 {
			n := &[4]int{size}
			*(*unsafe.Pointer)(r) = unsafe.Pointer(n)
			hidden[r] = weak.Make(n)
		}
	}
	runtime.GC()
	for _, r := range kept {
		require.Less(t, 8, (*(**[4]int)(r))[0])
	}
	for r, n := range hidden {
		require.Nil(t, n.Value())
		runtime.KeepAlive(r)
	}
}

// TestTheCollectorDoesNotLookIntoVersions: what is behind one lives where somebody else
// has it.
func TestTheCollectorDoesNotLookIntoVersions(t *testing.T) {
	for _, v := range []*version{newVersion(7, 0, numbers{7, 1, 0}, []byte("v")), newTombstone(7, 0, false)} {
		v.prev = newVersion(6, 0, numbers{6, 1, 0}, []byte("v"))
		behind := weak.Make(v.prev)
		runtime.GC()
		require.Nil(t, behind.Value())
		v.prev = nil
		runtime.KeepAlive(v)
	}
}

// TestTheHistoryKeepsWhatIsBehindAVersion, which the collector does not see there: as
// long as it is retained, after a restart as well, and no longer.
func TestTheHistoryKeepsWhatIsBehindAVersion(t *testing.T) {
	s := New()
	do(t, s, putOp("text", "none"), putOp("rewritten", "0"), putOp("deleted", "0"), putOp("rewritten", "1"), deleteOp("deleted"), putOp("rewritten", "2"),
		putOp("deleted", "1"), putOp("long", strings.Repeat("x", 2*maxRecord)), putOp("long", "1"), deleteOp("long"))
	failed := do(t, s, failing(putOp("rewritten", "3"), deleteOp("deleted"), putOp("long", "3")))
	require.NotNil(t, failed.Problem)
	last := s.Revision()
	var file bytes.Buffer
	all := view(t, s, 0)
	require.NoError(t, all.WriteSnapshot(&file))
	all.Close()
	restored := New()
	require.NoError(t, restored.Restore(&file))
	for _, s := range []*Store{s, restored} {
		behind := versionsBehind(s)
		require.Len(t, behind, 6)
		requireKept := func() {
			runtime.GC()
			for _, v := range behind {
				require.NotNil(t, v.Value())
			}
		}
		requireKept()
		old := view(t, s, 5)
		require.Equal(t, map[string]string{"text": "none", "rewritten": "1", "deleted": "0"}, contents(old))
		// All of it is to be forgotten, and is once nobody reads there.
		apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 1}))
		do(t, s, putOp("more", "1"), putOp("more", "2"))
		require.Greater(t, s.Stats().CompactRevision, last)
		requireKept()
		require.Equal(t, map[string]string{"text": "none", "rewritten": "1", "deleted": "0"}, contents(old))
		old.Close()
		do(t, s, putOp("more", "3"), txnOp(putOp("more", "4"), deleteOp("text")))
		forgotten := behind
		// What can still be read is no change that is retained: it is behind them.
		behind = versionsBehind(s)
		require.Len(t, behind, 2)
		requireKept()
		for _, v := range forgotten {
			require.Nil(t, v.Value())
		}
		file.Reset()
		require.NoError(t, view(t, s, 0).WriteSnapshot(&file))
		restored := New()
		require.NoError(t, restored.Restore(&file))
		for _, s := range []*Store{s, restored} {
			behind = versionsBehind(s)
			require.Len(t, behind, 2)
			requireKept()
			then := contents(view(t, s, s.Stats().CompactRevision))
			require.Equal(t, []string{"none", "3"}, []string{then["text"], then["more"]})
		}
	}
}

// versionsBehind is all versions that are no heads.
func versionsBehind(s *Store) (behind []weak.Pointer[version]) {
	s.state.tree.scan(func(c *chain) bool {
		for v := c.newest().prev; v != nil; v = v.prev {
			behind = append(behind, weak.Make(v))
		}
		return true
	})
	return behind
}

// TestARestoreKeepsWhatIsBehindAVersion before there is a history that does: here the
// collector runs in the midst of it, and what it freed is used for something else.
func TestARestoreKeepsWhatIsBehindAVersion(t *testing.T) {
	const size = 448
	s := New()
	random := rand.NewChaCha8([32]byte{})
	for range 5000 { // some megabytes, so that most were read when the end is looked for
		value := make([]byte, size-int(versionBytes)-twoNumbers)
		random.Read(value)
		do(t, s, putOp(fmt.Sprint("key-", random.Uint64()%10), string(value)))
	}
	var file bytes.Buffer
	require.NoError(t, view(t, s, 0).WriteSnapshot(&file))
	restored := New()
	require.NoError(t, restored.Restore(&collectAtEnd{rest: file.Bytes(), size: size}))
	for revision := s.Stats().CompactRevision; revision <= s.Revision(); revision += 100 {
		require.Equal(t, contents(view(t, s, revision)), contents(view(t, restored, revision)))
	}
}

// collectAtEnd gives a file whose last bytes come after a collection, one by one, as
// whoever reads looks for the end.
type collectAtEnd struct {
	rest  []byte
	size  int              // of what may be freed
	taken []unsafe.Pointer // in the place of what was
}

func (r *collectAtEnd) Read(b []byte) (int, error) {
	switch n := len(r.rest); {
	case n == 0:
		return 0, io.EOF
	case n > 64:
		b = b[:min(len(b), n-64)]
	default:
		b = b[:min(len(b), 1)]
		runtime.GC()
		for range 1000 {
			taken := newUnscanned(r.size)
			copy(unsafe.Slice((*byte)(taken), r.size), bytes.Repeat([]byte{0xff}, r.size))
			r.taken = append(r.taken, taken)
		}
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
