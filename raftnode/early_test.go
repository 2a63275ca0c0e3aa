package raftnode

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// follower stands in the place of a follower's raft behind a transport.
type follower struct {
	to       *transport
	requests []*raft.AppendEntriesRequest
	// answer says what becomes of a request, nothing if it returns nothing; all succeed
	// where it is nil.
	answer func(n int, req *raft.AppendEntriesRequest) (*raft.AppendEntriesResponse, error)
}

func (f *follower) run() {
	for {
		select {
		case rpc := <-f.to.Consumer():
			req := rpc.Command.(*raft.AppendEntriesRequest)
			f.requests = append(f.requests, req)
			resp, err := &raft.AppendEntriesResponse{Term: req.Term, LastLog: end(req).index, Success: true}, error(nil)
			if f.answer != nil {
				resp, err = f.answer(len(f.requests), req)
			}
			if resp != nil || err != nil {
				rpc.Respond(resp, err)
			}
		case <-f.to.stop:
			return
		}
	}
}

// runEarly runs f with the transport of n2, which leads term 5, and its follower
// n1, which has all up to entry 5.
func runEarly(t *testing.T, f func(leader *transport, n1 *follower)) {
	synctest.Test(t, func(t *testing.T) {
		n1, n2 := heartbeatPair(t)
		n1.setState(func() raft.RaftState { return raft.Follower }, func() uint64 { return 0 })
		leads := func() uint64 { return 5 }
		n2.leads.Store(&leads)
		commit := func() uint64 { return 4 }
		n2.commitIndex.Store(&commit)
		to := &follower{to: n1}
		go to.run()
		require.NoError(t, appendTo(n2, raftRequest(5)))
		to.requests = nil
		f(n2, to)
	})
}

// raftRequest is a request of raft's in term 5 behind entry prev.
func raftRequest(prev uint64, entries ...*raft.Log) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: []byte("n2"), ID: []byte("n2")},
		//lint:ignore SA1019 raft sends it
		Leader: []byte("n2"),
		Term:   5, PrevLogEntry: prev, PrevLogTerm: 5, Entries: entries, LeaderCommitIndex: 4,
	}
}

// arrive lets what was sent come to its end.
func arrive() {
	time.Sleep(10 * time.Millisecond) // virtual
	synctest.Wait()
}

func appendTo(tr *transport, req *raft.AppendEntriesRequest) error {
	return tr.AppendEntries("n1", "n1", req, &raft.AppendEntriesResponse{})
}

func early5(tr *transport, logs ...*raft.Log) {
	tr.sendEarly(logPosition{logs[0].Index - 1, 5}, logs)
}

// What goes out early is what raft sends, to the byte, and is not sent again.
func TestEarlyRequestIsRafts(t *testing.T) {
	entries := []*raft.Log{entryOf(6, 5, 5, "a"), entryOf(7, 5, 5, "b")}
	runEarly(t, func(leader *transport, n1 *follower) {
		early5(leader, entries...)
		arrive()
		require.Len(t, n1.requests, 1, "it waits for raft")
		req, resp := raftRequest(5, entries...), raft.AppendEntriesResponse{}
		require.NoError(t, leader.AppendEntries("n1", "n1", req, &resp))
		require.True(t, resp.Success)
		require.EqualValues(t, 7, resp.LastLog)
		require.Len(t, n1.requests, 1)
		require.Equal(t, entries, req.Entries)

		require.NoError(t, leader.NetworkTransport.AppendEntries("n1", "n1", req, &resp))
		require.Len(t, n1.requests, 2)
		require.Equal(t, n1.requests[1], n1.requests[0])
		require.Equal(t, entries, n1.requests[0].Entries)
	})
}

