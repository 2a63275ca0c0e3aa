package httpapi

import (
	"slices"
	"strconv"
	"unicode/utf8"

	"trivet/store"
	"trivet/trivetpb"
)

// The encoder appends by hand: reflection would be most of what a small answer
// costs. The functions append to b and return it, as strconv's do.

// appendNumber appends what comes before the number, then the number.
func appendNumber(b []byte, before string, n uint64) []byte {
	b = append(b, before...)
	return strconv.AppendUint(b, n, 10)
}

// appendItem appends an item of the store; without its value for keysOnly.
func appendItem(b []byte, it store.Item, keysOnly bool) []byte {
	b = append(b, '{')
	b = appendItemFields(b, it.Key, it.Value, it.CreateRevision, it.ModRevision, it.Version, it.Lease, keysOnly)
	return append(b, '}')
}

// appendProtoItem is appendItem for an item in a result.
func appendProtoItem(b []byte, it *trivetpb.Item, keysOnly bool) []byte {
	b = append(b, '{')
	b = appendItemFields(b, it.Key, it.Value, it.CreateRevision, it.ModRevision, it.Version, it.Lease, keysOnly)
	return append(b, '}')
}

func appendItemFields[K ~string | ~[]byte](b []byte, key K, value []byte, create, mod, version, lease uint64, keysOnly bool) []byte {
	b = appendBytes(b, "key", key)
	if !keysOnly {
		b = append(b, ',')
		b = appendBytes(b, "value", value)
	}
	b = appendNumber(b, `,"create_revision":`, create)
	b = appendNumber(b, `,"mod_revision":`, mod)
	b = appendNumber(b, `,"version":`, version)
	return appendNumber(b, `,"lease":`, lease)
}

// appendResults appends the results of several operations as a JSON array. The
// document may send what it has between two of them.
func (d *document) appendResults(ops []*trivetpb.Op, results []*trivetpb.Result, inTxn bool) {
	d.buf.b = append(d.buf.b, '[')
	for i, res := range results {
		if i > 0 {
			d.buf.b = append(d.buf.b, ',')
		}
		d.appendResult(opAt(ops, i), res, inTxn)
		if !d.spill() {
			return
		}
	}
	d.buf.b = append(d.buf.b, ']')
}

func opAt(ops []*trivetpb.Op, i int) *trivetpb.Op {
	if i < len(ops) {
		return ops[i]
	}
	return nil
}

// appendResult appends one result as an object: its status, the revision
// (inside a txn the txn's own says it for all), and the fields that the call by
// itself answers with, or its problem.
func (d *document) appendResult(op *trivetpb.Op, res *trivetpb.Result, inTxn bool) {
	problem := res.Problem
	if get := res.GetGet(); problem == nil && get != nil && get.Item == nil {
		problem = keyNotFound()
	}
	b := appendNumber(d.buf.b, `{"status":`, uint64(resultStatus(res, problem)))
	if res.Revision != 0 && !inTxn {
		b = appendNumber(b, `,"revision":`, res.Revision)
	}
	if res.Replayed {
		b = append(b, `,"replayed":true`...)
	}
	switch {
	case problem != nil:
		b = append(b, `,"problem":`...)
		b = appendProblem(b, problem)
	default:
		d.buf.b = append(b, ',')
		d.appendResultFields(op, res)
		b = d.buf.b
	}
	d.buf.b = append(b, '}')
}

// resultStatus is the HTTP status that the operation has, or would have by
// itself.
func resultStatus(res *trivetpb.Result, problem *trivetpb.Problem) int {
	switch {
	case problem != nil:
		return problem.Code.Info().Status
	case res.GetPut().GetCreated():
		return 201
	}
	return 200
}

// appendResultFields appends the fields of a result that is no problem, without
// the braces and without the revision.
func (d *document) appendResultFields(op *trivetpb.Op, res *trivetpb.Result) {
	switch r := res.Result.(type) {
	case *trivetpb.Result_Put:
		d.buf.b = appendPut(d.buf.b, r.Put)
	case *trivetpb.Result_Delete:
		d.appendDelete(op.GetDelete(), r.Delete)
	case *trivetpb.Result_Get:
		it := r.Get.Item
		d.buf.b = appendItemFields(d.buf.b, it.Key, it.Value, it.CreateRevision, it.ModRevision, it.Version, it.Lease, false)
	case *trivetpb.Result_Range:
		d.appendRange(op.GetRange(), r.Range)
	case *trivetpb.Result_Add:
		d.buf.b = append(d.buf.b, `"value":`...)
		d.buf.b = strconv.AppendInt(d.buf.b, r.Add.GetValue(), 10)
	case *trivetpb.Result_Txn:
		d.appendTxn(op.GetTxn(), r.Txn)
	}
}

