package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// writesRecorder is a response that keeps each write of its handler with the time
// that it came at.
type writesRecorder struct {
	http.ResponseWriter
	mu     sync.Mutex
	writes []timedWrite
}

type timedWrite struct {
	at   time.Time
	text string
}

func (r *writesRecorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes = append(r.writes, timedWrite{time.Now(), string(b)})
	return len(b), nil
}

// take returns what was written since the last time.
func (r *writesRecorder) take() []timedWrite {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	writes := r.writes
	r.writes = nil
	return writes
}

// openRecorded opens n watches of the same in virtual time, of a server without
// connections, and returns once all they have to say was said.
func openRecorded(t *testing.T, node *soloNode, n int, query string) (*Server, []*writesRecorder) {
	srv, err := New(node, Config{ProgressInterval: time.Hour})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		require.NoError(t, srv.Close())
	})
	watches := make([]*writesRecorder, n)
	for i := range watches {
		watches[i] = &writesRecorder{ResponseWriter: httptest.NewRecorder()}
		r := httptest.NewRequestWithContext(ctx, "GET", "/v1/watch?"+query, nil)
		wg.Go(func() { srv.ServeHTTP(watches[i], r) })
	}
	synctest.Wait()
	return srv, watches
}

func timesOf(writes []timedWrite) (times []time.Time) {
	for _, w := range writes {
		times = append(times, w.at)
	}
	return times
}

func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	all := prometheus.NewRegistry()
	require.NoError(t, all.Register(c))
	families, err := all.Gather()
	require.NoError(t, err)
	return families[0].Metric[0].Counter.GetValue()
}

// Watches that share a range pause between two writes, and what comes meanwhile waits
// for no longer. A change after a quiet time goes out at once.
func TestWatchesOfOneRangePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, pause = 8, 8 * pauseEach
		node := newSoloNode()
		srv, watches := openRecorded(t, node, n, "")
		for _, w := range watches {
			require.Contains(t, w.take()[0].text, `"synced"`)
		}
		for range 3 {
			time.Sleep(pause) // a quiet time
			start := time.Now()
			node.put(t, "k", "alone")
			for _, w := range watches {
				got := w.take()
				require.Len(t, got, 1)
				require.Equal(t, start, got[0].at, "held back for nothing")
			}
		}
		const puts, every = 1000, pause / 20
		before := counted(t, srv.metrics.http.writes)
		time.Sleep(every / 2) // what comes at the very end of a pause may count either way
		start := time.Now()
		for i := range puts {
			node.put(t, "k", fmt.Sprint("put ", i))
			time.Sleep(every)
		}
		time.Sleep(pause)
		var first []timedWrite
		written := 0
		for _, w := range watches {
			got := w.take()
			written += len(got)
			if first == nil {
				first = got
			}
			require.Equal(t, timesOf(first), timesOf(got), "at other times")
		}
		require.LessOrEqual(t, len(first), int(puts*every/pause)+2)
		require.EqualValues(t, written, counted(t, srv.metrics.http.writes)-before)
		i := 0
		for _, w := range first {
			for line := range strings.Lines(w.text) {
				require.Contains(t, line, fmt.Sprintf(`"put %d"`, i))
				require.LessOrEqual(t, w.at.Sub(start.Add(time.Duration(i)*every)), time.Duration(pause))
				i++
			}
		}
		require.Equal(t, puts, i)
		// And so it is quiet again, with nothing held back.
		time.Sleep(pause)
		at := time.Now()
		node.put(t, "k", "alone")
		require.Equal(t, at, watches[0].take()[0].at)
	})
}

// Who watches alone is told of each change at once, however many there are.
func TestWatchAloneNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newSoloNode()
		_, watches := openRecorded(t, node, 1, "key=k")
		watches[0].take()
		for i := range 100 {
			at := time.Now()
			node.put(t, "k", fmt.Sprint(i))
			got := watches[0].take()
			require.Len(t, got, 1)
			require.Equal(t, at, got[0].at)
			time.Sleep(pauseEach / 10)
		}
	})
}

// A history to be told is not held back: it comes as fast as it is taken, however
// many there are that share the range.
func TestWatchOfHistoryDoesNotPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := newSoloNode()
		for range 20 {
			node.put(t, "k", strings.Repeat("v", spillBytes/4))
		}
		start := time.Now()
		_, watches := openRecorded(t, node, 50, "from_revision=2")
		for _, w := range watches {
			got := w.take()
			require.Greater(t, len(got), 4)
			require.Equal(t, start, got[len(got)-1].at)
			require.Contains(t, got[len(got)-1].text, `"synced"`)
		}
	})
}

// What is held back when the server stops, or its node, is told before the end, and
// the end does not wait for that of the pause.
func TestWatchEndsWithWhatWasHeldBack(t *testing.T) {
	for name, stop := range map[string]func(*soloNode, *Server){
		"server stops": func(_ *soloNode, srv *Server) { _ = srv.Shutdown(context.Background()) },
		"node fails":   func(n *soloNode, _ *Server) { n.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				node := newSoloNode()
				srv, watches := openRecorded(t, node, 4, "")
				time.Sleep(10 * pauseEach)
				node.put(t, "k", "at once")
				for _, w := range watches {
					require.Contains(t, w.take()[1].text, "at once")
				}
				// More than goes out in one piece.
				for range 5 {
					node.put(t, "k", strings.Repeat("v", spillBytes/2))
				}
				node.put(t, "k", "held back")
				for _, w := range watches {
					require.Empty(t, w.take())
				}
				at := time.Now()
				stop(node, srv)
				for _, w := range watches {
					var all bytes.Buffer
					for _, got := range w.take() {
						require.Equal(t, at, got.at)
						all.WriteString(got.text)
					}
					require.Regexp(t, `(?s)held back.*"type":"error"`, all.String())
				}
			})
		})
	}
}
