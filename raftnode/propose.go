package raftnode

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// Group commit. Every command that this node was asked to write, by its own
// callers or by another member, waits in one queue. One goroutine, the
// dispatcher, takes what waits and makes a group of it: on the leader a log
// entry, elsewhere a request to the leader. There is no linger: while a group
// is on its way the next one gathers by itself, and a lone command leaves at
// once.
//
// # What became of a command
//
// The dispatcher uses none of raft's futures: they can hang after a shutdown,
// and ErrLeadershipLost says nothing. It watches three things instead.
//
//   - The log store tells (storing) at which index an entry of ours is about to be
//     written: before the write, since one that fails may be on disk all the same.
//   - The state machine tells (applied) what was applied at which index.
//   - The leadership loop tells (stepDown) that raft's leader loop of a term
//     has ended: from then on no entry of that term can be stored here, since
//     the fence refuses it in any later term.
//
// So an entry of ours
//
//   - that was applied has its results, even where another leader committed it
//     after this one was deposed;
//   - that was not about to be stored when its term ended was certainly not
//     applied: its commands go back to the front of the queue, to whoever leads
//     now;
//   - that may be stored at index i, where something else was applied at i (a
//     no-op is not seen; anything applied beyond i shows it), was certainly not
//     applied: entries are applied in the order of the log, and index i has
//     been passed. Back to the queue;
//   - that may be stored and is not decided yet is waited for until its callers
//     give up: outcome unknown.

// proposal is what one caller waits for.
type proposal struct {
	commands [][]byte // encoded
	// hop marks commands that another member forwarded: they are never
	// forwarded again but answered NO_LEADER, and their origin looks anew.
	hop  bool
	done chan struct{} // closed when every command has its result

	// Guarded by proposer.mu.
	results []*trivetpb.Result // by command; nil while open
	state   []commandState     // by command
	open    int                // commands without a result
	gaveUp  bool               // nobody reads the results any more
}

type commandState uint8

const (
	queued    commandState = iota
	underWay               // in a group: what becomes of it is not known here
	concluded              // has its result, or was withdrawn from the queue
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
	// Of an entry of ours:
	seq    uint64 // names it in its entryMeta
	term   uint64
	index  uint64 // where it may be stored; 0 until then
	marker bool   // the term's marker, which has no segments
	// Of a forward: whose slots it holds.
	epoch uint64
}

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
	return l.clockMS + uint64(time.Since(l.since).Milliseconds())
}

// proposer is the queue and what left it.
type proposer struct {
	boot     uint64 // this start of the node, drawn at random: entryMeta.proposer
	maxBytes int64
	// apply gives raft an entry; it returns when raft has taken it or is gone.
	apply func(raft.Log)
	// forward sends a group to a member and calls forwarded in the end.
	forward func(leader string, g *group)
	// leader returns the id of the member that raft takes for the leader.
	leader func() string
	self   string

	wake chan struct{} // has room for one

	mu    sync.Mutex
	queue []segment
	bytes int64 // of commands queued and under way
	stale int   // segments in the queue whose proposal was given up

	lead    *leadership // nil while this node does not lead or its marker is not applied
	marked  uint64      // the last term of which a marker was proposed
	over    uint64      // terms up to this one are led no more
	entries map[uint64]*group
	lastSeq uint64

	forwards  int    // under way to forwardee, in this epoch
	forwardee string // the leader that they go to
	epoch     uint64 // counts the changes of forwardee
	holdUntil time.Time

	closed *trivetpb.Problem // why nothing new is taken any more
	ended  bool              // nothing leaves the queue any more either

	stats ProposerStats
}

// ProposerStats counts what the proposer did since the node started.
type ProposerStats struct {
	Entries   uint64 // log entries proposed
	Commands  uint64 // commands in them
	Forwards  uint64 // requests to the leader
	Forwarded uint64 // commands in them
	Retried   uint64 // commands put back because they were certainly not applied
}

// held is what a command counts for while it waits or is under way: its bytes,
// and about what else is kept for it.
func held(command []byte) int64 { return int64(len(command)) + 256 }

// retryPause is how long commands stay here after a leader would not have them
// or could not be reached, unless another leader is heard of before.
const retryPause = 20 * time.Millisecond

