package store

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"trivet/trivetpb"
)

func opened(t testing.TB, s *Store, ttlMS uint64, node bool) uint64 {
	t.Helper()
	r := fine(t, s, 0, openSession(ttlMS, node)).GetSession()
	require.Equal(t, ttlMS, r.TtlMs)
	require.True(t, s.HasSession(r.Session))
	return r.Session
}

// TestARepeatGetsTheFirstAnswer: whatever the command was, under both kinds of
// identity, and in a store that was restored in between.
func TestARepeatGetsTheFirstAnswer(t *testing.T) {
	prev := putOp("a", "3")
	prev.GetPut().Prev = true
	for name, c := range map[string]*trivetpb.Command{
		"a put":              opCommand(putOp("a", "2")),
		"a put with prev":    opCommand(prev),
		"an add":             opCommand(addOp("n", 1)),
		"a delete":           opCommand(deleteOp("a")),
		"a range":            opCommand(rangeOp("", "")),
		"a plain txn":        opCommand(txnOp(putOp("a", "5"), addOp("n", 1), putOp("b", ""))),
		"a long txn":         opCommand(txnOp(manyPuts(300)...)),
		"an empty txn":       opCommand(txnOp()),
		"a txn":              opCommand(txnOp(putOp("a", "5"), addOp("n", 1), getOp("a"))),
		"a problem":          opCommand(addOp("a", 1)),
		"a problem in a txn": opCommand(txnOp(putOp("b", ""), addOp("a", 1))),
		"a malformed one":    opCommand(putOp("", "")),
		"a failing guard":    guarded(opCommand(putOp("a", "")), "lock", 1),
		"a grant":            grant(5000),
		"a bad grant":        grant(1),
		"a lock":             acquire("lock", "me", 5000, 0),
		"a place in a queue": acquire("held", "me", 5000, 5000),
		"a lock that is not": acquire("held", "me", 5000, 0),
		"a session":          openSession(5000, false),
		"a chunk":            restoreChunk(1, 0, []byte("x")),
		"a commit":           restoreCommit(1, 1),
	} {
		for _, identity := range []string{"client", "node", "key"} {
			t.Run(name+"/"+identity, func(t *testing.T) {
				s := New()
				fine(t, s, 0, opCommand(putOp("a", "1")), acquire("held", "", 60_000, 0))
				session := opened(t, s, 60_000, identity == "node")
				command := func() *trivetpb.Command {
					c := proto.Clone(c).(*trivetpb.Command)
					if identity == "key" {
						return under(c, "key", "request")
					}
					return in(c, session, 1, 0)
				}
				first := at(t, s, 0, command())
				require.False(t, first.Replayed)
				want := proto.Clone(first).(*trivetpb.Result)
				want.Replayed = true
				at(t, s, 0, opCommand(putOp("other", "")), acquire("lock", "another", 5000, 0))
				for _, s := range []*Store{s, restored(t, s)} {
					before := s.Stats()
					again := at(t, s, 100, command(), command())
					require.True(t, proto.Equal(want, again), "want %v\ngot  %v", want, again)
					after := s.Stats()
					require.Equal(t, []uint64{before.Revision, before.Answers, before.AnswerBytes, before.Leases, before.Waiters, before.Sessions},
						[]uint64{after.Revision, after.Answers, after.AnswerBytes, after.Leases, after.Waiters, after.Sessions})
				}
				require.False(t, first.Replayed, "the first answer is as it was")
			})
		}
	}
}

// manyPuts are so many that a txn of them has a long answer.
func manyPuts(n int) (ops []*trivetpb.Op) {
	for i := range n {
		ops = append(ops, putOp(fmt.Sprint("many", i), ""))
	}
	return ops
}

// TestWhatIsRefusedForNowIsNotRemembered: it may succeed when it is tried again.
func TestWhatIsRefusedForNowIsNotRemembered(t *testing.T) {
	s := New()
	session := opened(t, s, 60_000, false)
	quota := settingsEntry(&trivetpb.Settings{QuotaBytes: 10})
	apply(t, s, quota)
	put := func() *trivetpb.Command { return in(opCommand(putOp("a", "1")), session, 1, 0) }
	keyed := func() *trivetpb.Command { return under(opCommand(putOp("b", "1")), "key", "put") }
	refused(t, s, 0, trivetpb.Code_QUOTA_EXCEEDED, put())
	refused(t, s, 0, trivetpb.Code_QUOTA_EXCEEDED, keyed())
	require.Zero(t, s.Stats().Answers)
	apply(t, s, settingsEntry(&trivetpb.Settings{}))
	require.False(t, fine(t, s, 0, put()).Replayed)
	require.False(t, fine(t, s, 0, keyed()).Replayed)
	require.True(t, fine(t, s, 0, put()).Replayed)
}

