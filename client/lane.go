package client

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"trivet/trivetpb"
)

// Calls that are made at the same time share requests: group commit on the side of
// the client. Those that may share one wait in one lane: all writes in one, reads
// in one for each freshness that is asked for. A lane has a few batches under way
// at a time; a call that comes while there is room for one more goes out at once,
// alone, and what comes while there is none gathers into the next. There is no linger
// but the wait for a batch under way, for its callers when it has landed, and, of
// writes beside reads, for those who read (pause.go).
//
// A lane belongs to no node. Which one a batch goes to is decided when it goes out
// (members.order), so that a node that hangs holds the batches that it has been
// given, and nothing that waits.

const (
	// batchCalls and batchBytes bound one batch. Servers take 4,096 operations and
	// 16 MiB by default. A megabyte is some milliseconds on a disk: larger ones
	// would only make others wait.
	batchCalls = 4096
	batchBytes = 1 << 20
	// batchLists bounds a batch of lists, whose answers are partBytes each.
	batchLists = 64
	// minBatchBytes is how far batches are made smaller for a server that takes
	// less.
	minBatchBytes = 16 << 10

	// queueCalls and queueBytes bound what waits in a lane. It is a second's work or
	// more; whoever comes then is better off knowing at once.
	queueCalls = 1 << 16
	queueBytes = 64 << 20

	// A lane has one batch under way. Beside one that has a single call another goes
	// out at once; and another for each spreadCalls that wait (spreadLists, of lists),
	// up to one for each node that takes such batches. Cost is by the batch: many
	// callers are better off waiting for a large one, and even four wait less that way
	// where client and nodes share a machine.
	spreadCalls = 64
	spreadLists = 8

	// The callers of a batch that has landed are about to call again, and the next one
	// waits for them: as long as more come, for gatherTurns turns of the scheduler
	// without one, and for a gatherPart of the time that the last batch took, or
	// gatherMost, at most.
	// Else each would have half of the callers, those of the last one waiting
	// while that of the others is under way.
	gatherPart  = 8
	gatherMost  = time.Millisecond
	gatherTurns = 200

	// A batch of reads that takes longer than lateAfter, and lateFactor times as long as
	// those of its node mostly do, holds up nobody else: it does not count as under
	// way. There are batchesPerNode in all, late or not, for each node that takes them.
	lateAfter      = 20 * time.Millisecond
	lateFactor     = 5
	batchesPerNode = 2
)

// lane is the calls that wait for a batch, and the batches under way.
type lane struct {
	c     *Client
	write bool
	fresh freshness // of a lane of reads

	mu sync.Mutex
	// queue holds the calls that wait, oldest first, among them ones whose callers
	// have left. waiting and bytes are of the others.
	queue          []*call
	waiting, bytes int
	// maxBytes is batchBytes, or less for a server that takes less.
	maxBytes int
	// maxCalls is batchCalls, or batchLists, and spread spreadCalls, or spreadLists.
	maxCalls, spread int
	// carriers is how many goroutines carry this lane's batches; flying is these.
	carriers int
	flying   []*batch
	pause    pause // of a lane of writes
}

func newLane(c *Client, write bool, fresh freshness) *lane {
	l := &lane{c: c, write: write, fresh: fresh, maxBytes: batchBytes, maxCalls: batchCalls, spread: spreadCalls}
	if fresh.lists {
		l.maxCalls, l.spread = batchLists, spreadLists
	}
	return l
}

// submit queues the call and sees to it that it is carried. The error, of a call
// that was not queued, is ErrOverloaded, ErrClosed or the context's.
func (l *lane) submit(ctx context.Context, a *call) *Error {
	if ctx.Err() != nil {
		return a.left(context.Cause(ctx), NotApplied)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline, a.own = time.Now().Add(l.c.cfg.Timeout), true
	}
	a.deadline = deadline
	l.mu.Lock()
	if l.waiting >= queueCalls || (l.waiting > 0 && l.bytes+len(a.wire) > queueBytes) {
		waiting, bytes := l.waiting, l.bytes
		l.mu.Unlock()
		return &Error{
			op: a.name(), Code: trivetpb.Code_OVERLOADED.Info().Name, Outcome: NotApplied, Retryable: true,
			Detail: fmt.Sprintf("%d calls with %d bytes wait in the client already", waiting, bytes),
		}
	}
	own := a.own // once it is queued the call is not ours alone
	l.queue = append(l.queue, a)
	l.waiting++
	l.bytes += len(a.wire)
	l.pause.joined(l.waiting, l.waiting >= l.maxCalls || l.bytes >= l.maxBytes)
	start := l.another(l.carriers)
	if start {
		l.carriers++
	}
	l.mu.Unlock()
	if own {
		l.c.janitor.expect(l.c, deadline)
	}
	if start {
		l.c.startCarrier(l)
	}
	return nil
}

