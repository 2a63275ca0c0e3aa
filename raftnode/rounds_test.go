package raftnode

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// heldRounds are rounds that take what each receives from the channel.
func heldRounds(ctx context.Context) (*rounds, chan time.Duration, *atomic.Uint64) {
	takes, began := make(chan time.Duration, 16), new(atomic.Uint64)
	r := &rounds{ctx: ctx, done: new(atomic.Uint64), failed: new(atomic.Uint64)}
	r.spawn = func(f func()) bool { go f(); return true }
	r.f = func(ctx context.Context) (readIndex, error) {
		index := began.Add(1)
		select {
		case d := <-takes:
			time.Sleep(d) // virtual
		case <-ctx.Done():
			return readIndex{}, ctx.Err()
		}
		return readIndex{index: index}, nil
	}
	return r, takes, began
}

// A reader whose time is up does not wait for the round longer, to the nanosecond, and
// one whose caller has gone away for lateAfter at most for each of the rounds that it
// waits for, wherever they stand when it comes.
func TestRoundsThatTakeLong(t *testing.T) {
	const never = time.Hour
	for name, row := range map[string]struct {
		rounds       []time.Duration // what each takes
		comes        time.Duration   // behind the begin of the first
		timeout      time.Duration   // 0: cancelled
		cancelled    time.Duration   // behind its coming
		atMost       time.Duration
		wants        error
		wantsOutcome uint64
	}{
		"less time than a late round":                   {[]time.Duration{never}, 1 * time.Millisecond, 5 * time.Millisecond, 0, 5 * time.Millisecond, context.DeadlineExceeded, 0},
		"a little more":                                 {[]time.Duration{never}, 1 * time.Millisecond, lateAfter + 1, 0, lateAfter + 1, context.DeadlineExceeded, 0},
		"more than two, the second is late":             {[]time.Duration{lateAfter - 1, never}, 0, 2*lateAfter + 1, 0, 2*lateAfter + 1, context.DeadlineExceeded, 0},
		"less than two, the second becomes late":        {[]time.Duration{lateAfter - 1, never}, 0, lateAfter + lateAfter/2, 0, lateAfter + lateAfter/2, context.DeadlineExceeded, 0},
		"the round before is late already":              {[]time.Duration{never}, time.Second, 2*lateAfter + 1, 0, 2*lateAfter + 1, context.DeadlineExceeded, 0},
		"cancelled, the round before is late":           {[]time.Duration{never}, time.Second, 0, time.Millisecond, time.Millisecond, context.Canceled, 0},
		"cancelled, the round before becomes late":      {[]time.Duration{never}, time.Millisecond, 0, time.Millisecond, lateAfter, context.Canceled, 0},
		"cancelled, the second becomes late":            {[]time.Duration{lateAfter - 1, never}, 0, 0, time.Millisecond, 2 * lateAfter, context.Canceled, 0},
		"the outcome of a late round behind a late one": {[]time.Duration{time.Second, time.Second}, 0, never, 0, 2 * time.Second, nil, 2},
		"the outcome in time":                           {[]time.Duration{time.Millisecond, time.Millisecond}, 0, never, 0, 2 * time.Millisecond, nil, 2},
		"the outcome, with little time":                 {[]time.Duration{time.Millisecond, time.Millisecond}, 0, 3 * time.Millisecond, 0, 2 * time.Millisecond, nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				life, end := context.WithCancel(t.Context())
				r, takes, began := heldRounds(life)
				for _, d := range row.rounds {
					takes <- d
				}
				var first sync.WaitGroup
				first.Go(func() { _, _ = r.join(life) })
				synctest.Wait()
				require.EqualValues(t, 1, began.Load())
				time.Sleep(row.comes) // virtual
				ctx, cancel := context.WithCancel(t.Context())
				if row.timeout != 0 {
					ctx, cancel = context.WithTimeout(ctx, row.timeout)
				} else {
					time.AfterFunc(row.cancelled, cancel)
				}
				defer cancel()
				came := time.Now()
				ri, err := r.join(ctx)
				require.LessOrEqual(t, time.Since(came), row.atMost)
				if !errors.Is(err, row.wants) {
					require.Equal(t, row.wants, err)
				}
				require.Equal(t, row.wantsOutcome, ri.index)
				end()
				time.Sleep(2 * never) // virtual: what is under way ends
				first.Wait()
			})
		})
	}
}

// unasked is a context that nobody may ask for its end: it would have a timer made.
type unasked struct {
	context.Context
	t *testing.T
}

func (c unasked) Done() <-chan struct{} {
	c.t.Error("Done was asked for")
	return c.Context.Done()
}

// All who come while a round is under way share the next one, which begins behind it.
// Where none is late, none of them asks its context for Done.
func TestRoundsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		life, end := context.WithCancel(t.Context())
		r, takes, began := heldRounds(life)
		var wg sync.WaitGroup
		var got [8]atomic.Uint64
		for i := range got {
			wg.Go(func() {
				ri, err := r.join(unasked{t.Context(), t})
				if err == nil {
					got[i].Store(ri.index)
				}
			})
			synctest.Wait() // the first begins the round
		}
		takes <- time.Millisecond
		takes <- time.Millisecond
		wg.Wait()
		require.EqualValues(t, 2, began.Load())
		for i := range got {
			require.EqualValues(t, min(i+1, 2), got[i].Load())
		}
		end()
		synctest.Wait()
		_, err := r.join(t.Context())
		require.ErrorIs(t, err, errStopped)
	})
}

// A round begins behind all who can ask at once, where the last one was shared: they have
// one and not two.
func TestRoundsWaitForWhoCanRun(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	life, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	r := &rounds{ctx: life, done: new(atomic.Uint64), failed: new(atomic.Uint64)}
	r.spawn = func(f func()) bool { running.Go(f); return true }
	r.f = func(context.Context) (readIndex, error) {
		runtime.Gosched() // all others come meanwhile
		return readIndex{}, nil
	}
	// The scheduler has turns of its own now and then.
	const times = 100
	for range times {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { _, _ = r.join(life) })
		}
		wg.Wait()
	}
	require.Less(t, r.done.Load(), uint64(times+times/2))
	end()
	running.Wait()
}

func BenchmarkRoundsJoin(b *testing.B) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	r := &rounds{ctx: ctx, done: new(atomic.Uint64), failed: new(atomic.Uint64)}
	r.spawn = func(f func()) bool { go f(); return true }
	r.f = func(context.Context) (readIndex, error) {
		runtime.Gosched() // all others come meanwhile
		return readIndex{}, nil
	}
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		own, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for pb.Next() {
			_, _ = r.join(own)
		}
	})
}