// TestIdentities: rows are the identity of a command to a session whose ack is
// 10, which remembers the seqs 12 and 20.
func TestIdentities(t *testing.T) {
	fp := strings.Repeat("f", FingerprintBytes)
	const known = 1 << 60 // stands for the session's id
	for name, c := range map[string]struct {
		identity *trivetpb.Command
		code     trivetpb.Code
		unknown  bool
		replayed bool
		detail   string
	}{
		"the next seq":               {&trivetpb.Command{Session: known, Seq: 21, Ack: 10}, 0, false, false, ""},
		"a seq before others":        {&trivetpb.Command{Session: known, Seq: 11, Ack: 0}, 0, false, false, ""},
		"a repeat":                   {&trivetpb.Command{Session: known, Seq: 12, Ack: 0}, 0, false, true, ""},
		"a repeat with a higher ack": {&trivetpb.Command{Session: known, Seq: 20, Ack: 19}, 0, false, true, ""},
		"what was acknowledged":      {&trivetpb.Command{Session: known, Seq: 10, Ack: 0}, trivetpb.Code_BAD_REQUEST, true, false, "its answer is forgotten"},
		"the first, long ago":        {&trivetpb.Command{Session: known, Seq: 1, Ack: 0}, trivetpb.Code_BAD_REQUEST, true, false, "10 was acknowledged"},
		"the last of the window":     {&trivetpb.Command{Session: known, Seq: 10 + MaxOpenSeqs, Ack: 10}, 0, false, false, ""},
		"past the window":            {&trivetpb.Command{Session: known, Seq: 11 + MaxOpenSeqs, Ack: 10}, trivetpb.Code_BAD_REQUEST, false, false, "may be 65536"},
		"its ack makes the window":   {&trivetpb.Command{Session: known, Seq: 11 + MaxOpenSeqs, Ack: 11}, 0, false, false, ""},
		"its ack takes it back":      {&trivetpb.Command{Session: known, Seq: 30, Ack: 30}, trivetpb.Code_BAD_REQUEST, false, false, "not less than the seq"},
		"no such session":            {&trivetpb.Command{Session: 12345, Seq: 1}, trivetpb.Code_SESSION_EXPIRED, true, false, "session 12345"},
		"a session without a seq":    {&trivetpb.Command{Session: known}, trivetpb.Code_BAD_REQUEST, false, false, "needs a seq"},
		"a seq without a session":    {&trivetpb.Command{Seq: 1}, trivetpb.Code_BAD_REQUEST, false, false, "need a session"},
		"an ack without a session":   {&trivetpb.Command{Ack: 1}, trivetpb.Code_BAD_REQUEST, false, false, "need a session"},
		"a key":                      {&trivetpb.Command{IdempotencyKey: []byte("new"), Fingerprint: []byte(fp)}, 0, false, false, ""},
		"the key again":              {&trivetpb.Command{IdempotencyKey: []byte("key"), Fingerprint: []byte(fp)}, 0, false, true, ""},
		"the key, another request":   {&trivetpb.Command{IdempotencyKey: []byte("key"), Fingerprint: []byte(strings.Repeat("g", 16))}, trivetpb.Code_IDEMPOTENCY_KEY_REUSED, false, false, "another request"},
		"the longest key":            {&trivetpb.Command{IdempotencyKey: make([]byte, 128), Fingerprint: []byte(fp)}, 0, false, false, ""},
		"a longer key":               {&trivetpb.Command{IdempotencyKey: make([]byte, 129), Fingerprint: []byte(fp)}, trivetpb.Code_BAD_REQUEST, false, false, "129 bytes"},
		"a key and no fingerprint":   {&trivetpb.Command{IdempotencyKey: []byte("key")}, trivetpb.Code_BAD_REQUEST, false, false, "0 bytes"},
		"a long fingerprint":         {&trivetpb.Command{IdempotencyKey: []byte("key"), Fingerprint: []byte(fp + "f")}, trivetpb.Code_BAD_REQUEST, false, false, "17 bytes"},
		"a fingerprint and no key":   {&trivetpb.Command{Fingerprint: []byte(fp)}, trivetpb.Code_BAD_REQUEST, false, false, "0 bytes"},
		"both":                       {&trivetpb.Command{Session: known, Seq: 30, IdempotencyKey: []byte("key"), Fingerprint: []byte(fp)}, trivetpb.Code_BAD_REQUEST, false, false, "not both"},
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			session := opened(t, s, 60_000, true)
			fine(t, s, 0, in(opCommand(putOp("a", "12")), session, 12, 0), in(opCommand(putOp("a", "20")), session, 20, 10),
				&trivetpb.Command{Command: opCommand(putOp("a", "")).Command, IdempotencyKey: []byte("key"), Fingerprint: []byte(fp)})
			command := proto.Clone(c.identity).(*trivetpb.Command)
			if command.Session == known {
				command.Session = session
			}
			command.Command = opCommand(putOp("applied", "")).Command
			static := CheckCommand(command, Limits{})
			r := at(t, s, 0, command)
			require.Equal(t, c.code, r.Problem.GetCode(), "%v", r)
			require.Equal(t, c.unknown, r.Problem.GetUnknown())
			require.Contains(t, r.Problem.GetDetail(), c.detail)
			require.Equal(t, c.replayed, r.Replayed)
			_, applied, _ := s.Get([]byte("applied"))
			require.Equal(t, c.code == 0 && !c.replayed, applied)
			if static != nil {
				require.Equal(t, c.code, static.Code)
			} else if c.code == trivetpb.Code_BAD_REQUEST {
				require.NotZero(t, c.identity.Seq, "the rest is refused before it is proposed")
			}
			restored(t, s)
		})
	}
}

