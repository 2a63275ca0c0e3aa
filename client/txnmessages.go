package client

import (
	"unsafe"

	"trivet/trivetpb"
)

// txnMessages are what a txn is encoded from and what its result is decoded into. A txn
// of a compare and two puts is fifteen messages, its result nine: to allocate them was
// most of what the client spent on it. A call keeps room for so many (call.txn).
type txnMessages struct {
	batchOp  trivetpb.BatchOp
	op       trivetpb.Op
	opTxn    trivetpb.Op_Txn
	txn      trivetpb.TxnOp
	compares [keptTxnOps]trivetpb.Compare
	puts     [keptTxnOps]putMessages

	oneof   trivetpb.Result_Txn
	result  trivetpb.TxnResult
	results [keptTxnOps]resultMessages
}

// keptTxnOps is how many compares, puts and results there is room for; those beyond
// are allocated.
const keptTxnOps = 4

type putMessages struct {
	op    trivetpb.Op
	opPut trivetpb.Op_Put
	put   trivetpb.PutOp
}

type resultMessages struct {
	result   trivetpb.Result
	oneofPut trivetpb.Result_Put
	put      trivetpb.PutResult
}

// txnMessages returns the call's.
func (a *call) txnMessages() *txnMessages {
	if a.txn == nil {
		a.txn = &txnMessages{}
	}
	return a.txn
}

// forget drops all that is the caller's.
func (m *txnMessages) forget() {
	ifs, then, elseOps, results := m.txn.If, m.txn.Then, m.txn.Else, m.result.Results
	clear(ifs)
	clear(then)
	clear(elseOps)
	clear(results)
	*m = txnMessages{}
	if max(cap(ifs), cap(then), cap(elseOps), cap(results)) <= 2*keptTxnOps {
		m.txn.If, m.txn.Then, m.txn.Else, m.result.Results = ifs[:0], then[:0], elseOps[:0], results[:0]
	}
}

// encodeTxn makes the wire form of a txn.
func (a *call) encodeTxn(t *Txn, guards []guard) {
	m := a.txnMessages()
	for i, cmp := range t.compares {
		c := &trivetpb.Compare{}
		if i < len(m.compares) {
			c = &m.compares[i]
		}
		cmp.fill(c)
		m.txn.If = append(m.txn.If, c)
	}
	puts := m.puts[:]
	m.txn.Then, puts = appendOps(m.txn.Then, t.then, puts)
	m.txn.Else, _ = appendOps(m.txn.Else, t.elseOps, puts)
	m.opTxn.Txn = &m.txn
	m.op.Op = &m.opTxn
	m.batchOp.Op, m.batchOp.Guards = &m.op, guardsProto(guards)
	a.encode(&m.batchOp)
	m.forget()
}

// appendOps appends operations; the puts among them are made of what is given as long
// as there is any, and the rest of that is returned.
func appendOps(list []*trivetpb.Op, ops []Op, puts []putMessages) ([]*trivetpb.Op, []putMessages) {
	for i := range ops {
		if ops[i].kind != opPut || len(puts) == 0 {
			list = append(list, ops[i].proto())
			continue
		}
		p := &puts[0]
		puts = puts[1:]
		ops[i].fillPut(&p.put)
		p.opPut.Put, p.op.Op = &p.put, &p.opPut
		list = append(list, &p.op)
	}
	return list, puts
}

// bytesOf is a key as messages have it, to be encoded from and not kept: the bytes are
// the string's.
func bytesOf(key string) []byte { return unsafe.Slice(unsafe.StringData(key), len(key)) }

// decodeTxn decodes the result of a txn that was done; nil where it is malformed. What
// is anything but the fields that a server of this version sends is left to the
// generated decoder.
func (a *call) decodeTxn(data []byte) *trivetpb.Result {
	m, res := a.txnMessages(), &a.messages.result
	clear(m.result.Results) // of an attempt before
	m.result.Succeeded, m.result.Results = false, m.result.Results[:0]
	m.oneof.Txn, res.Result = &m.result, &m.oneof
	for rest := data; len(rest) > 0; {
		field, number, content, behind, ok := protoField(rest)
		rest = behind
		switch {
		case !ok:
			return nil
		case field == 1 && content == nil: // Result.revision
			res.Revision = number
		case field == 8 && content != nil && m.decode(content): // Result.txn
		case field == 12 && content == nil: // Result.replayed
			res.Replayed = number != 0
		default:
			other := &trivetpb.Result{}
			if other.UnmarshalVT(data) != nil {
				return nil
			}
			return other
		}
	}
	return res
}

// decode decodes a TxnResult, behind what was decoded before; false where it is
// malformed, or left to the generated decoder.
func (m *txnMessages) decode(data []byte) bool {
	for len(data) > 0 {
		field, number, content, rest, ok := protoField(data)
		data = rest
		switch {
		case !ok:
			return false
		case field == 1 && content == nil: // TxnResult.succeeded
			m.result.Succeeded = number != 0
		case field == 2 && content != nil: // TxnResult.results
			r := m.next()
			if hasField(content, 3) { // Result.put
				r.oneofPut.Put, r.result.Result = &r.put, &r.oneofPut
			}
			if r.result.UnmarshalVT(content) != nil {
				return false
			}
			m.result.Results = append(m.result.Results, &r.result)
		default:
			return false
		}
	}
	return true
}

// next is the messages of the next result.
func (m *txnMessages) next() *resultMessages {
	i := len(m.result.Results)
	if i >= len(m.results) {
		return &resultMessages{}
	}
	m.results[i] = resultMessages{}
	return &m.results[i]
}
