package raftnode

import (
	"runtime"
	"time"
)

// yielding lets whoever is about to ask do so first, before a round of reads or a group of
// writes is made: each costs several times what one more in it does, and what woke the
// goroutine that makes them has put it before all others that can run.
//
// That is no wait where nothing can run. Where something can that takes long, a scan, it
// is one for a slice of the scheduler's, ten milliseconds or more. So nothing is yielded
// where nobody shared the last one, as a lone caller has nothing to gain, and for a while
// after it took long and few came.
type yielding struct {
	shared int // in the last one
	rest   int // how many are made without
}

const (
	// yieldEach is how long a yield may take for each who came meanwhile, and once more;
	// yieldRest is how many times there is none after one that took longer.
	yieldEach = 200 * time.Microsecond
	yieldRest = 100
)

// before is called before a round or a group is made; waiting says how many are to be in it.
func (y *yielding) before(waiting func() int) {
	if !y.due() {
		return
	}
	had, at := waiting(), time.Now()
	runtime.Gosched()
	y.took(time.Since(at), waiting()-had)
}

func (y *yielding) due() bool {
	if y.shared < 2 {
		return false
	}
	if y.rest > 0 {
		y.rest--
		return false
	}
	return true
}

// took notes how long a yield took, and how many came meanwhile.
func (y *yielding) took(d time.Duration, came int) {
	if d > yieldEach*time.Duration(1+max(came, 0)) {
		y.rest = yieldRest
	}
}