// TestASessionLivesAsLongAsItIsNamed: by anything, applied or not.
func TestASessionLivesAsLongAsItIsNamed(t *testing.T) {
	for name, command := range map[string]func(session uint64) *trivetpb.Command{
		"a write":      func(id uint64) *trivetpb.Command { return in(opCommand(putOp("a", "")), id, 5, 3) },
		"a repeat":     func(id uint64) *trivetpb.Command { return in(opCommand(putOp("a", "")), id, 4, 3) },
		"a refusal":    func(id uint64) *trivetpb.Command { return in(opCommand(putOp("a", "")), id, 2, 1) },
		"a keepalive":  keepSession,
		"a bad repeat": func(id uint64) *trivetpb.Command { return in(opCommand(putOp("a", "")), id, 1<<40, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			session, idle := opened(t, s, 5000, false), opened(t, s, 5000, false)
			fine(t, s, 0, in(opCommand(putOp("a", "1")), session, 4, 3), in(opCommand(putOp("a", "1")), idle, 4, 3))
			at(t, s, 3000, command(session))
			fine(t, s, 5000, expire())
			require.True(t, s.HasSession(session))
			require.False(t, s.HasSession(idle))
			next, _ := s.NextDeadline()
			require.EqualValues(t, 8000, next)
			fine(t, s, 8000, expire())
			require.False(t, s.HasSession(session))
			require.Zero(t, s.Stats().Answers+s.Stats().AnswerBytes)
			p := refused(t, s, 8000, trivetpb.Code_SESSION_EXPIRED, in(opCommand(putOp("a", "1")), session, 4, 3))
			require.True(t, p.Unknown, "it was applied once, and nobody knows any more")
			require.False(t, refused(t, s, 8000, trivetpb.Code_SESSION_EXPIRED, keepSession(session)).Unknown)
			refused(t, s, 8000, trivetpb.Code_SESSION_EXPIRED, closeSession(session))
		})
	}
}

func TestClosingASession(t *testing.T) {
	s := New()
	session, node := opened(t, s, 5000, false), opened(t, s, 5000, true)
	fine(t, s, 0, in(opCommand(putOp("a", "1")), session, 1, 0))
	// By a command in the session itself, and by one of another.
	fine(t, s, 0, in(closeSession(session), session, 2, 0))
	require.False(t, s.HasSession(session))
	require.Zero(t, s.Stats().Answers)
	session = opened(t, s, 5000, false)
	r := apply(t, s, &trivetpb.Entry{Commands: []*trivetpb.Command{
		in(opCommand(putOp("a", "")), session, 1, 0), in(closeSession(session), node, 1, 0), in(opCommand(putOp("b", "")), session, 2, 0),
	}})
	requireSound(t, s, true)
	require.Nil(t, r[1].Problem)
	require.Equal(t, trivetpb.Code_SESSION_EXPIRED, r[2].Problem.GetCode(), "in the same entry")
	require.True(t, fine(t, s, 0, in(closeSession(session), node, 1, 0)).Replayed)
	require.EqualValues(t, 1, s.Stats().Sessions)
}

