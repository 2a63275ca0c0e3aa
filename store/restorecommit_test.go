package store

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// uploadAll are the commands that restore a file, in chunks of a size.
func uploadAll(id uint64, file []byte, chunkBytes int) (commands []*trivetpb.Command) {
	for at := 0; at < len(file); at += chunkBytes {
		commands = append(commands, restoreChunk(id, uint64(at), file[at:min(at+chunkBytes, len(file))]))
	}
	return append(commands, restoreCommit(id, uint64(len(file))))
}

func TestRestoringThroughTheLog(t *testing.T) {
	// What is backed up.
	old := New()
	fine(t, old, 5000, seedMarker(1), opCommand(putOp("a", "0")), opCommand(putOp("a", "1")), opCommand(putOp("gone", "")), opCommand(deleteOp("gone")))
	lease := fine(t, old, 5000, grant(9000)).GetLease().Lease
	held := fine(t, old, 5000, acquire("lock", "", 9000, 0), acquire("lock", "", 9000, 9000), acquire("held", "", 9000, 0)).GetLock().Holder
	oldSession := opened(t, old, 60_000, false)
	fine(t, old, 6000, opCommand(leasePut("leased", "", lease)), opCommand(ttlPut("ttl", "", 3000)), opCommand(leasePut("held", "", held.Lease)),
		in(opCommand(putOp("b", "")), oldSession, 1, 0), under(opCommand(addOp("n", 7)), "key", "add"), restoreChunk(5, 0, []byte("staged")))
	file := snapshotOf(t, old).Bytes()
	itemA, _, _ := old.Get([]byte("a"))

	for name, together := range map[string]bool{"entry by entry": false, "in one entry": true} {
		t.Run(name, func(t *testing.T) {
			s := New()
			fine(t, s, 100_000, seedMarker(2), opCommand(putOp("present", "")), acquire("mine", "", 60_000, 0))
			apply(t, s, settingsEntry(&trivetpb.Settings{QuotaBytes: 100_000, HistoryMs: 77_000}))
			session := opened(t, s, 60_000, true)
			for range 20 {
				fine(t, s, 100_000, opCommand(putOp("present", "more")), acquire("mine", "", 60_000, 1))
			}
			before := s.Stats()
			oldView := view(t, s, 0)
			commands := uploadAll(9, file, 100)
			if together {
				at(t, s, 110_000, commands...)
			} else {
				for _, c := range commands[:len(commands)-1] {
					fine(t, s, 110_000, c, c)
				}
				require.NotNil(t, s.state.prepare(&trivetpb.Entry{Commands: commands[len(commands)-1:]}), "it is decoded before the lock is taken")
				again := restored(t, s) // a node's own snapshot holds what is staged
				fine(t, again, 110_000, commands[len(commands)-1])
				r := fine(t, s, 110_000, commands[len(commands)-1])
				require.Equal(t, s.Revision(), r.Revision)
				require.Equal(t, s.Stats(), again.Stats())
			}
			st := s.Stats()
			require.Equal(t, map[string]string{"a": "1", "b": "", "leased": "", "ttl": "", "n": "7"}, contents(view(t, s, 0)))
			item, _, _ := s.Get([]byte("a"))
			require.Equal(t, itemA, item, "items keep their revisions")
			require.Equal(t, before.Revision+1, st.Revision)
			require.Equal(t, st.Revision, st.CompactRevision)
			require.EqualValues(t, 110_000, st.ClockMS)
			require.Equal(t, before.Settings, st.Settings)
			require.EqualValues(t, 2, s.state.seed)
			_, err := s.View(before.Revision)
			require.Equal(t, trivetpb.Code_COMPACTED, err.(*trivetpb.Problem).Code)
			require.Equal(t, map[string]string{"present": "more"}, contents(oldView), "an open View keeps its state")

			require.Zero(t, st.Locks+st.Waiters+st.Sessions)
			require.Nil(t, s.state.upload)
			info, ok := s.Lease(lease)
			require.True(t, ok)
			require.Equal(t, LeaseInfo{ID: lease, TTLMS: 9000, RemainingMS: 9000, Keys: 1}, info, "all of its time")
			require.EqualValues(t, 2, st.Leases)
			require.True(t, at(t, s, 110_000, in(opCommand(putOp("x", "")), session, 1, 0)).Problem.GetUnknown())
			require.EqualValues(t, 7, fine(t, s, 110_000+IdempotencyMS-1, under(opCommand(addOp("n", 7)), "key", "add")).GetAdd().Value)
			token := fine(t, s, 110_000, acquire("mine", "", 1000, 0)).GetLock().Holder.Token
			require.Greater(t, token, s.Stats().Locks+before.Waiters, "tokens only grow")
			require.EqualValues(t, 22, token)
			restored(t, s)
			fine(t, s, 900_000, expire())
			require.Equal(t, map[string]string{"a": "1", "b": "", "n": "7"}, contents(view(t, s, 0)))
		})
	}

	t.Run("a file of a later revision and token", func(t *testing.T) {
		s := New()
		fine(t, s, 0, uploadAll(1, file, 1<<20)...)
		require.Equal(t, old.Revision()+1, s.Revision())
		require.EqualValues(t, 4, fine(t, s, 0, acquire("lock", "", 1000, 0)).GetLock().Holder.Token)
		require.Zero(t, s.state.seed)
		require.GreaterOrEqual(t, s.state.nextID, old.state.nextID)
	})
	t.Run("with an idempotency key", func(t *testing.T) {
		for _, key := range []string{"mine", "key"} { // the file has the other
			s := New()
			commands := uploadAll(1, file, 1<<20)
			first := fine(t, s, 0, commands[0], under(commands[1], key, "restore"))
			again := fine(t, s, 0, under(restoreCommit(1, uint64(len(file))), key, "restore"))
			require.True(t, again.Replayed)
			require.Equal(t, first.Revision, again.Revision)
		}
	})
	t.Run("between other commands of an entry", func(t *testing.T) {
		s := New()
		session := opened(t, s, 60_000, false)
		commands := append([]*trivetpb.Command{in(opCommand(putOp("before", "")), session, 1, 0)}, uploadAll(1, file, 1<<20)...)
		results := apply(t, s, &trivetpb.Entry{Commands: append(commands,
			in(opCommand(putOp("in a session", "")), session, 2, 0), opCommand(putOp("after", "")), acquire("lock", "", 1000, 0))})
		requireSound(t, s, true)
		require.Equal(t, trivetpb.Code_SESSION_EXPIRED, results[3].Problem.GetCode())
		require.Nil(t, results[4].Problem)
		require.Contains(t, contents(view(t, s, 0)), "after")
		require.NotContains(t, contents(view(t, s, 0)), "before")
		require.Equal(t, s.Stats().CompactRevision+1, s.Revision())
		restored(t, s)
	})
	t.Run("of format 1", func(t *testing.T) {
		s, sample := New(), sampleStore(t)
		file := stored(t, "snapshot1.golden")
		fine(t, s, 0, uploadAll(1, file, 1<<20)...)
		require.Equal(t, contents(view(t, sample, 0)), contents(view(t, s, 0)))
	})
}

