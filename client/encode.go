package client

import (
	"math"
	"slices"

	"trivet/trivetpb"
)

// What goes into a batch: calls and their options as trivet.proto has them.

// encodeGet and encodePut make the wire form of the two calls that come most
// often, from what the call itself holds.
func (a *call) encodeGet(key string) {
	s := &a.scratch
	a.key = key
	s.key = append(s.key[:0], key...)
	s.get.Key = s.key
	s.opGet.Get = &s.get
	s.op.Op = &s.opGet
	s.batchOp.Op = &s.op
	a.encode(&s.batchOp)
	s.get.Key = nil
}

func (a *call) encodePut(key string, value []byte, p *params) {
	s := &a.scratch
	a.key = key
	s.key = append(s.key[:0], key...)
	s.put.Key, s.put.Value = s.key, value
	s.put.Lease, s.put.Prev = p.lease, p.prev
	s.put.TtlMs = uint64(p.ttl.Milliseconds())
	s.put.Precondition = p.condition.proto()
	s.opPut.Put = &s.put
	s.op.Op = &s.opPut
	s.batchOp.Op = &s.op
	s.batchOp.Guards = guardsProto(p.guards)
	a.encode(&s.batchOp)
	s.batchOp.Guards = nil
	s.put.Key, s.put.Value, s.put.Precondition = nil, nil, nil // the value is the caller's
}

// encode makes the wire form of an operation.
func (a *call) encode(op *trivetpb.BatchOp) {
	size := op.SizeVT()
	a.wire = slices.Grow(a.wire[:0], size)[:size]
	if _, err := op.MarshalToSizedBufferVT(a.wire); err != nil {
		panic(err) // it has no way to fail for a message that is whole
	}
}

func (a *call) encodeOp(op *trivetpb.Op, guards []guard) {
	a.encode(&trivetpb.BatchOp{Op: op, Guards: guardsProto(guards)})
}

func guardsProto(guards []guard) (list []*trivetpb.Guard) {
	for _, g := range guards {
		list = append(list, &trivetpb.Guard{Lock: []byte(g.lock), Token: g.token})
	}
	return list
}

func (c condition) proto() *trivetpb.Precondition {
	switch {
	case c.kind == ifExists:
		return &trivetpb.Precondition{Kind: trivetpb.Precondition_EXISTS}
	case c.kind == ifAbsent, c.kind == ifRevision && c.revision == 0:
		return &trivetpb.Precondition{Kind: trivetpb.Precondition_ABSENT}
	case c.kind == ifRevision:
		return &trivetpb.Precondition{Kind: trivetpb.Precondition_MOD_REVISION, ModRevision: c.revision}
	}
	return nil
}

// proto is the range as start and end. That of a prefix ends at the first key that
// is greater than all that have it; where it is all 0xff bytes there is none.
func (r KeyRange) proto() *trivetpb.KeyRange {
	p := &trivetpb.KeyRange{Start: []byte(r.start), End: []byte(r.end)}
	if r.kind == rangePrefix {
		end := []byte(r.start)
		for len(end) > 0 && end[len(end)-1] == 0xff {
			end = end[:len(end)-1]
		}
		if len(end) > 0 {
			end[len(end)-1]++
		}
		p.End = end
	}
	return p
}

func (op *Op) proto() *trivetpb.Op {
	switch op.kind {
	case opPut:
		put := &trivetpb.PutOp{}
		op.fillPut(put)
		return &trivetpb.Op{Op: &trivetpb.Op_Put{Put: put}}
	case opDelete:
		return &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{Key: []byte(op.key), Prev: op.prev}}}
	case opDeleteRange:
		return &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: &trivetpb.DeleteOp{Range: op.keys.proto(), Prev: op.prev}}}
	case opAdd:
		return &trivetpb.Op{Op: &trivetpb.Op_Add{Add: &trivetpb.AddOp{Key: []byte(op.key), Delta: op.delta}}}
	case opGet:
		return &trivetpb.Op{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: []byte(op.key)}}}
	case opRange, opCount:
		return &trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{
			Range: op.keys.proto(), Limit: uint32(min(op.limit, math.MaxInt32)), KeysOnly: op.keysOnly, CountOnly: op.kind == opCount,
		}}}
	}
	return nil
}

// fillPut writes a put into a message that is empty, and is encoded and not kept: key
// and value are the operation's.
func (op *Op) fillPut(m *trivetpb.PutOp) {
	m.Key, m.Value, m.Lease, m.Prev, m.TtlMs = bytesOf(op.key), op.value, op.lease, op.prev, uint64(op.ttl.Milliseconds())
}

var compareTargets = map[string]trivetpb.Compare_Target{
	"value": trivetpb.Compare_VALUE, "version": trivetpb.Compare_VERSION, "create_revision": trivetpb.Compare_CREATE_REVISION,
	"mod_revision": trivetpb.Compare_MOD_REVISION, "lease": trivetpb.Compare_LEASE,
}

var compareRelations = map[string]trivetpb.Compare_Relation{
	"==": trivetpb.Compare_EQUAL, "!=": trivetpb.Compare_NOT_EQUAL, "<": trivetpb.Compare_LESS,
	"<=": trivetpb.Compare_LESS_OR_EQUAL, ">": trivetpb.Compare_GREATER, ">=": trivetpb.Compare_GREATER_OR_EQUAL,
}

// fill is as fillPut.
func (cmp *Compare) fill(m *trivetpb.Compare) {
	m.Target, m.Relation, m.Number, m.Value = compareTargets[cmp.target], compareRelations[cmp.op], cmp.number, cmp.value
	if cmp.prefix {
		m.Range = Prefix(cmp.key).proto()
	} else {
		m.Key = bytesOf(cmp.key)
	}
}
