package store

import (
	"io"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// prepared is the state that a staged upload holds, made ready before the entry
// with its RestoreCommit is applied.
//
// To decode a large file takes seconds, which readers must not wait for. The
// writer is alone in changing the state, so between two entries it may read what
// is staged without a lock, and do all the work; the command itself then only
// puts the new state in the place of the old. (Where the last chunks come in the
// entry of the commit, there was not enough to prepare, and the file is decoded
// under the lock. Nobody sends them so: whoever commits has seen his chunks
// answered.)
type prepared struct {
	of    *upload
	level uint64
	size  uint64
	state *state
	err   error
}

// prepare looks for a RestoreCommit of what is staged. It does no more than to
// spend time where the command is then refused, or was applied before.
func (st *state) prepare(entry *trivetpb.Entry) *prepared {
	u := st.upload
	if u == nil {
		return nil
	}
	for _, c := range entry.Commands {
		if r := c.GetRestoreCommit(); r != nil && r.Upload == u.id && r.Size == u.size {
			return u.prepare(max(st.clockMS, entry.ClockMs), st.settings.Level)
		}
	}
	return nil
}

func (u *upload) prepare(clockMS, level uint64) *prepared {
	st, err := readBackup(u.file(), clockMS, level)
	return &prepared{of: u, level: level, size: u.size, state: st, err: err}
}

// restoreCommit replaces the state by the staged one, or leaves it; either way
// nothing is staged any more.
//
// To clients it is a great write, not a step into the past: the revision is
// greater than any that either state had, nothing before it is retained, and so
// a watcher or a reader of an old revision is told that it is compacted. Items
// are as they were, their revisions included. Leases and idempotency keys start
// their time again. Sessions and locks end, and the leases of locks with the keys
// attached to them: those who hold them belong to the state that is gone. So
// that the tokens of locks only grow, whatever the file says, the next one is
// after all that were drawn in either state.
func (a *applier) restoreCommit(c *trivetpb.RestoreCommit, ready *prepared) *trivetpb.Problem {
	u := a.upload
	if u == nil || u.id != c.Upload {
		return problemf(trivetpb.Code_BAD_REQUEST, "there is no upload %d, or it was given up", c.Upload)
	}
	a.upload = nil
	if u.size != c.Size {
		return problemf(trivetpb.Code_BAD_REQUEST, "%d bytes of the file are staged, and it has %d", u.size, c.Size)
	}
	if ready == nil || ready.of != u || ready.size != u.size || ready.level != a.settings.Level {
		ready = u.prepare(a.clockMS, a.settings.Level)
	}
	if ready.err != nil {
		return problemf(trivetpb.Code_BAD_REQUEST, "the file cannot be restored: %v", ready.err)
	}
	st := ready.state
	if quota := a.settings.QuotaBytes; quota != 0 && st.totals.bytes > quota {
		return problemf(trivetpb.Code_QUOTA_EXCEEDED, "the file holds %d bytes, and the store's quota is %d", st.totals.bytes, quota)
	}
	st.index, st.clockMS, st.settings, st.seed = a.index, a.clockMS, a.settings, a.seed
	st.revision = max(a.revision, st.revision) + 1
	st.compactRevision = st.revision
	st.nextID = max(a.nextID, st.nextID)
	if !mutant.On("token-not-raised") {
		st.nextToken = max(a.nextToken, st.nextToken)
	}
	a.replace(st)
	return nil
}

// readBackup reads a snapshot as a backup of keys: the newest version of each,
// leases and idempotency keys with all of their time from the clock on. What it
// says of the rest is verified, and left out. A file of a level above the state's
// is refused, in the words of a version that knows no more: so all members do the
// same, those that would know better too.
func readBackup(r io.Reader, clockMS, level uint64) (*state, error) {
	in, err := openSnapshot(r, level)
	if err != nil {
		return nil, err
	}
	defer in.close()
	in.keep = true
	st := newState()
	var last *chain
	finishKey := func() {
		v := last.newest()
		if !v.live() {
			return
		}
		if l, ok := in.rest.leases.get(v.lease()); ok && l.lock != "" {
			return // it ends with its lock
		}
		st.tree.addLast(last)
		st.table.expect(last)
		st.totals.keys++
		st.totals.bytes += itemBytes(last.key(), v)
		st.totals.sum += v.hash
	}
	err = in.readAll(func(c *chain, v *version) {
		if c != last {
			finishKey()
			last = c
		}
		c.head.Store(v)
	})
	if err != nil {
		return nil, in.explain(err)
	}
	finishKey()
	st.table.fill(st.tree)
	st.revision = in.header.Revision
	st.nextID, st.nextToken = in.header.NextId, in.header.NextToken
	st.clockMS = clockMS
	in.rest.leases.m.Scan(func(id uint64, l lease) bool {
		if l.lock == "" {
			keys := l.run.keys
			l.deadlineMS = after(clockMS, l.ttlMS)
			st.addLease(id, l)
			added, _ := st.leases.get(id)
			added.run.keys = keys
		}
		return true
	})
	in.rest.keyed.m.Scan(func(_ string, k *keyed) bool {
		again := *k
		again.deadlineMS = after(clockMS, IdempotencyMS)
		st.addKeyed(&again)
		return true
	})
	return st, nil
}

// replace makes st the state in the midst of an entry. What was applied of the
// entry so far is in the state that is gone.
func (a *applier) replace(st *state) {
	a.state = st
	a.replaced = true
	a.session, a.named = nil, nil
	a.first, a.mark, a.before = 0, 0, st.totals
}
