package raftnode

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
)

// transport is raft's network transport with these differences.
//
//   - Servers are addressed by id; the peer port finds the address when it
//     dials. What raft puts into its messages and its vote as an address is the
//     id too, so that a member may come back under another address.
//   - Heartbeats bypass raft's main goroutine only where that is safe
//     (stablestore.go).
//   - A message commits nothing that lies beyond it (boundCommit).
//   - A message that goes on right behind the newest snapshot is compared with
//     that (matchSnapshot).
//   - A request for a vote is judged by its log alone, not by whether this member
//     knows the candidate as a voter (anyCandidate).
//   - Nothing is sent before the node knows its raft (begun).
//   - The node can put a message of its own in front of raft (inject): one that
//     the leader could have sent.
//   - Entries go to a follower over one connection, in order (appendstream.go), and
//     before raft asks for it where they can (early.go).
type transport struct {
	*raft.NetworkTransport
	id     raft.ServerID
	stable *guardedStable
	// state is raft's, once raft exists.
	state atomic.Pointer[func() raft.RaftState]

	// snapshotEnd returns where the newest snapshot ends.
	snapshotEnd func() (index, term uint64)

	// leads returns the term that raft leads, 0 for none; set with state.
	leads atomic.Pointer[func() uint64]
	// configuration returns the newest stored one; set once raft exists.
	configuration atomic.Pointer[func() raft.Configuration]
	// commitIndex returns raft's; set with it.
	commitIndex atomic.Pointer[func() uint64]
	portStop    <-chan struct{} // closed when the peer port is

	appends *appendStreams

	// begun is closed by setState. raft's goroutines run before NewRaft has
	// returned, and find the address of a member by asking the node, which asks
	// raft: one whose first timeout passes before the node has been told of its
	// raft, on a machine that is too busy, would ask in vain.
	begun chan struct{}

	out  chan raft.RPC
	once sync.Once
	stop chan struct{}
	done chan struct{}
}

func newTransport(nt *raft.NetworkTransport, port *peerPort, timeout time.Duration, stable *guardedStable, snapshotEnd func() (index, term uint64)) *transport {
	t := &transport{
		appends:          newAppendStreams(port, timeout),
		snapshotEnd:      snapshotEnd,
		NetworkTransport: nt,
		id:               raft.ServerID(port.id),
		portStop:         port.stop,
		stable:           stable,
		begun:            make(chan struct{}),
		out:              make(chan raft.RPC),
		stop:             make(chan struct{}),
		done:             make(chan struct{}),
	}
	go t.pump()
	return t
}

// boundCommit bounds the commit index of a message by the last entry that the
// message covers. raft commits up to the leader's commit index or the end of
// its own log, whichever is less; the Raft paper (figure 2, AppendEntries, rule
// 5) says the index of the last new entry. The difference is a follower whose
// log goes on behind what the message covers with entries of a deposed leader:
// it would take those for committed, and apply them. A leader sends such a
// message where its commit index moves on while a retry sleeps, between when it
// fixed what to send and when it reads the index.
func boundCommit(req *raft.AppendEntriesRequest) {
	if mutant.On("commit-beyond") {
		return
	}
	req.LeaderCommitIndex = min(req.LeaderCommitIndex, req.PrevLogEntry+uint64(len(req.Entries)))
}

// matchSnapshot lets a message through whose entries follow the very entry that
// the newest snapshot ends with. raft compares that entry with what it remembers
// as the end of its log, where the two have the same index. After a snapshot was
// installed over a log that ended there in an entry of a deposed leader, that is
// a memory of an entry that is gone: it would refuse the message, be sent the
// snapshot again, and refuse the message, for ever. A message that follows
// nothing is not compared; the snapshot stands for all that it would follow.
//
// What raft remembers stays wrong until the next entry is stored, in one more
// place: its last term, where it votes and stands for election, is that of the
// deposed leader, so lower than it is. To stand with less than one has harms
// nobody. To vote for one with less harms nobody either, as the entry that the
// snapshot ends with was not committed by this member's vote.
func (t *transport) matchSnapshot(req *raft.AppendEntriesRequest) {
	index, term := t.snapshotEnd()
	if req.PrevLogEntry == index && req.PrevLogTerm == term && !mutant.On("snapshot-at-end") {
		req.PrevLogEntry, req.PrevLogTerm = 0, 0
	}
}

// anyCandidate lets raft judge a candidate that it does not know as a voter.
// raft refuses it its vote, and that can leave a cluster without a leader for
// good: members 1 to 3, of which 3 is away while 4 is added (or promoted) and 1
// dies. 2 and 4 need the vote of 3, which has not heard of 4; and where 4 has an
// entry that 2 lacks, 2 cannot win. A server processes requests without
// consulting its configuration (Raft dissertation §4.1). Whoever is here has shown
// in the handshake that it is a member, by a newer configuration if not by this
// member's own (admission.go), and stands for election by that one.
//
// raft takes the id for nothing but to look it up: a vote is kept under the
// address, which stays. A vote without an id is not looked up; a pre-vote is, so
// that it gets the id of somebody who votes.
func (t *transport) anyCandidate(rpc raft.RPC) {
	configuration := t.configuration.Load()
	if configuration == nil || mutant.On("known-candidates") {
		return
	}
	switch req := rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		if s, ok := serverOf((*configuration)(), string(req.ID)); !ok || s.Suffrage != raft.Voter {
			req.ID = nil
		}
	case *raft.RequestPreVoteRequest:
		conf := (*configuration)()
		if s, ok := serverOf(conf, string(req.ID)); ok && s.Suffrage == raft.Voter {
			return
		}
		if ids := voters(conf); len(ids) > 0 {
			req.ID = []byte(ids[0])
		}
	}
}

