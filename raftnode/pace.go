package raftnode

import (
	"io"
	"time"
)

// A snapshot of a million keys takes a second of a core, or several. Written in
// one go it takes that core from whoever waits for an answer: on small machines
// the slowest writes took four to eight times as long meanwhile. So it is written
// in pieces of a few milliseconds, and while the node has other work each is
// followed by a rest of three times its length. A node that has nothing else to
// do does not rest, and one that has rests for two minutes in all at most, or
// until the log that the snapshot is to take the place of has grown by as much
// again: a snapshot always ends.
const (
	// pacePiece is the least work between two rests: some records and a block of
	// the compressor.
	pacePiece = 2 * time.Millisecond
	// paceLongest is the most that a piece is taken for: it may have waited for
	// the disk or its receiver, which is no work.
	paceLongest = 4 * time.Millisecond
	// paceRest is how often a piece's length a rest lasts.
	paceRest = 3
	// paceBusy is how long a node is taken to be busy after it did something.
	paceBusy = 250 * time.Millisecond
	// paceMost bounds the rests of one snapshot together.
	paceMost = 2 * time.Minute
)

// pacer is a writer whose caller works between two writes, and gives way in them.
// One goroutine uses it.
type pacer struct {
	w io.Writer
	// served counts what the node does for others: where it moves, the node is
	// busy. hurry says that there is no time for rests; nil: never. Nothing rests
	// once done is closed.
	served func() uint64
	hurry  func() bool
	done   <-chan struct{}

	seen   uint64
	moved  time.Time     // when served was last seen to move; zero: not yet
	since  time.Time     // the end of the last piece and its rest
	rested time.Duration // in all
}

func newPacer(w io.Writer, served func() uint64, hurry func() bool, done <-chan struct{}) *pacer {
	return &pacer{w: w, served: served, hurry: hurry, done: done, seen: served(), since: time.Now()}
}

func (p *pacer) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	if err == nil {
		p.giveWay()
	}
	return n, err
}

// giveWay rests where a piece is done and the node is busy.
func (p *pacer) giveWay() {
	now := time.Now()
	worked := now.Sub(p.since)
	if worked < pacePiece {
		return
	}
	p.since = now
	if served := p.served(); served != p.seen {
		p.seen, p.moved = served, now
	}
	if p.moved.IsZero() || now.Sub(p.moved) >= paceBusy || p.rested >= paceMost || (p.hurry != nil && p.hurry()) {
		return
	}
	rest := time.NewTimer(paceRest * min(worked, paceLongest))
	select {
	case <-rest.C:
	case <-p.done:
		rest.Stop()
	}
	p.since = time.Now()
	p.rested += p.since.Sub(now)
}

// Pace returns a writer to write a snapshot of the node's state to, which makes
// that give way to the node's other work and passes on to w what is written.
func (n *Node) Pace(w io.Writer) io.Writer {
	return newPacer(w, n.served, nil, n.ctx.Done())
}

// served counts what this node does for others: entries applied, reads proven.
func (n *Node) served() uint64 {
	count := n.store.Index()
	for i := range n.counters.reads {
		count += n.counters.reads[i].Load()
	}
	return count
}
