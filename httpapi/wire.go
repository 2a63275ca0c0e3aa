package httpapi

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"trivet/trivetpb"
)

// A body in protobuf is looked over before it is decoded, for three things that
// the generated decoder lets pass:
//
//   - Size. An empty message takes two bytes and becomes a hundred in memory, so
//     operations are counted first.
//   - Depth. A txn may hold a txn, by the schema, and so on; the decoder goes
//     down with it, and a stack that grows past its bound ends the process.
//   - Fields that this version does not know. A newer client may rely on one
//     (a guard on a write, say), so they are refused as in JSON.

// wireForm is a message as it may be in a request.
type wireForm struct {
	name   protoreflect.Name
	fields map[protowire.Number]wireField
}

type wireField struct {
	name protoreflect.Name
	kind protowire.Type
	// form is nil for a field that is no message.
	form *wireForm
}

// batchForm is BatchRequest and all that it holds, made from the schema itself.
var batchForm = newWireForm((&trivetpb.BatchRequest{}).ProtoReflect().Descriptor(), map[protoreflect.FullName]*wireForm{})

func newWireForm(d protoreflect.MessageDescriptor, made map[protoreflect.FullName]*wireForm) *wireForm {
	if f := made[d.FullName()]; f != nil {
		return f
	}
	form := &wireForm{name: d.Name(), fields: map[protowire.Number]wireField{}}
	made[d.FullName()] = form
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		field := wireField{name: fd.Name(), kind: wireType(fd.Kind())}
		if fd.Message() != nil {
			field.form = newWireForm(fd.Message(), made)
		}
		form.fields[fd.Number()] = field
	}
	return form
}

func wireType(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.MessageKind, protoreflect.BytesKind, protoreflect.StringKind:
		return protowire.BytesType
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	default:
		return protowire.VarintType
	}
}

// wireCheck counts what one body holds.
type wireCheck struct {
	// ops are those of the batch, elements also those inside its txns, the
	// comparisons and the guards.
	ops, elements int
}

// checkBatchWire returns what is wrong with a BatchRequest before it is decoded.
func checkBatchWire(data []byte) *trivetpb.Problem {
	return (&wireCheck{}).message(batchForm, data, false)
}

// message looks over one message. inTxn says that it lies in a txn; since no txn
// may lie in another, that bounds the depth.
func (w *wireCheck) message(form *wireForm, data []byte, inTxn bool) *trivetpb.Problem {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return badRequest("the body is no %s: a tag is malformed", form.name)
		}
		data = data[n:]
		field, ok := form.fields[number]
		if !ok {
			return badRequest("%s has an unknown field %d", form.name, number)
		}
		if kind != field.kind {
			return badRequest("field %s of %s has the wrong wire type", field.name, form.name)
		}
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
				return badRequest("field %s of %s is malformed", field.name, form.name)
			}
			data = data[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return badRequest("field %s of %s is cut off", field.name, form.name)
		}
		data = data[n:]
		if field.form == nil {
			continue
		}
		if p := w.submessage(field.form, value, inTxn); p != nil {
			return p
		}
	}
	return nil
}

// submessage counts what is bounded, then goes on inside.
func (w *wireCheck) submessage(form *wireForm, data []byte, inTxn bool) *trivetpb.Problem {
	switch form.name {
	case "BatchOp":
		if w.ops++; w.ops > maxBatchOps {
			return tooManyOps()
		}
	case "Op", "Compare", "Guard":
		if w.elements++; w.elements > maxElements {
			return tooManyElements()
		}
	case "TxnOp":
		if inTxn {
			return badRequest("a txn inside a txn")
		}
		inTxn = true
	}
	return w.message(form, data, inTxn)
}

func tooManyOps() *trivetpb.Problem {
	return tooLarge(maxBatchOps, "the batch has more than %d operations", maxBatchOps)
}

func tooManyElements() *trivetpb.Problem {
	return tooLarge(maxElements, "the document has more than %d operations, comparisons and guards together", maxElements)
}