func TestAnIdempotencyKeyIsRememberedForTenMinutes(t *testing.T) {
	s := New()
	put := func() *trivetpb.Command { return under(opCommand(putOp("a", "")), "key", "put") }
	fine(t, s, 1000, put())
	require.True(t, fine(t, s, 500_000, put()).Replayed)
	fine(t, s, 600_999, expire())
	require.True(t, fine(t, s, 600_999, put()).Replayed)
	fine(t, s, 601_000, expire())
	require.False(t, fine(t, s, 601_000, put()).Replayed, "a repeat does not make it last longer")
}

func TestThereAreSoManySessions(t *testing.T) {
	s := New()
	for i := range MaxSessions {
		fineFast(t, s, openSession(1000+uint64(i%5), false))
	}
	for range MaxNodeSessions {
		fineFast(t, s, openSession(5000, true))
	}
	r := apply(t, s, &trivetpb.Entry{ClockMs: 1000, Commands: []*trivetpb.Command{
		openSession(1000, false), openSession(1000, true), expire(), openSession(5000, false), openSession(5000, true),
	}})
	require.Equal(t, trivetpb.Code_OVERLOADED, r[0].Problem.GetCode())
	require.Contains(t, r[0].Problem.Detail, "100000 sessions")
	require.Equal(t, trivetpb.Code_OVERLOADED, r[1].Problem.GetCode())
	require.Contains(t, r[1].Problem.Detail, "1000 sessions of nodes")
	require.Nil(t, r[3].Problem)
	require.Equal(t, trivetpb.Code_OVERLOADED, r[4].Problem.GetCode())
}

// fullOf makes commands under one identity, each with an answer of four
// megabytes, until one is refused, and returns how many were not.
func fullOf(t *testing.T, s *Store, next func(c *trivetpb.Command, n uint64) *trivetpb.Command) (n uint64, refusal *trivetpb.Problem) {
	t.Helper()
	for n = 1; ; n++ {
		r := apply(t, s, &trivetpb.Entry{Commands: []*trivetpb.Command{next(opCommand(getOp("large")), n)}})[0]
		if r.Problem != nil {
			require.Equal(t, trivetpb.Code_OVERLOADED, r.Problem.Code)
			require.Nil(t, r.Result)
			return n - 1, r.Problem
		}
	}
}

func largeStore(t *testing.T) *Store {
	s := New()
	apply(t, s, entryOf(0, putOp("large", strings.Repeat("x", HardMaxValueBytes))))
	return s
}

// TestAFullSessionRefusesAndForgetsNothing: and takes more once something was
// acknowledged.
func TestAFullSessionRefusesAndForgetsNothing(t *testing.T) {
	s := largeStore(t)
	session, other, node := opened(t, s, 60_000, false), opened(t, s, 60_000, false), opened(t, s, 60_000, true)
	n, p := fullOf(t, s, func(c *trivetpb.Command, n uint64) *trivetpb.Command { return in(c, session, n, 0) })
	require.EqualValues(t, 3, n)
	require.Contains(t, p.Detail, "16777216")
	// A write that would be too much is taken back whole; a small one has room.
	big := putOp("large", "smaller")
	big.GetPut().Prev = true
	r := at(t, s, 0, in(opCommand(txnOp(big, ttlPut("k", "", 1000))), session, 5, 0))
	require.Equal(t, trivetpb.Code_OVERLOADED, r.Problem.GetCode())
	require.Zero(t, s.Stats().Leases)
	item, _, _ := s.Get([]byte("large"))
	require.Len(t, item.Value, HardMaxValueBytes)
	fine(t, s, 0, in(opCommand(putOp("small", "")), session, 5, 0))
	fine(t, s, 0, in(opCommand(getOp("large")), other, 1, 0))
	require.True(t, fine(t, s, 0, in(opCommand(getOp("large")), session, 1, 0)).Replayed)
	n, _ = fullOf(t, s, func(c *trivetpb.Command, n uint64) *trivetpb.Command { return in(c, node, n, 0) })
	require.EqualValues(t, 15, n)
	again := restored(t, s)
	for _, s := range []*Store{s, again} {
		require.Equal(t, trivetpb.Code_OVERLOADED, at(t, s, 0, in(opCommand(getOp("large")), session, 6, 0)).Problem.GetCode())
		fine(t, s, 0, in(opCommand(getOp("large")), session, 6, 1))
		fine(t, s, 0, in(opCommand(getOp("large")), node, 16, 3))
	}
	require.Equal(t, s.Stats(), again.Stats())
}

