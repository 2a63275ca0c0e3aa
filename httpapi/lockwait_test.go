package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// waiting is a request for a lock that waits.
type waiting struct {
	cancel context.CancelFunc
	done   chan response // closed without an answer where the caller went away
}

// wait sends a request for a lock and returns once it stands in the queue, as
// the n-th.
func (d *door) wait(n int, name, document string, headers ...string) *waiting {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	w := &waiting{cancel, make(chan response, 1)}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+d.addr+"/v1/locks/"+name, strings.NewReader(document))
	require.NoError(d.t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	go func() {
		defer close(w.done)
		resp, err := d.client.Do(req)
		if err == nil {
			w.done <- d.read("POST", resp)
		}
	}()
	d.t.Cleanup(func() {
		cancel()
		for range w.done {
		}
	})
	d.waitFor(name, n)
	return w
}

// waitFor waits until so many stand in the queue.
func (d *door) waitFor(name string, n int) {
	d.t.Helper()
	require.Eventually(d.t, func() bool {
		info, _ := d.node.data.Lock(name, 1000)
		return len(info.Queue) == n
	}, waitAtMost, waitStep)
}

func (w *waiting) held(t testing.TB) lockJSON {
	t.Helper()
	r := <-w.done
	require.Equal(t, 200, r.status, r.body)
	var l lockJSON
	r.decode(t, &l)
	return l
}

// First come, first served, with tokens that only grow.
func TestLocksHaveAQueue(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{MaxRequests: 4})
	a := d.lock("l", `{"owner":"A"}`)
	var queue []*waiting
	for i, owner := range []string{"B", "C", "D"} {
		queue = append(queue, d.wait(i+1, "l", `{"wait":"30s","ttl":"20s","owner":"`+owner+`"}`))
	}
	state := d.lockState("l")
	require.Equal(t, 3, state.Waiting)
	last, tokens := a.Token, []uint64{}
	for i, w := range state.Queue {
		require.Equal(t, lockStateJSON{Token: w.Token, Owner: string(rune('B' + i)), Remaining: "30s"}, w)
		require.Greater(t, w.Token, last)
		last = w.Token
		tokens = append(tokens, w.Token)
	}
	require.EqualValues(t, 0, d.srv.underWay.held.Load(), "those who wait are counted by themselves")
	require.EqualValues(t, 3, d.srv.lockWaits.held.Load())

	d.release("l", a.Token)
	b := queue[0].held(t)
	require.Equal(t, tokens[0], b.Token)
	require.Equal(t, "20s", b.TTL)
	require.Equal(t, "B", b.Owner)
	d.node.advance(t, 20*time.Second) // B is not heard of again
	c := queue[1].held(t)
	require.Equal(t, tokens[1], c.Token)
	d.do("DELETE", "/v1/leases/"+itoa(int(c.Lease)), "")
	require.Equal(t, tokens[2], queue[2].held(t).Token)
	require.EqualValues(t, 0, d.srv.lockWaits.held.Load())
}

// The shown part of a queue is bounded, its length is not.
func TestLongQueuesAreShownInPart(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	d.lock("l", "")
	for range shownWaiters + 5 {
		_, err := d.node.apply([]*trivetpb.Command{{Command: &trivetpb.Command_LockAcquire{LockAcquire: &trivetpb.LockAcquire{Name: []byte("l"), TtlMs: 5000, WaitMs: 5000}}}}, nil)
		require.NoError(t, err)
	}
	state := d.lockState("l")
	require.Len(t, state.Queue, shownWaiters)
	require.Equal(t, shownWaiters+5, state.Waiting)
}

// A wait ends by the caller's time or by the cluster's, whichever is first.
func TestWaitsThatAreOver(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	a := d.lock("l", `{"ttl":"1m","owner":"A"}`)
	p := d.do("POST", "/v1/locks/l", `{"wait":"20ms"}`).requireProblem(t, trivetpb.Code_LOCKED)
	require.Equal(t, holderJSON{a.Token, a.Lease, "A", "1m0s"}, *p.Holder)
	require.Equal(t, "not_applied", p.Outcome)
	d.waitFor("l", 0)

	w := d.wait(1, "l", `{"wait":"30s"}`)
	d.node.advance(t, 30*time.Second)
	r := <-w.done
	p = r.requireProblem(t, trivetpb.Code_LOCKED)
	require.Equal(t, a.Token, p.Holder.Token)
}

// onCancel has something happen before a cancellation is applied.
func (n *soloNode) onCancel(f func() *trivetpb.Problem) {
	n.onPropose = func(_ context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
		if commands[0].GetLockCancel() != nil {
			if p := f(); p != nil {
				return []*trivetpb.Result{{Problem: p}}, nil
			}
		}
		return n.apply(commands, nil)
	}
}