// TestARestoreThatFails: the state is as it was, and nothing is staged any more.
func TestARestoreThatFails(t *testing.T) {
	file := snapshotOf(t, fullStore(t)).Bytes()
	broken := bytes.Clone(file)
	broken[len(broken)/2]++
	large := New()
	fine(t, large, 0, opCommand(putOp("large", strings.Repeat("x", 1000))))
	for name, c := range map[string]struct {
		file   []byte
		commit *trivetpb.Command
		code   trivetpb.Code
		detail string
		staged bool // still
	}{
		"no snapshot":      {[]byte("no snapshot"), restoreCommit(1, 11), trivetpb.Code_BAD_REQUEST, "corrupt", false},
		"a flipped bit":    {broken, restoreCommit(1, uint64(len(file))), trivetpb.Code_BAD_REQUEST, "corrupt", false},
		"a part":           {file[:100], restoreCommit(1, 100), trivetpb.Code_BAD_REQUEST, "corrupt", false},
		"bytes missing":    {file[:100], restoreCommit(1, uint64(len(file))), trivetpb.Code_BAD_REQUEST, "100 bytes of the file are staged", false},
		"too many":         {file, restoreCommit(1, 1), trivetpb.Code_BAD_REQUEST, "and it has 1", false},
		"another upload":   {file, restoreCommit(2, uint64(len(file))), trivetpb.Code_BAD_REQUEST, "no upload 2", true},
		"beyond the quota": {snapshotOf(t, large).Bytes(), restoreCommit(1, uint64(snapshotOf(t, large).Len())), trivetpb.Code_QUOTA_EXCEEDED, "1133 bytes", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			apply(t, s, settingsEntry(&trivetpb.Settings{QuotaBytes: 1000}))
			fine(t, s, 0, opCommand(ttlPut("a", "1", 5000)), acquire("lock", "", 5000, 0))
			empty := s.Stats()
			fine(t, s, 0, restoreChunk(1, 0, c.file))
			r := at(t, s, 0, c.commit)
			require.Equal(t, c.code, r.Problem.GetCode(), "%v", r)
			require.Contains(t, r.Problem.Detail, c.detail)
			require.Equal(t, c.staged, s.state.upload != nil)
			if !c.staged {
				after := s.Stats()
				empty.Index = after.Index
				require.Equal(t, empty, after)
			}
		})
	}
}

