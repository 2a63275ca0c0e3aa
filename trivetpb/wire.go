package trivetpb

import "google.golang.org/protobuf/encoding/protowire"

// field is one field of a message, of one of the two kinds that there are here.
type field struct {
	number protowire.Number
	kind   protowire.Type // another one: it is no field, or not for here
	varint uint64
	bytes  []byte // never nil where it is the kind; its capacity is clipped
}

// noField is of no kind that is decoded here.
var noField = field{kind: protowire.EndGroupType}

// nextField cuts a field from the front.
func nextField(data []byte) (f field, rest []byte) {
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 {
		return noField, nil
	}
	data = data[n:]
	f.number, f.kind = number, kind
	switch kind {
	case protowire.BytesType:
		size, n := protowire.ConsumeVarint(data)
		if n < 0 || size > uint64(len(data)-n) {
			return noField, nil
		}
		end := n + int(size)
		f.bytes = data[n:end:end]
		return f, data[end:]
	case protowire.VarintType:
		if f.varint, n = protowire.ConsumeVarint(data); n < 0 {
			return noField, nil
		}
		return f, data[n:]
	}
	return noField, nil
}