// submit queues commands, or says at once why not.
func (q *proposer) submit(commands [][]byte, hop bool) (*proposal, *trivetpb.Problem) {
	p := &proposal{
		commands: commands,
		hop:      hop,
		done:     make(chan struct{}),
		results:  make([]*trivetpb.Result, len(commands)),
		state:    make([]commandState, len(commands)),
		open:     len(commands),
	}
	var size int64
	for _, c := range commands {
		size += held(c)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed != nil:
		return nil, q.closed
	case hop && q.lead == nil && q.leader() != q.self:
		return nil, notLeading.Problem
	case q.bytes > 0 && q.bytes+size > q.maxBytes:
		return nil, &trivetpb.Problem{
			Code:   trivetpb.Code_OVERLOADED,
			Detail: fmt.Sprintf("%d bytes of writes are waiting, and no more than %d may", q.bytes, q.maxBytes),
		}
	}
	q.bytes += size
	q.queue = append(q.queue, segment{p, 0, len(commands)})
	q.kick()
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
		switch {
		case r != nil:
			results[i] = r
		case p.state[i] == queued:
			p.state[i] = concluded
			q.bytes -= held(p.commands[i])
			withdrawn = true
			problem := &trivetpb.Problem{Code: trivetpb.Code_TIMEOUT, Detail: "the write waited for its turn until its time was up"}
			if q.lead == nil && q.leader() == "" {
				problem = &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: "no leader was known until the write's time was up"}
			}
			results[i] = &trivetpb.Result{Problem: problem}
		default:
			results[i] = unknownResult("the write was under way when its time was up")
		}
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

// dispatch runs until stop is closed.
func (q *proposer) dispatch(stop <-chan struct{}) {
	for {
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
		if len(q.queue) == 0 {
			q.mu.Unlock()
			return 0
		}
		if lead := q.lead; lead != nil {
			if len(q.entries) >= maxInFlight {
				q.mu.Unlock()
				return 0
			}
			g := q.take(false)
			if g == nil {
				q.mu.Unlock()
				continue
			}
			l := q.entry(g, lead)
			q.mu.Unlock()
			q.apply(l)
			continue
		}
		leader := q.leader()
		if leader == "" || leader == q.self {
			q.mu.Unlock() // no leader, or a term of ours whose marker is under way
			return 0
		}
		if leader != q.forwardee {
			// Forwards to another leader may hang with it; they have no claim
			// on this one's slots.
			q.forwardee, q.forwards, q.holdUntil = leader, 0, time.Time{}
			q.epoch++
		}
		if hold := time.Until(q.holdUntil); hold > 0 {
			q.mu.Unlock()
			return hold
		}
		if q.forwards >= maxInFlight {
			q.mu.Unlock()
			return 0
		}
		g := q.take(true)
		if g == nil {
			q.mu.Unlock()
			continue
		}
		q.forwards++
		g.epoch = q.epoch
		q.stats.Forwards++
		q.stats.Forwarded += uint64(g.count)
		q.mu.Unlock()
		q.forward(leader, g)
	}
}

