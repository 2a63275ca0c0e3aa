package raftnode

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// Members compare their states. The state is a function of the log, so members
// that have applied the same entries have the same state hash, or one of them is
// broken: by a bit that flips while an entry is applied, by a snapshot that lies in
// spite of its checksum, or by a defect of this program. That one must not go on
// answering. (The hash is kept as items change, so a bit that flips in an item at
// rest does not show here; it does when a snapshot of that state is restored, whose
// hash is counted anew.)
//
// Each member remembers the hash at each of the last indexes that it applied
// (hashRing). Every compareEvery, each member that does not lead tells the leader
// its newest index and the hash there, and is told the leader's hash there: one
// small request a second and member, which also tells the leader how far the
// member is (PeerStats). An index that the leader no longer knows, or cannot
// reach within a moment, is passed over; the next one will do.
//
// Where the hashes differ, one of the two is wrong, and both find out by
// themselves which: each asks all voters for their hashes at that index.
//
//   - Where a majority of the voters has one hash, whoever has another is wrong.
//     This may be the leader: of three, the two followers then go on together.
//   - Where none has, because there are two voters, or several faults at once, or
//     some do not answer for judgeAttempts: whoever differs from the leader is
//     taken to be wrong. That may be the wrong choice, but what is left agrees
//     with itself; and where it is too few for a majority, it stops serving.
//
// Only a member itself decides that it is wrong, by answers that it asked for, so
// that one broken member cannot talk others out of service. One that is wrong
// takes itself out (diverge): it fails like one whose disk does, so that another
// leader is elected where it led, and answers no read any more. A stale read may
// be old, but it has to be true.
//
// Started again it makes its state anew, from its newest snapshot and the log. Where
// that snapshot was taken of what is wrong, it finds out again and stops again: then
// its folder is to be emptied, and the member removed and added anew.
//
// Until then, a second or so and a few more where voters do not answer, it has
// answered with what it had. To rule that out, every read would have to be
// compared, and every member be as slow as the slowest.

const (
	compareEvery = time.Second
	// judgeAttempts is how often all voters are asked, compareEvery apart, before
	// those that did not answer are done without.
	judgeAttempts = 5
)

// hashRing is the state hashes at the last indexes that were applied.
type hashRing struct {
	mu    sync.Mutex
	slots [ringSlots]hashAt // by index modulo their number
	last  hashAt
}

// ringSlots is some seconds' worth of entries under full load.
const ringSlots = 1 << 14

type hashAt struct{ index, hash uint64 }

func (r *hashRing) record(index, hash uint64) {
	r.mu.Lock()
	r.last = hashAt{index, hash}
	r.slots[index%ringSlots] = r.last
	r.mu.Unlock()
}

