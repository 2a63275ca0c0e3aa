package raftnode

import (
	"cmp"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
)

// poll is whom a leader's rounds (confirm) ask, and how long they wait for them.
// Each message is processor time at both ends, so a round asks no more voters than
// it needs. They stand in a line: who answered the last round is at its front, the
// first to answer first, and who failed or was late at its end, so that one that
// hangs holds up one round and not the next. Now and then a round asks all: a
// member that has become well or quick is found by that.
//
// One round at a time uses it, in the goroutine of rounds.run.
type poll struct {
	line     []*voter // the other voters
	answers  int      // of this round
	askedAll time.Time
	// average is how long rounds take, of the last few.
	average time.Duration
	timer   *time.Timer // one for all rounds; it runs only during one
}

// voter is one that can be asked, and how it stands with it in this round.
type voter struct {
	id    string
	state voterState
	place int // among those that answered
	call  peerCall
}

type voterState int

const (
	voterGone   voterState = iota // no voter any more
	voterIdle                     // not asked
	voterAsked                    // no answer yet
	voterLate                     // the same, for longer than rounds take
	voterSaid                     // its word
	voterFailed                   // its word is another, or it cannot be reached
)

const (
	// askAllEvery is how often a round asks all voters, if there are so many.
	askAllEvery = time.Second
	// minPatience is what a voter that is asked may take before others are asked
	// too: less than that is nothing but a processor that is busy.
	minPatience = 2 * time.Millisecond
)

// begin makes the line that of a configuration. It returns how many voters that
// has, and whether this node is one, which has given its word.
func (p *poll) begin(conf raft.Configuration, self string) (own, voters int) {
	p.answers = 0
	for _, v := range p.line {
		v.state, v.call = voterGone, peerCall{}
	}
	for _, s := range conf.Servers {
		if s.Suffrage != raft.Voter && !mutant.On("count-nonvoters") {
			continue
		}
		voters++
		if string(s.ID) == self {
			own = 1
		} else if v := p.find(string(s.ID)); v != nil {
			v.state = voterIdle
		} else {
			p.line = append(p.line, &voter{id: string(s.ID), state: voterIdle})
		}
	}
	p.line = slices.DeleteFunc(p.line, func(v *voter) bool { return v.state == voterGone })
	return own, voters
}

func (p *poll) find(id string) *voter {
	for _, v := range p.line {
		if v.id == id {
			return v
		}
	}
	return nil
}

// first is how many of the line a round asks at once that needs some words.
func (p *poll) first(need int, now time.Time) int {
	if now.Sub(p.askedAll) < askAllEvery {
		return min(need, len(p.line))
	}
	p.askedAll = now
	return len(p.line)
}

// patience is how long they may take until the others are asked.
func (p *poll) patience(t Timing) time.Duration {
	return min(max(minPatience, 4*p.average), max(minPatience, t.Heartbeat/2))
}

// alarm sets the timer.
func (p *poll) alarm(d time.Duration) {
	if p.timer == nil {
		p.timer = time.NewTimer(d)
		return
	}
	p.timer.Reset(d)
}

// answered notes that a voter has given its word.
func (p *poll) answered(v *voter) {
	p.answers++
	v.state, v.place = voterSaid, p.answers
}

// late notes that those who have not answered take long.
func (p *poll) late() {
	for _, v := range p.line {
		if v.state == voterAsked {
			v.state = voterLate
		}
	}
}

// open is how many may still give their word.
func (p *poll) open() int {
	n := 0
	for _, v := range p.line {
		if v.state != voterSaid && v.state != voterFailed {
			n++
		}
	}
	return n
}

// took notes how long a round has taken.
func (p *poll) took(d time.Duration) {
	p.average += (d - p.average) / 8
}

// end gives up on who has not answered, and makes the line for the next round.
func (p *poll) end() {
	p.timer.Stop()
	for _, v := range p.line {
		if v.state == voterAsked || v.state == voterLate {
			v.call.drop()
		}
		switch v.state {
		case voterSaid:
		case voterLate, voterFailed:
			v.place = len(p.line) + 2
		default:
			v.place = len(p.line) + 1
		}
	}
	slices.SortStableFunc(p.line, func(a, b *voter) int { return cmp.Compare(a.place, b.place) })
}
