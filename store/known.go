package store

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// What a version of the state machine does not know it must not skip: a put
// whose guard an older member overlooked would be applied there and nowhere
// else. So every message of an entry is searched for commands, enum values and
// fields that the schema of this version does not have.

var (
	errEmpty   = errors.New("a message is missing, or is of a kind that is not known")
	errField   = errors.New("a message has a field that is not known")
	errSetting = errors.New("an enum has a value that is not known")
)

// knownEntry says what of the entry is not known to a version that knows the
// levels up to level.
func knownEntry(entry *trivetpb.Entry, level uint64) error {
	if entry == nil {
		return errEmpty
	}
	if hasUnknown(entry) {
		return errField
	}
	for i, c := range entry.Commands {
		if err := knownCommand(c); err != nil {
			return fmt.Errorf("command %d: %w", i, err)
		}
		if raised := c.GetMarker().GetSettings().GetLevel(); raised > level {
			return fmt.Errorf("command %d: it raises the cluster to level %d, and this version knows up to %d", i, raised, level)
		}
	}
	return nil
}

func knownCommand(c *trivetpb.Command) error {
	if c == nil {
		return errEmpty
	}
	if hasUnknown(c) {
		return errField
	}
	for _, g := range c.Guards {
		if g == nil {
			return errEmpty
		}
		if hasUnknown(g) {
			return errField
		}
	}
	switch c := c.Command.(type) {
	case *trivetpb.Command_Op:
		return knownOp(c.Op)
	case *trivetpb.Command_Marker:
		if c.Marker.GetSettings() != nil && hasUnknown(c.Marker.Settings) {
			return errField
		}
		return knownPlain(c.Marker)
	case *trivetpb.Command_LeaseGrant:
		return knownPlain(c.LeaseGrant)
	case *trivetpb.Command_LeaseKeepAlive:
		return knownPlain(c.LeaseKeepAlive)
	case *trivetpb.Command_LeaseRevoke:
		return knownPlain(c.LeaseRevoke)
	case *trivetpb.Command_LockAcquire:
		return knownPlain(c.LockAcquire)
	case *trivetpb.Command_LockKeepAlive:
		return knownPlain(c.LockKeepAlive)
	case *trivetpb.Command_LockRelease:
		return knownPlain(c.LockRelease)
	case *trivetpb.Command_LockCancel:
		return knownPlain(c.LockCancel)
	case *trivetpb.Command_SessionOpen:
		return knownPlain(c.SessionOpen)
	case *trivetpb.Command_SessionKeepAlive:
		return knownPlain(c.SessionKeepAlive)
	case *trivetpb.Command_SessionClose:
		return knownPlain(c.SessionClose)
	case *trivetpb.Command_Expire:
		return knownPlain(c.Expire)
	case *trivetpb.Command_RestoreChunk:
		return knownPlain(c.RestoreChunk)
	case *trivetpb.Command_RestoreCommit:
		return knownPlain(c.RestoreCommit)
	case *trivetpb.Command_RestoreAbort:
		return knownPlain(c.RestoreAbort)
	}
	return errEmpty
}

// knownPlain is for a message that has no messages or enums in it.
func knownPlain(m proto.Message) error {
	r := m.ProtoReflect()
	if !r.IsValid() {
		return errEmpty // a nil pointer
	}
	if len(r.GetUnknown()) != 0 {
		return errField
	}
	return nil
}

// knownOp does not look into a txn in a txn: that is refused as a whole.
func knownOp(op *trivetpb.Op) error {
	t, ok := op.GetOp().(*trivetpb.Op_Txn)
	if !ok {
		return knownSimple(op)
	}
	if t.Txn == nil {
		return errEmpty
	}
	if hasUnknown(op) || hasUnknown(t.Txn) {
		return errField
	}
	for _, c := range t.Txn.If {
		if err := knownCompare(c); err != nil {
			return err
		}
	}
	for _, ops := range [...][]*trivetpb.Op{t.Txn.Then, t.Txn.Else} {
		for _, o := range ops {
			if err := knownSimple(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// knownSimple is knownOp but for what is in a txn.
func knownSimple(op *trivetpb.Op) error {
	if op == nil {
		return errEmpty
	}
	if hasUnknown(op) {
		return errField
	}
	var of proto.Message
	var keys *trivetpb.KeyRange
	var precondition *trivetpb.Precondition
	empty := true
	switch op := op.Op.(type) {
	case *trivetpb.Op_Put:
		empty = op.Put == nil
		of, precondition = op.Put, op.Put.GetPrecondition()
	case *trivetpb.Op_Delete:
		empty = op.Delete == nil
		of, keys, precondition = op.Delete, op.Delete.GetRange(), op.Delete.GetPrecondition()
	case *trivetpb.Op_Get:
		empty = op.Get == nil
		of = op.Get
	case *trivetpb.Op_Range:
		empty = op.Range == nil
		of, keys = op.Range, op.Range.GetRange()
	case *trivetpb.Op_Add:
		empty = op.Add == nil
		of = op.Add
	case *trivetpb.Op_Txn:
		empty = op.Txn == nil
		of = op.Txn
	}
	switch {
	case empty:
		return errEmpty
	case hasUnknown(of), keys != nil && hasUnknown(keys):
		return errField
	case precondition == nil:
		return nil
	case hasUnknown(precondition):
		return errField
	case precondition.Kind < 0 || precondition.Kind > trivetpb.Precondition_ABSENT:
		return errSetting
	}
	return nil
}

func knownCompare(c *trivetpb.Compare) error {
	switch {
	case c == nil:
		return errEmpty
	case hasUnknown(c), c.Range != nil && hasUnknown(c.Range):
		return errField
	case c.Target < 0 || c.Target > trivetpb.Compare_LEASE,
		c.Relation < 0 || c.Relation > trivetpb.Compare_GREATER_OR_EQUAL:
		return errSetting
	}
	return nil
}

// hasUnknown says that the decoder met fields of m that the schema does not
// have. m itself must not be nil.
func hasUnknown(m proto.Message) bool { return len(m.ProtoReflect().GetUnknown()) != 0 }