func appendPut(b []byte, r *trivetpb.PutResult) []byte {
	b = appendNumber(b, `"version":`, r.GetVersion())
	b = append(b, `,"created":`...)
	b = strconv.AppendBool(b, r.GetCreated())
	if r.GetPrev() != nil {
		b = append(b, `,"prev":`...)
		b = appendProtoItem(b, r.Prev, false)
	}
	return b
}

// appendDelete writes prev as the one item where one key was deleted, as a list
// where a range was.
func (d *document) appendDelete(op *trivetpb.DeleteOp, r *trivetpb.DeleteResult) {
	d.buf.b = appendNumber(d.buf.b, `"deleted":`, r.GetDeleted())
	switch {
	case op.GetRange() != nil && op.GetPrev():
		d.buf.b = append(d.buf.b, `,"prev":`...)
		d.appendItems(r.GetPrev(), false)
	case len(r.GetPrev()) == 1:
		d.buf.b = append(d.buf.b, `,"prev":`...)
		d.buf.b = appendProtoItem(d.buf.b, r.Prev[0], false)
	}
}

func (d *document) appendRange(op *trivetpb.RangeOp, r *trivetpb.RangeResult) {
	d.buf.b = append(d.buf.b, `"items":`...)
	d.appendItems(r.GetItems(), op.GetKeysOnly())
	d.buf.b = appendNumber(d.buf.b, `,"count":`, r.GetCount())
	d.buf.b = append(d.buf.b, `,"more":`...)
	d.buf.b = strconv.AppendBool(d.buf.b, r.GetMore())
}

func (d *document) appendItems(items []*trivetpb.Item, keysOnly bool) {
	d.buf.b = append(d.buf.b, '[')
	for i, it := range items {
		if i > 0 {
			d.buf.b = append(d.buf.b, ',')
		}
		d.buf.b = appendProtoItem(d.buf.b, it, keysOnly)
		if !d.spill() {
			return
		}
	}
	d.buf.b = append(d.buf.b, ']')
}

// appendTxn takes the operations from the branch that was done, because some
// results are written by what was asked.
func (d *document) appendTxn(op *trivetpb.TxnOp, r *trivetpb.TxnResult) {
	d.buf.b = append(d.buf.b, `"succeeded":`...)
	d.buf.b = strconv.AppendBool(d.buf.b, r.GetSucceeded())
	d.buf.b = append(d.buf.b, `,"results":`...)
	ops := op.GetElse()
	if r.GetSucceeded() {
		ops = op.GetThen()
	}
	d.appendResults(ops, r.GetResults(), true)
}

// appendHolder appends who holds a lock.
func appendHolder(b []byte, h *trivetpb.LockHolder) []byte {
	b = append(b, '{')
	b = appendHolderFields(b, h)
	return append(b, '}')
}

func appendHolderFields(b []byte, h *trivetpb.LockHolder) []byte {
	b = appendNumber(b, `"token":`, h.Token)
	b = appendNumber(b, `,"lease":`, h.Lease)
	b = appendText(append(b, ','), "owner", h.Owner)
	return appendDuration(b, `,"ttl":`, h.TtlMs)
}

// appendList appends the entries that are text as a list under the name, and the
// others in base64 under the name with 64 behind it, which is there only if there
// are any.
func appendList[T ~string | ~[]byte](d *document, name string, entries []T) {
	text := func(entry T) bool { return utf8.ValidString(string(entry)) }
	list := func(name string, wanted bool, write func(b []byte, entry T) []byte) {
		d.buf.b = appendString(d.buf.b, name)
		d.buf.b = append(d.buf.b, ':', '[')
		first := true
		for _, entry := range entries {
			if text(entry) != wanted {
				continue
			}
			if !first {
				d.buf.b = append(d.buf.b, ',')
			}
			first = false
			d.buf.b = write(d.buf.b, entry)
			if !d.spill() {
				return
			}
		}
		d.buf.b = append(d.buf.b, ']')
	}
	list(name, true, appendString[T])
	if slices.ContainsFunc(entries, func(entry T) bool { return !text(entry) }) {
		d.buf.b = append(d.buf.b, ',')
		list(name+"64", false, func(b []byte, entry T) []byte {
			b = append(b, '"')
			b = appendBase64(b, textOf(entry))
			return append(b, '"')
		})
	}
}
