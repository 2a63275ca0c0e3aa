package raftnode

import "time"

// returning holds the queue back for the callers of the last group, who have their answers
// and may ask again.
//
// Many callers do so, each as soon as it is answered, and unless somebody waits for them they
// part in two halves. Those who came while a group was under way are the next one as soon
// as it has landed; those who are answered then find that under way, and are the one after
// it. So it stays, and each waits for two groups: n callers have n/2 writes done in the
// time T that a group takes. They have n done in T and the time until all are back where
// the next group waits for them, and half as many groups take half the processor time.
// ARCHITECTURE.md has figures ("Who comes back").
//
// Nothing says who will ask again, and who will not must not be waited for. So the queue is
// held where callers are few, until enough of them have come, but not once nobody has come
// for as long as the group took, and for one and a half times that at most, as what it saves
// is a group. What comes of it is learned:
//
//   - which part of the callers come back, so that those who do are not held for the
//     others. Where that is half or less, or they come too slowly, nobody is waited for, for a
//     while;
//   - whether there are others. If all were waited for there is next to nobody left to come
//     while their group is under way. Those who arrive in their own time would be gathered in
//     larger and larger groups, each held for longer, with nothing gained: where many wait as
//     a group lands that was waited for, it is left alone for a while.
//
// A lone caller waits for nobody, but beside others who share a group it may now and then. Where
// it is in vain, soon one group in a hundred waits, for returnMost at most; a write that is
// forwarded may do so at its member and at the leader.
//
// It is the proposer's, for its entries or for its forwards, and guarded as that is.
type returning struct {
	callers int           // who are waited for, as far as they have to come; 0: nobody is
	came    int           // since the group landed
	last    time.Time     // when it landed, or the last of those came
	pause   time.Duration // how long after that it ends
	until   time.Time     // when it ends in any case

	missing float64 // the part of the callers that need not come
	met     int     // groups in a row of which the others came
	rest    int     // so many groups more are not waited for
	rested  int     // how many were not after it was in vain the last time
	// waited says that the group that left last was waited for, but for so many who were
	// absent.
	waited bool
	absent int
}

const (
	// returnPause is how long nobody comes at most, where the group took longer, and
	// returnMost how long it lasts at most, where one and a half times what the group took
	// is longer.
	returnPause = 5 * time.Millisecond
	returnMost  = 10 * time.Millisecond
	// returnFew is how many commands there are at most, of the callers who return and of
	// those who wait. Of more, half share what a group costs well enough, and while all
	// return the disk has nothing to do.
	returnFew = 20
	// returnMet is after how many groups of which enough have come more are waited for, and
	// after how many it is looked again whether there are few.
	returnMet = 8
	// returnRest is for how many groups nobody is waited for, at most, after it was in vain:
	// for returnMet the first time.
	returnRest = 128
)

// landed notes that a group has landed that took so long and had so many callers, while
// so many others wait. few says whether they are few together.
func (r *returning) landed(callers, waiting int, few bool, took time.Duration, now time.Time) {
	waited := r.waited
	r.drop()
	switch {
	case callers < 2:
	case r.rest > 0:
		r.rest--
	case !few:
		r.rest = returnMet
	case waited && waiting-r.absent > max(1, callers/3):
		r.inVain()
	default:
		if waited {
			r.rested = 0
		}
		r.callers, r.came, r.last = callers, 0, now
		r.pause = min(took, returnPause)
		r.until = now.Add(min(took+took/2, returnMost))
	}
}

// drop has nobody waited for, and learns nothing from it.
func (r *returning) drop() { r.callers, r.waited = 0, false }

// inVain has nobody waited for, for a while, and for twice as long each time in a row.
func (r *returning) inVain() {
	r.missing, r.met = 0, 0
	r.rested = min(max(2*r.rested, returnMet), returnRest)
	r.rest = r.rested
}

// asked notes that somebody has come.
func (r *returning) asked() {
	if r.callers == 0 {
		return
	}
	if now := time.Now(); now.Before(r.end()) {
		r.came++
		r.last = now
	}
}

// end is when it ends unless more come.
func (r *returning) end() time.Time {
	if end := r.last.Add(r.pause); end.Before(r.until) {
		return end
	}
	return r.until
}

func (r *returning) part() float64 { return float64(r.came) / float64(r.callers) }

// enough says that those have come who are waited for.
func (r *returning) enough() bool { return r.callers == 0 || r.part() >= 1-r.missing }

// hold is for how long the queue is held, unless more come before. It learns from it once
// that is over, and returns 0 then.
func (r *returning) hold(now time.Time) time.Duration {
	if r.callers == 0 {
		return 0
	}
	left, part := r.end().Sub(now), r.part()
	r.waited, r.absent = true, max(0, r.callers-r.came)
	switch {
	case r.enough():
		if r.met++; r.met == returnMet {
			r.missing, r.met = r.missing/2, 0
		}
	case left > 0:
		return left
	case part <= 0.5 || !now.Before(r.until):
		r.inVain()
		r.waited = false
	default:
		r.missing, r.met = 1-part, 0
	}
	r.callers = 0
	return 0
}