// TestAPlainCommandNeedsRoomForItsAnswerToo: it is refused before it is applied.
func TestAPlainCommandNeedsRoomForItsAnswerToo(t *testing.T) {
	s := New()
	session := opened(t, s, 60_000, false)
	large := strings.Repeat("x", HardMaxValueBytes-300)
	apply(t, s, entryOf(0, putOp("large", large), putOp("rest", strings.Repeat("x", 900))))
	for n := range uint64(4) {
		fine(t, s, 0, in(opCommand(getOp("large")), session, n+1, 0))
	}
	for _, c := range []*trivetpb.Command{grant(1000), acquire("lock", "", 1000, 0), openSession(1000, false)} {
		before := s.Stats()
		r := at(t, s, 0, in(c, session, 9, 0))
		require.Equal(t, trivetpb.Code_OVERLOADED, r.Problem.GetCode())
		after := s.Stats()
		require.Equal(t, []uint64{before.Leases, before.Locks, before.Sessions, before.Answers}, []uint64{after.Leases, after.Locks, after.Sessions, after.Answers})
	}
	fine(t, s, 0, in(grant(1000), session, 9, 1))
}

// TestAFailureNeedsRoomToo: one that is not remembered must be of a kind that says
// so. Else a repeat, once there is room, could do what was called certainly not
// applied.
func TestAFailureNeedsRoomToo(t *testing.T) {
	s := New()
	session := opened(t, s, 60_000, false)
	apply(t, s, entryOf(0, putOp("large", strings.Repeat("x", HardMaxValueBytes-300)), putOp("a", "text")))
	seq := uint64(1)
	for _, op := range []*trivetpb.Op{getOp("large"), getOp("a")} { // up to the last bytes
		for ; ; seq++ {
			if r := at(t, s, 0, in(opCommand(op), session, seq, 0)); r.Problem != nil {
				require.Equal(t, trivetpb.Code_OVERLOADED, r.Problem.Code)
				break
			}
		}
	}
	for _, c := range []*trivetpb.Command{
		opCommand(addOp("a", 1)), guarded(opCommand(putOp("b", "")), "lock", 1),
		guarded(grant(1000), "lock", 1), release("lock", 1), grant(1),
	} {
		before := s.Stats()
		r := at(t, s, 0, in(c, session, seq, 0))
		require.Equal(t, trivetpb.Code_OVERLOADED, r.Problem.GetCode(), "%v", r.Problem)
		require.Equal(t, before.Answers, s.Stats().Answers)
	}
	requireSound(t, s, true)
}

// TestTheAnswersOfAllClientsHaveABound, which neither nodes nor idempotency keys
// take part in; and the keys have their own.
func TestTheAnswersOfAllClientsHaveABound(t *testing.T) {
	s := largeStore(t)
	var total uint64
	var last *trivetpb.Problem
	for i := 0; i < 20; i++ {
		session := opened(t, s, 60_000, false)
		n, p := fullOf(t, s, func(c *trivetpb.Command, n uint64) *trivetpb.Command { return in(c, session, n, 0) })
		total, last = total+n, p
	}
	require.EqualValues(t, 31, total)
	require.Contains(t, last.Detail, "134217728")
	node := opened(t, s, 60_000, true)
	fine(t, s, 0, in(opCommand(getOp("large")), node, 1, 0))
	n, p := fullOf(t, s, func(c *trivetpb.Command, n uint64) *trivetpb.Command { return under(c, fmt.Sprint(n), "get") })
	require.EqualValues(t, 63, n)
	require.Contains(t, p.Detail, "268435456")
	r := at(t, s, 0, under(grant(1000), "one more, small", "grant"))
	require.Nil(t, r.Problem, "%v", r.Problem)
	fine(t, s, 0, in(opCommand(getOp("large")), node, 2, 0))
	require.True(t, fine(t, s, 0, under(opCommand(getOp("large")), "1", "get")).Replayed)
	fine(t, s, IdempotencyMS, expire(), under(opCommand(getOp("large")), "1", "get"))
}