// Where the lock comes at the very end of the wait, the answer to the
// cancellation decides.
func TestLocksThatComeAtTheLastMoment(t *testing.T) {
	node := newSoloNode()
	d := openDoor(t, node, Config{})
	a := d.lock("l", "")
	node.onCancel(func() *trivetpb.Problem {
		_, err := node.apply([]*trivetpb.Command{{Command: &trivetpb.Command_LockRelease{LockRelease: &trivetpb.LockRelease{Name: []byte("l"), Token: a.Token}}}}, nil)
		require.NoError(t, err)
		return nil
	})
	// The local state must not say so first: nothing but the cancellation may.
	b := d.lock("l", `{"wait":"20ms"}`)
	require.Greater(t, b.Token, a.Token)
	require.Equal(t, b.Token, d.lockState("l").Holder.Token)

	// Or it came and went.
	node.onCancel(func() *trivetpb.Problem {
		node.advance(t, time.Minute)
		return nil
	})
	p := d.do("POST", "/v1/locks/l", `{"wait":"20ms","ttl":"1s"}`).requireProblem(t, trivetpb.Code_LOCKED)
	require.Nil(t, p.Holder)
	require.Nil(t, d.lockState("l").Holder)
}

// A wait whose end cannot be told to the cluster has an unknown outcome.
func TestWaitsThatCannotBeEnded(t *testing.T) {
	node := newSoloNode()
	d := openDoor(t, node, Config{})
	d.lock("l", "")
	node.onCancel(func() *trivetpb.Problem { return &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER} })
	p := d.do("POST", "/v1/locks/l", `{"wait":"20ms"}`).requireProblem(t, trivetpb.Code_TIMEOUT)
	require.Equal(t, "unknown", p.Outcome)
	require.Contains(t, p.Detail, "no_leader")
}

// A caller that goes away leaves the queue, unless it can come back.
func TestWaitingCallersThatGoAway(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{})
	a := d.lock("l", `{"ttl":"1h"}`)
	w := d.wait(1, "l", `{"wait":"30s"}`)
	w.cancel()
	d.waitFor("l", 0)

	for _, header := range []string{"Idempotency-Key: k", d.session() + ";seq=1"} {
		w = d.wait(1, "l", `{"wait":"30s"}`, header)
		token := d.lockState("l").Queue[0].Token
		w.cancel()
		<-w.done
		require.Eventually(t, func() bool { return d.srv.lockWaits.held.Load() == 0 }, waitAtMost, waitStep)
		require.Equal(t, token, d.lockState("l").Queue[0].Token, "its place is kept")
		// It comes back, to this node or another, and finds it again.
		again := d.wait(1, "l", `{"wait":"30s"}`, header)
		require.Equal(t, 1, d.lockState("l").Waiting)
		d.release("l", a.Token)
		r := <-again.done
		require.Equal(t, 200, r.status, r.body)
		require.Equal(t, "true", r.header.Get("Trivet-Replayed"))
		var l lockJSON
		r.decode(t, &l)
		require.Equal(t, token, l.Token)
		// Once more, while it is held; and when it no longer is.
		r = d.do("POST", "/v1/locks/l", `{"wait":"30s"}`, header)
		require.Equal(t, 200, r.status, r.body)
		require.Contains(t, r.body, `"token":`+itoa(int(token)))
		d.do("POST", "/v1/locks/l", `{"wait":"31s"}`, "Idempotency-Key: k").requireProblem(t, trivetpb.Code_IDEMPOTENCY_KEY_REUSED)
		d.release("l", token)
		r = d.do("POST", "/v1/locks/l", `{"wait":"30s"}`, header)
		r.requireProblem(t, trivetpb.Code_LOCKED)
		require.Equal(t, "true", r.header.Get("Trivet-Replayed"))
		a = d.lock("l", `{"ttl":"1h"}`)
	}
}

// session opens a session and returns the beginning of its header.
func (d *door) session() string {
	d.t.Helper()
	var s struct {
		Session uint64
		TTL     string
	}
	d.do("POST", "/v1/sessions", "").decode(d.t, &s)
	return "Trivet-Session: " + itoa(int(s.Session))
}

