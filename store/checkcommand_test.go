package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

// everyCommand is one of each kind, as a caller may send it, and the two that
// only leaders propose.
func everyCommand() map[string]*trivetpb.Command {
	return map[string]*trivetpb.Command{
		"op":                 opCommand(putOp("a", "")),
		"marker":             seedMarker(1),
		"lease_grant":        grant(1000),
		"lease_keep_alive":   keepAlive(1),
		"lease_revoke":       revoke(1),
		"lock_acquire":       acquire("lock", "me", 1000, 1000),
		"lock_keep_alive":    keepLock("lock", 1),
		"lock_release":       release("lock", 1),
		"lock_cancel":        cancel("lock", 1, true),
		"session_open":       openSession(1000, false),
		"session_keep_alive": keepSession(1),
		"session_close":      closeSession(1),
		"expire":             expire(),
		"restore_chunk":      restoreChunk(1, 0, []byte("x")),
		"restore_commit":     restoreCommit(1, 1),
		"restore_abort":      restoreAbort(1),
	}
}

// TestEveryCommand: whoever adds one to the schema meets this list, and with it
// Check, the search for unknown fields, and guards.
func TestEveryCommand(t *testing.T) {
	all := everyCommand()
	fields := (&trivetpb.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("command").Fields()
	require.Equal(t, fields.Len(), len(all))
	guards := "op lease_grant lease_keep_alive lease_revoke lock_acquire lock_keep_alive lock_release lock_cancel"
	for i := range fields.Len() {
		field := fields.Get(i)
		name := string(field.Name())
		t.Run(name, func(t *testing.T) {
			c := all[name]
			leaders := name == "marker" || name == "expire"
			p := CheckCommand(c, Limits{})
			require.Equal(t, leaders, p != nil, "%v", p)
			if !leaders {
				require.Nil(t, CheckCommand(in(proto.Clone(c).(*trivetpb.Command), 1, 1, 0), Limits{}))
				require.Nil(t, CheckCommand(under(proto.Clone(c).(*trivetpb.Command), "key", "request"), Limits{}))
				p := CheckCommand(guarded(proto.Clone(c).(*trivetpb.Command), "lock", 1), Limits{})
				require.Equal(t, strings.Contains(" "+guards+" ", " "+name+" "), p == nil, "%v", p)
			}
			_, err := New().Apply(1, &trivetpb.Entry{Commands: []*trivetpb.Command{c}})
			require.NoError(t, err)

			refusedWhole := func(c *trivetpb.Command, what string) {
				t.Helper()
				require.Equal(t, trivetpb.Code_BAD_REQUEST, CheckCommand(c, Limits{}).GetCode(), what)
				s := New()
				_, err := s.Apply(1, &trivetpb.Entry{Commands: []*trivetpb.Command{opCommand(putOp("a", "")), c}})
				require.ErrorIs(t, err, ErrUnknownCommand, what)
				require.Equal(t, New().Stats(), s.Stats())
			}
			later := proto.Clone(c).(*trivetpb.Command)
			m := later.ProtoReflect().Mutable(field).Message()
			m.SetUnknown(unknownField)
			refusedWhole(later, "a new field")
			if name != "op" { // an op that is none is refused by another way
				empty := &trivetpb.Command{}
				empty.ProtoReflect().Set(field, empty.ProtoReflect().NewField(field))
				require.NotPanics(t, func() { CheckCommand(empty, Limits{}) })
			}
		})
	}
	for name, c := range map[string]*trivetpb.Command{
		"a missing command":        nil,
		"a guard that is missing":  {Command: opCommand(putOp("a", "")).Command, Guards: []*trivetpb.Guard{nil}},
		"a guard's new field":      {Command: opCommand(putOp("a", "")).Command, Guards: []*trivetpb.Guard{withUnknown(&trivetpb.Guard{Lock: []byte("l")})}},
		"a missing grant":          {Command: &trivetpb.Command_LeaseGrant{}},
		"a missing expire":         {Command: &trivetpb.Command_Expire{}},
		"a missing session":        {Command: &trivetpb.Command_SessionOpen{}},
		"a missing chunk":          {Command: &trivetpb.Command_RestoreChunk{}},
		"a missing marker":         {Command: &trivetpb.Command_Marker{}},
		"a guard's missing marker": guarded(&trivetpb.Command{Command: &trivetpb.Command_Marker{}}, "l", 1),
	} {
		require.Equal(t, trivetpb.Code_BAD_REQUEST, CheckCommand(c, Limits{}).GetCode(), name)
		_, err := New().Apply(1, &trivetpb.Entry{Commands: []*trivetpb.Command{c}})
		require.ErrorIs(t, err, ErrUnknownCommand, name)
	}
}

// TestCheckCommand: rows are what is refused without looking at the state. Apply
// refuses the same, whoever proposed it, and changes nothing.
func TestCheckCommand(t *testing.T) {
	long := strings.Repeat("n", MaxLockNameBytes+1)
	both := leasePut("a", "", 7)
	both.GetPut().TtlMs = 1000
	guards := func(n int) *trivetpb.Command {
		c := opCommand(getOp("a"))
		for range n {
			guarded(c, "lock", 1)
		}
		return c
	}
	const good = trivetpb.Code_OK
	const bad = trivetpb.Code_BAD_REQUEST
	for name, c := range map[string]struct {
		c      *trivetpb.Command
		code   trivetpb.Code
		detail string
	}{
		"the shortest ttl":               {grant(1000), good, ""},
		"a shorter ttl":                  {grant(999), bad, "999 ms"},
		"no ttl":                         {grant(0), bad, "0 ms, and may be 1000 to 86400000"},
		"the longest ttl":                {grant(24 * 3600 * 1000), good, ""},
		"a longer ttl":                   {grant(24*3600*1000 + 1), bad, "86400001 ms"},
		"a put's ttl":                    {opCommand(ttlPut("a", "", 1000)), good, ""},
		"a put's short ttl":              {opCommand(ttlPut("a", "", 999)), bad, "999 ms"},
		"a put's long ttl":               {opCommand(ttlPut("a", "", 1<<40)), bad, "1099511627776 ms"},
		"a put's ttl in a txn":           {opCommand(txnOp(getOp("a"), ttlPut("a", "", 1))), bad, "then[1]: "},
		"a put with a lease and a ttl":   {opCommand(both), bad, "not both"},
		"a session's ttl":                {openSession(1, true), bad, "1 ms"},
		"a lock's ttl":                   {acquire("lock", "", 1, 0), bad, "1 ms"},
		"the longest wait":               {acquire("lock", "", 1000, 3600*1000), good, ""},
		"a longer wait":                  {acquire("lock", "", 1000, 3600*1000+1), bad, "3600001 ms"},
		"the longest name":               {acquire(long[1:], "", 1000, 0), good, ""},
		"a longer name":                  {acquire(long, "", 1000, 0), bad, "1025 bytes"},
		"no name":                        {acquire("", "", 1000, 0), bad, "0 bytes"},
		"no name to keep":                {keepLock("", 1), bad, "0 bytes"},
		"no name to release":             {release("", 1), bad, "0 bytes"},
		"no name to cancel":              {cancel(long, 1, false), bad, "1025 bytes"},
		"the longest owner":              {acquire("lock", long[1:], 1000, 0), good, ""},
		"a longer owner":                 {acquire("lock", long, 1000, 0), bad, "1025 bytes"},
		"an owner that is no text":       {acquire("lock", "\xff", 1000, 0), bad, "UTF-8"},
		"as many guards as may be":       {guards(16), trivetpb.Code_GUARD_FAILED, "guards[0]"},
		"a guard more":                   {guards(17), bad, "17 guards"},
		"a guard without a name":         {guarded(guarded(opCommand(getOp("a")), "lock", 1), "", 1), bad, "guards[1]: "},
		"a guard of a session":           {guarded(openSession(1000, false), "lock", 1), bad, "guards go with"},
		"a guard of a restore":           {guarded(restoreAbort(1), "lock", 1), bad, "guards go with"},
		"a chunk":                        {restoreChunk(1, 0, make([]byte, MaxChunkBytes)), good, ""},
		"a larger chunk":                 {restoreChunk(1, 0, make([]byte, MaxChunkBytes+1)), trivetpb.Code_TOO_LARGE, "4194305 bytes"},
		"an empty chunk":                 {restoreChunk(1, 0, nil), bad, "empty"},
		"an op that is refused":          {opCommand(putOp("", "")), trivetpb.Code_BAD_KEY, "empty"},
		"a value over the server's":      {opCommand(putOp("a", strings.Repeat("v", 1<<20+1))), trivetpb.Code_TOO_LARGE, "1048577 bytes"},
		"an op that is fine":             {opCommand(txnOp(putOp("a", ""), deleteOp("b"))), good, ""},
		"a lease that does not exist":    {keepAlive(0), trivetpb.Code_LEASE_NOT_FOUND, "no lease 0"},
		"a session that does not exist":  {keepSession(0), trivetpb.Code_SESSION_EXPIRED, "no session 0"},
		"an upload that does not exist":  {restoreCommit(1, 0), bad, "no upload 1"},
		"giving up what does not exist":  {restoreAbort(1), good, ""},
		"a lease of a put, long past it": {opCommand(leasePut("a", "", 9)), trivetpb.Code_LEASE_NOT_FOUND, "no lease 9"},
	} {
		t.Run(name, func(t *testing.T) {
			p := CheckCommand(c.c, Limits{})
			// What only the state can refuse is let through.
			if c.code != good && p != nil {
				require.Equal(t, c.code, p.Code, "%v", p)
				require.Contains(t, p.Detail, c.detail)
			}
			if c.code == good {
				require.Nil(t, p)
			}
			if c.code == trivetpb.Code_TOO_LARGE {
				require.NotZero(t, p.Limit)
				if c.c.GetOp() != nil {
					return // the server's limit, not the state machine's
				}
			}
			s := New()
			r := at(t, s, 0, c.c)
			require.Equal(t, c.code, r.Problem.GetCode(), "%v", r)
			require.Contains(t, r.Problem.GetDetail(), c.detail)
			if c.code != good {
				want := New().Stats()
				want.Index = 1
				require.Equal(t, want, s.Stats())
			}
		})
	}
	require.Equal(t, trivetpb.Code_TOO_LARGE, CheckCommand(opCommand(putOp("a", "abcd")), Limits{MaxValueBytes: 3}).GetCode())
}

// TestProblemsNameWhatIsWrong: one sentence each, without a full stop.
func TestProblemsNameWhatIsWrong(t *testing.T) {
	s := fullStore(t)
	for i, c := range []*trivetpb.Command{
		grant(1), keepAlive(9), acquire("lock/a", "", 1000, 0), release("lock/a", 9), guarded(opCommand(getOp("a")), "x", 1),
		in(opCommand(getOp("a")), 9, 1, 0), restoreChunk(7, 0, []byte("x")), restoreCommit(7, 1), opCommand(leasePut("a", "", 1)),
	} {
		p := at(t, s, 0, c).Problem
		require.NotNil(t, p, i)
		require.NotEmpty(t, p.Detail)
		require.False(t, strings.HasSuffix(p.Detail, ".") || strings.Contains(p.Detail, "%!"), fmt.Sprint(p.Detail))
	}
}
