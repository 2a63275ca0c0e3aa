package store

import "trivet/trivetpb"

// put gives a key a value; its lease becomes the op's, which may be none.
func (a *applier) put(op *trivetpb.PutOp, result *trivetpb.Result) *trivetpb.Problem {
	if op.Lease != 0 {
		// No command makes leases, so there is none to attach to.
		return problemf(trivetpb.Code_LEASE_NOT_FOUND, "there is no lease %d", op.Lease)
	}
	key := keyString(op.Key)
	c := a.table.find(key)
	if op.Precondition != nil {
		if p := holds(op.Precondition, c.newest()); p != nil {
			return p
		}
	}
	v := a.write(key, c, op.Value, op.Lease)
	answer := a.puts.next(a.left)
	answer.put.Version = v.number
	answer.put.Created = v.number == 1
	if op.Prev && v.prev.live() {
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
