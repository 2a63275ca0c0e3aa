package httpapi

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// scribe is a node that writes down what was proposed to it and applies nothing.
// How it answers is set by the test; by default, that it was done.
type scribe struct {
	*soloNode
	mu       sync.Mutex
	commands []*trivetpb.Command
	answer   func(command *trivetpb.Command) *trivetpb.Result
}

func newScribe(answer func(command *trivetpb.Command) *trivetpb.Result) *scribe {
	n := &scribe{soloNode: newSoloNode(), answer: answer}
	n.onPropose = func(_ context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		var results []*trivetpb.Result
		for _, c := range commands {
			n.commands = append(n.commands, proto.Clone(c).(*trivetpb.Command))
			if n.answer != nil {
				results = append(results, n.answer(c))
			} else {
				results = append(results, done(c))
			}
		}
		return results, nil
	}
	return n
}

// taken returns what was proposed since it was last asked.
func (n *scribe) taken() []*trivetpb.Command {
	n.mu.Lock()
	defer n.mu.Unlock()
	commands := n.commands
	n.commands = nil
	return commands
}

// done is a result that the command might have.
func done(c *trivetpb.Command) *trivetpb.Result {
	r := &trivetpb.Result{Revision: 2}
	switch c := c.Command.(type) {
	case *trivetpb.Command_Op:
		switch op := c.Op.Op.(type) {
		case *trivetpb.Op_Put:
			r.Result = &trivetpb.Result_Put{Put: &trivetpb.PutResult{Version: 1, Created: true}}
		case *trivetpb.Op_Delete:
			r.Result = &trivetpb.Result_Delete{Delete: &trivetpb.DeleteResult{Deleted: 1}}
		case *trivetpb.Op_Add:
			r.Result = &trivetpb.Result_Add{Add: &trivetpb.AddResult{Value: 1}}
		case *trivetpb.Op_Txn:
			txn := &trivetpb.TxnResult{Succeeded: true}
			for _, op := range op.Txn.Then {
				txn.Results = append(txn.Results, done(&trivetpb.Command{Command: &trivetpb.Command_Op{Op: op}}))
			}
			r.Result = &trivetpb.Result_Txn{Txn: txn}
		case *trivetpb.Op_Get:
			r.Result = &trivetpb.Result_Get{Get: &trivetpb.GetResult{}}
		}
	case *trivetpb.Command_LeaseGrant:
		r.Result = &trivetpb.Result_Lease{Lease: &trivetpb.LeaseResult{Lease: 77, TtlMs: c.LeaseGrant.TtlMs}}
	case *trivetpb.Command_LeaseKeepAlive:
		r.Result = &trivetpb.Result_Lease{Lease: &trivetpb.LeaseResult{Lease: c.LeaseKeepAlive.Lease, TtlMs: 10_000}}
	case *trivetpb.Command_LeaseRevoke:
		r.Result = &trivetpb.Result_Lease{Lease: &trivetpb.LeaseResult{Lease: c.LeaseRevoke.Lease, Deleted: 3}}
	case *trivetpb.Command_LockAcquire:
		r.Result = &trivetpb.Result_Lock{Lock: &trivetpb.LockResult{Holder: &trivetpb.LockHolder{Token: 9, Lease: 77, Owner: c.LockAcquire.Owner, TtlMs: c.LockAcquire.TtlMs}}}
	case *trivetpb.Command_LockKeepAlive:
		r.Result = &trivetpb.Result_Lock{Lock: &trivetpb.LockResult{Holder: &trivetpb.LockHolder{Token: c.LockKeepAlive.Token, Lease: 77, TtlMs: 10_000}}}
	case *trivetpb.Command_LockRelease, *trivetpb.Command_LockCancel:
		r.Result = &trivetpb.Result_Lock{Lock: &trivetpb.LockResult{}}
	case *trivetpb.Command_SessionOpen:
		r.Result = &trivetpb.Result_Session{Session: &trivetpb.SessionResult{Session: 88, TtlMs: c.SessionOpen.TtlMs}}
	case *trivetpb.Command_SessionKeepAlive:
		r.Result = &trivetpb.Result_Session{Session: &trivetpb.SessionResult{Session: c.SessionKeepAlive.Session, TtlMs: 60_000}}
	case *trivetpb.Command_SessionClose:
		r.Result = &trivetpb.Result_Session{Session: &trivetpb.SessionResult{Session: c.SessionClose.Session}}
	}
	return r
}
