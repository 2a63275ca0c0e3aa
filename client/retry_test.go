package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"trivet/client"
	"trivet/trivetpb"
)

// script is a Transport in virtual time: a function in place of every node.
type script struct {
	mu     sync.Mutex
	start  time.Time
	asked  []string // "GET n1", discovery and sessions left out; see methodOf
	at     []time.Duration
	answer func(r *http.Request, nth int) (*http.Response, error)
	// sessions has requests about sessions answered by answer too.
	sessions bool
	// plain has writes go without a session.
	plain bool
	// members answers discovery; nil fails it.
	members func(host string) string
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	if r.URL.Path == "/v1/cluster" {
		members := s.members
		s.mu.Unlock()
		if members == nil {
			return nil, errors.New("nobody tells")
		}
		return response(r, 200, "application/json", members(r.URL.Host)), nil
	}
	if strings.HasPrefix(r.URL.Path, "/v1/sessions") && !s.sessions {
		s.mu.Unlock()
		return agreeable(r), nil
	}
	if s.start.IsZero() {
		s.start = time.Now()
	}
	s.asked = append(s.asked, methodOf(r)+" "+r.URL.Host)
	s.at = append(s.at, time.Since(s.start))
	nth := len(s.asked)
	answer := s.answer
	s.mu.Unlock()
	if r.Body != nil {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return answer(r, nth)
}

// now changes how requests are answered.
func (s *script) now(answer func(r *http.Request, nth int) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// count is how many requests came so far.
func (s *script) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func response(r *http.Request, status int, mediaType, body string) *http.Response {
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header:        http.Header{"Content-Type": {mediaType}},
		ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
	}
}

// refusal is a problem as a node would answer it.
func refusal(r *http.Request, status int, code, retryAfter string) (*http.Response, error) {
	resp := response(r, status, "application/problem+json",
		fmt.Sprintf(`{"code":%q,"outcome":"not_applied","retryable":%v,"detail":"it is so"}`, code, retryable(code, status)))
	if retryAfter != "" {
		resp.Header.Set("Retry-After", retryAfter)
	}
	return resp, nil
}

// retryable is what the server says of a code, which it sends with this status.
func retryable(name string, status int) bool {
	for number := range trivetpb.Code_name {
		if info := trivetpb.Code(number).Info(); info.Name == name && info.Status == status {
			return info.Retryable
		}
	}
	panic(fmt.Sprintf("no server answers %d %s", status, name))
}

func done(r *http.Request) (*http.Response, error) {
	if resp := agreeable(r); resp != nil {
		return resp, nil
	}
	if r.Method == http.MethodGet {
		resp := response(r, 200, "application/octet-stream", "v")
		resp.Header["Etag"] = []string{`"5"`}
		for _, h := range []string{"Trivet-Create-Revision", "Trivet-Version", "Trivet-Lease"} {
			resp.Header.Set(h, "1")
		}
		return resp, nil
	}
	return response(r, 200, "application/json", putBody), nil
}

func (s *script) open(t *testing.T, hosts ...string) *client.Client {
	t.Helper()
	var urls []string
	for _, h := range hosts {
		urls = append(urls, "http://"+h)
	}
	c, err := client.Open(t.Context(), client.Config{Endpoints: urls, Transport: s, DisableDiscovery: s.members == nil, DisableSessions: s.plain})
	require.NoError(t, err)
	return c
}

func TestOverloadIsWaitedForAsLongAsWasAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(r *http.Request, nth int) (*http.Response, error) {
			if nth < 3 {
				return refusal(r, 429, "overloaded", "2")
			}
			return done(r)
		}}
		c := s.open(t, "n1", "n2")
		defer c.Close()
		_, err := c.Put(t.Context(), "k", nil)
		require.NoError(t, err)
		require.Len(t, s.asked, 3)
		for i := range 2 {
			waited := s.at[i+1] - s.at[i]
			require.GreaterOrEqual(t, waited, 2*time.Second)
			require.LessOrEqual(t, waited, 3*time.Second)
		}

		// A read may be served by a node that is less busy.
		s.asked, s.at = nil, nil
		s.answer = func(r *http.Request, nth int) (*http.Response, error) {
			if nth == 1 {
				return refusal(r, 429, "overloaded", "2")
			}
			return done(r)
		}
		_, err = c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, s.at[0], s.at[1])

		// Nobody waits for what would come too late.
		s.answer = func(r *http.Request, nth int) (*http.Response, error) { return refusal(r, 429, "overloaded", "2") }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err = c.Put(ctx, "k", nil)
		requireError(t, err, client.NotApplied, client.ErrOverloaded, client.ErrUnavailable)
		require.Zero(t, time.Since(began))
	})
}

func TestPausesGrowUntilTheContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{answer: func(r *http.Request, nth int) (*http.Response, error) {
			return refusal(r, 503, "no_leader", "1")
		}}
		c := s.open(t, "n1", "n2", "n3")
		defer c.Close()
		_, err := c.Put(t.Context(), "k", nil)
		require.Equal(t, "timeout", requireError(t, err, client.NotApplied, client.ErrNoLeader, context.DeadlineExceeded).Code)
		require.ErrorContains(t, err, "no_leader: it is so")
		require.Equal(t, 10*time.Second, time.Since(s.start), "the default timeout")
		for i := range s.at {
			switch {
			case i%3 != 0:
				require.Equal(t, s.at[i-1], s.at[i], "within a round nobody waits")
			case i > 0:
				pause := s.at[i] - s.at[i-1]
				require.LessOrEqual(t, pause, 500*time.Millisecond)
				if round := i / 3; round < 6 {
					require.GreaterOrEqual(t, pause, 10*time.Millisecond<<(round-1)/2)
					require.LessOrEqual(t, pause, 10*time.Millisecond<<(round-1))
				}
			}
		}
		require.Less(t, len(s.asked), 3*60)
	})
}

// A node that takes requests and does not answer costs a read some time, and a
// write its knowledge.
func TestANodeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{}
		s.answer = func(r *http.Request, nth int) (*http.Response, error) {
			if r.URL.Host == "n1" {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return done(r)
		}
		c := s.open(t, "n1", "n2")
		defer c.Close()
		_, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, []string{"GET n1", "GET n2"}, s.asked)
		require.Equal(t, time.Second, s.at[1])
		// It is not asked first again for a while.
		_, err = c.Get(t.Context(), "k")
		require.NoError(t, err)
		_, err = c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, []string{"GET n2", "GET n2"}, s.asked[2:])

		time.Sleep(2 * time.Second) // virtual
		s.plain = true
		one := s.open(t, "n1")
		defer one.Close()
		began := time.Now()
		_, err = one.Put(t.Context(), "k", []byte("v"))
		requireError(t, err, client.Unknown, client.ErrUnavailable, context.DeadlineExceeded)
		require.Equal(t, 10*time.Second, time.Since(began))
	})
}

// The node is to answer before the caller gives up.
func TestTheNodeGetsLessTimeThanTheCallerHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var timeout string
		s := &script{answer: func(r *http.Request, nth int) (*http.Response, error) {
			timeout = r.URL.Query().Get("timeout")
			return done(r)
		}}
		c := s.open(t, "n1")
		defer c.Close()
		s.plain = true
		plain := s.open(t, "n1")
		defer plain.Close()
		for _, tt := range []struct {
			given time.Duration
			put   string
			get   string
		}{
			{0, "9900ms", "900ms"},
			{time.Second, "900ms", "900ms"},
			{100 * time.Millisecond, "90ms", "90ms"},
			{time.Millisecond, "1ms", "1ms"},
			{time.Hour, "60000ms", "900ms"},
		} {
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if tt.given != 0 {
				ctx, cancel = context.WithTimeout(ctx, tt.given)
			}
			_, err := plain.Put(ctx, "k", nil)
			require.NoError(t, err)
			require.Equal(t, tt.put, timeout, "%v, of a write that is sent once", tt.given)
			_, err = c.Put(ctx, "k", nil)
			require.NoError(t, err)
			require.Equal(t, tt.get, timeout, tt.given)
			_, err = c.Get(ctx, "k")
			require.NoError(t, err)
			require.Equal(t, tt.get, timeout, tt.given)
			cancel()
		}
	})
}