// TestAnswersInAnyOrder compares the pages with a map: seqs out of order, with
// gaps, Views in between.
func TestAnswersInAnyOrder(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := New()
		apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 3}))
		id := opened(t, s, 60_000, seed%2 == 0)
		have := map[uint64]bool{}
		var ack uint64
		var views []*View
		var raws [][]byte
		for range 300 {
			seq := ack + 1 + uint64(random.IntN(1+int(1)<<uint(random.IntN(12))))
			if random.IntN(3) == 0 {
				ack = min(ack+uint64(random.IntN(20)), seq-1)
			}
			r := fineFast(t, s, in(opCommand(addOp("n", 1)), id, seq, ack))
			require.Equal(t, have[seq], r.Replayed)
			have[seq] = true
			for old := range have {
				if old <= ack {
					delete(have, old)
				}
			}
			require.EqualValues(t, len(have), s.Stats().Answers)
			if random.IntN(20) == 0 {
				requireSound(t, s, true)
				v := view(t, s, 0)
				views, raws = append(views, v), append(raws, rawRecords(t, v))
			}
		}
		for i, v := range views {
			require.Equal(t, raws[i], rawRecords(t, v), "what a View has of a session stays")
		}
		restored(t, s)
	}
}

// TestSnapshotsWhileSessionsWrite is for the race detector.
func TestSnapshotsWhileSessionsWrite(t *testing.T) {
	s := New()
	apply(t, s, settingsEntry(&trivetpb.Settings{HistoryRevisions: 30}))
	id := opened(t, s, 60_000, true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			v, err := s.View(0)
			if err != nil {
				t.Error(err)
				return
			}
			before := rawRecords(t, v)
			if string(before) != string(rawRecords(t, v)) {
				t.Error("a View's snapshot changed")
			}
			v.Close()
		}
	}()
	for seq := uint64(1); ; seq++ {
		select {
		case <-done:
			requireSound(t, s, false)
			return
		default:
		}
		apply(t, s, &trivetpb.Entry{ClockMs: seq, Commands: []*trivetpb.Command{
			in(opCommand(ttlPut(fmt.Sprint("k", seq%50), "", 1000)), id, seq, max(seq, 40)-40), acquire("lock", "", 1000, 100), expire(),
			under(grant(1000), fmt.Sprint(seq%100), "grant"),
		}})
	}
}

// TestAViewKeepsItsAnswers: what the writer forgets, and writes in its place, does not
// reach them. Answers are short at first and grow longer, and there are pages of which a
// View has a part.
func TestAViewKeepsItsAnswers(t *testing.T) {
	s := New()
	session := opened(t, s, 60_000, false)
	seq := uint64(0)
	put := func(n int) {
		for range n {
			seq++
			at(t, s, 0, in(opCommand(txnOp(putOp("a", ""), putOp("b", ""))), session, seq, max(seq, 2*pageAnswers)-2*pageAnswers))
		}
	}
	put(3 * pageAnswers / 2)
	for range 4 {
		v := view(t, s, 0)
		before := rawRecords(t, v)
		put(5 * pageAnswers / 2)
		require.Equal(t, before, rawRecords(t, v))
		v.Close()
	}
}

func TestAResultKeepsNoOthers(t *testing.T) {
	s := New()
	id := opened(t, s, 60_000, false)
	put := putOp("a", "")
	put.GetPut().Prev = true
	results := apply(t, s, &trivetpb.Entry{Commands: []*trivetpb.Command{
		in(opCommand(putOp("a", "")), id, 1, 0), in(opCommand(addOp("n", 1)), id, 2, 0), in(opCommand(txnOp(putOp("a", ""), addOp("n", 1))), id, 3, 0),
		in(opCommand(put), id, 4, 0), in(opCommand(txnOp(put, getOp("n"), addOp("n", 1))), id, 5, 0), in(opCommand(addOp("a", 1)), id, 6, 0),
	}})
	one, _ := s.state.sessions.get(id)
	for i, r := range results {
		kept := one.find(uint64(i + 1))
		require.NotSame(t, r, kept)
		require.True(t, proto.Equal(r, kept))
		require.Equal(t, i >= 3, kept == one.find(uint64(i+1)), "what is short and has no items is text")
	}
	require.NotSame(t, results[3].GetPut(), one.find(4).GetPut())
	require.NotSame(t, results[4].GetTxn().Results[0], one.find(5).GetTxn().Results[0])
	require.NotSame(t, results[4].GetTxn().Results[2].GetAdd(), one.find(5).GetTxn().Results[2].GetAdd())
}
