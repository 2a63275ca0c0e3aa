package raftnode

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// heartbeatPair is the transport of n1, with stores of term 5, and one of n2 to
// send from.
func heartbeatPair(t *testing.T) (n1 *transport, n2 *transport) {
	sn := newSimNet()
	p1, other := portPair(t, sn)
	p2 := other("c1", "n2")
	t.Cleanup(p2.close)
	return transportsOver(t, p1, p2)
}

// transportsOver makes the transports of a follower n1 and a leader n2.
func transportsOver(t *testing.T, p1, p2 *peerPort) (n1 *transport, n2 *transport) {
	make := func(p *peerPort) *transport {
		stable, err := newGuardedStable(newSimDisk(), "stable", func(err error) { t.Error(err) })
		require.NoError(t, err)
		require.NoError(t, stable.SetUint64(keyTerm, 5))
		tr := newTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: raftStreams{p}, MaxPool: 3, MaxRPCsInFlight: 1, Timeout: 500 * time.Millisecond, Logger: newRaftLog(testLog(t), new(atomic.Bool)),
		}), p, 500*time.Millisecond, stable, func() (uint64, uint64) { return 0, 0 })
		t.Cleanup(func() {
			p.cut()
			tr.close()
		})
		return tr
	}
	n1, n2 = make(p1), make(p2)
	n2.setState(func() raft.RaftState { return raft.Leader }, func() uint64 { return 0 })
	return n1, n2
}

// raft runs before NewRaft has returned it. Whatever it sends before the node
// knows it waits until then: the node asks raft for the address to send it to.
func TestNothingIsSentBeforeTheNodeKnowsItsRaft(t *testing.T) {
	for name, send := range map[string]func(*transport) error{
		"pre-vote": func(tr *transport) error {
			return tr.RequestPreVote("n2", "", &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{})
		},
		"vote": func(tr *transport) error {
			return tr.RequestVote("n2", "", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{})
		},
		"entries": func(tr *transport) error {
			return tr.AppendEntries("n2", "", &raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{})
		},
		"snapshot": func(tr *transport) error {
			return tr.InstallSnapshot("n2", "", &raft.InstallSnapshotRequest{}, &raft.InstallSnapshotResponse{}, strings.NewReader(""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n1, _ := heartbeatPair(t)
				done := make(chan error, 1)
				go func() { done <- send(n1) }()
				time.Sleep(time.Minute) // virtual
				require.Empty(t, done, "it was sent")
				n1.setState(func() raft.RaftState { return raft.Follower }, func() uint64 { return 0 })
				require.Error(t, <-done, "n2 does not listen")

				closed, _ := heartbeatPair(t)
				go func() { done <- send(closed) }()
				synctest.Wait()
				closed.close()
				require.ErrorIs(t, <-done, raft.ErrTransportShutdown)
			})
		})
	}
}

// Only a heartbeat of the present term, met by a follower, may run beside
// raft's main goroutine; every other waits its turn there.
func TestHeartbeatsThatMayBypassRaftsMainGoroutine(t *testing.T) {
	for _, c := range []struct {
		name   string
		state  raft.RaftState
		term   uint64
		bypass bool
	}{
		{"the present term, a follower", raft.Follower, 5, true},
		{"a new term, a follower", raft.Follower, 6, false},
		{"an old term, a follower", raft.Follower, 4, false},
		{"a new term, a leader (raft issue 695)", raft.Leader, 6, false},
		{"the present term, a candidate", raft.Candidate, 5, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n1, n2 := heartbeatPair(t)
				n1.setState(func() raft.RaftState { return c.state }, func() uint64 { return 0 })
				answer := func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Term: 5}, nil) }
				bypassed := false
				n1.SetHeartbeatHandler(func(rpc raft.RPC) {
					bypassed = true
					answer(rpc)
				})
				queued := false
				ended := make(chan struct{})
				go func() { // in place of raft's main goroutine
					defer close(ended)
					select {
					case rpc := <-n1.Consumer():
						queued = true
						answer(rpc)
					case <-n1.stop:
					}
				}()
				req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("n2"), ID: []byte("n2")}, Term: c.term}
				require.NoError(t, n2.AppendEntries("n1", "", req, &raft.AppendEntriesResponse{}))
				require.Equal(t, c.bypass, bypassed)
				require.Equal(t, !c.bypass, queued)
				n1.close()
				<-ended
			})
		})
	}
}

// Members go by their ids, so that a vote and a leader stay who they are when
// an address changes.
func TestTransportSpeaksOfIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n1, _ := heartbeatPair(t)
		require.EqualValues(t, "n1", n1.LocalAddr())
		require.EqualValues(t, "n7", n1.EncodePeer("n7", "10.0.0.7:7171"))
		require.EqualValues(t, "n7", n1.DecodePeer([]byte("n7")))
		require.Error(t, n1.TimeoutNow("n2", "", nil, nil))
	})
}

// A message commits what it covers, whichever side has the bound.
func TestNoMessageCommitsBeyondItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n1, n2 := heartbeatPair(t)
		n1.setState(func() raft.RaftState { return raft.Follower }, func() uint64 { return 0 })
		commits := make(chan uint64, 1)
		go func() { // in place of raft's main goroutine
			for {
				select {
				case rpc := <-n1.Consumer():
					commits <- rpc.Command.(*raft.AppendEntriesRequest).LeaderCommitIndex
					rpc.Respond(&raft.AppendEntriesResponse{Term: 5, Success: true}, nil)
				case <-n1.stop:
					return
				}
			}
		}()
		req := func(entries ...*raft.Log) *raft.AppendEntriesRequest {
			return &raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{Addr: []byte("n2"), ID: []byte("n2")}, Term: 5,
				PrevLogEntry: 5, PrevLogTerm: 5, Entries: entries, LeaderCommitIndex: 9,
			}
		}
		send := map[string]func(*raft.AppendEntriesRequest) error{
			"bound by the sender": func(r *raft.AppendEntriesRequest) error {
				return n2.AppendEntries("n1", "", r, &raft.AppendEntriesResponse{})
			},
			"bound by the receiver": func(r *raft.AppendEntriesRequest) error {
				return n2.NetworkTransport.AppendEntries("n1", "n1", r, &raft.AppendEntriesResponse{})
			},
		}
		for name, send := range send {
			require.NoError(t, send(req()), name)
			require.EqualValues(t, 5, <-commits, name)
			require.NoError(t, send(req(entryOf(6, 5, 5, "a"), entryOf(7, 5, 5, "b"))), name)
			require.EqualValues(t, 7, <-commits, name)
			require.ErrorContains(t, send(req(&raft.Log{Index: 6, Term: 5})), "carries no checksum", name)
		}
	})
}
