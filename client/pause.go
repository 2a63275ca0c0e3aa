package client

import "time"

// A batch of writes costs the nodes as much as some dozens of calls, since each
// member writes and syncs it, however few are in it. And callers who read mostly write
// sooner or later. So where there are both, writes pause between two batches, to go with
// those of callers whose reads land meanwhile. Without that, of 64 callers with a write
// to nine reads, seven were in a batch of writes, and these took most of the nodes' time.
//
// Who pays is the write that waits: of those that come at any time, with no other cost
// than time, a pause of a half makes a write take a sixth longer (from 1.5 times what a
// batch takes to 1.75), and there are a third fewer batches. So a pause ends as soon as
// those that wait are half of all who may come, and where pauses bring nobody they
// become rare.

const (
	// pausePart is the part of the time that the last batch took that a pause may last,
	// pauseMost how long at most: what took that long has little to gain.
	pausePart = 2
	pauseMost = 5 * time.Millisecond
	// A pause is worth its time where it brings one write for each pauseWorth that
	// waited. After one that was not, pauses are left out, twice as many as the last
	// time and one, up to maxUnpaused.
	pauseWorth  = 4
	maxUnpaused = 63
)

// pause is what a lane of writes knows of its pauses; under the lane's lock.
type pause struct {
	// enough is how many calls end the pause that is under way, by end; 0 for none.
	enough int
	end    chan struct{}
	// unpaused is how many are left out after one that was not worth its time, left
	// how many of these are still to come.
	unpaused, left int
}

// pauseAfter waits for writes of callers who are reading, after a batch of so many that
// took so long. The batch counts as under way meanwhile, as in gather.
func (l *lane) pauseAfter(calls int, took time.Duration) {
	if calls == 1 {
		return // another goes out beside it anyway
	}
	reading := l.c.reading()
	l.mu.Lock()
	p := &l.pause
	before, enough := l.waiting, (l.waiting+reading)/2
	switch {
	case before == 0 || before >= enough || p.enough > 0 || l.waiting >= l.maxCalls || l.bytes >= l.maxBytes:
		l.mu.Unlock()
		return
	case p.left > 0:
		p.left--
		l.mu.Unlock()
		return
	}
	end := make(chan struct{})
	p.enough, p.end = enough, end
	l.mu.Unlock()
	timer := time.NewTimer(min(took/pausePart, pauseMost))
	select {
	case <-end:
	case <-timer.C:
	case <-l.c.ctx.Done():
	}
	timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.end == end { // no other has begun since this one was ended
		p.enough, p.end = 0, nil
	}
	if came := l.waiting - before; came*pauseWorth >= before {
		p.unpaused = 0
	} else {
		p.unpaused = min(2*p.unpaused+1, maxUnpaused)
	}
	p.left = p.unpaused
}

// joined ends the pause where enough calls wait. It is called under the lane's lock.
func (p *pause) joined(waiting int, full bool) {
	if p.enough > 0 && (waiting >= p.enough || full) {
		p.enough = 0
		close(p.end)
	}
}

// reading is how many calls are in the lanes of reads, waiting or under way.
func (c *Client) reading() int {
	n := 0
	for _, l := range c.allLanes() {
		if l.write {
			continue
		}
		l.mu.Lock()
		n += l.waiting
		for _, b := range l.flying {
			n += len(b.calls)
		}
		l.mu.Unlock()
	}
	return n
}
