package client_test

import (
	"net/http"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
)

// paced is a cluster that takes so long over a batch of writes, and over one of reads.
type paced struct {
	*fake
	c           *client.Client
	write, read time.Duration
	mu          sync.Mutex
	// writes are the batches of writes, with when each came.
	writes []pacedBatch
	wg     sync.WaitGroup
}

type pacedBatch struct {
	calls int
	came  time.Time
}

func openPaced(t *testing.T, write, read time.Duration) *paced {
	p := &paced{fake: newFake(), write: write, read: read}
	p.lenient = true
	s := over(p.fake, func(r *http.Request, _ int, answer func() *http.Response) (*http.Response, error) {
		took := p.read
		if methodOf(r) == http.MethodPut {
			took = p.write
			p.mu.Lock()
			p.writes = append(p.writes, pacedBatch{len(batchOf(r).Ops), time.Now()})
			p.mu.Unlock()
		}
		select {
		case <-time.After(took):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		return answer(), nil
	})
	p.c = s.open(t, "n1")
	return p
}

// callers has so many callers call what they call.
func (p *paced) callers(n int, call func()) {
	for range n {
		p.wg.Go(call)
	}
	synctest.Wait()
}

func (p *paced) put(t *testing.T) {
	_, err := p.c.Put(t.Context(), "k", nil)
	require.NoError(t, err)
}

func (p *paced) get(t *testing.T) {
	_, err := p.c.Get(t.Context(), "missing")
	require.ErrorIs(t, err, client.ErrNotFound)
}

// end waits for all, and returns the batches of writes.
func (p *paced) end(t *testing.T) []pacedBatch {
	p.wg.Wait()
	require.NoError(t, p.c.Close())
	return p.writes
}

// begin has a batch of two writes go out, and leaves before it lands, with so many
// writes behind it. It returns when it lands.
func (p *paced) begin(t *testing.T, behind int) (lands time.Time) {
	put := func() { p.put(t) }
	p.callers(1, put)
	p.callers(1, put) // beside one that is alone
	p.callers(2, put)
	time.Sleep(p.write) // these two go
	synctest.Wait()
	p.callers(behind, put)
	return time.Now().Add(p.write)
}

// What waits for a batch of writes to land goes together with what those write whose
// reads land right after it.
func TestWritesGoWithThoseOfCallersWhoRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := openPaced(t, 10*time.Millisecond, 4*time.Millisecond)
		lands := p.begin(t, 4)
		time.Sleep(time.Until(lands) - 2*time.Millisecond)
		p.callers(1, func() { p.get(t) })
		p.callers(1, func() { p.get(t) })
		p.callers(20, func() { p.get(t); p.put(t) }) // behind these two: 2 ms after lands they are under way
		writes := p.end(t)
		require.Equal(t, 2, writes[2].calls)
		next := writes[3]
		require.Less(t, next.came.Sub(lands), 10*time.Millisecond/2+time.Millisecond)
		require.Equal(t, 4, next.calls, "the pause lasts for half of what the last batch took, and reads take longer")

		p = openPaced(t, 10*time.Millisecond, 3*time.Millisecond)
		lands = p.begin(t, 4)
		time.Sleep(time.Until(lands) - 4*time.Millisecond)
		p.callers(1, func() { p.get(t) })
		p.callers(1, func() { p.get(t) })
		p.callers(20, func() { p.get(t); p.put(t) }) // they read until 2 ms after the batch has landed
		writes = p.end(t)
		next = writes[3]
		require.Equal(t, lands.Add(2*time.Millisecond), next.came, "it goes as soon as enough wait")
		require.GreaterOrEqual(t, next.calls, (4+20)/2)
	})
}

// A pause lasts for a part of what the last batch took, and for 5 ms at most.
func TestAPauseEnds(t *testing.T) {
	for _, c := range []struct{ write, pause time.Duration }{
		{4 * time.Millisecond, 2 * time.Millisecond},
		{100 * time.Millisecond, 5 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := openPaced(t, c.write, time.Second)
			p.callers(20, func() { p.get(t) })
			lands := p.begin(t, 4)
			writes := p.end(t)
			require.Equal(t, 4, writes[3].calls)
			require.Equal(t, c.pause, writes[3].came.Sub(lands))
		})
	}
}

// Where nobody reads there is nobody to pause for, and where as many wait as read
// there are enough.
func TestWritesThatDoNotPause(t *testing.T) {
	for _, readers := range []int{0, 4} {
		synctest.Test(t, func(t *testing.T) {
			p := openPaced(t, 4*time.Millisecond, time.Second)
			p.callers(readers, func() { p.get(t) })
			lands := p.begin(t, 4)
			writes := p.end(t)
			require.Equal(t, 4, writes[3].calls)
			require.Equal(t, lands, writes[3].came)
		})
	}
}

// Writers beside readers who never write lose next to nothing by pauses.
func TestPausesThatBringNobodyAreRare(t *testing.T) {
	// On one processor whoever was woken runs before the carrier has had its turns.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, func(t *testing.T) {
		p := openPaced(t, 4*time.Millisecond, time.Minute)
		for range 100 {
			p.wg.Go(func() {
				_, err := p.c.Get(t.Context(), "missing")
				require.Error(t, err)
			})
		}
		const each = 200
		began := time.Now()
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				for range each {
					p.put(t)
				}
			})
		}
		writers.Wait()
		took := time.Since(began)
		batches := len(p.end(t))
		require.Less(t, batches, each+4, "those of a batch go together in the next")
		// After the first the first pause, then one after 1, 3, 7, 15, 31 and from there
		// on each 63 batches.
		require.LessOrEqual(t, took, time.Duration(batches)*p.write+9*p.write/2)
	})
}
