package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/internal/histogram"
)

func TestKeysAreInTheOrderOfTheirNumbers(t *testing.T) {
	last := ""
	for _, i := range []int{0, 1, 9, 10, 99_999, 10_000_000} {
		key := Key(i)
		require.Len(t, key, KeyBytes)
		require.Greater(t, key, last)
		last = key
	}
	require.Equal(t, "bench/key/0000000000000000000042", Key(42))
	require.Equal(t, "x"+Key(7), string(AppendKey([]byte("x"), 7)))
}

// TestRunCountsTheMeasuredTimeAlone: requests of exactly 10 ms, in virtual time, by
// four callers, a second of warming up before and two measured.
func TestRunCountsTheMeasuredTimeAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Int64
		var observed []time.Duration
		began := time.Now()
		s, err := Run(t.Context(), Config{
			Callers: 4, Warmup: time.Second + 5*time.Millisecond, Measure: 2 * time.Second,
			Observe: func() { observed = append(observed, time.Since(began)) },
			Caller: func(int) (Request, error) {
				return func(context.Context, *rand.Rand) error {
					sent.Add(1)
					time.Sleep(10 * time.Millisecond)
					return nil
				}, nil
			},
		})
		require.NoError(t, err)
		require.EqualValues(t, 4*200, s.Ops)
		require.EqualValues(t, 4*301, sent.Load()) // the one under way at the end is waited for
		require.Equal(t, 400.0, s.OpsPerSecond)
		require.Equal(t, 10*time.Millisecond, s.Max)
		require.Equal(t, 10*time.Millisecond, s.P50)
		require.Zero(t, s.Failed)
		require.Equal(t, []time.Duration{1005 * time.Millisecond, 3005 * time.Millisecond}, observed)
	})
}

func TestRunFailsWhereRequestsDo(t *testing.T) {
	boom := errors.New("boom")
	for _, failing := range []int{1, 2} { // of a thousand
		t.Run(fmt.Sprint(failing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				s, err := Run(t.Context(), Config{Callers: 1, Measure: 1001*time.Millisecond + 1, Caller: func(int) (Request, error) {
					return func(context.Context, *rand.Rand) error {
						time.Sleep(time.Millisecond)
						if n++; n <= failing {
							return boom
						}
						return nil
					}, nil
				}})
				require.EqualValues(t, failing, s.Failed)
				if failing == 1 {
					require.NoError(t, err) // 1 beside 1,000 that did not
					require.EqualValues(t, 1000, s.Ops)
					return
				}
				require.ErrorIs(t, err, boom)
			})
		})
	}
}

// TestAttemptsAreBounded: a request that never answers ends with its context, not
// before its time and at most a quarter of it later.
func TestAttemptsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := Run(t.Context(), Config{Callers: 1, Measure: time.Millisecond, Attempt: time.Second, Caller: func(int) (Request, error) {
			return func(ctx context.Context, _ *rand.Rand) error {
				<-ctx.Done()
				return ctx.Err()
			}, nil
		}})
		require.NoError(t, err) // it ended after the measured time
		require.GreaterOrEqual(t, time.Since(began), time.Second)
		require.LessOrEqual(t, time.Since(began), 1250*time.Millisecond)
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := Run(ctx, Config{Callers: 2, Measure: time.Hour, Caller: func(int) (Request, error) {
			return func(ctx context.Context, _ *rand.Rand) error { time.Sleep(time.Millisecond); return ctx.Err() }, nil
		}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestRunNeedsEveryCaller(t *testing.T) {
	none := errors.New("no connection")
	_, err := Run(t.Context(), Config{Callers: 3, Measure: time.Hour, Caller: func(i int) (Request, error) {
		if i == 2 {
			return nil, none
		}
		return func(context.Context, *rand.Rand) error { panic("started") }, nil
	}})
	require.ErrorIs(t, err, none)
	require.ErrorContains(t, err, "caller 2")
}

func TestSummarize(t *testing.T) {
	var h histogram.Histogram
	for i := 1; i <= 100; i++ {
		h.Add(time.Duration(i)) // below 64 ns each has a bucket of its own
	}
	s := Summarize(&h, 2*time.Second)
	require.EqualValues(t, 100, s.Ops)
	require.Equal(t, 50.0, s.OpsPerSecond)
	require.Equal(t, time.Duration(50), s.P50)
	require.Equal(t, time.Duration(100), s.Max)
	require.LessOrEqual(t, s.P95, s.P99)
}

func TestCPUTicks(t *testing.T) {
	own, children, err := cpuTicks([]byte("42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 1 0 1"))
	require.NoError(t, err)
	require.EqualValues(t, 300, own)
	require.EqualValues(t, 15, children)
	_, _, err = cpuTicks([]byte("42 (a) S 1"))
	require.Error(t, err)
}

// TestCPUSecondsOfProcessesThatEnd: one that is gone by the time it is looked at is
// asked about again, but not for ever.
func TestCPUSecondsOfProcessesThatEnd(t *testing.T) {
	const nobody = 1 << 30
	asked := 0
	_, err := CPUSeconds(func() []int {
		if asked++; asked == 1 {
			return []int{os.Getpid(), nobody}
		}
		return []int{os.Getpid()}
	})
	require.NoError(t, err)
	require.Equal(t, 2, asked)
	_, err = CPUSeconds(func() []int { return []int{nobody} })
	require.ErrorIs(t, err, os.ErrNotExist)
}
