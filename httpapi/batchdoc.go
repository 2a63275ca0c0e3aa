package httpapi

import (
	"trivet/store"
	"trivet/trivetpb"
)

// The fields of a batch's document, by their place.
const (
	batchOps = iota
	batchSession
	batchAck
)

var batchFields = []string{batchOps: "ops", batchSession: "session", batchAck: "ack"}

// decodeBatch reads a batch in JSON.
func decodeBatch(data []byte) (*trivetpb.BatchRequest, *trivetpb.Problem) {
	d := &decoder{data: data}
	req := &trivetpb.BatchRequest{}
	seen, err := d.object(batchFields, func(place int) (err *jsonError) {
		switch place {
		case batchSession:
			if req.Session, err = d.uint(maxNumber); err == nil && req.Session == 0 {
				err = d.fail("must be the id of a session, from 1 on")
			}
		case batchAck:
			req.Ack, err = d.uint(maxNumber)
		default:
			err = d.array(func() (err *jsonError) {
				if len(req.Ops) == maxBatchOps {
					return &jsonError{refused: tooManyOps()}
				}
				op := &trivetpb.BatchOp{}
				op.Op, err = d.decodeOp(op)
				req.Ops = append(req.Ops, op)
				return err
			})
		}
		return err
	})
	if err == nil {
		err = d.end()
	}
	switch {
	case err != nil:
		return nil, err.problem()
	case !seen.has(batchOps):
		return nil, badRequest("field ops is missing")
	case seen.has(batchAck) && req.Session == 0:
		return nil, badRequest("field ack goes with session")
	}
	return req, checkSeqs(req)
}

// decodeProtoBatch reads a batch in protobuf. An operation that is missing in
// its BatchOp comes back as an empty one, for store.Check to refuse. What it returns
// is the decoder's, and aliases data.
func decodeProtoBatch(d *trivetpb.Decoder, data []byte) (*trivetpb.BatchRequest, *trivetpb.Problem) {
	if p := checkBatchWire(data); p != nil {
		return nil, p
	}
	req, err := d.Batch(data)
	if err != nil {
		return nil, badRequest("the body is no BatchRequest")
	}
	if req.Ack != 0 && req.Session == 0 {
		return nil, badRequest("field ack goes with session")
	}
	for i, op := range req.Ops {
		if op.Op == nil {
			op.Op = &trivetpb.Op{}
		}
		if p := checkGuards(op.Guards); p != nil {
			return nil, badRequest("ops[%d]: %s", i, p.Detail)
		}
		switch op.Op.Op.(type) {
		case *trivetpb.Op_Get, *trivetpb.Op_Range:
			if len(op.Guards) > 0 || op.Seq != 0 {
				return nil, badRequest("ops[%d]: guards and seq go with a write", i)
			}
		}
	}
	return req, checkSeqs(req)
}

// checkSeqs holds the identities of a batch to their form: with a session every
// write has a seq of its own above ack, without one there is none.
func checkSeqs(req *trivetpb.BatchRequest) *trivetpb.Problem {
	if max(req.Session, req.Ack) > maxNumber {
		return badRequest("session and ack are numbers below 2^53")
	}
	var last uint64
	ascending := true
	for i, op := range req.Ops {
		switch {
		case op.Seq == 0 && req.Session != 0 && op.Op.Op != nil && !store.ReadOnly(op.Op):
			return badRequest("ops[%d]: a write of a batch with a session needs a seq", i)
		case op.Seq == 0:
			continue
		case req.Session == 0:
			return badRequest("ops[%d]: seq goes with a batch that names a session", i)
		case op.Seq > maxNumber:
			return badRequest("ops[%d]: seq is a number below 2^53", i)
		case op.Seq <= req.Ack:
			return badRequest("ops[%d]: seq %d is not above ack, which says that it has been answered", i, op.Seq)
		}
		ascending = ascending && op.Seq > last
		last = op.Seq
	}
	if ascending {
		return nil // the usual case, and no two are the same
	}
	seqs := make(map[uint64]bool, len(req.Ops))
	for i, op := range req.Ops {
		if op.Seq != 0 && seqs[op.Seq] {
			return badRequest("ops[%d]: seq %d is given more than once", i, op.Seq)
		}
		seqs[op.Seq] = true
	}
	return nil
}
