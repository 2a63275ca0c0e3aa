package store

import (
	"bytes"
	"cmp"
	"fmt"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// txn compares, then does all of one branch. The first op that fails is the
// txn's problem, and command takes back what those before it did.
func (a *applier) txn(op *trivetpb.TxnOp, result *trivetpb.Result) *trivetpb.Problem {
	r := a.reading()
	succeeded := r.compare(op.If)
	ops, results := a.memory.txns.next(a.left).of(op, succeeded, result)
	for i, o := range ops {
		if p := a.op(o, results[i]); p != nil {
			return inBranch(p, succeeded, i)
		}
		if mutant.On("txn-in-parts") {
			a.commitChanges()
			a.before = a.totals
		}
	}
	return nil
}

// txn is the same where the op only reads.
func (r *reading) txn(result *trivetpb.Result, op *trivetpb.TxnOp, b *budget) *trivetpb.Problem {
	succeeded := r.compare(op.If)
	ops, results := new(txnAnswer).of(op, succeeded, result)
	for i, o := range ops {
		if p := r.op(results[i], o.Op, b); p != nil {
			return inBranch(p, succeeded, i)
		}
		results[i].Revision = r.revision
	}
	return nil
}

// of makes it the result. It returns the branch to do, and an empty result for each op
// of it.
func (answer *txnAnswer) of(op *trivetpb.TxnOp, succeeded bool, result *trivetpb.Result) ([]*trivetpb.Op, []*trivetpb.Result) {
	ops := op.Else
	if succeeded {
		ops = op.Then
	}
	slab, results := answer.slab[:], answer.results[:]
	if len(ops) > len(slab) {
		slab, results = make([]trivetpb.Result, len(ops)), make([]*trivetpb.Result, len(ops))
	}
	slab, results = slab[:len(ops)], results[:len(ops)]
	for i := range slab {
		results[i] = &slab[i]
	}
	answer.txn.Succeeded, answer.txn.Results = succeeded, results
	answer.oneof.Txn = &answer.txn
	result.Result = &answer.oneof
	return ops, results
}

// inBranch makes the problem of an op that of its txn.
func inBranch(p *trivetpb.Problem, succeeded bool, i int) *trivetpb.Problem {
	branch := "else"
	if succeeded {
		branch = "then"
	}
	p.Detail = fmt.Sprintf("%s[%d]: %s", branch, i, p.Detail)
	return p
}

// compare says whether all compares hold.
func (r *reading) compare(all []*trivetpb.Compare) bool {
	for _, c := range all {
		if c.Range == nil {
			if !compareOne(c, r.get(keyString(c.Key))) {
				return false
			}
			continue
		}
		// For every key there: true where there is none.
		ok := true
		r.scan(c.Range, false, func(_ *chain, v *version) bool {
			ok = compareOne(c, v)
			return ok
		})
		if !ok {
			return false
		}
	}
	return true
}

// compareOne compares a live version, or nil for a missing key. A missing key
// has number 0 everywhere; it has no value, so it differs from any (!=) and is
// neither equal to nor before nor after one.
func compareOne(c *trivetpb.Compare, v *version) bool {
	var order int
	if c.Target == trivetpb.Compare_VALUE {
		if v == nil {
			return c.Relation == trivetpb.Compare_NOT_EQUAL
		}
		order = bytes.Compare(v.bytes(), c.Value)
	} else {
		order = cmp.Compare(numberOf(c.Target, v), c.Number)
	}
	switch c.Relation {
	case trivetpb.Compare_EQUAL:
		return order == 0
	case trivetpb.Compare_NOT_EQUAL:
		return order != 0
	case trivetpb.Compare_LESS:
		return order < 0
	case trivetpb.Compare_LESS_OR_EQUAL:
		return order <= 0
	case trivetpb.Compare_GREATER:
		return order > 0
	case trivetpb.Compare_GREATER_OR_EQUAL:
		return order >= 0
	}
	return false // not reached: known refuses other relations
}

func numberOf(target trivetpb.Compare_Target, v *version) uint64 {
	if v == nil {
		return 0
	}
	switch target {
	case trivetpb.Compare_VERSION:
		return v.number()
	case trivetpb.Compare_CREATE_REVISION:
		return v.create()
	case trivetpb.Compare_MOD_REVISION:
		return v.mod
	case trivetpb.Compare_LEASE:
		return v.lease()
	}
	return 0 // not reached: known refuses other targets
}