// pump hands raft what arrives.
func (t *transport) pump() {
	defer close(t.done)
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
				boundCommit(req)
				t.matchSnapshot(req)
				if i := slices.IndexFunc(req.Entries, func(l *raft.Log) bool { return len(l.Extensions) == 0 }); i >= 0 {
					// Its leader would have stamped it (logstore.go).
					rpc.Respond(nil, fmt.Errorf("raftnode: entry %d %w", req.Entries[i].Index, errNoMeta))
					continue
				}
			}
			t.anyCandidate(rpc)
			select {
			case t.out <- rpc:
			case <-t.stop:
				return
			}
		case <-t.stop:
			return
		}
	}
}

// close ends the transport. Requests under way end with their connections,
// which the peer port closes.
func (t *transport) close() {
	t.once.Do(func() { close(t.stop) })
	<-t.done
	t.NetworkTransport.Close()
	t.NetworkTransport.CloseStreams()
}

// setState tells the transport how to ask for raft's state, and for the term that
// it leads; once, when the node knows its raft.
func (t *transport) setState(state func() raft.RaftState, leads func() uint64) {
	t.state.Store(&state)
	t.leads.Store(&leads)
	close(t.begun)
}

// awaitBegin waits for that; its error says that the transport was closed before.
func (t *transport) awaitBegin() error {
	select {
	case <-t.begun:
		return nil
	case <-t.stop:
		return raft.ErrTransportShutdown
	}
}

func (t *transport) Consumer() <-chan raft.RPC { return t.out }

func (t *transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.id) }

func (t *transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

func (t *transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler gives raft's handler only what may run beside its main
// goroutine: a heartbeat of the current term, met by a follower. All else goes
// the way of every other message. raft issue 695 is the case of a new term.
func (t *transport) SetHeartbeatHandler(handle func(raft.RPC)) {
	if handle == nil {
		t.NetworkTransport.SetHeartbeatHandler(nil)
		return
	}
	if mutant.On("heartbeats-bypass") {
		t.NetworkTransport.SetHeartbeatHandler(handle)
		return
	}
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		state := t.state.Load()
		if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok && state != nil && (*state)() == raft.Follower {
			if t.stable.fastPath(req.Term, func() { handle(rpc) }) {
				return
			}
		}
		select {
		case t.out <- rpc:
		case <-t.stop:
		}
	})
}

// resendPause is how long AppendEntries waits before it sends again.
const resendPause = 25 * time.Millisecond

// inject puts a message before raft as if it had come from the network. It
// returns once raft has taken it, false where the transport closed before. The
// answer goes to reply (nil: nowhere), a channel with room for it.
func (t *transport) inject(command any, reply chan raft.RPCResponse) bool {
	if req, ok := command.(*raft.AppendEntriesRequest); ok {
		t.matchSnapshot(req)
	}
	if reply == nil {
		reply = make(chan raft.RPCResponse, 1)
	}
	select {
	case t.out <- raft.RPC{Command: command, RespChan: reply}:
		return true
	case <-t.stop:
		return false
	}
}

// Outgoing requests are addressed by id.

// AppendEntries sends again by itself while it fails, this node still leads the
// term and the other is a member: raft stops what replicates to a removed one
// between two calls of this. raft would count the failures, and after some sleep up to ten seconds
// before it tries again, however long the follower has been back. Heartbeats
// come from another goroutine of raft, with a bound of its own.
func (t *transport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if err := t.awaitBegin(); err != nil {
		return err
	}
	boundCommit(req)
	heartbeat := req.PrevLogEntry == 0 && len(req.Entries) == 0
	for {
		var err error
		if heartbeat {
			err = t.NetworkTransport.AppendEntries(id, raft.ServerAddress(id), req, resp)
		} else if s, e := t.appends.of(id, req.Term); e != nil {
			return e
		} else {
			err = s.append(req, resp)
		}
		leads := t.leads.Load()
		if err == nil || heartbeat || leads == nil || (*leads)() != req.Term || mutant.On("raft-backoff") {
			return err
		}
		if configuration := t.configuration.Load(); configuration != nil && !hasServer((*configuration)(), string(id)) {
			return err
		}
		select {
		case <-time.After(resendPause):
		case <-t.portStop:
			return err
		}
	}
}

func (t *transport) RequestVote(id raft.ServerID, _ raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.awaitBegin(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestVote(id, raft.ServerAddress(id), req, resp)
}

func (t *transport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.awaitBegin(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestPreVote(id, raft.ServerAddress(id), req, resp)
}

func (t *transport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := t.awaitBegin(); err != nil {
		return err
	}
	return t.NetworkTransport.InstallSnapshot(id, raft.ServerAddress(id), req, resp, data)
}

func (t *transport) TimeoutNow(raft.ServerID, raft.ServerAddress, *raft.TimeoutNowRequest, *raft.TimeoutNowResponse) error {
	// A transfer of leadership by raft itself can stay stuck (its issue 696);
	// handover.go does it.
	return fmt.Errorf("raftnode: leadership is handed over by the peer port")
}
