package httpapi

import (
	"trivet/raftnode"
	"trivet/store"
	"trivet/trivetpb"
)

// The fields of a txn's document, by their place.
const (
	txnIf = iota
	txnThen
	txnElse
	txnGuard
)

var txnFields = []string{txnIf: "if", txnThen: "then", txnElse: "else", txnGuard: "guard"}

// decodeTxn reads a whole document that is one txn, with its guards.
func decodeTxn(data []byte) (*trivetpb.TxnOp, []*trivetpb.Guard, *trivetpb.Problem) {
	d := &decoder{data: data}
	txn := &trivetpb.TxnOp{}
	var guards []*trivetpb.Guard
	_, err := d.object(txnFields, func(place int) (err *jsonError) {
		if place == txnGuard {
			guards, err = d.decodeGuards()
			return err
		}
		return d.decodeTxnField(fieldIf+place, txn)
	})
	if err == nil {
		err = d.end()
	}
	if err != nil {
		return nil, nil, err.problem()
	}
	return txn, guards, nil
}

// decodeTxnField reads `if`, `then` or `else`, which a txn has by itself and as
// an operation of a batch. Of what is past the limits of a txn it keeps only so
// much that store.Check sees it.
func (d *decoder) decodeTxnField(place int, txn *trivetpb.TxnOp) *jsonError {
	if place == fieldIf {
		return d.array(func() *jsonError {
			cmp, err := d.decodeCompare()
			if len(txn.If) <= maxTxnOps {
				txn.If = append(txn.If, cmp)
			}
			return err
		})
	}
	ops := &txn.Then
	if place == fieldElse {
		ops = &txn.Else
	}
	return d.array(func() *jsonError {
		op, err := d.decodeOp(nil)
		if len(*ops) <= maxTxnOps {
			*ops = append(*ops, op)
		}
		return err
	})
}

// The fields of a comparison, by their place.
const (
	cmpKey = iota
	cmpKey64
	cmpPrefix
	cmpPrefix64
	cmpTarget
	cmpOp
	cmpNumber
	cmpValue
	cmpValue64
)

var cmpFields = []string{
	cmpKey: "key", cmpKey64: "key64", cmpPrefix: "prefix", cmpPrefix64: "prefix64",
	cmpTarget: "target", cmpOp: "op", cmpNumber: "number", cmpValue: "value", cmpValue64: "value64",
}

var cmpTargets = map[string]trivetpb.Compare_Target{
	"value":           trivetpb.Compare_VALUE,
	"version":         trivetpb.Compare_VERSION,
	"create_revision": trivetpb.Compare_CREATE_REVISION,
	"mod_revision":    trivetpb.Compare_MOD_REVISION,
	"lease":           trivetpb.Compare_LEASE,
}

var cmpRelations = map[string]trivetpb.Compare_Relation{
	"==": trivetpb.Compare_EQUAL,
	"!=": trivetpb.Compare_NOT_EQUAL,
	"<":  trivetpb.Compare_LESS,
	"<=": trivetpb.Compare_LESS_OR_EQUAL,
	">":  trivetpb.Compare_GREATER,
	">=": trivetpb.Compare_GREATER_OR_EQUAL,
}

