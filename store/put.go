package store

import (
	"bytes"

	"trivet/trivetpb"
)

// put gives a key a value; its lease becomes the one that the op names, a new one
// of its own, or none.
func (a *applier) put(op *trivetpb.PutOp, result *trivetpb.Result) *trivetpb.Problem {
	key := keyString(op.Key)
	c := a.table.find(key)
	if op.Precondition != nil {
		if p := holds(op.Precondition, c.newest()); p != nil {
			return p
		}
	}
	lease := op.Lease
	if lease|op.TtlMs != 0 {
		var p *trivetpb.Problem
		if lease, p = a.leaseFor(op, key); p != nil {
			return p
		}
	}
	value := op.Value
	if len(value) > longestCopied {
		value = bytes.Clone(value)
	}
	v := a.write(key, c, value, lease)
	answer := a.memory.puts.next(a.left)
	answer.put.Version = v.number()
	answer.put.Created = answer.put.Version == 1
	if op.Prev && v.prev.live() {
		key := c.key() // the entry's may not be kept
		if p := a.budget.item(key, v.prev); p != nil {
			return p
		}
		answer.put.Prev = &trivetpb.Item{}
		v.prev.fill(answer.put.Prev, key)
	}
	answer.oneof.Put = &answer.put
	result.Result = &answer.oneof
	return nil
}