// forget tells the lane that the caller of a call that waited has left. The call
// stays where it is until its turn comes; where most of the queue is such, they
// are removed.
func (l *lane) forget(a *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.queue, a) {
		return // it is in a batch
	}
	l.waiting--
	l.bytes -= len(a.wire)
	a.wire = nil
	if len(l.queue) > 64 && l.waiting < len(l.queue)/2 {
		l.queue = slices.DeleteFunc(l.queue, func(a *call) bool { return a.gone() && a.wire == nil })
	}
}

// another says whether a batch may go out beside those of so many carriers.
func (l *lane) another(carriers int) bool {
	nodes := l.c.members.takers(l.write)
	if carriers >= batchesPerNode*nodes {
		return false
	}
	under := 0
	for _, b := range l.flying {
		switch {
		case len(b.calls) == 0:
			// It lands: its carrier is about to take what waits.
			under += max(b.taken, 2)
		case b.late:
			carriers--
		default:
			// Less than it had where the others wait for one that is sent again.
			under += len(b.calls)
		}
	}
	return carriers <= 0 || (carriers == 1 && under <= 1) || (carriers < nodes && l.waiting >= l.spread)
}

// take returns the next batch, in place of one that has landed (nil for none). It
// returns nil where nothing waits, or what waits is better left to one of the other
// carriers, each of which comes here when its batch has landed. The carrier is then
// none of the lane's any more.
func (l *lane) take(landed *batch) *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.flying, landed); i >= 0 {
		l.flying = slices.Delete(l.flying, i, i+1)
	}
	if !l.another(l.carriers - 1) {
		l.carriers--
		return nil
	}
	b := &batch{l: l}
	size, n := 0, 0
	for _, a := range l.queue {
		if a.wire == nil {
			n++ // forgotten
			continue
		}
		if len(b.calls) == l.maxCalls || (len(b.calls) > 0 && size+len(a.wire) > l.maxBytes) {
			break
		}
		n++
		l.waiting--
		l.bytes -= len(a.wire)
		size += len(a.wire) + maxOpOverhead
		b.calls = append(b.calls, a)
		if a.deadline.After(b.deadline) {
			b.deadline = a.deadline
		}
	}
	l.queue = append(l.queue[:0], l.queue[n:]...)
	clear(l.queue[len(l.queue):min(len(l.queue)+n, cap(l.queue))])
	if len(b.calls) == 0 {
		l.carriers--
		return nil
	}
	b.size, b.taken = size, len(b.calls)
	l.flying = append(l.flying, b)
	return b
}

// late notes that a batch under way is late, so that what waits need not wait for it.
func (l *lane) late(b *batch) {
	l.mu.Lock()
	b.late = true
	l.mu.Unlock()
	l.reconsider()
}

// reconsider sees to it that what waits is carried, where a batch under way no longer
// stands in its way: nobody may call again who would.
func (l *lane) reconsider() {
	l.mu.Lock()
	start := l.waiting > 0 && l.another(l.carriers)
	if start {
		l.carriers++
	}
	l.mu.Unlock()
	if start {
		l.c.startCarrier(l)
	}
}

// run carries batches until nothing waits.
func (l *lane) run() {
	var b *batch
	for {
		if b = l.take(b); b == nil {
			return
		}
		began := time.Now()
		b.carry()
		took := time.Since(began)
		l.gather(b.taken, took/gatherPart)
		if l.write {
			l.pauseAfter(b.taken, took)
		}
	}
}

// gather lets the callers of a batch that has landed call again, so that what they
// ask for goes together with what waits. The batch counts as under way meanwhile
// (another), or one more carrier would take what waits.
//
// Where no other batch is under way, as many as were woken are all there are, mostly: then
// nobody is waited for.
func (l *lane) gather(woken int, most time.Duration) {
	l.mu.Lock()
	all := l.waiting + woken
	if l.carriers > 1 {
		all = math.MaxInt
	}
	l.mu.Unlock()
	runtime.Gosched()
	if woken == 1 {
		return
	}
	began := time.Now()
	for last, turns := 0, 0; turns < gatherTurns && time.Since(began) < min(most, gatherMost); turns++ {
		l.mu.Lock()
		waiting, full := l.waiting, l.waiting >= l.maxCalls || l.bytes >= l.maxBytes
		l.mu.Unlock()
		if full || waiting >= all {
			return
		}
		if waiting > last {
			last, turns = waiting, 0
		}
		runtime.Gosched()
	}
}

