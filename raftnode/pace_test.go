package raftnode

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A snapshot gives way to other work, and to nothing else: it takes four times
// as long on a busy node, and no longer than it must on one that is idle, that is
// to stop, or where there is no time.
func TestPacedWorkGivesWay(t *testing.T) {
	const pieces = 1000 // of a millisecond
	for _, c := range []struct {
		name    string
		busy    func(piece int) bool
		hurry   func() bool
		stopped bool
		least   time.Duration
		most    time.Duration
	}{
		{name: "idle", busy: func(int) bool { return false }, least: time.Second, most: time.Second},
		{name: "busy", busy: func(int) bool { return true }, least: 3900 * time.Millisecond, most: 4 * time.Second},
		{name: "now and then", busy: func(i int) bool { return i%50 == 0 }, least: 3900 * time.Millisecond, most: 4 * time.Second},
		{name: "only at first", busy: func(i int) bool { return i == 0 }, least: time.Second + paceBusy/2, most: time.Second + paceBusy},
		{name: "in a hurry", busy: func(int) bool { return true }, hurry: func() bool { return true }, least: time.Second, most: time.Second},
		{name: "stopping", busy: func(int) bool { return true }, stopped: true, least: time.Second, most: time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				done := make(chan struct{})
				if c.stopped {
					close(done)
				}
				var served uint64
				start := time.Now()
				var written int
				p := newPacer(writerFunc(func(b []byte) (int, error) {
					written += len(b)
					return len(b), nil
				}), func() uint64 { return served }, c.hurry, done)
				for i := range pieces {
					if c.busy(i) {
						served++
					}
					time.Sleep(time.Millisecond) // the work, in virtual time
					n, err := p.Write([]byte("piece"))
					require.NoError(t, err)
					require.Equal(t, 5, n)
				}
				require.Equal(t, 5*pieces, written)
				took := time.Since(start)
				require.GreaterOrEqual(t, took, c.least)
				require.LessOrEqual(t, took, c.most)
			})
		})
	}
}

// However long a node is busy, and however slow what it writes to: a snapshot
// ends.
func TestPacedWorkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var served uint64
		p := newPacer(writerFunc(func(b []byte) (int, error) { return len(b), nil }),
			func() uint64 { served++; return served }, nil, nil)
		start := time.Now()
		const pieces, each = 100_000, 10 * time.Millisecond
		for range pieces {
			time.Sleep(each)
			_, err := p.Write(nil)
			require.NoError(t, err)
		}
		rests := time.Since(start) - pieces*each
		require.GreaterOrEqual(t, rests, paceMost)
		require.Less(t, rests, paceMost+paceRest*paceLongest)
	})
}

// Members that apply the same do not take their snapshots at the same entry, and
// none later than it was told to.
func TestSnapshotsAreStaggered(t *testing.T) {
	const limit, each = 1 << 20, 1 << 10
	at := map[int]bool{}
	for range 10 {
		s := newSnapshotter(limit)
		entries := 0
		for due := false; !due; _, due = s.due() {
			s.applied(each)
			entries++
		}
		require.LessOrEqual(t, entries, limit/each)
		require.GreaterOrEqual(t, entries, 3*limit/each/4)
		at[entries] = true
	}
	require.Greater(t, len(at), 3)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
