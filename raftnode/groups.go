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

// holds is for how long the queue is held for the callers of the last group (r), once gathers
// would let it go: not at all where processors are not crowded, or where nobody can come any
// more. held is what it was held by when the dispatcher looked last, nil for nothing.
func (q *proposer) holds(r, held *returning) time.Duration {
	if q.closed != nil || !q.isCrowded() {
		r.drop()
		return 0
	}
	left := r.hold(time.Now())
	if left > 0 {
		q.heldFor = r
		if held != r {
			q.stats.Held++
		}
	}
	return left
}

// landed notes that a group has landed and its callers are answered. before is what
// q.answered was when it landed.
func (q *proposer) landed(r *returning, g *group, before int) {
	if len(g.segments) == 0 {
		return // it is nobody's
	}
	now := time.Now()
	few := q.pending+int64(g.count) <= returnFew && q.bytes+int64(g.bytes) <= maxGroupBytes
	r.landed(q.answered-before, len(q.queue), few, now.Sub(g.sentAt), now)
}

// groupSize is how many proposals, or parts of them, and how many commands a group has.
type groupSize struct{ proposals, commands int }

func (g *group) size() groupSize { return groupSize{len(g.segments), g.count} }

func (s groupSize) max(o groupSize) groupSize {
	return groupSize{max(s.proposals, o.proposals), max(s.commands, o.commands)}
}