// TestChunks: rows come one after the other, to one store.
func TestChunks(t *testing.T) {
	s := New()
	huge := restoreChunk(1, 0, make([]byte, MaxChunkBytes+1))
	for _, c := range []struct {
		name   string
		clock  uint64
		c      *trivetpb.Command
		code   trivetpb.Code
		staged string
	}{
		{"none began", 0, restoreChunk(1, 3, []byte("abc")), trivetpb.Code_BAD_REQUEST, ""},
		{"it begins", 0, restoreChunk(1, 0, []byte("abc")), 0, "abc"},
		{"the same again", 0, restoreChunk(1, 0, []byte("abc")), 0, "abc"},
		{"a part of it", 0, restoreChunk(1, 1, []byte("b")), 0, "abc"},
		{"another beginning", 0, restoreChunk(1, 0, []byte("xyz")), trivetpb.Code_BAD_REQUEST, "abc"},
		{"the next", 1000, restoreChunk(1, 3, []byte("def")), 0, "abcdef"},
		{"a gap", 1000, restoreChunk(1, 7, []byte("h")), trivetpb.Code_BAD_REQUEST, "abcdef"},
		{"across two", 2000, restoreChunk(1, 2, []byte("cde")), 0, "abcdef"},
		{"across two, otherwise", 2000, restoreChunk(1, 2, []byte("cdx")), trivetpb.Code_BAD_REQUEST, "abcdef"},
		{"half staged", 2000, restoreChunk(1, 5, []byte("fg")), trivetpb.Code_BAD_REQUEST, "abcdef"},
		{"empty", 2000, restoreChunk(1, 6, nil), trivetpb.Code_BAD_REQUEST, "abcdef"},
		{"too large", 2000, huge, trivetpb.Code_TOO_LARGE, "abcdef"},
		{"somebody else", 2000, restoreChunk(2, 0, []byte("x")), trivetpb.Code_OVERLOADED, "abcdef"},
		{"somebody else goes on", 2000, restoreChunk(2, 6, []byte("x")), trivetpb.Code_BAD_REQUEST, "abcdef"},
		{"somebody else gives up", 2000, restoreAbort(2), 0, "abcdef"},
		{"it is not given up yet", 61_999, expire(), 0, "abcdef"},
		{"nor for others", 61_999, restoreChunk(2, 0, []byte("x")), trivetpb.Code_OVERLOADED, "abcdef"},
		{"others may come by now", 62_000, restoreChunk(2, 0, []byte("x")), 0, "x"},
		{"it is too late", 62_000, restoreChunk(1, 6, []byte("g")), trivetpb.Code_BAD_REQUEST, "x"},
		{"given up by its own", 62_000, restoreAbort(2), 0, ""},
		{"a last one", 62_000, restoreChunk(3, 0, []byte("y")), 0, "y"},
		{"dropped", 122_000, expire(), 0, ""},
	} {
		before := s.Stats()
		r := at(t, s, c.clock, c.c)
		require.Equal(t, c.code, r.Problem.GetCode(), "%s: %v", c.name, r)
		staged := ""
		if u := s.state.upload; u != nil {
			var b bytes.Buffer
			_, _ = b.ReadFrom(u.file())
			staged = b.String()
		}
		require.Equal(t, c.staged, staged, c.name)
		require.Equal(t, before.Revision, s.Revision())
		if again := restored(t, s); again.state.upload != nil {
			require.Equal(t, s.state.upload.hash(), again.state.upload.hash())
		}
	}
	// The bound on all of it.
	u := &upload{id: 1, size: MaxUploadBytes - 1, deadlineMS: never}
	s.state.upload = u
	r := apply(t, s, &trivetpb.Entry{Commands: []*trivetpb.Command{restoreChunk(1, MaxUploadBytes-1, []byte("xy"))}})[0]
	require.Equal(t, trivetpb.Code_TOO_LARGE, r.Problem.GetCode())
	require.EqualValues(t, uint64(MaxUploadBytes), r.Problem.Limit)
}