// The answer to an early request is that to raft's where raft's is the same or goes
// on where it ends, and then only for what it had. Any other goes out, behind it.
func TestEarlyAnswerIsForItsRequest(t *testing.T) {
	e := func(index uint64) *raft.Log { return entryOf(index, 5, 5, "v") }
	of := func(term uint64, r *raft.AppendEntriesRequest) *raft.AppendEntriesRequest { r.Term = term; return r }
	after := func(term uint64, r *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
		r.PrevLogTerm = term
		return r
	}
	for name, c := range map[string]struct {
		req   *raft.AppendEntriesRequest
		sent  bool
		about int // entries that raft takes the answer for
	}{
		"the same":             {raftRequest(5, e(6), e(7)), false, 2},
		"more entries":         {raftRequest(5, e(6), e(7), e(8)), false, 2},
		"fewer entries":        {raftRequest(5, e(6)), true, 1},
		"none":                 {raftRequest(5), true, 0},
		"from an earlier one":  {raftRequest(4, e(5), e(6), e(7)), true, 3},
		"from a later one":     {raftRequest(7, e(8), e(9)), true, 2},
		"of a later term":      {of(6, raftRequest(5, e(6), e(7))), true, 2},
		"after another entry":  {after(4, raftRequest(5, e(6), e(7))), true, 2},
		"entries of that term": {raftRequest(5, entryOf(6, 4, 4, "v"), entryOf(7, 4, 4, "v")), true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			runEarly(t, func(leader *transport, n1 *follower) {
				early5(leader, e(6), e(7))
				require.NoError(t, appendTo(leader, c.req))
				require.Len(t, c.req.Entries, c.about)
				if !c.sent {
					require.Len(t, n1.requests, 1)
					return
				}
				arrive()
				require.Len(t, n1.requests, 2)
				require.Len(t, n1.requests[0].Entries, 2, "not in order")
				require.Equal(t, c.req.PrevLogEntry, n1.requests[1].PrevLogEntry)
				require.Len(t, n1.requests[1].Entries, c.about)
				// Nothing is left over that a later request would take.
				err := appendTo(leader, raftRequest(9, e(10)))
				if c.req.Term > 5 {
					require.ErrorIs(t, err, errTermOver)
					return
				}
				require.NoError(t, err)
				require.Len(t, n1.requests, 3)
			})
		})
	}
}

// A refusal of the early request is raft's answer too; an error, a broken
// connection or silence is none, and raft's goes out.
func TestEarlyRequestThatGetsNoAnswer(t *testing.T) {
	entry := entryOf(6, 5, 5, "v")
	t.Run("refused", func(t *testing.T) {
		runEarly(t, func(leader *transport, n1 *follower) {
			n1.answer = func(int, *raft.AppendEntriesRequest) (*raft.AppendEntriesResponse, error) {
				return &raft.AppendEntriesResponse{Term: 8, LastLog: 3}, nil
			}
			early5(leader, entry)
			var resp raft.AppendEntriesResponse
			require.NoError(t, leader.AppendEntries("n1", "n1", raftRequest(5, entry), &resp))
			require.False(t, resp.Success)
			require.EqualValues(t, 8, resp.Term)
			require.EqualValues(t, 3, resp.LastLog)
			require.Len(t, n1.requests, 1)
			early5(leader, entry)
			arrive()
			require.Len(t, n1.requests, 1, "sent to one that is not known to follow")
		})
	})
	t.Run("not written", func(t *testing.T) {
		runEarly(t, func(leader *transport, n1 *follower) {
			s := (*leader.appends.all.Load())[0]
			broken := s.conn.Load()
			broken.Close()
			early5(leader, entry)
			require.NoError(t, appendTo(leader, raftRequest(5, entry)))
			require.NotSame(t, broken, s.conn.Load())
			require.Len(t, n1.requests, 1)
			early5(leader, entryOf(7, 5, 5, "w"))
			arrive()
			require.Len(t, n1.requests, 2, "early again")
		})
	})
	t.Run("silence", func(t *testing.T) {
		runEarly(t, func(leader *transport, n1 *follower) {
			n1.answer = func(n int, req *raft.AppendEntriesRequest) (*raft.AppendEntriesResponse, error) {
				if n == 1 {
					return nil, nil
				}
				return &raft.AppendEntriesResponse{Term: 5, LastLog: 6, Success: true}, nil
			}
			silent := (*leader.appends.all.Load())[0].conn.Load()
			// The transport goes on for as long as the term is led here.
			tooLong := time.AfterFunc(time.Minute, func() { leader.leads.Store(new(func() uint64 { return 0 })) })
			defer tooLong.Stop()
			began := time.Now()
			early5(leader, entry)
			require.Zero(t, time.Since(began), "it waits for the follower")
			var resp raft.AppendEntriesResponse
			require.NoError(t, leader.AppendEntries("n1", "n1", raftRequest(5, entry), &resp))
			require.True(t, resp.Success)
			require.GreaterOrEqual(t, time.Since(began), leader.appends.timeout)
			require.Len(t, n1.requests, 2)
			require.Equal(t, n1.requests[0], n1.requests[1])
			require.NotSame(t, silent, (*leader.appends.all.Load())[0].conn.Load(), "a late answer would be another request's")
		})
	})
	for name, answer := range map[string]func(*follower) error{
		"error": func(*follower) error { return raft.ErrLogNotFound },
		"broken connection": func(n1 *follower) error {
			p := n1.to.appends.port
			p.mu.Lock()
			conns := maps.Clone(p.conns)
			p.mu.Unlock()
			for c := range conns {
				p.release(c)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			runEarly(t, func(leader *transport, n1 *follower) {
				n1.answer = func(n int, req *raft.AppendEntriesRequest) (*raft.AppendEntriesResponse, error) {
					if n == 1 {
						return &raft.AppendEntriesResponse{}, answer(n1)
					}
					return &raft.AppendEntriesResponse{Term: 5, LastLog: 6, Success: true}, nil
				}
				early5(leader, entry)
				var resp raft.AppendEntriesResponse
				require.NoError(t, leader.AppendEntries("n1", "n1", raftRequest(5, entry), &resp))
				require.True(t, resp.Success)
				require.Len(t, n1.requests, 2)
				require.Equal(t, n1.requests[0], n1.requests[1])
			})
		})
	}
}

