package trivetpb

import "google.golang.org/protobuf/encoding/protowire"

// Decoder decodes to what UnmarshalVT makes of the data, for those who decode much
// and are soon done with it: what is applied, and what a request asks for. It
// differs in two things:
//
//   - The keys and values of operations alias the data. Whoever keeps one longer than
//     the data, or longer than the data should be kept for it, has to copy it.
//   - Messages are laid out together, and used again after Reset. A command that is a
//     put is five messages, a txn of a compare and two puts fifteen: to allocate and
//     collect them costs more than to decode them.
//
// Only what is common is decoded here: puts, and txns of compares and puts. All else,
// and whatever is not as it should be, is left to UnmarshalVT, which copies, and says
// what is wrong. The zero value is ready for use, by one goroutine at a time.
type Decoder struct {
	puts     arena[putMessages]
	txns     arena[txnMessages]
	compares arena[Compare]
	commands arena[commandMessages]
	batchOps arena[BatchOp]
	// What lists are cut from.
	opLists      lists[*Op]
	compareLists lists[*Compare]
	commandLists lists[*Command]
	batchOpLists lists[*BatchOp]

	entry Entry
	batch BatchRequest
}

type commandMessages struct {
	command Command
	op      Command_Op
}

type putMessages struct {
	op    Op
	opPut Op_Put
	put   PutOp
}

type txnMessages struct {
	op    Op
	opTxn Op_Txn
	txn   TxnOp
}

// The fields that are decoded here, by their numbers in trivet.proto.
const (
	entryClock   protowire.Number = 1
	entryCommand protowire.Number = 2

	commandOp      protowire.Number = 1
	commandSession protowire.Number = 3
	commandSeq     protowire.Number = 4
	commandAck     protowire.Number = 5

	batchOp      protowire.Number = 1
	batchSession protowire.Number = 2
	batchAck     protowire.Number = 3

	batchOpOp  protowire.Number = 1
	batchOpSeq protowire.Number = 2

	opPut protowire.Number = 1
	opTxn protowire.Number = 6

	putKey          protowire.Number = 1
	putValue        protowire.Number = 2
	putLease        protowire.Number = 3
	putPrev         protowire.Number = 4
	putPrecondition protowire.Number = 5
	putTTL          protowire.Number = 6

	txnIf   protowire.Number = 1
	txnThen protowire.Number = 2
	txnElse protowire.Number = 3

	compareKey      protowire.Number = 1
	compareTarget   protowire.Number = 3
	compareRelation protowire.Number = 4
	compareNumber   protowire.Number = 5
	compareValue    protowire.Number = 6
)

// Entry returns an entry of the log, which is good until Reset is called.
func (d *Decoder) Entry(data []byte) (*Entry, error) {
	n := 0
	for rest := data; len(rest) > 0; {
		var f field
		switch f, rest = nextField(rest); {
		case f.number == entryClock && f.kind == protowire.VarintType:
		case f.number == entryCommand && f.kind == protowire.BytesType:
			n++
		default:
			d.entry = Entry{}
			return &d.entry, d.entry.UnmarshalVT(data)
		}
	}
	d.entry = Entry{Commands: d.commandLists.next(n)}
	for len(data) > 0 {
		var f field
		if f, data = nextField(data); f.number == entryClock {
			d.entry.ClockMs = f.varint
			continue
		}
		c, err := d.Command(f.bytes)
		if err != nil {
			return nil, err
		}
		d.entry.Commands = append(d.entry.Commands, c)
	}
	return &d.entry, nil
}

// Command returns a command, which is good until Reset is called.
func (d *Decoder) Command(data []byte) (*Command, error) {
	m := d.commands.next()
	if d.command(m, data) {
		return &m.command, nil
	}
	m.command = Command{}
	return &m.command, m.command.UnmarshalVT(data)
}

// command decodes into an empty message; false where that is not for here.
func (d *Decoder) command(m *commandMessages, data []byte) bool {
	for len(data) > 0 {
		var f field
		f, data = nextField(data)
		if f.number == commandOp && f.kind == protowire.BytesType && m.command.Command == nil {
			if m.op.Op = d.op(f.bytes, false); m.op.Op == nil {
				return false
			}
			m.command.Command = &m.op
			continue
		}
		if f.kind != protowire.VarintType {
			return false
		}
		switch f.number {
		case commandSession:
			m.command.Session = f.varint
		case commandSeq:
			m.command.Seq = f.varint
		case commandAck:
			m.command.Ack = f.varint
		default:
			return false
		}
	}
	return true
}

