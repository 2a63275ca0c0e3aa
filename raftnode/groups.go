package raftnode

import (
	"context"
	"time"
)

// segment is a run of a proposal's commands.
type segment struct {
	p        *proposal
	from, to int
}

// group is what left the queue together.
type group struct {
	segments []segment
	count    int // commands
	bytes    int
	sentAt   time.Time // when it left the queue
	// Of an entry of ours:
	seq    uint64 // names it in its entryMeta
	term   uint64
	index  uint64 // where it may be stored; 0 until then
	marker bool   // the term's marker, which has no segments
	// tick is closed when an entry of the clock's, which has no segments either,
	// is applied or given up; nil for others.
	tick chan struct{}
	// Of a forward: whose slots it holds, what ends when they are given to
	// another leader's, and the commands with their stamps.
	epoch    uint64
	ctx      context.Context
	commands [][]byte
}

// gathers says that what waits goes on waiting: for one of the groups under way, of
// which the largest is of so many proposals, or for more proposals to go with. Cost is by
// the group, and of callers who ask again once they are answered, those of a large group that has
// landed come one after the other. The first of them would have the slot, alone, and
// most groups be small. So beside one that is under way there goes none that is smaller.
// Nobody waits longer for that than with a single group under way at a time, and
// groups under way of a single proposal hold up nobody.
//
// Where processors are crowded nothing goes beside another group but a lone command beside
// lone ones.
func (q *proposer) gathers(underWay int, largest groupSize) bool {
	if underWay == 0 {
		return false
	}
	lone := largest.commands == 1 && len(q.queue) == 1 && q.queue[0].to-q.queue[0].from == 1
	return underWay >= q.inFlight || len(q.queue) < largest.proposals ||
		(!lone && q.isCrowded())
}

// isCrowded says that the processors are.
func (q *proposer) isCrowded() bool { return q.crowded != nil && q.crowded() }

// waitsFor is for how long what waits goes on waiting for the callers of the group that
// landed last, where none is under way. Where processors are not crowded it goes at once, as it
// does where nobody can come back.
func (q *proposer) waitsFor(r *returning, underWay int) time.Duration {
	if underWay > 0 || q.closed != nil || !q.isCrowded() {
		return 0
	}
	return r.left(time.Now())
}

// landed notes that a group has landed and its callers are answered, of which there were
// so many answered before.
func (q *proposer) landed(r *returning, g *group, answered int) {
	now := time.Now()
	r.landed(q.answered-answered, len(q.queue), now.Sub(g.sentAt), now)
}

// groupSize is how many proposals, or parts of them, and how many commands a group has.
type groupSize struct{ proposals, commands int }

func (g *group) size() groupSize { return groupSize{len(g.segments), g.count} }

func (s groupSize) max(o groupSize) groupSize {
	return groupSize{max(s.proposals, o.proposals), max(s.commands, o.commands)}
}
