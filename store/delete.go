package store

import "trivet/trivetpb"

// delete deletes a key, or all keys of a range in byte order. Deleting what is
// not there succeeds, and changes nothing.
func (a *applier) delete(op *trivetpb.DeleteOp, result *trivetpb.Result) *trivetpb.Problem {
	answer := &trivetpb.DeleteResult{}
	result.Result = &trivetpb.Result_Delete{Delete: answer}
	if op.Range != nil {
		return a.deleteRange(op, answer)
	}
	c := a.table.find(keyString(op.Key))
	old := c.newest()
	if p := holds(op.Precondition, old); p != nil {
		return p
	}
	if !old.live() {
		return nil
	}
	return a.deleteOne(op, answer, c, old)
}

func (a *applier) deleteOne(op *trivetpb.DeleteOp, answer *trivetpb.DeleteResult, c *chain, old *version) *trivetpb.Problem {
	a.erase(c, old)
	answer.Deleted++
	if !op.Prev {
		return nil
	}
	if p := a.budget.item(c.key(), old); p != nil {
		return p
	}
	item := &trivetpb.Item{}
	old.fill(item, c.key())
	answer.Prev = append(answer.Prev, item)
	return nil
}

// deleteRange works in steps, because the tree must not change under a scan, and
// a list of all keys of a large range would be large itself.
func (a *applier) deleteRange(op *trivetpb.DeleteOp, answer *trivetpb.DeleteResult) *trivetpb.Problem {
	const step = 1024
	r := a.reading()
	// Counted beforehand: a range that is refused costs next to nothing.
	a.ranged += r.count(op.Range)
	if a.ranged > MaxDeleteKeys {
		p := problemf(trivetpb.Code_TOO_LARGE,
			"ranges of %d keys are to be deleted at once, and may have %d: delete them in parts, a command each", a.ranged, MaxDeleteKeys)
		p.Limit = MaxDeleteKeys
		return p
	}
	rest := trivetpb.KeyRange{Start: op.Range.Start, End: op.Range.End}
	found := make([]hit, 0, 16)
	for {
		found = found[:0]
		r.scan(&rest, false, func(c *chain, v *version) bool {
			found = append(found, hit{c, v})
			return len(found) < step
		})
		for _, h := range found {
			if p := a.deleteOne(op, answer, h.chain, h.v); p != nil {
				return p
			}
		}
		if len(found) < step {
			return nil
		}
		// The next step starts right after the last key: what was deleted so
		// far is tombstones, which a scan from the start would walk again.
		last := found[len(found)-1].chain.key()
		rest.Start = append(append(make([]byte, 0, len(last)+1), last...), 0)
	}
}
