package httpapi

import (
	"bytes"
	"math"

	"trivet/store"
	"trivet/trivetpb"
)

// The fields that an operation in JSON may have, of whatever kind it is. Which
// of them go with which kind is in opForms.
const (
	fieldOp = iota
	fieldKey
	fieldKey64
	fieldValue
	fieldValue64
	fieldLease
	fieldPrev
	fieldPrefix
	fieldPrefix64
	fieldStart
	fieldStart64
	fieldEnd
	fieldEnd64
	fieldLimit
	fieldKeysOnly
	fieldCountOnly
	fieldDelta
	fieldIfMatch
	fieldIfNoneMatch
	fieldIf
	fieldThen
	fieldElse
	fieldTTL
	fieldGuard
	fieldSeq
)

var opFields = []string{
	fieldOp: "op", fieldKey: "key", fieldKey64: "key64", fieldValue: "value", fieldValue64: "value64",
	fieldLease: "lease", fieldPrev: "prev", fieldPrefix: "prefix", fieldPrefix64: "prefix64",
	fieldStart: "start", fieldStart64: "start64", fieldEnd: "end", fieldEnd64: "end64",
	fieldLimit: "limit", fieldKeysOnly: "keys_only", fieldCountOnly: "count_only", fieldDelta: "delta",
	fieldIfMatch: "if_match", fieldIfNoneMatch: "if_none_match",
	fieldIf: "if", fieldThen: "then", fieldElse: "else",
	fieldTTL: "ttl", fieldGuard: "guard", fieldSeq: "seq",
}

var (
	keyFields   = fields(fieldKey, fieldKey64)
	valueFields = fields(fieldValue, fieldValue64)
	rangeFields = fields(fieldPrefix, fieldPrefix64, fieldStart, fieldStart64, fieldEnd, fieldEnd64)
	// batchOnly are fields that an operation of a batch may have and one of a
	// txn may not: a txn has conditions, guards and an identity of its own.
	batchOnly = fields(fieldIfMatch, fieldIfNoneMatch, fieldGuard, fieldSeq)
	// ofWrites are those that every write of a batch may have.
	ofWrites = fields(fieldGuard, fieldSeq)
)

// opForms is which fields go with which kind of operation.
var opForms = map[string]fieldSet{
	"put":    fields(fieldOp, fieldLease, fieldTTL, fieldPrev) | keyFields | valueFields | batchOnly,
	"delete": fields(fieldOp, fieldPrev) | keyFields | rangeFields | batchOnly,
	"get":    fields(fieldOp) | keyFields,
	"range":  fields(fieldOp, fieldLimit, fieldKeysOnly, fieldCountOnly) | rangeFields,
	"add":    fields(fieldOp, fieldDelta) | keyFields | ofWrites,
	"txn":    fields(fieldOp, fieldIf, fieldThen, fieldElse) | ofWrites,
}

// opValues are the values of an operation's fields as they were read, in
// whatever order they came.
type opValues struct {
	op                  string
	bytes               [fieldEnd64 + 1][]byte
	lease, ttlMS        uint64
	limit               uint64
	delta               int64
	ifMatch             uint64
	prev, ifNoneMatch   bool
	keysOnly, countOnly bool
	txn                 *trivetpb.TxnOp // nil but for a txn: it would take the rest with it
	guards              []*trivetpb.Guard
	seq                 uint64
}

