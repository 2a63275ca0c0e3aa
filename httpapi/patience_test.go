package httpapi

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What is to be seen of a call's context is what is to be seen of context.WithDeadline's,
// whether somebody waits for its end before that comes or looks behind it.
func TestPatienceAsWithDeadline(t *testing.T) {
	type key struct{}
	for name, row := range map[string]struct {
		parentEnds time.Duration // 0: it has no deadline
		happens    func(cancelParent, end func())
		wants      error
	}{
		"nothing":                 {0, func(_, _ func()) {}, nil},
		"a moment before":         {0, func(_, _ func()) { time.Sleep(time.Second - 1) }, nil},
		"its time":                {0, func(_, _ func()) { time.Sleep(time.Second) }, context.DeadlineExceeded},
		"its parent's time":       {time.Millisecond, func(_, _ func()) { time.Sleep(time.Millisecond) }, context.DeadlineExceeded},
		"its parent's, after it":  {time.Hour, func(_, _ func()) { time.Sleep(time.Second) }, context.DeadlineExceeded},
		"its parent":              {0, func(cancelParent, _ func()) { cancelParent() }, context.Canceled},
		"the end of the call":     {0, func(_, end func()) { end() }, context.Canceled},
		"the call, then its time": {0, func(_, end func()) { end(); time.Sleep(time.Second) }, context.Canceled},
	} {
		for _, waited := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, cancelParent := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
					defer cancelParent()
					if row.parentEnds != 0 {
						parent, cancelParent = context.WithTimeout(parent, row.parentEnds)
						defer cancelParent()
					}
					until := time.Now().Add(time.Second)
					p := newPatience(parent, until)
					defer p.end()
					like, end := context.WithDeadline(parent, until)
					defer end()
					var child context.Context = p
					if waited {
						_ = p.Done()
						var cancel context.CancelFunc
						child, cancel = context.WithCancel(p)
						defer cancel()
					}
					row.happens(cancelParent, func() { p.end(); end() })
					synctest.Wait()
					require.Equal(t, row.wants, like.Err())
					require.Equal(t, row.wants, p.Err())
					require.Equal(t, p.Err(), child.Err())
					select {
					case <-p.Done():
						require.Error(t, row.wants)
					default:
						require.NoError(t, row.wants)
					}
					wantAt, _ := like.Deadline()
					at, ok := p.Deadline()
					require.True(t, ok)
					require.True(t, wantAt.Equal(at))
					require.Equal(t, "value", p.Value(key{}))
				})
			})
		}
	}
}
