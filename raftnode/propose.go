package raftnode

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"

	"trivet/internal/mutant"
	"trivet/internal/spare"
	"trivet/trivetpb"
)

// Group commit. Every command that this node was asked to write, by its own
// callers or by another member, waits in one queue. One goroutine, the
// dispatcher, takes what waits and makes a group of it: on the leader a log
// entry, elsewhere a request to the leader. While a group is on its way the next one
// gathers by itself, and a lone command leaves at once. Nothing lingers
// but where processors are crowded, for a few callers who come back (returning.go).
//
// What became of a command is decided in outcome.go; that none is applied twice,
// however often it goes out, in identity.go.

// proposal is what one caller waits for.
type proposal struct {
	// hop marks commands that another member forwarded: they are never
	// forwarded again but answered NO_LEADER, and their origin looks anew.
	hop  bool
	done chan struct{} // closed when every command has its result
	// then, where it is set, is called with the result of each command, under
	// proposer.mu.
	then func(*trivetpb.Result)

	// Guarded by proposer.mu.
	commands []pending
	results  []*trivetpb.Result // by command; nil while open
	open     int                // commands without a result
	gaveUp   bool               // nobody reads the results any more
}

// pending is one command of a proposal.
type pending struct {
	// data is the command, encoded, without the stamp. It is not read once the command
	// is concluded: then its memory is used again (Node.Propose).
	data  []byte
	kind  commandKind
	state commandState
	// maybe is set once an attempt ended that may have been applied, or may yet
	// be: from then on "it was not applied" is true only if the state says so.
	maybe bool
	stamp
}

// commandKind says by what a repeat of a command is told from another command.
type commandKind uint8

const (
	own        commandKind = iota // this node stamps it with its session
	identified                    // its caller did, or the member that forwarded it
	bare                          // nothing does: it goes out once
)

type commandState uint8

const (
	queued    commandState = iota
	underWay               // in a group: what becomes of it is not known here
	concluded              // has its result, or was withdrawn from the queue
)

// leadership is what the leader knows of its term once its marker is applied.
type leadership struct {
	term  uint64
	start uint64 // index of the marker: everything before it is applied
	// The replicated clock goes on from what the state had at start, by this
	// process's monotonic clock alone.
	clockMS uint64
	since   time.Time
}

// now is the replicated clock of an entry made now.
func (l *leadership) now() uint64 {
	switch {
	case mutant.On("wall-clock"):
		return uint64(time.Now().UnixMilli())
	case mutant.On("clock-from-zero"):
		return uint64(time.Since(l.since).Milliseconds())
	}
	return l.clockMS + uint64(time.Since(l.since).Milliseconds())
}

// proposer is the queue and what left it.
type proposer struct {
	boot     uint64 // this start of the node, drawn at random: entryMeta.proposer
	seed     uint64 // drawn at random: Marker.seed
	maxBytes int64
	inFlight int // most entries, and most forwards: see maxInFlight
	// crowded says that processors are (crowd): then there is to be one alone, and it waits
	// for a few callers who come back (returning). nil: never.
	crowded func() bool
	// apply gives raft an entry; it returns when raft has taken it or is gone.
	apply func(raft.Log)
	// forward sends a group to a member and calls forwarded in the end.
	forward func(leader string, g *group)
	// leader returns the id of the member that raft takes for the leader.
	leader func() string
	self   string
	ctx    context.Context // the node's

	wake chan struct{} // has room for one

	mu    sync.Mutex
	queue []segment
	bytes int64 // of commands queued and under way
	// pending is how many those are.
	pending int64
	stale   int // segments in the queue whose proposal was given up

	lead    *leadership // nil while this node does not lead or its marker is not applied
	marked  uint64      // the last term of which a marker was proposed
	over    uint64      // terms up to this one are led no more
	entries map[uint64]*group
	lastSeq uint64
	// answered counts the proposals that all commands have a result of, and a caller who
	// waits for it.
	answered int
	// afterEntry and afterForward hold the queue for the callers of the last one. heldFor
	// is the one that does, while the dispatcher sleeps until it looks again.
	afterEntry, afterForward returning
	heldFor                  *returning
	// paused is the term in which nothing is proposed for now (handover.go), 0 for
	// none; emptied is then closed once none of our entries is under way.
	paused  uint64
	emptied chan struct{}

	session *session // this node's; nil while there is none
	opening bool     // a SessionOpen is queued or under way

	forwards  int       // under way to forwardee, in this epoch
	sent      groupSize // of the last of them
	forwardee string    // the leader that they go to
	epoch     uint64    // counts the changes of forwardee
	epochCtx  context.Context
	endEpoch  context.CancelFunc // nil before the first
	holdUntil time.Time

	closed *trivetpb.Problem // why nothing new is taken any more
	ended  bool              // nothing leaves the queue any more either

	stats    proposerStats
	counters *counters

	yield yielding // the dispatcher's

	// encodings are where Node.Propose encodes commands. Not guarded by mu.
	encodings spare.Buffers
}