// startCarrier has a goroutine run the lane: one that is parked, else a new one.
func (c *Client) startCarrier(l *lane) {
	select {
	case c.parked <- l:
		return
	default:
	}
	if c.count() != nil {
		l.abandon()
		return
	}
	go c.carrier(l)
}

// maxParked is how many goroutines wait for something to carry. One that is kept
// has a stack that has grown as far as it takes.
const maxParked = 16

func (c *Client) carrier(l *lane) {
	defer c.running.Done()
	for {
		l.run()
		if c.parking.Add(1) > maxParked {
			c.parking.Add(-1)
			return
		}
		select {
		case l = <-c.parked:
			c.parking.Add(-1)
		case <-c.ctx.Done():
			c.parking.Add(-1)
			return
		}
	}
}

// abandon ends what waits in the lane of a client that is closed.
func (l *lane) abandon() {
	var b *batch
	for {
		if b = l.take(b); b == nil {
			return
		}
		b.fail((&request{op: "batch", write: l.write}).ended(ErrClosed, &course{}).(*Error))
	}
}

// expired ends the calls whose own deadline is over, and returns the earliest of
// the others'. It does so under the lock, under which a call is also taken from its
// batch before it ends: what is found here has not ended, and is no other call's
// by now.
func (l *lane) expired(now time.Time) (next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	look := func(list []*call, waits bool) {
		for _, a := range list {
			switch {
			case !a.own || a.gone():
			case a.deadline.After(now):
				if next.IsZero() || a.deadline.Before(next) {
					next = a.deadline
				}
			default:
				if e := a.leave(context.DeadlineExceeded); e != nil {
					if waits {
						l.waiting--
						l.bytes -= len(a.wire)
						a.wire = nil
					}
					a.expired = e
					a.ready <- struct{}{}
				}
			}
		}
	}
	look(l.queue, true)
	for _, b := range l.flying {
		look(b.calls, false)
	}
	return next
}

// janitor ends the calls whose context has no deadline when Config.Timeout is over:
// one timer for all, as a timer for each would cost more than it is worth.
type janitor struct {
	mu    sync.Mutex
	timer *time.Timer // nil where nothing is expected
}

// expect has the janitor come at the deadline, if it is not to come before.
func (j *janitor) expect(c *Client, deadline time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.timer == nil && c.ctx.Err() == nil {
		j.timer = time.AfterFunc(time.Until(deadline), func() { _ = c.counted(c.sweep) })
	}
}

func (j *janitor) stop() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.timer != nil {
		j.timer.Stop()
	}
}

// sweep ends what is over in all lanes.
func (c *Client) sweep() {
	// What comes from here on is expected by itself, what is there is seen.
	c.janitor.mu.Lock()
	c.janitor.timer = nil
	c.janitor.mu.Unlock()
	now := time.Now()
	var next time.Time
	for _, l := range c.allLanes() {
		if t := l.expired(now); !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if !next.IsZero() {
		c.janitor.expect(c, next)
	}
}

// lanes is all lanes of a client.
type lanes struct {
	writes, reads *lane // reads are the linearizable ones
	mu            sync.Mutex
	// weak are those of other reads.
	weak map[freshness]*lane
}

// maxWeakLanes is how many freshnesses are remembered, beyond the ones in use.
const maxWeakLanes = 64

// readLane returns the lane of reads that are so fresh.
func (c *Client) readLane(fresh freshness) *lane {
	if fresh == (freshness{}) {
		return c.lanes.reads
	}
	c.lanes.mu.Lock()
	defer c.lanes.mu.Unlock()
	l := c.lanes.weak[fresh]
	if l == nil {
		if len(c.lanes.weak) >= maxWeakLanes {
			// One that is idle may be forgotten: somebody who has it still uses it,
			// only that nobody joins him there.
			for f, idle := range c.lanes.weak {
				idle.mu.Lock()
				unused := idle.carriers == 0
				idle.mu.Unlock()
				if unused {
					delete(c.lanes.weak, f)
				}
			}
		}
		l = newLane(c, false, fresh)
		c.lanes.weak[fresh] = l
	}
	return l
}

func (c *Client) allLanes() []*lane {
	c.lanes.mu.Lock()
	defer c.lanes.mu.Unlock()
	all := []*lane{c.lanes.writes, c.lanes.reads}
	for _, l := range c.lanes.weak {
		all = append(all, l)
	}
	return all
}
