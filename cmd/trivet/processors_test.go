package main

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lookAt lets so many looks pass that all see the same.
func (p *processors) lookAt(busy float64, looks int) int {
	for range looks {
		p.look(busy, 0)
	}
	return p.n
}

// One fewer where that would do for a while, and twice as many as soon as those there
// are busy.
func TestProcessorsFollowWhatIsBusy(t *testing.T) {
	p := &processors{n: 8, most: 8}
	require.Equal(t, 8, p.lookAt(5, 100), "more than barely")
	require.Equal(t, 8, p.lookAt(1, barelyLooks-1))
	require.Equal(t, 7, p.look(1, 0))
	require.Equal(t, 7, p.lookAt(1, barelyLooks-1), "a while for each")
	require.Equal(t, 7, p.look(6*barelyBusy+0.1, 0), "the while is over")
	require.Equal(t, 2, p.lookAt(1, 100*barelyLooks), "and no further than it takes")
	require.Equal(t, 1, p.lookAt(0, 100*barelyLooks), "never none")
	require.Equal(t, 1, p.lookAt(fullyBusy-0.01, 100*barelyLooks))
	require.Equal(t, 2, p.look(fullyBusy+0.01, 0))
	require.Equal(t, 4, p.look(2, 0))
	require.Equal(t, 8, p.look(4, 0))
	require.Equal(t, 8, p.look(8, 0), "never more than there are")

	// Where it settles it stays, and does not go to and fro.
	for busy := 0.0; busy < 8; busy += 0.1 {
		settled := p.lookAt(busy, 100*barelyLooks)
		for range 100 {
			require.Equal(t, settled, p.look(busy, 0), "at %v", busy)
		}
	}
}

// Where others have the machine's processors a node does not look busy, and its
// goroutines wait.
func TestProcessorsAreTakenWhereGoroutinesWait(t *testing.T) {
	p := &processors{n: 1, most: 4}
	require.Equal(t, 1, p.look(0.4, longWaits))
	require.Equal(t, 2, p.look(0.4, longWaits+0.01))
	require.Equal(t, 4, p.look(0.4, 1))
	for range 10 * barelyLooks {
		require.Equal(t, 4, p.look(0.4, 1))
	}
	require.Equal(t, 2, p.lookAt(0.4, 2*barelyLooks))

	require.InDelta(t, 0.25, waits{all: 140, long: 12}.since(waits{all: 100, long: 2}), 1e-9)
	require.Zero(t, waits{all: 7, long: 1}.since(waits{all: 7, long: 1}))
	runtime.Gosched()
	require.NotZero(t, readWaits().all)
}

// What the process takes is known here, or the number never changes.
func TestProcessorTime(t *testing.T) {
	before, ok := processorTime()
	if !ok {
		t.Skip("not known on this system")
	}
	for began := time.Now(); ; {
		if now, _ := processorTime(); now > before {
			return
		}
		require.Less(t, time.Since(began), time.Minute)
	}
}