// Batch returns a batch, which is good until Reset is called.
func (d *Decoder) Batch(data []byte) (*BatchRequest, error) {
	n := 0
	for rest := data; len(rest) > 0; {
		var f field
		switch f, rest = nextField(rest); {
		case f.number == batchOp && f.kind == protowire.BytesType:
			n++
		case (f.number == batchSession || f.number == batchAck) && f.kind == protowire.VarintType:
		default:
			d.batch = BatchRequest{}
			return &d.batch, d.batch.UnmarshalVT(data)
		}
	}
	d.batch = BatchRequest{Ops: d.batchOpLists.next(n)}
	for len(data) > 0 {
		var f field
		switch f, data = nextField(data); f.number {
		case batchSession:
			d.batch.Session = f.varint
		case batchAck:
			d.batch.Ack = f.varint
		default:
			op := d.batchOps.next()
			if !d.batchOp(op, f.bytes) {
				*op = BatchOp{}
				if err := op.UnmarshalVT(f.bytes); err != nil {
					return nil, err
				}
			}
			d.batch.Ops = append(d.batch.Ops, op)
		}
	}
	return &d.batch, nil
}

// batchOp decodes into an empty message; false where that is not for here.
func (d *Decoder) batchOp(m *BatchOp, data []byte) bool {
	for len(data) > 0 {
		var f field
		switch f, data = nextField(data); {
		case f.number == batchOpOp && f.kind == protowire.BytesType && m.Op == nil:
			if m.Op = d.op(f.bytes, false); m.Op == nil {
				return false
			}
		case f.number == batchOpSeq && f.kind == protowire.VarintType:
			m.Seq = f.varint
		default:
			return false // guards, too
		}
	}
	return true
}

// Reset takes back all messages. Nothing of what was decoded is kept.
func (d *Decoder) Reset() {
	d.puts.reset()
	d.txns.reset()
	d.compares.reset()
	d.commands.reset()
	d.batchOps.reset()
	d.opLists.reset()
	d.compareLists.reset()
	d.commandLists.reset()
	d.batchOpLists.reset()
	d.entry, d.batch = Entry{}, BatchRequest{}
}

// op decodes an operation; nil where that is not for here.
func (d *Decoder) op(data []byte, inTxn bool) *Op {
	f, rest := nextField(data)
	if len(rest) > 0 || f.kind != protowire.BytesType {
		return nil
	}
	switch f.number {
	case opPut:
		m := d.puts.next()
		if !m.put.decode(f.bytes) {
			return nil
		}
		m.opPut.Put, m.op.Op = &m.put, &m.opPut
		return &m.op
	case opTxn:
		if inTxn {
			return nil
		}
		m := d.txns.next()
		if !d.txn(&m.txn, f.bytes) {
			return nil
		}
		m.opTxn.Txn, m.op.Op = &m.txn, &m.opTxn
		return &m.op
	}
	return nil
}

// decode decodes into an empty message; false where that is not for here.
func (m *PutOp) decode(data []byte) bool {
	for len(data) > 0 {
		var f field
		if f, data = nextField(data); f.kind == protowire.BytesType {
			switch f.number {
			case putKey:
				m.Key = f.bytes
			case putValue:
				m.Value = f.bytes
			case putPrecondition:
				if m.Precondition == nil {
					m.Precondition = &Precondition{}
				}
				if m.Precondition.UnmarshalVT(f.bytes) != nil {
					return false
				}
			default:
				return false
			}
			continue
		}
		if f.kind != protowire.VarintType {
			return false
		}
		switch f.number {
		case putLease:
			m.Lease = f.varint
		case putPrev:
			m.Prev = f.varint != 0
		case putTTL:
			m.TtlMs = f.varint
		default:
			return false
		}
	}
	return true
}

// decode decodes into an empty message; false where that is not for here.
func (m *Compare) decode(data []byte) bool {
	for len(data) > 0 {
		var f field
		if f, data = nextField(data); f.kind == protowire.BytesType {
			switch f.number {
			case compareKey:
				m.Key = f.bytes
			case compareValue:
				m.Value = f.bytes
			default:
				return false // of a range, too
			}
			continue
		}
		if f.kind != protowire.VarintType {
			return false
		}
		switch f.number {
		case compareTarget:
			m.Target = Compare_Target(f.varint)
		case compareRelation:
			m.Relation = Compare_Relation(f.varint)
		case compareNumber:
			m.Number = f.varint
		default:
			return false
		}
	}
	return true
}

// txn decodes into an empty message; false where that is not for here.
func (d *Decoder) txn(m *TxnOp, data []byte) bool {
	var count [txnElse + 1]int
	for rest := data; len(rest) > 0; {
		var f field
		if f, rest = nextField(rest); f.kind != protowire.BytesType || f.number > txnElse {
			return false
		}
		count[f.number]++
	}
	m.If = d.compareLists.next(count[txnIf])
	m.Then, m.Else = d.opLists.next(count[txnThen]), d.opLists.next(count[txnElse])
	for len(data) > 0 {
		var f field
		if f, data = nextField(data); f.number == txnIf {
			c := d.compares.next()
			if !c.decode(f.bytes) {
				*c = Compare{}
				if c.UnmarshalVT(f.bytes) != nil {
					return false
				}
			}
			m.If = append(m.If, c)
			continue
		}
		op := d.op(f.bytes, true)
		if op == nil {
			if op = new(Op); op.UnmarshalVT(f.bytes) != nil {
				return false
			}
		}
		if f.number == txnThen {
			m.Then = append(m.Then, op)
		} else {
			m.Else = append(m.Else, op)
		}
	}
	return true
}