// Through a Transport of the caller's only a failure to dial proves anything.
func TestWhatAForeignTransportProves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			err     error
			outcome client.Outcome
			sent    int
		}{
			{&net.OpError{Op: "dial", Err: errors.New("refused")}, client.NotApplied, 2},
			{&net.OpError{Op: "write", Err: errors.New("broken pipe")}, client.Unknown, 1},
			{io.ErrUnexpectedEOF, client.Unknown, 1},
			{nil, client.Unknown, 1}, // neither answer nor error
		} {
			s := &script{plain: true, answer: func(*http.Request, int) (*http.Response, error) { return nil, tt.err }}
			c := s.open(t, "n1")
			_, err := c.Put(t.Context(), "k", nil)
			requireError(t, err, tt.outcome, client.ErrUnavailable)
			require.GreaterOrEqual(t, len(s.asked), tt.sent)
			if tt.sent == 1 {
				require.Len(t, s.asked, 1)
			}
			c.Close()
		}
	})
}

func cluster(leader string, hosts ...string) string {
	var members []string
	for _, h := range hosts {
		members = append(members, fmt.Sprintf(`{"id":%q,"api":%q,"healthy":true,"leader":%v}`, h, h, h == leader))
	}
	return fmt.Sprintf(`{"cluster":"c1","leader":%q,"term":1,"members":[%s]}`, leader, strings.Join(members, ","))
}

// Writes go to whoever leads, reads to all in turn; a leader that changed is
// found after a failure, and in any case after a while.
func TestLearning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		doc := cluster("n2", "n1", "n2", "n3")
		tell := func(text string) { mu.Lock(); doc = text; mu.Unlock() }
		s := &script{
			members: func(string) string { mu.Lock(); defer mu.Unlock(); return doc },
			answer:  func(r *http.Request, _ int) (*http.Response, error) { return done(r) },
		}
		c := s.open(t, "seed")
		defer c.Close()
		put := func() string {
			_, err := c.Put(t.Context(), "k", nil)
			require.NoError(t, err)
			synctest.Wait()
			return s.asked[len(s.asked)-1]
		}
		// Nobody waits for the members, which may be there when the session is open.
		require.Contains(t, []string{"PUT seed", "PUT n2"}, put())
		require.Equal(t, "PUT n2", put())
		seen := map[string]int{}
		for range 9 {
			_, err := c.Get(t.Context(), "k")
			require.NoError(t, err)
			seen[s.asked[len(s.asked)-1]]++
		}
		for _, n := range []string{"GET n1", "GET n2", "GET n3"} {
			require.Equal(t, 3, seen[n])
		}

		// A change without any failure.
		tell(cluster("n3", "n1", "n2", "n3"))
		require.Equal(t, "PUT n2", put())
		time.Sleep(11 * time.Second) // virtual
		put()
		require.Equal(t, "PUT n3", put())

		// The leader goes; the call that finds out goes elsewhere, the next ones
		// know.
		tell(cluster("n1", "n1", "n2"))
		s.answer = func(r *http.Request, _ int) (*http.Response, error) {
			if r.URL.Host == "n3" {
				return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
			}
			return done(r)
		}
		time.Sleep(time.Second) // past the pause between two rounds of learning
		require.NotEqual(t, "PUT n3", put())
		require.Equal(t, "PUT n1", put())

		// Members that are all gone: the endpoints are the last resort.
		s.answer = func(r *http.Request, _ int) (*http.Response, error) {
			if r.URL.Host != "seed" {
				return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
			}
			return done(r)
		}
		require.Equal(t, "PUT seed", put())

		// Another cluster is none of ours.
		tell(strings.Replace(cluster("x1", "x1"), `"c1"`, `"c2"`, 1))
		time.Sleep(11 * time.Second)
		put()
		require.Equal(t, "PUT seed", put())
	})
}

// What a Transport still reads when it has answered is not the caller's value,
// which may be another's by then.
func TestAValueIsNotReadOnceItsPutHasReturned(t *testing.T) {
	var body io.Reader
	s := transportFunc(func(r *http.Request) (*http.Response, error) {
		body = r.Body
		return done(r)
	})
	c := open(t, client.Config{Transport: s, DisableDiscovery: true})
	_, err := c.Put(t.Context(), "k", []byte("mine"))
	require.NoError(t, err)
	rest, err := io.ReadAll(body)
	require.NoError(t, err)
	require.Empty(t, rest)
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