// decodeCompare reads one comparison. Target, op and what to compare with are
// all to be given: a default could only hide a typo.
func (d *decoder) decodeCompare() (*trivetpb.Compare, *jsonError) {
	if err := d.element(); err != nil {
		return nil, err
	}
	at := d.pos
	cmp := &trivetpb.Compare{}
	seen, err := d.object(cmpFields, func(place int) (err *jsonError) {
		switch place {
		case cmpKey:
			cmp.Key, err = d.bytes(fieldKey)
		case cmpKey64:
			cmp.Key, err = d.bytes(fieldKey64)
		case cmpPrefix, cmpPrefix64:
			var prefix []byte
			if prefix, err = d.bytes(fieldPrefix + place - cmpPrefix); err == nil {
				cmp.Range = store.PrefixRange(prefix)
			}
		case cmpTarget:
			cmp.Target, err = named(d, cmpTargets, "value, version, create_revision, mod_revision or lease")
		case cmpOp:
			cmp.Relation, err = named(d, cmpRelations, "==, !=, <, <=, > or >=")
		case cmpNumber:
			cmp.Number, err = d.uint(maxNumber)
		case cmpValue:
			cmp.Value, err = d.bytes(fieldValue)
		case cmpValue64:
			cmp.Value, err = d.bytes(fieldValue64)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if text := compareFault(cmp, seen); text != "" {
		d.pos = at
		d.skipSpace()
		return nil, &jsonError{pos: d.pos, text: text}
	}
	return cmp, nil
}

// named reads a string that is one of the names.
func named[T any](d *decoder, names map[string]T, list string) (T, *jsonError) {
	raw, err := d.raw()
	v, ok := names[string(raw)]
	if err == nil && !ok {
		err = d.fail("must be %s", list)
	}
	return v, err
}

// compareFault says what is wrong with the fields together, nothing for nothing.
func compareFault(cmp *trivetpb.Compare, seen fieldSet) string {
	number, value := seen&fields(cmpNumber), seen&fields(cmpValue, cmpValue64)
	ofValue := cmp.Target == trivetpb.Compare_VALUE
	switch which := seen & fields(cmpKey, cmpKey64, cmpPrefix, cmpPrefix64); {
	case which == 0:
		return "field key or prefix is missing"
	case which&(which-1) != 0:
		return "key, key64, prefix and prefix64 exclude each other"
	case !seen.has(cmpTarget):
		return "field target is missing"
	case !seen.has(cmpOp):
		return "field op is missing"
	case ofValue && number != 0:
		return "field number does not go with target value"
	case !ofValue && value != 0:
		return "field value does not go with a target that is a number"
	case ofValue && value == 0:
		return "field value is missing"
	case ofValue && value&(value-1) != 0:
		return "fields value and value64 exclude each other"
	case !ofValue && number == 0:
		return "field number is missing"
	}
	return ""
}

// txn serves POST /v1/txn. A txn that only reads does not go into the log: it is
// answered from one view, as fresh as asked, and an identity means nothing to it.
// With a guard it does go there, for the guard to be checked in the same step.
func (s *Server) txn(c *call) *trivetpb.Problem {
	if _, p := documentType(c.r.Header, jsonType); p != nil {
		return p
	}
	if p := noPrecondition(c.r.Header); p != nil {
		return p
	}
	freshness, p := parseRead(&c.query)
	if p != nil {
		return p
	}
	body, p := c.readBody(s.cfg.MaxDocumentBytes, "the txn")
	if p != nil {
		return p
	}
	txn, guards, p := decodeTxn(body)
	if p != nil {
		return p
	}
	if c.guards, p = mergeGuards(c.guards, guards); p != nil {
		return p
	}
	op := &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: txn}}
	if p := store.Check(op, s.limits); p != nil {
		return p
	}
	var result *trivetpb.Result
	if store.ReadOnly(op) && len(c.guards) == 0 {
		result, p = c.readTxn(op, freshness)
	} else if c.query.has(readParams...) {
		return badRequest("consistency, max_staleness and min_revision go with a txn that only reads and has no guard")
	} else {
		result, p = c.proposeOp(op)
	}
	if p != nil {
		return p
	}
	doc := c.newDocument(jsonType)
	doc.buf.b = appendNumber(doc.buf.b, `{"revision":`, result.Revision)
	doc.buf.b = append(doc.buf.b, ',')
	doc.appendTxn(txn, result.GetTxn())
	doc.buf.b = append(doc.buf.b, '}', '\n')
	doc.end()
	return nil
}

func (c *call) readTxn(op *trivetpb.Op, freshness raftnode.ReadOptions) (*trivetpb.Result, *trivetpb.Problem) {
	v, p := c.view(freshness, 0)
	if p != nil {
		return nil, p
	}
	defer v.Close()
	result := v.Do(op)
	return result, result.Problem
}
