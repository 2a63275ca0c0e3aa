package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is allocated next lies in huge pages where the system has them for who asks,
// and elsewhere as ever; and the advice is taken back.
func TestHugePages(t *testing.T) {
	advised := func() int {
		maps, err := os.ReadFile("/proc/self/smaps")
		require.NoError(t, err)
		return len(regexp.MustCompile(`VmFlags:.* hg`).FindAll(maps, -1))
	}
	if !hugePagesByAdvice() || addressesLimited() || advised() > 0 {
		t.Skip("the system gives huge pages to all, to none, or counts addresses")
	}
	require.Greater(t, freeMemory(), int64(4*leastHuge))
	done := hugePages(2 * leastHuge)
	require.Equal(t, 1, advised())
	done()
	require.Zero(t, advised())

	t.Setenv("GOMEMLIMIT", "1GiB")
	hugePages(2 * leastHuge)
	require.Zero(t, advised(), "addresses would count towards the limit")
}
