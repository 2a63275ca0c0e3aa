package check

import (
	"slices"
	"strings"
	"time"

	"trivet/jepsen-lite/history"
)

// Lease is an operation on a key with a lease: grant, attach (a put with it), keep,
// revoke, or read, which says whether the key is there. Operations on one key are
// one worker's, one after the other.
type Lease struct {
	Key     string `json:"key"`
	Present bool   `json:"present"`
}

// LeaseLate is how much longer than its ttl a lease may last while the cluster
// serves. Each change of leader may cost a part of a second.
const LeaseLate = 5 * time.Second

// servingGap is the longest time between two answers in which the cluster is
// taken to have served.
const servingGap = int64(250 * time.Millisecond)

// Leases checks that no lease ends before its ttl is over, that what has ended
// stays so, and that it ends soon after, by the time in which the cluster served:
// the clock of leases stands still without a leader. It is taken to have served
// between two linearizable answers that are close to each other.
//
// What renews a lease takes effect between its invocation and its return, so the
// ttl runs from the invocation at the earliest and, for the bound above, from the
// return at the latest. All of that is one clock's; the cluster's need not agree
// with it on the time, only on how long a second is.
func Leases(calls []history.Call, ttl time.Duration) *Result {
	r := NewResult("lease: never early, bounded late")
	type state struct {
		attached bool
		renewed  int64 // invocation of the last renewal that is OK
		latest   int64 // return of the last one that is OK
		open     bool  // one is of unknown outcome
		revoked  bool  // or may have been
		gone     *history.Call
	}
	served := servingTime(calls)
	keys := map[string]*state{}
	ended := 0
	var lateness, earliest time.Duration
	for i := range calls {
		c := &calls[i]
		key := c.In.(Lease).Key
		s := keys[key]
		if s == nil {
			s = &state{}
			keys[key] = s
		}
		due := s.renewed + int64(ttl)
		switch {
		case c.F == "revoke":
			// A fail that says that there is no such lease may be the answer to a
			// revocation that went out before.
			s.revoked = true
			if c.Type == history.OK && s.gone == nil {
				s.gone = c
			}
		case c.F == "read" && c.Type == history.OK:
			present := c.Out.(Lease).Present
			switch {
			case !s.attached:
			case present && s.gone != nil:
				r.violated("key %s was there at %s on %s, and had gone by %s", key, at(c.Invoked), c.Node, at(s.gone.Returned))
			case present && !s.open && served(c.Invoked)-served(s.latest) > ttl+LeaseLate:
				r.violated("key %s was there at %s on %s; its lease of %v had last been renewed by %s, and the cluster had served for %v since", key, at(c.Invoked), c.Node, ttl, at(s.latest), served(c.Invoked)-served(s.latest))
			case !present && s.gone == nil:
				s.gone = c
				if s.revoked {
					break
				}
				ended++
				if c.Returned < due {
					r.violated("key %s was gone at %s on %s; its lease of %v was renewed at %s, and had %v to go", key, at(c.Returned), c.Node, ttl, at(s.renewed), time.Duration(due-c.Returned))
				}
				if ended == 1 || time.Duration(c.Returned-due) < earliest {
					earliest = time.Duration(c.Returned - due)
				}
				lateness = max(lateness, time.Duration(c.Invoked-due))
			}
		case c.F == "read":
		case c.Type == history.Fail:
			if strings.Contains(c.Error, "lease_not_found") && !s.revoked && c.Returned < due {
				r.violated("the lease of %s was not there at %s on %s; it was renewed at %s, and had %v to go", key, at(c.Returned), c.Node, at(s.renewed), time.Duration(due-c.Returned))
			}
		case c.F == "attach":
			s.attached = s.attached || c.Type == history.OK
		case c.Type == history.Info:
			s.open = true
		default: // grant, keep
			if s.gone != nil && !s.revoked {
				r.violated("the lease of %s was renewed at %s on %s, and its key had gone by %s", key, at(c.Invoked), c.Node, at(s.gone.Returned))
			}
			s.renewed, s.latest = c.Invoked, c.Returned
		}
	}
	r.figure("ended", ended)
	if ended > 0 {
		r.figure("soonest after the ttl", earliest.Round(time.Millisecond))
		r.figure("latest", lateness.Round(time.Millisecond))
	}
	return r
}

// servingTime returns for how long, of the time until t, the cluster certainly
// served.
func servingTime(calls []history.Call) func(t int64) time.Duration {
	var answers []int64
	for _, c := range calls {
		if c.Type == history.OK {
			answers = append(answers, c.Returned)
		}
	}
	slices.Sort(answers)
	sums := make([]time.Duration, len(answers)) // until the answer
	for i := 1; i < len(answers); i++ {
		sums[i] = sums[i-1]
		if gap := answers[i] - answers[i-1]; gap <= servingGap {
			sums[i] += time.Duration(gap)
		}
	}
	return func(t int64) time.Duration {
		i, found := slices.BinarySearch(answers, t)
		if !found {
			i--
		}
		if i < 0 {
			return 0
		}
		return sums[i]
	}
}