// TestARestoreEndsAwaitLock: who waits for a lock of the state that is gone is
// told so, and one that awaits a token to come goes on.
func TestARestoreEndsAwaitLock(t *testing.T) {
	file := snapshotOf(t, New()).Bytes()
	synctest.Test(t, func(t *testing.T) {
		s := New()
		fine(t, s, 0, acquire("lock", "", 5000, 0), acquire("lock", "", 5000, 5000))
		done := make(chan error, 1)
		go func() {
			_, err := s.AwaitLock(t.Context(), "lock", 2)
			done <- err
		}()
		synctest.Wait()
		fine(t, s, 0, uploadAll(1, file, 1<<20)...)
		require.Equal(t, trivetpb.Code_LOCKED, (<-done).(*trivetpb.Problem).Code)
	})
}

// TestReadsGoOnDuringARestore: the file is decoded while nobody waits for a
// lock, which the race detector sees as well.
func TestReadsGoOnDuringARestore(t *testing.T) {
	s := New()
	e := &trivetpb.Entry{}
	for i := range 2000 {
		e.Commands = append(e.Commands, opCommand(putOp(fmt.Sprint("key/", i), "x")))
	}
	apply(t, s, e)
	file := snapshotOf(t, s).Bytes()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10 {
			for _, c := range uploadAll(1, file, 1000) {
				apply(t, s, &trivetpb.Entry{Commands: []*trivetpb.Command{proto.Clone(c).(*trivetpb.Command)}})
			}
		}
	}()
	for {
		select {
		case <-done:
			requireSound(t, s, true)
			require.EqualValues(t, 2000, s.Stats().Keys)
			return
		default:
		}
		v := view(t, s, 0)
		require.EqualValues(t, 2000, v.Count(nil))
		var b bytes.Buffer
		require.NoError(t, v.WriteSnapshot(&b))
		v.Close()
		if item, ok, _ := s.Get([]byte("key/7")); !ok || string(item.Value) != "x" {
			t.Error("a key is missing")
		}
	}
}
