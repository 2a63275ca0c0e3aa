package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// Short forms for the tests, of commands that are no operation on keys.

func opCommand(op *trivetpb.Op) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_Op{Op: op}}
}

func grant(ttlMS uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_LeaseGrant{LeaseGrant: &trivetpb.LeaseGrant{TtlMs: ttlMS}}}
}

func keepAlive(lease uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_LeaseKeepAlive{LeaseKeepAlive: &trivetpb.LeaseKeepAlive{Lease: lease}}}
}

func revoke(lease uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_LeaseRevoke{LeaseRevoke: &trivetpb.LeaseRevoke{Lease: lease}}}
}

func acquire(name, owner string, ttlMS, waitMS uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_LockAcquire{LockAcquire: &trivetpb.LockAcquire{
		Name: []byte(name), Owner: owner, TtlMs: ttlMS, WaitMs: waitMS}}}
}

func keepLock(name string, token uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_LockKeepAlive{LockKeepAlive: &trivetpb.LockKeepAlive{Name: []byte(name), Token: token}}}
}

func release(name string, token uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_LockRelease{LockRelease: &trivetpb.LockRelease{Name: []byte(name), Token: token}}}
}

func cancel(name string, token uint64, release bool) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_LockCancel{LockCancel: &trivetpb.LockCancel{
		Name: []byte(name), Token: token, Release: release}}}
}

func openSession(ttlMS uint64, node bool) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_SessionOpen{SessionOpen: &trivetpb.SessionOpen{TtlMs: ttlMS, Node: node}}}
}

func keepSession(session uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_SessionKeepAlive{SessionKeepAlive: &trivetpb.SessionKeepAlive{Session: session}}}
}

func closeSession(session uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_SessionClose{SessionClose: &trivetpb.SessionClose{Session: session}}}
}

func expire() *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_Expire{Expire: &trivetpb.Expire{}}}
}

func restoreChunk(upload, offset uint64, data []byte) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_RestoreChunk{RestoreChunk: &trivetpb.RestoreChunk{Upload: upload, Offset: offset, Data: data}}}
}

func restoreCommit(upload, size uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_RestoreCommit{RestoreCommit: &trivetpb.RestoreCommit{Upload: upload, Size: size}}}
}

func restoreAbort(upload uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_RestoreAbort{RestoreAbort: &trivetpb.RestoreAbort{Upload: upload}}}
}

func seedMarker(seed uint64) *trivetpb.Command {
	return &trivetpb.Command{Command: &trivetpb.Command_Marker{Marker: &trivetpb.Marker{Term: 1, Seed: seed}}}
}

func leasePut(key, value string, lease uint64) *trivetpb.Op {
	op := putOp(key, value)
	op.GetPut().Lease = lease
	return op
}

func ttlPut(key, value string, ttlMS uint64) *trivetpb.Op {
	op := putOp(key, value)
	op.GetPut().TtlMs = ttlMS
	return op
}

// in gives a command an identity of a session.
func in(c *trivetpb.Command, session, seq, ack uint64) *trivetpb.Command {
	c.Session, c.Seq, c.Ack = session, seq, ack
	return c
}

// under gives a command an idempotency key; the fingerprint is of the request's
// name.
func under(c *trivetpb.Command, key, request string) *trivetpb.Command {
	c.IdempotencyKey, c.Fingerprint = []byte(key), append([]byte(request), make([]byte, FingerprintBytes)...)[:FingerprintBytes]
	return c
}

func guarded(c *trivetpb.Command, lock string, token uint64) *trivetpb.Command {
	c.Guards = append(c.Guards, &trivetpb.Guard{Lock: []byte(lock), Token: token})
	return c
}

// at applies commands as one entry, at a clock, and returns the last result.
// What is inside the store is checked.
func at(t testing.TB, s *Store, clockMS uint64, commands ...*trivetpb.Command) *trivetpb.Result {
	t.Helper()
	results := apply(t, s, &trivetpb.Entry{ClockMs: clockMS, Commands: commands})
	requireSound(t, s, true)
	if len(results) == 0 {
		return nil
	}
	return results[len(results)-1]
}

// fine is at for a last command that succeeds.
func fine(t testing.TB, s *Store, clockMS uint64, commands ...*trivetpb.Command) *trivetpb.Result {
	t.Helper()
	r := at(t, s, clockMS, commands...)
	require.Nil(t, r.Problem, "%v", r.Problem)
	return r
}

// refused is at for a last command that fails with the code, and changes
// nothing.
func refused(t testing.TB, s *Store, clockMS uint64, code trivetpb.Code, commands ...*trivetpb.Command) *trivetpb.Problem {
	t.Helper()
	if len(commands) > 1 {
		at(t, s, clockMS, commands[:len(commands)-1]...)
	}
	before := s.Stats()
	r := at(t, s, clockMS, commands[len(commands)-1])
	require.Equal(t, code, r.Problem.GetCode(), "%v", r)
	require.NotEmpty(t, r.Problem.Detail)
	require.Nil(t, r.Result)
	after := s.Stats()
	after.Index, after.Hash, before.Hash = before.Index, 0, 0
	if c := commands[len(commands)-1]; c.Session == 0 && len(c.IdempotencyKey) == 0 {
		require.Equal(t, before, after)
	}
	return r.Problem
}

// restored is a store that was made from a snapshot of s. It is equal to s.
func restored(t testing.TB, s *Store) *Store {
	t.Helper()
	again := New()
	require.NoError(t, again.Restore(snapshotOf(t, s)))
	require.Equal(t, s.Stats(), again.Stats())
	requireSound(t, again, false)
	next, ok := s.NextDeadline()
	nextAgain, okAgain := again.NextDeadline()
	require.Equal(t, []any{next, ok}, []any{nextAgain, okAgain})
	return again
}

// fullStore has all that a snapshot can hold.
func fullStore(t testing.TB) *Store {
	s := sampleStore(t)
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 20, QuotaBytes: 1 << 20}))
	fine(t, s, 4000, seedMarker(7), opCommand(txnOp(putOp("x", "1"), putOp("y", "2"))))
	session := fine(t, s, 4000, openSession(60_000, false)).GetSession().Session
	node := fine(t, s, 4000, openSession(10_000, true)).GetSession().Session
	lease := fine(t, s, 4000, grant(5000)).GetLease().Lease
	gone := fine(t, s, 4000, grant(1000)).GetLease().Lease
	fine(t, s, 4100,
		opCommand(leasePut("leased/1", "1", lease)), opCommand(leasePut("leased/2", "2", lease)), opCommand(leasePut("leased/3", "3", gone)),
		opCommand(ttlPut("ttl", "4", 3000)),
		acquire("lock/a", "the holder", 9000, 0), acquire("lock/a", "the next", 9000, 1000), acquire("lock/a", "", 2000, 2000), acquire("lock/b", "", 1000, 0))
	fine(t, s, 5000, expire())
	fine(t, s, 5000,
		in(opCommand(putOp("a", "in a session")), session, 3, 1), in(opCommand(rangeOp("", "")), session, 40, 1), in(opCommand(txnOp(addOp("n", 1))), node, 1, 0),
		under(opCommand(addOp("n", 1)), "an idempotency key", "add"), under(grant(2000), "another", "grant"))
	refused(t, s, 5001, trivetpb.Code_LEASE_NOT_FOUND, under(opCommand(leasePut("a", "", 1)), "a third", "put"))
	fine(t, s, 5100, restoreChunk(99, 0, []byte("no snapshot")), restoreChunk(99, 11, []byte(" at all")))
	return s
}