// take removes a group from the front of the queue; nil where everything that
// it found had been given up. To be forwarded, it takes nothing that another
// member forwarded: that came while this node was about to lead.
func (q *proposer) take(forward bool) *group {
	g := &group{}
	emptied := 0
	for full := false; !full && emptied < len(q.queue); {
		s := &q.queue[emptied]
		from := s.from
		if forward && s.p.hop {
			for ; s.from < s.to; s.from++ {
				if s.p.state[s.from] == queued {
					q.conclude(s.p, s.from, notLeading)
				}
			}
			emptied++
			continue
		}
		for s.from < s.to && s.p.state[s.from] == queued && !full {
			n := len(s.p.commands[s.from])
			if full = g.count == maxGroupCommands || (g.count > 0 && g.bytes+n > maxGroupBytes); full {
				break
			}
			s.p.state[s.from] = underWay
			s.from++
			g.count++
			g.bytes += n
		}
		if s.from > from {
			g.segments = append(g.segments, segment{s.p, from, s.from})
		}
		for s.from < s.to && s.p.state[s.from] != queued {
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
	if g.count == 0 {
		return nil
	}
	return g
}

// entry makes a group the log entry of its leader and notes it as under way.
func (q *proposer) entry(g *group, lead *leadership) raft.Log {
	size := 11 // the clock
	for _, s := range g.segments {
		for _, c := range s.p.commands[s.from:s.to] {
			size += 1 + binary.MaxVarintLen32 + len(c)
		}
	}
	// A trivetpb.Entry by hand, since its commands are encoded already.
	const (
		tagClock   = 1 << 3     // field 1, a varint
		tagCommand = 2<<3 | 0x2 // field 2, delimited
	)
	data := make([]byte, 0, size)
	data = append(data, tagClock)
	data = binary.AppendUvarint(data, lead.now())
	for _, s := range g.segments {
		for _, c := range s.p.commands[s.from:s.to] {
			data = append(data, tagCommand)
			data = binary.AppendUvarint(data, uint64(len(c)))
			data = append(data, c...)
		}
	}
	q.stats.Entries++
	q.stats.Commands += uint64(g.count)
	return q.note(g, lead.term, data)
}

// note remembers a group as under way in a term.
func (q *proposer) note(g *group, term uint64, data []byte) raft.Log {
	q.lastSeq++
	g.seq, g.term = q.lastSeq, term
	q.entries[g.seq] = g
	return raft.Log{Data: data, Extensions: entryMeta{term: term, proposer: q.boot, seq: g.seq}.encode(data)}
}

// mark returns the entry of a term's marker.
func (q *proposer) mark(term uint64, settings *trivetpb.Settings) (raft.Log, error) {
	data, err := (&trivetpb.Entry{Commands: []*trivetpb.Command{{
		Command: &trivetpb.Command_Marker{Marker: &trivetpb.Marker{Term: term, Settings: settings}},
	}}}).MarshalVT()
	if err != nil {
		return raft.Log{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.marked = term
	return q.note(&group{marker: true}, term, data), nil
}

// storing notes where entries of ours are about to be written. Called by the log
// store in raft's main goroutine.
func (q *proposer) storing(logs []*raft.Log) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 {
		return
	}
	for _, l := range logs {
		if g := q.own(l); g != nil {
			g.index = l.Index
			if mutant.On("ack-before-commit") {
				for _, s := range g.segments {
					for c := s.from; c < s.to; c++ {
						q.conclude(s.p, c, &trivetpb.Result{})
					}
				}
			}
		}
	}
}

// own returns the group under way that an entry is, nil where it is none.
func (q *proposer) own(l *raft.Log) *group {
	if len(l.Extensions) != entryMetaLen ||
		binary.BigEndian.Uint64(l.Extensions[13:]) != q.boot {
		return nil
	}
	return q.entries[binary.BigEndian.Uint64(l.Extensions[21:])]
}

// applied concludes what an applied entry decides: its own group, if it was
// proposed here, and those that it shows to be lost. It returns the term of a
// marker of this node, 0 where the entry is none. Called by the state machine,
// in the order of the log.
func (q *proposer) applied(l *raft.Log, results []*trivetpb.Result) (markerOf uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.entries) == 0 {
		return 0
	}
	if g := q.own(l); g != nil {
		delete(q.entries, g.seq)
		if g.marker {
			markerOf = g.term
		}
		i := 0
		for _, s := range g.segments {
			for c := s.from; c < s.to; c++ {
				q.conclude(s.p, c, results[i])
				i++
			}
		}
		q.kick()
	}
	for _, g := range q.entries {
		if g.index != 0 && g.index <= l.Index {
			q.putBack(g)
		}
	}
	return markerOf
}

// skipped concludes what a restored snapshot leaves open: an entry up to its
// index may be in it or not.
func (q *proposer) skipped(index uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, g := range q.entries {
		if g.index != 0 && g.index <= index {
			delete(q.entries, g.seq)
			q.lose(g, "a snapshot took the place of the log entry with the write")
		}
	}
}

// conclude gives a command its result.
func (q *proposer) conclude(p *proposal, c int, r *trivetpb.Result) {
	if p.state[c] == concluded {
		return
	}
	p.state[c] = concluded
	p.results[c] = r
	q.bytes -= held(p.commands[c])
	if p.open--; p.open == 0 {
		close(p.done)
	}
}

// lose concludes a group whose outcome stays unknown.
func (q *proposer) lose(g *group, detail string) {
	for _, s := range g.segments {
		for c := s.from; c < s.to; c++ {
			q.conclude(s.p, c, unknownResult(detail))
		}
	}
}

// putBack returns a group that was certainly not applied to the front of the
// queue, but for commands that nobody waits for any more.
func (q *proposer) putBack(g *group) {
	delete(q.entries, g.seq)
	front := make([]segment, 0, len(g.segments)+len(q.queue))
	for _, s := range g.segments {
		for c := s.from; c < s.to; c++ {
			switch {
			case s.p.state[c] == concluded:
			case s.p.gaveUp:
				// Its caller was told that the outcome is unknown.
				q.conclude(s.p, c, unknownResult("nobody waits for it"))
			case q.ended:
				q.conclude(s.p, c, &trivetpb.Result{Problem: q.closed})
			case s.p.hop && q.lead == nil:
				q.conclude(s.p, c, notLeading)
			default:
				s.p.state[c] = queued
				q.stats.Retried++
			}
		}
		front = append(front, s)
	}
	q.queue = append(front, q.queue...)
	q.kick()
}

// notLeading answers what another member forwarded to a node that does not
// lead: certainly not applied, look for the leader again.
var notLeading = &trivetpb.Result{Problem: &trivetpb.Problem{
	Code: trivetpb.Code_NO_LEADER, Detail: "the node that the write was forwarded to does not lead",
}}

// serve says that this node leads from here on: its marker was applied. The
// notice that the term is over may have come before; then it is not served.
func (q *proposer) serve(l *leadership) {
	q.mu.Lock()
	if l.term > q.over {
		q.lead = l
	}
	q.mu.Unlock()
	q.kick()
}

// leading returns the present leadership, nil where there is none.
func (q *proposer) leading() *leadership {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lead
}

// stepDown says that a leader loop of raft has ended, and which term raft leads
// now (0: none). The notice may be late: raft may have won again since, and
// entries of that term may be under way. Those are left alone. A term that was
// marked and is not led now is over for good, as no term is led twice.
func (q *proposer) stepDown(leads uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.marked != leads {
		q.over = q.marked
	}
	if q.lead != nil && q.lead.term != leads {
		q.lead = nil
	}
	for _, g := range q.entries {
		if g.term != leads && (g.index == 0 || mutant.On("retry-unknown")) {
			q.putBack(g)
		}
	}
	if leads != 0 {
		return
	}
	for _, s := range q.queue {
		if !s.p.hop {
			continue
		}
		for c := s.from; c < s.to; c++ {
			if s.p.state[c] == queued {
				q.conclude(s.p, c, notLeading)
			}
		}
	}
	q.kick()
}

// forwarded concludes a forward. retry has true for each command, in the order
// of the group, that was certainly not applied and shall go out again; the
// others get their result.
func (q *proposer) forwarded(g *group, results []*trivetpb.Result, retry func(i int) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if g.epoch == q.epoch {
		q.forwards--
	}
	back := &group{}
	i := 0
	for _, s := range g.segments {
		for c := s.from; c < s.to; c++ {
			if retry(i) {
				back.segments = append(back.segments, segment{s.p, c, c + 1})
			} else {
				q.conclude(s.p, c, results[i])
			}
			i++
		}
	}
	if len(back.segments) > 0 {
		if g.epoch == q.epoch {
			q.holdUntil = time.Now().Add(retryPause)
		}
		q.putBack(back)
	}
	q.kick()
}

// close refuses what comes from here on with why.
func (q *proposer) close(why *trivetpb.Problem) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed == nil {
		q.closed = why
	}
}

// idle reports whether nothing waits and nothing is under way.
func (q *proposer) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes == 0
}

// abandon concludes everything: what waits was certainly not applied, what is
// under way may have been.
func (q *proposer) abandon(why *trivetpb.Problem) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.ended, q.lead = why, true, nil
	for _, s := range q.queue {
		for c := s.from; c < s.to; c++ {
			if s.p.state[c] == queued {
				q.conclude(s.p, c, &trivetpb.Result{Problem: why})
			}
		}
	}
	q.queue = nil
	for _, g := range q.entries {
		q.lose(g, "the node stopped with the write under way")
	}
	clear(q.entries)
}
