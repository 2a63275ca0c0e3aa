package store

import "trivet/trivetpb"

// CheckCommand is Check for a whole command as a caller sends it: it refuses
// what can be refused without looking at the state, before it is proposed; nil
// means that the command is fine. Markers and Expire, which only leaders
// propose, are refused. The identity may be missing. A command that it lets
// through never makes Apply return ErrUnknownCommand.
func CheckCommand(c *trivetpb.Command, l Limits) *trivetpb.Problem {
	if err := knownCommand(c); err != nil {
		return problemf(trivetpb.Code_BAD_REQUEST, "%v", err)
	}
	if p := checkIdentity(c); p != nil {
		return p
	}
	if p := checkGuards(c); p != nil {
		return p
	}
	switch op := c.Command.(type) {
	case *trivetpb.Command_Op:
		return check(op.Op, l.withDefaults(), false)
	case *trivetpb.Command_Marker, *trivetpb.Command_Expire:
		return problemf(trivetpb.Code_BAD_REQUEST, "only a leader proposes this command")
	}
	return checkPlain(c)
}

// checkPlain checks what is no operation on keys. There is one limit for all
// servers.
func checkPlain(c *trivetpb.Command) *trivetpb.Problem {
	switch c := c.Command.(type) {
	case *trivetpb.Command_LeaseGrant:
		return checkTTL(c.LeaseGrant.TtlMs)
	case *trivetpb.Command_LockAcquire:
		return checkLockAcquire(c.LockAcquire)
	case *trivetpb.Command_LockKeepAlive:
		return checkLockName(c.LockKeepAlive.Name)
	case *trivetpb.Command_LockRelease:
		return checkLockName(c.LockRelease.Name)
	case *trivetpb.Command_LockCancel:
		return checkLockName(c.LockCancel.Name)
	case *trivetpb.Command_SessionOpen:
		return checkTTL(c.SessionOpen.TtlMs)
	case *trivetpb.Command_RestoreChunk:
		return checkChunk(c.RestoreChunk)
	}
	return nil // ids and tokens of nothing are refused where they are looked up
}
