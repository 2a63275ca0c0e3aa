package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
)

// entryMeta is what travels beside every log entry, in raft.Log.Extensions:
//
//	0      1             5              13             21             29
//	+------+------+------+------+-------+------+-------+------+-------+
//	| vsn  | CRC-32C     | term         | proposer     | seq          |
//	+------+-------------+--------------+--------------+--------------+
//
// all big endian; the CRC covers what follows it here, then raft.Log.Data.
//
// term is the term that the proposer led when it made the entry. The log store
// refuses an entry whose raft.Log.Term differs (the fence): hashicorp/raft can
// stamp an entry with a term that its leader loop never won (its issue 695).
//
// proposer and seq say who waits for the entry: proposer is drawn at random at
// each start of a node. Both are 0 for entries that raft itself makes.
type entryMeta struct {
	term, proposer, seq uint64
}

const (
	entryMetaVersion = 1
	entryMetaLen     = 29
)

// castagnoli has hardware support on amd64 and arm64.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errNoMeta      = errors.New("carries no checksum")
	errMetaVersion = errors.New("is of a format that this version does not know: a newer one wrote it")
	errChecksum    = errors.New("does not match its checksum")
)

// encode returns the extensions for an entry with that data.
func (m entryMeta) encode(data []byte) []byte {
	b := make([]byte, entryMetaLen)
	b[0] = entryMetaVersion
	binary.BigEndian.PutUint64(b[5:], m.term)
	binary.BigEndian.PutUint64(b[13:], m.proposer)
	binary.BigEndian.PutUint64(b[21:], m.seq)
	crc := crc32.Update(crc32.Checksum(b[5:], castagnoli), castagnoli, data)
	binary.BigEndian.PutUint32(b[1:], crc)
	return b
}

// decodeEntryMeta reads the extensions of an entry and checks its data.
func decodeEntryMeta(l *raft.Log) (entryMeta, error) {
	b := l.Extensions
	switch {
	case len(b) == 0:
		return entryMeta{}, errNoMeta
	case b[0] != entryMetaVersion:
		return entryMeta{}, fmt.Errorf("%w (format %d; this version knows %d)", errMetaVersion, b[0], entryMetaVersion)
	case len(b) != entryMetaLen:
		return entryMeta{}, errChecksum
	}
	crc := crc32.Update(crc32.Checksum(b[5:], castagnoli), castagnoli, l.Data)
	if crc != binary.BigEndian.Uint32(b[1:]) && !mutant.On("no-checksum") {
		return entryMeta{}, errChecksum
	}
	return entryMeta{
		term:     binary.BigEndian.Uint64(b[5:]),
		proposer: binary.BigEndian.Uint64(b[13:]),
		seq:      binary.BigEndian.Uint64(b[21:]),
	}, nil
}
