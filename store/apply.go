package store

import (
	"fmt"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// apply applies an entry that knownEntry accepted, under the store's lock.
func (a *applier) apply(index uint64, entry *trivetpb.Entry) []*trivetpb.Result {
	a.index = index
	a.clockMS = max(a.clockMS, entry.ClockMs)

	results, each := a.memory.results.all(len(entry.Commands)), a.memory.of.all(len(entry.Commands))
	a.first = a.history.changes.n
	a.named = a.namedBefore
	for i, c := range entry.Commands {
		results[i] = &each[i]
		a.left = len(entry.Commands) - i
		if !mutant.On("map-order") {
			a.command(c, results[i])
		}
	}
	if mutant.On("map-order") {
		for _, i := range mutant.MapOrder(len(entry.Commands)) {
			a.command(entry.Commands[i], results[i])
		}
	}
	a.rehash()
	if !a.replaced {
		a.watches.publish(a.state) // before compact, which takes prev
	} // else replace tells the watchers
	a.compact(a.history.changes.n - a.first)
	return results
}

// applier applies the commands of one entry, one after the other. An operation
// on keys is executed directly against the state. What it changed so far is the
// end of the history, so that is its undo log as well. All other commands fail
// before they change anything, or not at all.
type applier struct {
	// state is another one after a RestoreCommit.
	*state
	replaced bool
	ready    *prepared
	// first is where the changes of the entry begin in the history, mark where
	// those of the present command do, before what the totals were then.
	first, mark int
	before      totals
	// nextIDBefore, granted and orphans are for the leases of single puts: see
	// attach.go.
	nextIDBefore     uint64
	granted, orphans []uint64
	// expiring marks what is erased as expired.
	expiring bool
	// budget is what the answer to the present command may still hold.
	budget budget
	// ranged is how many keys its delete ranges have found.
	ranged uint64

	// session is the one that was named last, named all that the entry named.
	session *session
	named   []*session
	// stirred is the tokens whose standing changed: see awaiting.
	stirred []uint64

	memory *resultMemory
	left   int // commands that may still want an answer
}

// command applies one command and writes its result: all of it or nothing. The
// order is part of the state machine: what was applied before under the same
// identity is answered as then, whatever has become of guards and limits.
func (a *applier) command(c *trivetpb.Command, result *trivetpb.Result) {
	if mutant.On("dedup-off") {
		c.IdempotencyKey, c.Fingerprint, c.Session, c.Seq, c.Ack = nil, nil, 0, 0, 0
	}
	first, problem := a.recall(c)
	if first != nil {
		replay(result, first)
		return
	}
	if problem != nil {
		result.Revision, result.Problem = a.revision, problem
		return
	}
	a.begin()
	if problem = a.try(c, result); problem == nil {
		problem = a.overQuota()
	}
	if problem != nil {
		a.fail(result, problem)
	}
	result.Revision = a.seen()
	// What may find no room here is an operation on keys, which can be undone, and
	// whatever failed, and so changed nothing: but for roomForPlain.
	if problem = a.remember(c, result); problem != nil && (c.GetOp() != nil || result.Problem != nil) {
		a.fail(result, problem)
		result.Revision = a.seen()
	}
	a.endOrphans()
	a.commitChanges()
}

func (a *applier) begin() {
	a.mark, a.before, a.budget, a.ranged = a.history.changes.n, a.totals, budget{}, 0
	a.nextIDBefore = a.nextID
	a.granted = a.granted[:0]
}

// fail undoes the present command.
func (a *applier) fail(result *trivetpb.Result, problem *trivetpb.Problem) {
	a.undo()
	result.Result, result.Problem = nil, problem
}

// commitChanges makes what was changed since the mark a revision, if anything
// was.
func (a *applier) commitChanges() {
	if a.history.changes.n > a.mark {
		a.commit(a.mark)
		a.mark = a.history.changes.n
	}
}

// try executes a command. What CheckCommand refuses before it is proposed is
// refused again here, at the limits that no setting exceeds: the log may come
// from a node that checks less.
func (a *applier) try(c *trivetpb.Command, result *trivetpb.Result) *trivetpb.Problem {
	if p := checkGuards(c); p != nil {
		return p
	}
	if p := a.guard(c.Guards); p != nil {
		return p
	}
	if op, ok := c.Command.(*trivetpb.Command_Op); ok {
		if p := check(op.Op, hardLimits, false); p != nil {
			return p
		}
		return a.op(op.Op, result)
	}
	if p := checkPlain(c); p != nil {
		return p
	}
	if p := a.roomForPlain(c); p != nil {
		return p
	}
	return a.plain(c, result)
}

// plain executes what is no operation on keys. It was checked.
func (a *applier) plain(c *trivetpb.Command, result *trivetpb.Result) *trivetpb.Problem {
	switch c := c.Command.(type) {
	case *trivetpb.Command_Marker:
		a.marker(c.Marker)
	case *trivetpb.Command_Expire:
		a.expire()
	case *trivetpb.Command_LeaseGrant:
		return a.leaseGrant(c.LeaseGrant, result)
	case *trivetpb.Command_LeaseKeepAlive:
		return a.leaseKeepAlive(c.LeaseKeepAlive, result)
	case *trivetpb.Command_LeaseRevoke:
		return a.leaseRevoke(c.LeaseRevoke, result)
	case *trivetpb.Command_LockAcquire:
		return a.lockAcquire(c.LockAcquire, result)
	case *trivetpb.Command_LockKeepAlive:
		return a.lockKeepAlive(c.LockKeepAlive, result)
	case *trivetpb.Command_LockRelease:
		return a.lockRelease(c.LockRelease, result)
	case *trivetpb.Command_LockCancel:
		return a.lockCancel(c.LockCancel, result)
	case *trivetpb.Command_SessionOpen:
		return a.sessionOpen(c.SessionOpen, result)
	case *trivetpb.Command_SessionKeepAlive:
		return a.sessionKeepAlive(c.SessionKeepAlive, result)
	case *trivetpb.Command_SessionClose:
		return a.sessionClose(c.SessionClose, result)
	case *trivetpb.Command_RestoreChunk:
		return a.restoreChunk(c.RestoreChunk)
	case *trivetpb.Command_RestoreCommit:
		return a.restoreCommit(c.RestoreCommit, a.ready)
	case *trivetpb.Command_RestoreAbort:
		a.restoreAbort(c.RestoreAbort)
	}
	return nil
}

// op executes one operation and writes its answer. The operation was checked.
func (a *applier) op(op *trivetpb.Op, result *trivetpb.Result) (problem *trivetpb.Problem) {
	switch op := op.Op.(type) {
	case *trivetpb.Op_Put:
		problem = a.put(op.Put, result)
	case *trivetpb.Op_Delete:
		problem = a.delete(op.Delete, result)
	case *trivetpb.Op_Add:
		problem = a.add(op.Add, result)
	case *trivetpb.Op_Txn:
		problem = a.txn(op.Txn, result)
	default:
		r := a.reading()
		problem = r.op(result, op, &a.budget)
	}
	result.Revision = a.seen()
	return problem
}

// seen is the revision of the state as the present command sees it: the one
// that it makes, once it has changed something.
func (a *applier) seen() uint64 {
	if a.history.changes.n > a.mark {
		return a.revision + 1
	}
	return a.revision
}

// reading reads the state as it is now, in the midst of a command.
func (a *applier) reading() reading {
	return reading{tree: a.tree, table: &a.table, tombstones: &a.tombstones, revision: a.revision + 1}
}

// write gives the key a new value, which is the store's where it is not copied
// (newVersion). c is the key's chain, nil where there is none. The
// version before is the result's prev. A command writes a key once at most.
func (a *applier) write(key string, c *chain, value []byte, lease uint64) *version {
	old := c.newest()
	mod := a.revision + 1
	n := numbers{create: mod, number: 1, lease: lease}
	if old.live() {
		n.create, n.number = old.create(), old.number()+1
		a.totals.bytes -= itemBytes(key, old)
		a.totals.sum -= old.hash
	} else {
		a.totals.keys++
		if c == nil {
			c = newChain(key)
			a.enter(c)
		} else {
			a.unbury(c)
		}
	}
	if was := leaseOf(old); was|lease != 0 {
		a.move(c.key(), was, lease)
	}
	v := newVersion(mod, uint32(a.history.changes.n-a.mark), n, value)
	v.prev = old
	v.hash = itemHash(key, v)
	bytes := itemBytes(key, v)
	a.totals.bytes += bytes
	a.totals.sum += v.hash
	c.head.Store(v) // v is complete: Views may load it from now on
	a.history.changes.push(change{c, v, old, uint32(bytes)})
	return v
}

// erase puts a tombstone in the place of old, the chain's live head.
func (a *applier) erase(c *chain, old *version) {
	v := newTombstone(a.revision+1, uint32(a.history.changes.n-a.mark), a.expiring)
	v.prev = old
	if lease := old.lease(); lease != 0 {
		a.move(c.key(), lease, 0)
	}
	a.totals.keys--
	a.totals.bytes -= itemBytes(c.key(), old)
	a.totals.sum -= old.hash
	c.head.Store(v)
	a.bury(c)
	a.history.changes.push(change{c, v, old, uint32(itemBytes(c.key(), v))})
}

// undo takes back all that the present command changed, the last change first.
func (a *applier) undo() {
	changes := &a.history.changes
	for i := changes.n - 1; i >= a.mark; i-- {
		c, v := changes.at(i).chain, changes.at(i).v
		if is, was := leaseOf(v), leaseOf(v.prev); is|was != 0 {
			a.move(c.key(), is, was)
		}
		switch {
		case v.prev == nil:
			a.leave(c)
			continue
		case !v.live():
			a.unbury(c)
		case !v.prev.live():
			a.bury(c)
		}
		c.head.Store(v.prev)
	}
	changes.truncate(a.mark)
	a.ungrant()
	a.totals, a.nextID = a.before, a.nextIDBefore
}

// overQuota refuses a command that leaves more live data than there was before
// it, and more than the quota: deletes and shrinking go through, and a txn is
// judged by its whole.
func (a *applier) overQuota() *trivetpb.Problem {
	quota := a.settings.QuotaBytes
	if quota == 0 || a.totals.bytes <= quota || a.totals.bytes <= a.before.bytes {
		return nil
	}
	return problemf(trivetpb.Code_QUOTA_EXCEEDED,
		"the store would hold %d bytes, and its quota is %d", a.totals.bytes, quota)
}

// holds says whether the precondition holds for a key whose newest version is
// head, and what the problem is where it does not.
func holds(p *trivetpb.Precondition, head *version) *trivetpb.Problem {
	var mod uint64 // of a missing key
	if head.live() {
		mod = head.mod
	}
	var detail string
	switch p.GetKind() {
	case trivetpb.Precondition_MOD_REVISION:
		if mod != p.ModRevision {
			detail = fmt.Sprintf("the key's mod_revision is %d, not %d", mod, p.ModRevision)
		}
	case trivetpb.Precondition_EXISTS:
		if mod == 0 {
			detail = "the key does not exist"
		}
	case trivetpb.Precondition_ABSENT:
		if mod != 0 {
			detail = fmt.Sprintf("the key exists, with mod_revision %d", mod)
		}
	}
	if detail == "" {
		return nil
	}
	return &trivetpb.Problem{Code: trivetpb.Code_PRECONDITION_FAILED, Detail: detail, ModRevision: mod}
}

func problemf(code trivetpb.Code, format string, args ...any) *trivetpb.Problem {
	return &trivetpb.Problem{Code: code, Detail: fmt.Sprintf(format, args...)}
}
