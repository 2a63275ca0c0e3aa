package raftnode

import (
	"bytes"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/internal/spare"
)

// The leader writes its log while its followers write theirs.
//
// raft's leader writes and syncs entries, and only then tells the goroutines that
// send them: two syncs, one after the other. It need not wait: an entry is
// committed once a majority has it, and the leader's own copy counts as any
// other (Raft dissertation §10.2.1). So the log store, in raft's main goroutine
// and right before it writes, sends each follower that lacks nothing the very
// request that raft is about to make for it (sendEarly). When raft makes it, its
// answer is on its way or there (appendStream.append).
//
// The frame is encoded once for all followers, and written by the main
// goroutine: nobody is woken for it, and raft's goroutine for the follower reads
// the answer, as it does otherwise. A follower whose answer is still to come gets
// the entries right behind that answer (sendNext).
//
// What makes it safe is that an early request is one that this leader may send at
// any time from then on, and that nothing is concluded from its answer before
// raft asks for it:
//
//   - Its term is led here while it is made: the log store is called by the
//     goroutine that alone ends raft's leadership, past the fence. If the term
//     ends before it arrives, it is a late message of that term, which Raft allows for.
//   - No other entry can come to be at that index in that term. raft gives an index
//     away again in a term only where a write failed, and then the store takes
//     no more writes (poison), and a node that starts again leads only later terms.
//   - raft counts a follower when its own call returns, which it makes once it
//     has written the entries here. So a commit still means that this leader has
//     them too, although Raft would do without.
//   - Where this leader crashes before its sync, or its disk fails or hangs, the
//     entries may be on a majority all the same, and be committed by the next
//     leader. That is the case of a write that fails and is on disk, and is told
//     as such: the proposer has noted the index before (storing, outcome.go), and
//     nothing noted is ever called "certainly not applied" but for what the state
//     machine shows.
//   - An answer belongs to the request that it answers: raft gets it for a request
//     of the same term, that goes on from the same entry and begins with the same
//     entries, and that is cut to those. Any other request waits for the
//     answer, on the same connection, and then goes out itself.
//   - An answer that does not come, or is an error, is as if the early request had
//     not been: raft's goes out. The follower skips what it has. So it is where the
//     write here takes longer than raft's CommitTimeout, after which raft sends a
//     follower an empty request: that takes the early answer, which is no answer to
//     it and is thrown away, and the entries go out again.
//   - raft notes that it has heard of a follower (its lastContact, which its lease
//     rests on) when its own call returns. An early answer may have lain in the socket
//     by then for as long as the write here took: a leader with a slow disk keeps
//     its leadership longer by that at most. No read rests on the lease (confirm.go).
//
// Sent the ordinary way are: entries of raft's own (configurations, and the no-op
// of a new term), since what they change takes effect here once they are
// written; what is too large to be written at once (maxEarlyBytes, sendRoom); all that
// goes to a follower that is not known to have the entry before, or whose last
// request failed. So each term begins with raft's own request to a follower,
// and so does what follows a snapshot: that leaves its last match
// behind the log. Heartbeats have connections of their own.
//
// The commit index in an early request is that of its moment. It may be an entry
// less than raft's would be a sync later: the follower hears it with the next
// request, or asks (commits.go).

// maxEarlyBytes bounds a frame: what is kept for a follower that is not heard of,
// and how long the main goroutine copies. It must not wait for a follower either:
// nothing is under way on the connection then, and a frame that the kernel does not
// take at once is left to raft (sendRoom). A connection that has sent little, to a
// follower that is far, may have no room for 64 KiB; each frame that goes the ordinary
// way makes more.
const maxEarlyBytes = 256 << 10

// earlyWait is how long the main goroutine waits for the kernel where it does not
// after all. The connection is not used any more then.
const earlyWait = 20 * time.Millisecond

// earlyRequest is a request that went out, or is to, before raft made it.
type earlyRequest struct {
	term uint64
	prev logPosition
	last logPosition
}

// earlyFrame is one that can be sent: as it is on a connection. Its memory is used
// again (spare) once nobody holds it: who makes it holds it until all followers were
// offered it, and each place where it waits for an answer (appendStream.next) does,
// or who took it from there, until it was sent or is not to be. What a follower was sent it
// is not kept in, but its earlyRequest alone: that says which answer belongs to it.
type earlyFrame struct {
	earlyRequest
	bytes   []byte
	buffer  *spare.Buffer
	holders atomic.Int32
}

// earlyFrames are the memory of frames.
var earlyFrames spare.Buffers

// letGo says that a holder has done with the frame.
func (f *earlyFrame) letGo() {
	if f.holders.Add(-1) > 0 {
		return
	}
	earlyFrames.Put(f.buffer)
	f.bytes, f.buffer = nil, nil
}