// A lock that comes to a caller that has gone is released.
func TestLocksOfCallersThatHaveGone(t *testing.T) {
	for name, document := range map[string]string{"at once": "", "after a wait": `{"wait":"30s"}`} {
		for _, header := range []string{"", "Idempotency-Key: k"} {
			t.Run(name+" "+header, func(t *testing.T) {
				node := newSoloNode()
				proposed, goOn, cancelled := make(chan struct{}), make(chan struct{}), make(chan struct{}, 2)
				node.onPropose = func(ctx context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
					if commands[0].GetLockAcquire() != nil {
						close(proposed)
						<-goOn
						results, err := node.apply(commands, nil)
						if ctx.Err() != nil { // it is done, and nobody is told
							return nil, ctx.Err()
						}
						return results, err
					}
					defer func() {
						if commands[0].GetLockCancel() != nil {
							cancelled <- struct{}{}
						}
					}()
					return node.apply(commands, nil)
				}
				d := openDoor(t, node, Config{})
				if document != "" {
					_, err := node.apply([]*trivetpb.Command{{Command: &trivetpb.Command_LockAcquire{LockAcquire: &trivetpb.LockAcquire{Name: []byte("l"), TtlMs: 3_600_000}}}}, nil)
					require.NoError(t, err)
				}
				ctx, goAway := context.WithCancel(t.Context())
				req := httptest.NewRequestWithContext(ctx, "POST", "/v1/locks/l", strings.NewReader(document))
				if header != "" {
					req.Header.Set("Idempotency-Key", "k")
				}
				served := make(chan struct{})
				go func() {
					defer close(served)
					d.srv.ServeHTTP(httptest.NewRecorder(), req)
				}()
				<-proposed
				goAway()
				close(goOn)
				<-served
				require.EqualValues(t, 0, d.srv.underWay.held.Load()+d.srv.lockWaits.held.Load())
				info, _ := node.data.Lock("l", 10)
				mine := len(info.Queue) == 1 || (document == "" && info.Holder != nil)
				require.Equal(t, header != "", mine)
				require.Len(t, cancelled, map[bool]int{true: 1, false: 0}[header == ""])
			})
		}
	}
}

// A node that stops lets those who wait go: with their place, where they can take
// it elsewhere.
func TestWaitsEndWithTheServer(t *testing.T) {
	for _, header := range []string{"", "Idempotency-Key: k"} {
		node := newSoloNode()
		d := openDoor(t, node, Config{})
		a := d.lock("l", `{"ttl":"1h"}`)
		headers := []string{}
		if header != "" {
			headers = append(headers, header)
		}
		w := d.wait(1, "l", `{"wait":"30s"}`, headers...)
		d.shutDown()
		r := <-w.done
		if header == "" {
			p := r.requireProblem(t, trivetpb.Code_DRAINING)
			require.Equal(t, "not_applied", p.Outcome)
			d.waitFor("l", 0)
			continue
		}
		p := r.requireProblem(t, trivetpb.Code_TIMEOUT)
		require.Equal(t, "unknown", p.Outcome)
		d.waitFor("l", 1)
		other := openDoor(t, node, Config{})
		again := other.wait(1, "l", `{"wait":"30s"}`, header)
		other.release("l", a.Token)
		require.Greater(t, again.held(t).Token, a.Token)
	}
	// One whose leaving cannot be told.
	node := newSoloNode()
	d := openDoor(t, node, Config{})
	d.lock("l", `{"ttl":"1h"}`)
	node.onCancel(func() *trivetpb.Problem { return &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Unknown: true} })
	w := d.wait(1, "l", `{"wait":"30s"}`)
	d.shutDown()
	r := <-w.done
	require.Equal(t, "unknown", r.requireProblem(t, trivetpb.Code_TIMEOUT).Outcome)
}

// So does a node that has failed, which cannot take anybody out of the queue.
func TestWaitsEndWithTheNode(t *testing.T) {
	for _, header := range []string{"", "Idempotency-Key: k"} {
		node := newSoloNode()
		d := openDoor(t, node, Config{})
		d.lock("l", `{"ttl":"1h"}`)
		headers := []string{}
		if header != "" {
			headers = append(headers, header)
		}
		w := d.wait(1, "l", `{"wait":"30s"}`, headers...)
		node.stop()
		r := <-w.done
		require.Equal(t, "unknown", r.requireProblem(t, trivetpb.Code_TIMEOUT).Outcome)
	}
}

// Those who wait are bounded, and take nothing from the others.
func TestTooManyWaits(t *testing.T) {
	d := openDoor(t, newSoloNode(), Config{MaxLockWaits: 1, MaxRequests: 1})
	a := d.lock("l", "")
	w := d.wait(1, "l", `{"wait":"30s"}`)
	p := d.do("POST", "/v1/locks/l", `{"wait":"30s"}`).requireProblem(t, trivetpb.Code_OVERLOADED)
	require.Equal(t, "not_applied", p.Outcome)
	require.Equal(t, 1, d.lockState("l").Waiting)
	d.do("POST", "/v1/locks/l", "").requireProblem(t, trivetpb.Code_LOCKED)
	d.lock("other", "")
	d.release("l", a.Token)
	w.held(t)
	require.Eventually(t, func() bool { return d.srv.lockWaits.held.Load() == 0 }, waitAtMost, waitStep)
	require.EqualValues(t, 0, d.srv.underWay.held.Load())
}

// shutDown stops the server, which must not wait for those who wait.
func (d *door) shutDown() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), waitAtMost)
	defer cancel()
	require.NoError(d.t, d.srv.Shutdown(ctx))
}