// proposerStats counts what the proposer did since the node started.
type proposerStats struct {
	Forwards  uint64 // requests to the leader
	Forwarded uint64 // commands in them
	Received  uint64 // commands that other members forwarded
	Retried   uint64 // commands put back, to go out again
	Held      uint64 // groups that were held for callers who come back
	// Commands of this node's own callers, as Stats has them.
	Committed uint64
	Failed    [proposalFailures]uint64
}

// count counts what the caller of a proposal was told of one command. What
// another member forwarded is counted there.
func (q *proposer) count(p *proposal, r *trivetpb.Result) {
	if p.hop || p.then != nil {
		return
	}
	if why, failed := failureOf(r.Problem); failed {
		q.stats.Failed[why]++
	} else {
		q.stats.Committed++
	}
}

// held is what a command counts for while it waits or is under way: its bytes,
// and about what else is kept for it.
func held(command []byte) int64 { return int64(len(command)) + 256 }

// retryPause is how long commands stay here after a leader would not have them
// or could not be reached, unless another leader is heard of before.
const retryPause = 20 * time.Millisecond

// submit queues commands, or says at once why not.
func (q *proposer) submit(commands []pending, hop bool) (*proposal, *trivetpb.Problem) {
	p := &proposal{
		commands: commands,
		hop:      hop,
		done:     make(chan struct{}),
		results:  make([]*trivetpb.Result, len(commands)),
		open:     len(commands),
	}
	var size int64
	for i := range commands {
		size += held(commands[i].data)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed != nil:
		if !hop {
			q.stats.Failed[FailedDraining] += uint64(len(commands))
		}
		return nil, q.closed
	case hop && q.lead == nil && q.leader() != q.self:
		return nil, notLeading.Problem
	case q.bytes > 0 && q.bytes+size > q.maxBytes:
		if !hop {
			q.stats.Failed[FailedOverloaded] += uint64(len(commands))
		}
		return nil, &trivetpb.Problem{
			Code:   trivetpb.Code_OVERLOADED,
			Detail: fmt.Sprintf("%d bytes of writes are waiting, and no more than %d may", q.bytes, q.maxBytes),
		}
	}
	q.bytes += size
	q.pending += int64(len(commands))
	if hop {
		q.stats.Received += uint64(len(commands))
	}
	q.queue = append(q.queue, segment{p, 0, len(commands)})
	q.afterEntry.asked()
	q.afterForward.asked()
	if q.heldFor == nil || q.heldFor.enough() {
		q.kick()
	}
	return p, nil
}

// kick wakes the dispatcher.
func (q *proposer) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// wait returns a proposal's results, once there are all or the context ends:
// commands without one are then withdrawn from the queue, certainly not
// applied, or left to their fate, outcome unknown.
func (q *proposer) wait(ctx context.Context, p *proposal) []*trivetpb.Result {
	select {
	case <-p.done:
		return p.results
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.open == 0 {
		return p.results
	}
	p.gaveUp = true
	results := make([]*trivetpb.Result, len(p.commands))
	withdrawn := false
	for i, r := range p.results {
		c := &p.commands[i]
		if r == nil && c.state == queued {
			// Withdrawn. Where an attempt was made before, conclude says that
			// the outcome is unknown.
			withdrawn = true
			problem := &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Detail: "the write waited for its turn until its time was up"}
			if q.lead == nil && q.leader() == "" {
				problem = &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: "no leader was known until the write's time was up"}
			}
			q.conclude(p, i, &trivetpb.Result{Problem: problem})
			r = p.results[i]
			q.count(p, r)
		}
		if r == nil {
			r = unknownResult("the write was under way when its time was up")
			q.count(p, r)
		}
		results[i] = r
	}
	if withdrawn {
		q.sweep()
	}
	return results
}

