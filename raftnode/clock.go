package raftnode

import (
	"time"

	"github.com/hashicorp/raft"

	"trivet/trivetpb"
)

// The replicated clock. Whatever ends by itself (a lease, a session, somebody's
// wait for a lock, a remembered answer, history) ends by an entry of the log,
// when the clock that its leader wrote into it has come to the deadline. The
// clock is the leader's monotonic time since its term's marker was applied,
// added to the clock of the state at that moment (leadership.now). So
//
//   - it never runs ahead of the time that passed under leaders: nothing ends
//     early, whatever wall clocks say, and time without a leader is not counted;
//   - it falls behind, when a leader dies, by what has passed since that leader's
//     last entry. While anything has a deadline, the leader therefore writes an
//     entry from time to time though nothing is due: no later than a twentieth
//     of what is left until the nearest deadline after the last entry, within
//     tickLeast and tickMost. So the death of a leader puts off a lease of ten
//     seconds by half a second at most.
//
// A cluster in which nothing has a deadline writes nothing.

const (
	tickLeast = 250 // ms
	tickMost  = 10_000
)

// nextTick is when, by the replicated clock, an entry is due whose own clock is
// at, and whose nearest deadline is deadline.
func nextTick(clock, deadline uint64) uint64 {
	left := deadline - min(deadline, clock)
	return min(deadline, clock+min(max(left/20, tickLeast), tickMost))
}

// keepTime proposes the clock's entries while this node leads. It runs until the
// node stops.
func (n *Node) keepTime() {
	for {
		wait := make(<-chan time.Time)
		if lead := n.proposer.leading(); lead != nil {
			if deadline, ok := n.store.NextDeadline(); ok {
				due, now := nextTick(n.store.ClockMS(), deadline), lead.now()
				if now >= due {
					if n.tick(lead) {
						continue // look again: there may be more to end
					}
					due = now + tickLeast
				}
				timer := time.NewTimer(time.Duration(due-now) * time.Millisecond)
				wait = timer.C
			}
		}
		select {
		case <-wait:
		case <-n.clockWake:
		case <-n.ctx.Done():
			return
		}
	}
}

// wakeClock has keepTime look again.
func (n *Node) wakeClock() {
	select {
	case n.clockWake <- struct{}{}:
	default:
	}
}

// tick proposes an entry that ends what is due, and waits until it is applied
// or given up; false where the node does not lead that term any more.
func (n *Node) tick(lead *leadership) bool { return n.proposeIn(lead, expireCommand) }

// proposeIn proposes an encoded command of the leader's own, in that term or not
// at all. It returns as tick does.
func (n *Node) proposeIn(lead *leadership, command []byte) bool {
	entry, done := n.proposer.leaders(lead, command)
	if done == nil {
		return false
	}
	n.raft.ApplyLog(entry, 0)
	select {
	case <-done:
	case <-n.ctx.Done():
	}
	return true
}

// expireCommand is an encoded trivetpb.Command with an Expire.
var expireCommand = func() []byte {
	b, err := (&trivetpb.Command{Command: &trivetpb.Command_Expire{Expire: &trivetpb.Expire{}}}).MarshalVT()
	if err != nil {
		panic(err) // it has no field
	}
	return b
}()

// leaders returns the entry of a command of the leader's own, and what is closed when
// it is applied or given up; nil where the term is over, or is being handed over.
func (q *proposer) leaders(lead *leadership, command []byte) (raft.Log, <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.lead != lead || q.ended || q.paused == lead.term {
		return raft.Log{}, nil
	}
	done := make(chan struct{})
	p := &proposal{commands: []pending{{data: command}}}
	g := &group{tick: done, segments: []segment{{p, 0, 1}}, count: 1, bytes: len(command)}
	l := q.entry(g, lead)
	g.segments = nil // nobody waits for its result
	return l, done
}
