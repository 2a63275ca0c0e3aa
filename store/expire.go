package store

import "trivet/internal/mutant"

// What one Expire command ends at most, so that it holds up other writes for no
// more than some milliseconds; the leader proposes the next while more is due.
// A lease with more keys is still ended whole. Part of the state machine: they
// must never change.
const (
	MaxExpired     = 256
	MaxExpiredKeys = 4096
)

// expire ends what is due by the replicated clock, the earliest first. It
// changes nothing where nothing is: a leader that proposes it twice, or one that
// was deposed meanwhile, does no harm.
//
// Each lease that has keys ends at a revision of its own. A watcher sees the
// keys of one lease go together, and a lease that ends is the same to it
// whatever else was due.
func (a *applier) expire() {
	due := a.clockMS
	if mutant.On("expire-early") {
		due += 1000
	}
	deleted := 0
	for ended := range MaxExpired {
		deadlineMS, kind, id := a.earliest()
		if deadlineMS > due || deadlineMS == never {
			return
		}
		switch kind {
		case dueLease:
			l, _ := a.leases.get(id)
			keys := l.run.keys.Len()
			if deleted += keys; ended > 0 && deleted > MaxExpiredKeys {
				return
			}
			a.expiring = true
			a.endLease(id, l)
			a.expiring = false
			a.commitChanges()
		case dueWaiter:
			w, _ := a.waiters.get(id)
			a.leaveQueue(id, w)
		case dueSession:
			s, _ := a.sessions.get(id)
			a.closeSession(s)
		case dueKeyed:
			_, k, _ := a.keyed.m.Min()
			a.forgetKeyed(k)
		case dueUpload:
			a.upload = nil
		}
	}
}