// sweep drops given-up segments from the queue once they are most of it, so
// that callers who come and give up while there is no leader leave nothing.
func (q *proposer) sweep() {
	q.stale++
	if q.stale < 64 || q.stale < len(q.queue)/2 {
		return
	}
	kept := q.queue[:0]
	for _, s := range q.queue {
		if !s.p.gaveUp {
			kept = append(kept, s)
		}
	}
	clear(q.queue[len(kept):])
	q.queue, q.stale = kept, 0
}

func unknownResult(detail string) *trivetpb.Result {
	return &trivetpb.Result{Problem: &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Unknown: true, Detail: detail}}
}

// waiting is how many proposals wait, or parts of them.
func (q *proposer) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.queue)
}

// dispatch runs until stop is closed.
func (q *proposer) dispatch(stop <-chan struct{}) {
	for {
		q.yield.before(q.waiting)
		again := q.dispatchAll()
		var timer <-chan time.Time
		if again > 0 {
			timer = time.After(again)
		}
		select {
		case <-q.wake:
		case <-timer:
		case <-stop:
			return
		}
	}
}

// dispatchAll sends groups as long as it may, and returns when to look again
// even if nothing wakes the dispatcher (0: not).
func (q *proposer) dispatchAll() time.Duration {
	for {
		q.mu.Lock()
		held := q.heldFor
		q.heldFor = nil
		leader := ""
		if q.lead == nil {
			leader = q.leader()
		}
		if leader != "" && leader != q.self && leader != q.forwardee {
			// Also where nothing waits: what is under way may hang with the
			// leader of before.
			q.forwardTo(leader)
		}
		if len(q.queue) == 0 {
			q.mu.Unlock()
			return 0
		}
		if lead := q.lead; lead != nil {
			var largest groupSize
			for _, g := range q.entries {
				largest = largest.max(g.size())
			}
			if q.gathers(len(q.entries), largest) || q.paused == lead.term {
				q.mu.Unlock()
				return 0
			}
			if left := q.holds(&q.afterEntry, held); left > 0 {
				q.mu.Unlock()
				return left
			}
			g, more := q.take(false)
			if g == nil {
				q.mu.Unlock()
				if !more {
					return 0
				}
				continue
			}
			l := q.entry(g, lead)
			q.mu.Unlock()
			q.apply(l)
			continue
		}
		if leader == "" || leader == q.self {
			q.mu.Unlock() // no leader, or a term of ours whose marker is under way
			return 0
		}
		if hold := time.Until(q.holdUntil); hold > 0 {
			q.mu.Unlock()
			return hold
		}
		if q.gathers(q.forwards, q.sent) {
			q.mu.Unlock()
			return 0
		}
		if left := q.holds(&q.afterForward, held); left > 0 {
			q.mu.Unlock()
			return left
		}
		g, more := q.take(true)
		if g == nil {
			q.mu.Unlock()
			if !more {
				return 0
			}
			continue
		}
		q.forwards++
		q.sent = g.size()
		g.sentAt, g.epoch, g.ctx = time.Now(), q.epoch, q.epochCtx
		g.encode()
		q.stats.Forwards++
		q.stats.Forwarded += uint64(g.count)
		q.mu.Unlock()
		q.forward(leader, g)
	}
}

// forwardTo begins a new epoch of forwards. Those of the one before may hang
// with their leader: they are ended, and go out again to this one.
func (q *proposer) forwardTo(leader string) {
	if q.endEpoch != nil {
		q.endEpoch()
	}
	q.epochCtx, q.endEpoch = context.WithCancel(q.ctx)
	q.afterForward.drop()
	q.forwardee, q.forwards, q.holdUntil = leader, 0, time.Time{}
	q.epoch++
}

