package store

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

func levelEntry(level uint64) *trivetpb.Entry {
	return settingsEntry(&trivetpb.Settings{HistoryMs: 60_000, HistoryRevisions: 50, Level: level})
}

// leveled is a store of a later version with something in it, at level 1.
func leveled(t *testing.T) *Store {
	s := NewOfLevel(2)
	apply(t, s, entryOf(5, putOp("a", "1"), putOp("b", "2")))
	apply(t, s, levelEntry(1))
	return s
}

func TestLevelNeverGoesBack(t *testing.T) {
	s := leveled(t)
	require.EqualValues(t, 1, s.Level())
	before := s.Stats().Hash
	apply(t, s, levelEntry(0)) // what a term of a leader that knows none begins with
	require.EqualValues(t, 1, s.Level())
	require.Equal(t, before, s.Stats().Hash)
	apply(t, s, levelEntry(2))
	require.EqualValues(t, 2, s.Level())
	require.NotEqual(t, before, s.Stats().Hash, "the level is part of the state")
	apply(t, s, levelEntry(1))
	require.EqualValues(t, 2, s.Level())
}

// A version that does not know a level stops at the entry that raises to it, and
// has applied nothing of it.
func TestLevelThatIsNotKnownStops(t *testing.T) {
	s := NewOfLevel(1)
	apply(t, s, levelEntry(1))
	before := s.Stats()
	e := levelEntry(2)
	e.Commands = append(entryOf(9, putOp("k", "v")).Commands, e.Commands...)
	_, err := s.Apply(s.Index()+1, e)
	require.ErrorIs(t, err, ErrUnknownCommand)
	require.ErrorContains(t, err, "command 1: it raises the cluster to level 2, and this version knows up to 1")
	require.Equal(t, before, s.Stats())
}

func TestSnapshotOfALevel(t *testing.T) {
	s := leveled(t)
	file := snapshotOf(t, s).Bytes()
	again := NewOfLevel(1)
	require.NoError(t, again.Restore(bytes.NewReader(file)))
	require.Equal(t, s.Stats(), again.Stats())

	// A version that knows the format, but not the level, and one that knows
	// neither.
	apply(t, s, levelEntry(2))
	later := snapshotOf(t, s).Bytes()
	before := again.Stats()
	err := again.Restore(bytes.NewReader(later))
	require.ErrorIs(t, err, ErrSnapshotVersion)
	require.ErrorContains(t, err, "its state is of level 2, and this version of Trivet knows up to 1: a newer one wrote it")
	require.Equal(t, before, again.Stats())
	err = NewOfLevel(0).Restore(bytes.NewReader(later))
	require.ErrorIs(t, err, ErrSnapshotVersion)
	require.ErrorContains(t, err, "it is of format 3, and this version of Trivet reads up to 2: a newer one wrote it")
	_, err = VerifySnapshot(bytes.NewReader(later))
	require.ErrorIs(t, err, ErrSnapshotVersion)

	// Format and level belong together.
	older := bytes.Clone(file)
	older[8] = 2
	older = binary.LittleEndian.AppendUint64(older[:len(older)-8], xxhash.Sum64(older[:len(older)-8]))
	require.ErrorIs(t, again.Restore(bytes.NewReader(older)), ErrSnapshotCorrupt)
}

// What members of two versions make of a backup is the same, since the state's
// level decides, not what each knows.
func TestRestoreOfALaterLevelIsRefusedByAll(t *testing.T) {
	file := snapshotOf(t, leveled(t)).Bytes()
	restore := []*trivetpb.Command{restoreChunk(7, 0, file), restoreCommit(7, uint64(len(file)))}
	older, newer := NewOfLevel(0), NewOfLevel(2)
	for _, s := range []*Store{older, newer} {
		apply(t, s, entryOf(1, putOp("k", "v")))
		apply(t, s, &trivetpb.Entry{ClockMs: 2, Commands: restore[:1]})
	}
	commit := &trivetpb.Entry{ClockMs: 3, Commands: restore[1:]}
	a, b := apply(t, older, commit), apply(t, newer, commit)
	require.Equal(t, trivetpb.Code_BAD_REQUEST, a[0].GetProblem().GetCode())
	require.Equal(t, a[0].Problem.Detail, b[0].Problem.Detail)
	require.Equal(t, older.Stats(), newer.Stats())

	// Raised, it is restored, and keeps the level that it has. Raised in the very
	// entry, too: nothing was made ready for the level of before.
	apply(t, newer, &trivetpb.Entry{ClockMs: 4, Commands: restore[:1]})
	both := levelEntry(2)
	both.Commands = append(both.Commands, restore[1])
	rs := apply(t, newer, both)
	require.Nil(t, rs[1].Problem)
	require.EqualValues(t, 2, newer.Level())
	require.Equal(t, map[string]string{"a": "1", "b": "2"}, contents(view(t, newer, 0)))
}

// TestGoldenSnapshotOfFormat3: as TestGoldenSnapshot, of a state with a level.
func TestGoldenSnapshotOfFormat3(t *testing.T) {
	s := leveled(t)
	records := golden(t, "records3.golden", rawRecords(t, view(t, s, 0)))
	file := golden(t, "snapshot3.golden", snapshotOf(t, s).Bytes())
	require.Equal(t, records, rawRecords(t, view(t, s, 0)))
	old := NewOfLevel(2)
	require.NoError(t, old.Restore(bytes.NewReader(file)))
	require.Equal(t, s.Stats(), old.Stats())
	require.EqualValues(t, 3, file[8])
}
