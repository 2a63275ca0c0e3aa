package network

import (
	"math/rand/v2"
	"time"

	"trivet/jepsen-lite/nemesis"
)

// queueTime and queuePackets bound what is on its way between two ports: a
// router that is slow drops what comes when its buffer is full.
const (
	queueTime    = time.Second
	queuePackets = 1024
)

// pair is what goes from one port to another. It belongs to one goroutine.
type pair struct {
	rule nemesis.Rule
	last time.Time // when what was let in last arrives
	rand *rand.Rand
}

// admit says when a packet of n bytes arrives that is sent now, no sooner than
// those before it; false where it never does.
func (p *pair) admit(now time.Time, n int) (time.Time, bool) {
	if p.rule.Cut || p.rule.Loss > 0 && p.rand.Float64() < p.rule.Loss {
		return time.Time{}, false
	}
	at := now.Add(p.rule.Delay)
	if p.rule.Jitter > 0 {
		at = at.Add(time.Duration(p.rand.Int64N(int64(p.rule.Jitter))))
	}
	if at.Before(p.last) {
		at = p.last
	}
	if p.rule.BytesPerSecond > 0 {
		at = at.Add(time.Duration(n) * time.Second / time.Duration(p.rule.BytesPerSecond))
		if at.Sub(now) > p.rule.Delay+p.rule.Jitter+queueTime {
			return time.Time{}, false
		}
	}
	p.last = at
	return at, true
}