// take removes a group from the front of the queue; nil where everything that
// it found had been given up (more: look again), or has to wait for a session.
// To be forwarded, it takes nothing that another member forwarded: that came
// while this node was about to lead.
func (q *proposer) take(forward bool) (g *group, more bool) {
	g = &group{}
	emptied := 0
	stop := false // the rest stays in the queue
	for !stop && emptied < len(q.queue) {
		s := &q.queue[emptied]
		from := s.from
		if forward && s.p.hop {
			for ; s.from < s.to; s.from++ {
				if s.p.commands[s.from].state == queued {
					q.conclude(s.p, s.from, notLeading)
				}
			}
			emptied++
			continue
		}
		for s.from < s.to && s.p.commands[s.from].state == queued {
			c := &s.p.commands[s.from]
			n := len(c.data) + maxStampBytes
			if g.count == maxGroupCommands || (g.count > 0 && g.bytes+n > maxGroupBytes) {
				stop = true
				break
			}
			if c.kind == own && !q.identify(c) {
				stop = true
				break
			}
			c.state = underWay
			s.from++
			g.count++
			g.bytes += n
		}
		if s.from > from {
			g.segments = append(g.segments, segment{s.p, from, s.from})
		}
		for s.from < s.to && s.p.commands[s.from].state != queued {
			s.from++ // withdrawn meanwhile
		}
		if s.from == s.to {
			emptied++
		}
	}
	clear(q.queue[:emptied])
	q.queue = q.queue[emptied:]
	if len(q.queue) == 0 {
		q.queue, q.stale = nil, 0
	}
	if g.count > 0 {
		q.yield.shared = len(g.segments)
		return g, true
	}
	if stop && !q.opening { // the first command needs a session that is not there
		return q.openSession(), false
	}
	return nil, !stop
}

// entry makes a group the log entry of its leader and notes it as under way.
func (q *proposer) entry(g *group, lead *leadership) raft.Log {
	// A trivetpb.Entry by hand, since its commands are encoded already.
	const (
		tagClock   = 1 << 3     // field 1, a varint
		tagCommand = 2<<3 | 0x2 // field 2, delimited
	)
	// As large as it becomes: it is kept in the cache of entries for long.
	size := 1 + binary.MaxVarintLen64
	for _, s := range g.segments {
		for i := s.from; i < s.to; i++ {
			c := &s.p.commands[i]
			size += protowire.SizeBytes(len(c.data)+c.stampBytes()) + 1
		}
	}
	data := make([]byte, 0, size)
	data = append(data, tagClock)
	data = binary.AppendUvarint(data, lead.now())
	for _, s := range g.segments {
		for i := s.from; i < s.to; i++ {
			c := &s.p.commands[i]
			data = append(data, tagCommand)
			data = binary.AppendUvarint(data, uint64(len(c.data)+c.stampBytes()))
			data = append(data, c.data...)
			data = c.appendStamp(data)
		}
	}
	q.counters.entryCommands.observe(uint64(g.count))
	q.counters.entryBytes.observe(uint64(len(data)))
	return q.note(g, lead.term, data)
}

// note remembers a group as under way in a term.
func (q *proposer) note(g *group, term uint64, data []byte) raft.Log {
	q.lastSeq++
	g.sentAt, g.seq, g.term = time.Now(), q.lastSeq, term
	q.entries[g.seq] = g
	return raft.Log{Data: data, Extensions: entryMeta{term: term, proposer: q.boot, seq: g.seq}.encode(data)}
}

// pause keeps from here on what waits in the queue, while this node leads the
// term and until resume. The channel is closed once no entry of ours is under
// way.
func (q *proposer) pause(term uint64) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.paused, q.emptied = term, make(chan struct{})
	emptied := q.emptied
	q.tellEmptied()
	return emptied
}

// resume ends a pause.
func (q *proposer) resume(term uint64) {
	q.mu.Lock()
	if q.paused == term {
		q.paused, q.emptied = 0, nil
	}
	q.mu.Unlock()
	q.kick()
}

// tellEmptied closes emptied where it is time.
func (q *proposer) tellEmptied() {
	if q.emptied != nil && len(q.entries) == 0 {
		close(q.emptied)
		q.emptied = nil
	}
}

// mark returns the entry of a term's marker.
func (q *proposer) mark(term uint64, settings *trivetpb.Settings) (raft.Log, error) {
	data, err := (&trivetpb.Entry{Commands: []*trivetpb.Command{{
		Command: &trivetpb.Command_Marker{Marker: &trivetpb.Marker{Term: term, Settings: settings, Seed: q.seed}},
	}}}).MarshalVT()
	if err != nil {
		return raft.Log{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.marked = term
	return q.note(&group{marker: true}, term, data), nil
}
