package raftnode

import (
	"google.golang.org/protobuf/encoding/protowire"

	"trivet/trivetpb"
)

// entryDecoder decodes the data of entries, one at a time, as
// trivetpb.Entry.UnmarshalVT does. Most commands are puts, and each is five
// messages, one in the other: they are laid out together, for all commands of an
// entry, and used again for the next. What store.Apply keeps of an entry is the
// bytes of keys and values, never a message, and each of those has an allocation
// of its own: a value that pointed into the entry would keep all of the entry.
type entryDecoder struct {
	entry    trivetpb.Entry
	commands []*trivetpb.Command
	puts     []putMessages
	used     int // of puts
}

// putMessages is what a command that is a put consists of.
type putMessages struct {
	command   trivetpb.Command
	commandOp trivetpb.Command_Op
	op        trivetpb.Op
	opPut     trivetpb.Op_Put
	put       trivetpb.PutOp
}

const (
	entryClock   protowire.Number = 1
	entryCommand protowire.Number = 2
	commandOp    protowire.Number = 1
	opPut        protowire.Number = 1
)

// decode returns the entry, which is good until done is called.
func (d *entryDecoder) decode(data []byte) (*trivetpb.Entry, error) {
	n, ok := countCommands(data)
	if !ok || n > maxGroupCommands {
		err := d.entry.UnmarshalVT(data)
		return &d.entry, err
	}
	if n > len(d.puts) {
		n = max(n, min(2*len(d.puts), maxGroupCommands))
		d.puts, d.commands = make([]putMessages, n), make([]*trivetpb.Command, 0, n)
	}
	d.entry.Commands = d.commands
	for len(data) > 0 {
		number, _, n := protowire.ConsumeTag(data)
		data = data[n:]
		if number == entryClock {
			d.entry.ClockMs, n = protowire.ConsumeVarint(data)
			data = data[n:]
			continue
		}
		body, n := protowire.ConsumeBytes(data)
		data = data[n:]
		m := &d.puts[d.used]
		d.used++
		if isPut(body) {
			// Empty messages, where the decoder would make them: it goes on with
			// those, or puts another in their place, as the body says.
			m.opPut.Put = &m.put
			m.op.Op = &m.opPut
			m.commandOp.Op = &m.op
			m.command.Command = &m.commandOp
		}
		if err := m.command.UnmarshalVT(body); err != nil {
			return nil, err
		}
		d.entry.Commands = append(d.entry.Commands, &m.command)
	}
	return &d.entry, nil
}

// done forgets the entry: nothing of it is kept until the next one.
func (d *entryDecoder) done() {
	clear(d.puts[:d.used])
	d.used = 0
	d.entry.Reset()
}

// countCommands counts an entry's commands; not ok says that there is something
// else in it than what decode knows, or that it is broken.
func countCommands(data []byte) (n int, ok bool) {
	for len(data) > 0 {
		number, kind, size := protowire.ConsumeTag(data)
		switch {
		case size < 0:
			return 0, false
		case number == entryClock && kind == protowire.VarintType:
		case number == entryCommand && kind == protowire.BytesType:
			n++
		default:
			return 0, false
		}
		data = data[size:]
		if size = protowire.ConsumeFieldValue(number, kind, data); size < 0 {
			return 0, false
		}
		data = data[size:]
	}
	return n, true
}

// isPut says that a command has an op, and that the first thing in it is a put.
func isPut(command []byte) bool {
	for len(command) > 0 {
		number, kind, size := protowire.ConsumeTag(command)
		if size < 0 {
			return false
		}
		command = command[size:]
		if number == commandOp && kind == protowire.BytesType {
			op, size := protowire.ConsumeBytes(command)
			if size < 0 {
				return false
			}
			number, kind, size := protowire.ConsumeTag(op)
			return size > 0 && number == opPut && kind == protowire.BytesType
		}
		if size = protowire.ConsumeFieldValue(number, kind, command); size < 0 {
			return false
		}
		command = command[size:]
	}
	return false
}
