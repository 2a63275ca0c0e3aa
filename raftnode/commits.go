package raftnode

import (
	"sync"

	"github.com/hashicorp/raft"
)

// commits brings this follower the news of a commit that it has learnt by
// asking. Raft would bring it with the next AppendEntries only, up to twice
// CommitTimeout later. So the node gives its own raft that very message: one
// without entries, after entry C of term T, of a leader of term T whose commit
// index is C. The leader could have sent it: it said that C is committed, and
// C is an entry of its term, since it is not before the term's marker. Where
// this log does not hold that entry, raft refuses the message.
type commits struct {
	wake chan struct{} // has room for one

	mu     sync.Mutex
	leader string
	term   uint64
	index  uint64
	done   uint64 // up to which index raft was told
	held   uint64 // the last entry that the log store has synced
}

func (c *commits) learn(leader string, term, index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if term > c.term || (term == c.term && index > c.index) {
		c.leader, c.term, c.index = leader, term, index
		c.kick()
	}
}

// stored notes entries that have just been synced. raft itself counts them a
// moment later, but before it reads the next message.
func (c *commits) stored(last uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = last
	if c.done < c.index && c.index <= last {
		c.kick()
	}
}

func (c *commits) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// tellCommits runs until the node stops.
func (n *Node) tellCommits() {
	c := n.commits
	for {
		select {
		case <-c.wake:
		case <-n.ctx.Done():
			return
		}
		c.mu.Lock()
		leader, term, index, done, held := c.leader, c.term, c.index, c.done, c.held
		c.mu.Unlock()
		if index <= done || n.raft.CommitIndex() >= index || held < index {
			continue // known already, or not here yet: stored kicks again
		}
		n.transport.inject(&raft.AppendEntriesRequest{
			RPCHeader:         raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader), Addr: []byte(leader)},
			Term:              term,
			PrevLogEntry:      index,
			PrevLogTerm:       term,
			LeaderCommitIndex: index,
		}, nil)
		c.mu.Lock()
		c.done = max(c.done, index)
		c.mu.Unlock()
	}
}