// decodeOp reads an operation of a batch, and into of what it has beside the
// operation itself, or an operation of a txn, where into is nil: there it has
// nothing beside, and no txn in it.
func (d *decoder) decodeOp(into *trivetpb.BatchOp) (*trivetpb.Op, *jsonError) {
	inTxn := into == nil
	if err := d.element(); err != nil {
		return nil, err
	}
	at := d.pos
	var v opValues
	seen, err := d.object(opFields, func(place int) (err *jsonError) {
		switch place {
		case fieldOp:
			v.op, err = d.kind()
		case fieldLease:
			v.lease, err = d.uint(maxNumber)
		case fieldLimit:
			v.limit, err = d.uint(math.MaxUint32)
		case fieldDelta:
			v.delta, err = d.int64()
		case fieldIfMatch:
			if v.ifMatch, err = d.uint(maxNumber); err == nil && v.ifMatch == 0 {
				err = d.fail("must be a revision, from 1 on")
			}
		case fieldTTL:
			v.ttlMS, err = d.duration(minTTL, maxTTL)
		case fieldSeq:
			if v.seq, err = d.uint(maxNumber); err == nil && v.seq == 0 {
				err = d.fail("must be from 1 on")
			}
		case fieldGuard:
			v.guards, err = d.decodeGuards()
		case fieldPrev:
			v.prev, err = d.bool()
		case fieldIfNoneMatch:
			v.ifNoneMatch, err = d.bool()
		case fieldKeysOnly:
			v.keysOnly, err = d.bool()
		case fieldCountOnly:
			v.countOnly, err = d.bool()
		case fieldIf, fieldThen, fieldElse:
			if inTxn {
				return d.fail("a txn inside a txn")
			}
			if v.txn == nil {
				v.txn = &trivetpb.TxnOp{}
			}
			err = d.decodeTxnField(place, v.txn)
		default:
			v.bytes[place], err = d.bytes(place)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	op, text := buildOp(&v, seen, inTxn)
	if text != "" {
		d.pos = at
		d.skipSpace()
		return nil, &jsonError{pos: d.pos, text: text}
	}
	if into != nil {
		into.Guards, into.Seq = v.guards, v.seq
	}
	return op, nil
}

// kind reads what kind of operation it is, which needs no memory of its own where it is
// one that is known.
func (d *decoder) kind() (string, *jsonError) {
	raw, err := d.raw()
	if string(raw) == "put" {
		return "put", err
	}
	return string(raw), err
}

// bytes reads a field that is text, or base64 where its name says so. It may alias the
// document: the request's body, which nobody changes while the request is served.
func (d *decoder) bytes(place int) ([]byte, *jsonError) {
	raw, err := d.raw()
	if err != nil {
		return nil, err
	}
	switch place {
	case fieldKey64, fieldValue64, fieldPrefix64, fieldStart64, fieldEnd64:
		b := make([]byte, base64Strict.DecodedLen(len(raw)))
		n, wrong := base64Strict.Decode(b, raw)
		if wrong != nil || bytes.IndexByte(raw, '\r') >= 0 || bytes.IndexByte(raw, '\n') >= 0 { // which Decode passes over
			d.pos -= len(raw)
			return nil, d.fail("is not standard base64")
		}
		return b[:n], nil
	}
	return raw, nil
}

// buildOp makes the operation, or says what is wrong with the fields together.
func buildOp(v *opValues, seen fieldSet, inTxn bool) (op *trivetpb.Op, wrong string) {
	if !seen.has(fieldOp) {
		return nil, "field op is missing"
	}
	form, ok := opForms[v.op]
	if !ok || (inTxn && v.op == "txn") {
		return nil, "unknown op " + quote(v.op)
	}
	if inTxn {
		form &^= batchOnly
	}
	if stray := seen &^ form; stray != 0 {
		return nil, "field " + stray.first(opFields) + " does not go with op " + v.op
	}
	key, wrong := v.one(seen, fieldKey)
	if wrong != "" {
		return nil, wrong
	}
	if v.op != "delete" && form&keyFields != 0 && key == nil {
		return nil, "field key is missing"
	}
	switch v.op {
	case "put":
		return v.buildPut(seen, key)
	case "delete":
		return v.buildDelete(seen, key)
	case "get":
		return &trivetpb.Op{Op: &trivetpb.Op_Get{Get: &trivetpb.GetOp{Key: key}}}, ""
	case "range":
		r, wrong := v.keyRange(seen)
		return &trivetpb.Op{Op: &trivetpb.Op_Range{Range: &trivetpb.RangeOp{
			Range: r, Limit: uint32(v.limit), KeysOnly: v.keysOnly, CountOnly: v.countOnly,
		}}}, wrong
	case "add":
		if !seen.has(fieldDelta) {
			return nil, "field delta is missing"
		}
		return &trivetpb.Op{Op: &trivetpb.Op_Add{Add: &trivetpb.AddOp{Key: key, Delta: v.delta}}}, ""
	default:
		if v.txn == nil {
			v.txn = &trivetpb.TxnOp{}
		}
		return &trivetpb.Op{Op: &trivetpb.Op_Txn{Txn: v.txn}}, ""
	}
}

func (v *opValues) buildPut(seen fieldSet, key []byte) (*trivetpb.Op, string) {
	value, wrong := v.one(seen, fieldValue)
	if wrong != "" {
		return nil, wrong
	}
	if value == nil {
		return nil, "field value is missing"
	}
	if seen.has(fieldLease) && seen.has(fieldTTL) {
		return nil, "fields lease and ttl exclude each other"
	}
	pre, wrong := v.precondition(seen)
	m := &struct { // one allocation
		op    trivetpb.Op
		opPut trivetpb.Op_Put
		put   trivetpb.PutOp
	}{}
	m.put.Key, m.put.Value, m.put.Lease, m.put.TtlMs, m.put.Prev, m.put.Precondition = key, value, v.lease, v.ttlMS, v.prev, pre
	m.opPut.Put, m.op.Op = &m.put, &m.opPut
	return &m.op, wrong
}

func (v *opValues) buildDelete(seen fieldSet, key []byte) (*trivetpb.Op, string) {
	pre, wrong := v.precondition(seen)
	if wrong != "" {
		return nil, wrong
	}
	op := &trivetpb.DeleteOp{Key: key, Prev: v.prev, Precondition: pre}
	switch {
	case key != nil && seen&rangeFields != 0:
		return nil, "a key and a range exclude each other"
	case key == nil && seen&rangeFields == 0:
		return nil, "field key, prefix, start or end is missing"
	case key == nil && pre != nil:
		return nil, "if_match and if_none_match go with a key, not with a range"
	case key == nil:
		if op.Range, wrong = v.keyRange(seen); wrong != "" {
			return nil, wrong
		}
		// A variable that was empty, most likely, as in DELETE /v1/kv?prefix=.
		if len(op.Range.Start) == 0 && len(op.Range.End) == 0 && (seen.has(fieldPrefix) || seen.has(fieldPrefix64)) {
			return nil, "an empty prefix would delete every key; if that is meant, say start and end"
		}
	}
	return &trivetpb.Op{Op: &trivetpb.Op_Delete{Delete: op}}, ""
}

func (v *opValues) precondition(seen fieldSet) (*trivetpb.Precondition, string) {
	switch {
	case seen.has(fieldIfMatch) && v.ifNoneMatch:
		return nil, "if_match and if_none_match exclude each other"
	case seen.has(fieldIfMatch):
		return &trivetpb.Precondition{Kind: trivetpb.Precondition_MOD_REVISION, ModRevision: v.ifMatch}, ""
	case v.ifNoneMatch:
		return &trivetpb.Precondition{Kind: trivetpb.Precondition_ABSENT}, ""
	}
	return nil, ""
}

// one returns the bytes given under a name or under the next place in the form,
// its base64 twin; nil where neither was.
func (v *opValues) one(seen fieldSet, place int) ([]byte, string) {
	switch text, coded := seen.has(place), seen.has(place+1); {
	case text && coded:
		return nil, "fields " + opFields[place] + " and " + opFields[place+1] + " exclude each other"
	case text:
		return notNil(v.bytes[place]), ""
	case coded:
		return notNil(v.bytes[place+1]), ""
	}
	return nil, ""
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// keyRange makes the range of prefix, or of start and end.
func (v *opValues) keyRange(seen fieldSet) (*trivetpb.KeyRange, string) {
	prefix, wrong := v.one(seen, fieldPrefix)
	if wrong != "" {
		return nil, wrong
	}
	start, wrong := v.one(seen, fieldStart)
	if wrong != "" {
		return nil, wrong
	}
	end, wrong := v.one(seen, fieldEnd)
	if wrong != "" {
		return nil, wrong
	}
	switch {
	case prefix != nil && (start != nil || end != nil):
		return nil, "prefix and start or end exclude each other"
	case prefix != nil:
		return store.PrefixRange(prefix), ""
	case start == nil && end == nil:
		return nil, "field prefix, start or end is missing"
	}
	return &trivetpb.KeyRange{Start: start, End: end}, ""
}
