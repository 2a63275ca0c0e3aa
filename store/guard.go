package store

import (
	"fmt"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// MaxGuards is the most guards of one command. Apply keeps it: it must never
// change.
const MaxGuards = 16

// guard fails unless every lock is held with the very token, in the same step as
// the command that follows. That is what makes a fencing token work without the
// help of what it protects: a holder whose lease ended while it slept finds its
// write refused.
func (a *applier) guard(guards []*trivetpb.Guard) *trivetpb.Problem {
	if mutant.On("guard-ignored") {
		return nil
	}
	for i, g := range guards {
		if _, p := a.heldWith(g.Lock, g.Token); p != nil {
			p.Detail = fmt.Sprintf("guards[%d]: %s", i, p.Detail)
			return p
		}
	}
	return nil
}

func checkGuards(c *trivetpb.Command) *trivetpb.Problem {
	if len(c.Guards) == 0 {
		return nil
	}
	if len(c.Guards) > MaxGuards {
		return problemf(trivetpb.Code_BAD_REQUEST, "the command has %d guards, and may have %d", len(c.Guards), MaxGuards)
	}
	switch c.Command.(type) {
	case *trivetpb.Command_Op,
		*trivetpb.Command_LeaseGrant, *trivetpb.Command_LeaseKeepAlive, *trivetpb.Command_LeaseRevoke,
		*trivetpb.Command_LockAcquire, *trivetpb.Command_LockKeepAlive, *trivetpb.Command_LockRelease, *trivetpb.Command_LockCancel:
	default:
		return problemf(trivetpb.Code_BAD_REQUEST, "guards go with operations on keys, leases and locks only")
	}
	for i, g := range c.Guards {
		if p := checkLockName(g.Lock); p != nil {
			return problemf(p.Code, "guards[%d]: %s", i, p.Detail)
		}
	}
	return nil
}
