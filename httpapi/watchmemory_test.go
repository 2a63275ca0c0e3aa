package httpapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// Watches that nobody reads cost bounded memory, however much there is to tell
// them: the frames that all share, and a part of the history each.
func TestWatchesThatNobodyReadTakeBoundedMemory(t *testing.T) {
	const watches, events, valueBytes = 20, 3000, 64 << 10
	const most = 128 << 20 // of 192 MB that each has not been told
	node := newSoloNode()
	// Little history, so that what the state itself holds is little too.
	_, err := node.apply(nil, &trivetpb.Settings{HistoryMs: 1 << 40, HistoryRevisions: 100})
	require.NoError(t, err)
	d := openDoor(t, node, Config{})
	for range watches {
		d.openStalled("prefix=k/")
	}
	before := memoryInUse()
	value := []byte(strings.Repeat("x", valueBytes))
	highest := uint64(0)
	for i := range events {
		node.apply1(t, &trivetpb.Op{Op: &trivetpb.Op_Put{Put: &trivetpb.PutOp{Key: fmt.Appendf(nil, "k/%d", i%10), Value: value}}})
		if i%500 == 499 {
			highest = max(highest, memoryInUse())
		}
	}
	require.Less(t, int64(highest-before), int64(most))
}