func (r *hashRing) newest() hashAt {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// at returns the hash at an index, false where it is not known (any more). An
// index whose entry never reached the state machine has none.
func (r *hashRing) at(index uint64) (hash uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.slots[index%ringSlots]
	return s.hash, s.index == index && index != 0
}

// comparison is what a node keeps to compare its state with the others'.
type comparison struct {
	ring hashRing
	// judging is set while the node finds out who is wrong.
	judging atomic.Bool

	mu    sync.Mutex
	peers map[string]peerReport // by id: what members told this node last
}

type peerReport struct {
	at      time.Time
	applied uint64
	lag     uint64 // behind this node's commit index, then
}

// compareStates runs until the node stops.
func (n *Node) compareStates() {
	tick := time.NewTicker(compareEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if !mutant.On("compare-nothing") {
				n.compareWithLeader()
			}
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) compareWithLeader() {
	mine := n.compare.ring.newest()
	leader := n.leaderID()
	if leader == "" || leader == n.cfg.ID || mine.index == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, 2*compareEvery)
	defer cancel()
	reply, err := n.peers.call(ctx, leader, &trivetpb.PeerRequest{Request: &trivetpb.PeerRequest_Hash{
		Hash: &trivetpb.HashRequest{Index: mine.index, Hash: mine.hash, AppliedIndex: n.store.Index()},
	}})
	if err != nil || !reply.GetHash().GetKnown() {
		return // the next one will do
	}
	n.compared(leader, mine, reply.GetHash().Hash)
}

// compared takes another member's hash at an index where this one's is known.
func (n *Node) compared(with string, mine hashAt, theirs uint64) {
	n.counters.comparisons.Add(1)
	if theirs == mine.hash {
		return
	}
	n.counters.mismatches.Add(1)
	if !n.compare.judging.CompareAndSwap(false, true) {
		return
	}
	n.log.Error("the state of another member is not this one's; all voters are asked which is wrong",
		"member", with, "index", mine.index, "hash", hexHash(mine.hash), "theirs", hexHash(theirs))
	if !n.spawn(func() {
		defer n.compare.judging.Store(false)
		n.judge(mine)
	}) {
		n.compare.judging.Store(false)
	}
}

// judge finds out whether this node is the one that is wrong.
func (n *Node) judge(mine hashAt) {
	// By id. What a member has said stays: under load it knows nothing of the index
	// any more a few seconds later.
	said := map[string]uint64{}
	for attempt := 1; n.ctx.Err() == nil; attempt++ {
		n.askForHashes(mine, said)
		count := n.countHashes(said)
		switch verdict, why := count.verdict(mine.hash, attempt >= judgeAttempts); verdict {
		case isRight:
			n.log.Warn("this member's state is that of the others; it goes on", "index", mine.index, "why", why)
			return
		case isWrong:
			n.diverge(mine, why)
			return
		}
		select {
		case <-time.After(compareEvery):
		case <-n.ctx.Done():
		}
	}
}

// hashCount is what the voters said of one index.
type hashCount struct {
	voters  int
	members map[uint64]int // how many voters have which hash
	answers int
	leads   bool   // this node leads
	leader  uint64 // the leader's hash; see known
	known   bool   // the leader's
}

type verdict int

const (
	isOpen verdict = iota
	isRight
	isWrong
)

// verdict says of the member with the hash mine whether it is wrong. late is set
// where those that have not answered are done without.
func (c *hashCount) verdict(mine uint64, late bool) (verdict, string) {
	for hash, members := range c.members {
		if members <= c.voters/2 || mutant.On("leader-is-right") {
			continue
		}
		if hash == mine {
			return isRight, fmt.Sprintf("%d of %d voters have the same", members, c.voters)
		}
		return isWrong, fmt.Sprintf("%d of %d voters have %s", members, c.voters, hexHash(hash))
	}
	switch {
	case c.answers < c.voters && !late:
		return isOpen, ""
	case c.leads:
		return isRight, "no majority of the voters has one hash, and this member leads"
	case !c.known && !late:
		return isOpen, ""
	case c.known && c.leader == mine:
		return isRight, "no majority of the voters has one hash, and the leader has the same"
	case c.known:
		return isWrong, fmt.Sprintf("no majority of the voters has one hash, and the leader has %s", hexHash(c.leader))
	}
	return isRight, "nobody could be asked; it is looked at again" // the next comparison
}

// askForHashes asks all voters, and the leader, that have not said yet.
func (n *Node) askForHashes(mine hashAt, said map[string]uint64) {
	ctx, cancel := context.WithTimeout(n.ctx, 2*compareEvery)
	defer cancel()
	said[n.cfg.ID] = mine.hash
	leader := n.leaderID()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, s := range n.configuration().Servers {
		id := string(s.ID)
		mu.Lock()
		_, ok := said[id]
		mu.Unlock()
		if ok || (s.Suffrage != raft.Voter && id != leader) {
			continue
		}
		wg.Go(func() {
			reply, err := n.peers.call(ctx, id, &trivetpb.PeerRequest{Request: &trivetpb.PeerRequest_Hash{
				Hash: &trivetpb.HashRequest{Index: mine.index},
			}})
			if err == nil && reply.GetHash().GetKnown() {
				mu.Lock()
				defer mu.Unlock()
				said[id] = reply.GetHash().Hash
			}
		})
	}
	wg.Wait()
}

// countHashes counts what the voters, and the leader, have said.
func (n *Node) countHashes(said map[string]uint64) *hashCount {
	leader := n.leaderID()
	c := &hashCount{members: map[uint64]int{}, leads: leader == n.cfg.ID}
	c.leader, c.known = said[leader]
	for _, id := range voters(n.configuration()) {
		c.voters++
		if hash, ok := said[id]; ok {
			c.members[hash]++
			c.answers++
		}
	}
	return c
}

// diverge takes this node out of service: its state is not that of the others.
func (n *Node) diverge(mine hashAt, why string) {
	n.counters.diverged.Store(true) // before fail: no read gets between
	n.fail(fmt.Errorf("the state of this member is not that of the others: at log entry %d its hash is %s, and %s",
		mine.index, hexHash(mine.hash), why))
}

func hexHash(h uint64) string { return fmt.Sprintf("%016x", h) }

// serveHash answers another member's question, and notes how far it is.
func (n *Node) serveHash(ctx context.Context, from string, r *trivetpb.HashRequest) *trivetpb.HashReply {
	told := r.AppliedIndex != 0
	if told {
		commit := n.raft.CommitIndex()
		n.compare.mu.Lock()
		n.compare.peers[from] = peerReport{time.Now(), r.AppliedIndex, commit - min(commit, r.AppliedIndex)}
		n.compare.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, compareEvery)
	defer cancel()
	if n.appliedIndex.wait(ctx, n.ctx.Done(), r.Index) != nil {
		return &trivetpb.HashReply{}
	}
	hash, ok := n.compare.ring.at(r.Index)
	if ok && told {
		n.compared(from, hashAt{r.Index, hash}, r.Hash)
	}
	return &trivetpb.HashReply{Known: ok, Hash: hash}
}

// peerStats is what the others told this node since it leads: of one that has
// said nothing, how long that is.
func (n *Node) peerStats(lead *leadership) []PeerStats {
	commit := n.raft.CommitIndex()
	var all []PeerStats
	n.compare.mu.Lock()
	defer n.compare.mu.Unlock()
	for _, s := range n.configuration().Servers {
		id := string(s.ID)
		if id == n.cfg.ID {
			continue
		}
		p := PeerStats{ID: id, Lag: commit, LastContact: time.Since(lead.since)}
		if r, ok := n.compare.peers[id]; ok && r.at.After(lead.since) {
			p.AppliedIndex, p.Lag, p.LastContact = r.applied, r.lag, time.Since(r.at)
		}
		all = append(all, p)
	}
	return all
}