// answers reports whether the answer to e is that to a request of raft's, and
// cuts the request to the entries that it is about.
func (e *earlyRequest) answers(req *raft.AppendEntriesRequest) bool {
	if mutant.On("early-for-any") {
		return true
	}
	n := e.last.index - e.prev.index
	if req.Term != e.term || req.PrevLogEntry != e.prev.index || req.PrevLogTerm != e.prev.term ||
		uint64(len(req.Entries)) < n || req.Entries[n-1].Index != e.last.index || req.Entries[n-1].Term != e.term {
		return false
	}
	req.Entries = req.Entries[:n]
	return true
}

// sendEarly sends entries that are about to be written, and follow prev in the
// log, to the followers that have all before them. Called by the log store in
// raft's main goroutine.
func (t *transport) sendEarly(prev logPosition, logs []*raft.Log) {
	leads := t.leads.Load()
	term := logs[0].Term
	if leads == nil || (*leads)() != term || mutant.On("no-early") {
		return
	}
	size := 512 // more than all that is not an entry
	for _, l := range logs {
		if l.Type != raft.LogCommand {
			return
		}
		size += len(l.Data) + 256
	}
	if size > maxEarlyBytes {
		return
	}
	var members raft.Configuration
	configuration := t.configuration.Load()
	if configuration != nil {
		members = (*configuration)()
	}
	var f *earlyFrame
	for _, s := range *t.appends.all.Load() {
		if s.term != term || !s.well.Load() {
			continue
		}
		if configuration != nil && !hasServer(members, string(s.id)) {
			t.appends.drop(s)
			continue
		}
		if f == nil {
			f = t.early(prev, logs, size)
		}
		s.offer(f)
	}
	if f != nil {
		f.letGo()
	}
}

// earlyHandle keeps what it has found out about the types of a request: a handle of
// its own for each would find it out again.
var earlyHandle = &codec.MsgpackHandle{}

// early makes the request, which is the caller's to let go.
func (t *transport) early(prev logPosition, logs []*raft.Log, size int) *earlyFrame {
	last := logs[len(logs)-1]
	f := &earlyFrame{earlyRequest: earlyRequest{term: last.Term, prev: prev, last: logPosition{last.Index, last.Term}}}
	f.holders.Store(1)
	req := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.id), Addr: []byte(t.id)},
		Term:      f.term,
		//lint:ignore SA1019 raft sends it
		Leader:       []byte(t.id),
		PrevLogEntry: prev.index,
		PrevLogTerm:  prev.term,
		Entries:      logs,
	}
	if commit := t.commitIndex.Load(); commit != nil {
		req.LeaderCommitIndex = (*commit)()
	}
	boundCommit(req)
	f.buffer = earlyFrames.Get(size)
	b := bytes.NewBuffer(f.buffer.B[:0])
	b.WriteByte(rpcAppendEntries)
	// It writes to memory what raft's transport writes to a connection each time.
	codec.NewEncoder(b, earlyHandle).MustEncode(req)
	f.bytes = b.Bytes()
	f.buffer.B = f.bytes // another, if it grew after all
	return f
}

// offer sends f now, where nothing is under way, or else leaves it to whoever
// reads the answer. The caller holds f.
func (s *appendStream) offer(f *earlyFrame) {
	for range 2 {
		select {
		case s.turn <- struct{}{}:
			if s.sent != nil {
				s.setNext(f)
			} else {
				s.setNext(nil)
				s.send(f)
			}
			<-s.turn
			return
		default:
		}
		// Whoever has the turn may be past looking, hence again. One that is
		// missed all the same goes out when raft asks.
		s.setNext(f)
	}
}

// setNext puts f, if any, in the place of what was offered before. The caller holds f.
func (s *appendStream) setNext(f *earlyFrame) {
	if f != nil {
		f.holders.Add(1)
	}
	if before := s.next.Swap(f); before != nil {
		before.letGo()
	}
}

// sendNext sends what was offered meanwhile, if it is what the follower lacks. It
// may be written here by now, or never be: see above.
func (s *appendStream) sendNext() {
	f := s.next.Swap(nil) // from here on this holds it
	if f == nil {
		return
	}
	if s.sent == nil {
		s.send(f)
	}
	f.letGo()
}

// send writes an early request, if it goes on where the follower's log is known
// to end. Only whoever has the turn calls it, while no answer is to come; it holds f.
func (s *appendStream) send(f *earlyFrame) {
	c := s.conn.Load()
	if c == nil || s.matched != f.prev || s.ended.Load() || len(f.bytes) > c.room.bytes() {
		return
	}
	c.SetWriteDeadline(time.Now().Add(earlyWait))
	if _, err := c.Write(f.bytes); err != nil {
		s.matched, s.spoilt = logPosition{}, true
		s.well.Store(false)
		return
	}
	sent := f.earlyRequest
	s.sent = &sent
}