// Who is not known to have the entry before gets nothing early, and some entries
// are raft's to send.
func TestEarlyRequestsThatAreNotMade(t *testing.T) {
	e := func(index uint64) *raft.Log { return entryOf(index, 5, 5, "v") }
	large := entryOf(6, 5, 5, strings.Repeat("v", maxEarlyBytes))
	noop := entryOf(6, 5, 5, "")
	noop.Type = raft.LogNoop
	configuration := entryOf(6, 5, 5, "c")
	configuration.Type = raft.LogConfiguration
	for name, send := range map[string]func(*transport){
		"a gap":           func(tr *transport) { early5(tr, e(7)) },
		"another entry":   func(tr *transport) { tr.sendEarly(logPosition{5, 4}, []*raft.Log{e(6)}) },
		"too large":       func(tr *transport) { early5(tr, large) },
		"no room at once": func(tr *transport) { early5(tr, entryOf(6, 5, 5, strings.Repeat("v", unknownRoom))) },
		"a no-op":         func(tr *transport) { early5(tr, noop) },
		"a configuration": func(tr *transport) { early5(tr, e(6), configuration) },
		"a term that is not led": func(tr *transport) {
			tr.sendEarly(logPosition{5, 5}, []*raft.Log{entryOf(6, 6, 6, "v")})
		},
		"a later term": func(tr *transport) {
			leads := func() uint64 { return 6 }
			tr.leads.Store(&leads)
			tr.sendEarly(logPosition{5, 5}, []*raft.Log{entryOf(6, 6, 6, "v")})
		},
		"no member": func(tr *transport) {
			configuration := func() raft.Configuration {
				return raft.Configuration{Servers: []raft.Server{{ID: "n2"}, {ID: "n3"}}}
			}
			tr.configuration.Store(&configuration)
			early5(tr, e(6))
			require.Empty(t, *tr.appends.all.Load())
		},
	} {
		t.Run(name, func(t *testing.T) {
			runEarly(t, func(leader *transport, n1 *follower) {
				send(leader)
				arrive()
				require.Empty(t, n1.requests)
				require.NoError(t, appendTo(leader, raftRequest(5, e(6))))
				require.Len(t, n1.requests, 1)
			})
		})
	}
}

// What is offered while an answer is to come goes out behind the answer, before
// raft asks; of several the last, and that only if nothing is between.
func TestEarlyRequestFollowsTheAnswer(t *testing.T) {
	e := func(index uint64) *raft.Log { return entryOf(index, 5, 5, "v") }
	for _, waits := range []bool{false, true} { // raft waits for the first answer
		runEarly(t, func(leader *transport, n1 *follower) {
			release := make(chan struct{})
			n1.answer = func(n int, req *raft.AppendEntriesRequest) (*raft.AppendEntriesResponse, error) {
				if n == 1 {
					<-release
				}
				return &raft.AppendEntriesResponse{Term: 5, LastLog: end(req).index, Success: true}, nil
			}
			early5(leader, e(6))
			done := make(chan error, 1)
			ask := func() { go func() { done <- appendTo(leader, raftRequest(5, e(6))) }() }
			if waits {
				ask()
				arrive()
			}
			early5(leader, e(7))
			arrive()
			require.Len(t, n1.requests, 1)
			close(release)
			if !waits {
				ask()
			}
			require.NoError(t, <-done)
			arrive()
			require.Len(t, n1.requests, 2, "it waits for raft")
			early5(leader, e(8))
			early5(leader, e(9))
			require.NoError(t, appendTo(leader, raftRequest(6, e(7), e(8))))
			arrive()
			require.Len(t, n1.requests, 2, "9 went out, and 8 did not")
			require.NoError(t, appendTo(leader, raftRequest(7, e(8), e(9))))
			require.Len(t, n1.requests, 3)
		})
	}
}
