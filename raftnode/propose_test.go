package raftnode

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// desk is a proposer whose raft and whose way to the leader are lists.
type desk struct {
	*proposer
	entries  []raft.Log
	sent     []*group
	sentTo   []string
	leaderIs string
}

func newDesk() *desk {
	d := &desk{}
	d.proposer = &proposer{
		counters: newCounters(),
		boot:     7, maxBytes: 1 << 20, inFlight: maxInFlightFar, self: "n1",
		apply:   func(l raft.Log) { d.entries = append(d.entries, l) },
		forward: func(to string, g *group) { d.sent, d.sentTo = append(d.sent, g), append(d.sentTo, to) },
		leader:  func() string { return d.leaderIs },
		wake:    make(chan struct{}, 1),
		ctx:     context.Background(),
		session: &session{id: 77},
	}
	d.proposer.entries = map[uint64]*group{}
	return d
}

// submit submits commands as this node's callers do, or as another member does.
func (d *desk) submit(commands [][]byte, hop bool) (*proposal, *trivetpb.Problem) {
	p := make([]pending, len(commands))
	for i, c := range commands {
		p[i].data = c
		if hop {
			p[i].kind = identified
		}
	}
	return d.proposer.submit(p, hop)
}

func (d *desk) lead(term uint64) {
	d.leaderIs = "n1"
	d.marked = term
	d.serve(&leadership{term: term, start: 5, clockMS: 1000, since: time.Now()})
}

// commandsOf returns commands of about the given size, each another one.
func commandsOf(n, size int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		value := make([]byte, max(0, size-20))
		c := put(fmt.Sprintf("%06d", i), string(value))
		out[i], _ = c.MarshalVT()
		for len(out[i]) < size { // lengths of lengths
			value = append(value, 0)
			out[i], _ = put(fmt.Sprintf("%06d", i), string(value)).MarshalVT()
		}
	}
	return out
}

// command decodes a command of an entry.
func (d *desk) command(t *testing.T, entry, i int) *trivetpb.Command {
	t.Helper()
	var e trivetpb.Entry
	require.NoError(t, e.UnmarshalVT(d.entries[entry].Data))
	return e.Commands[i]
}

func okResults(n int) []*trivetpb.Result {
	out := make([]*trivetpb.Result, n)
	for i := range out {
		out[i] = &trivetpb.Result{Revision: uint64(i + 1)}
	}
	return out
}

// stored and applied, as raft would.
func (d *desk) commit(t *testing.T, i int, index uint64, n int) {
	t.Helper()
	d.commitWith(i, index, okResults(n))
}

func (d *desk) commitWith(i int, index uint64, results []*trivetpb.Result) {
	l := d.entries[i]
	l.Index = index
	d.storing([]*raft.Log{&l})
	d.applied(&l, results)
}

func TestEntryIsTheProtobufOfItsCommands(t *testing.T) {
	d := newDesk()
	d.lead(3)
	a, b := put("a", "1"), put("b", "2")
	var encoded [][]byte
	for _, c := range []*trivetpb.Command{a, b} {
		e, err := c.MarshalVT()
		require.NoError(t, err)
		encoded = append(encoded, e)
	}
	_, problem := d.submit(encoded, false)
	require.Nil(t, problem)
	d.dispatchAll()
	var e trivetpb.Entry
	require.NoError(t, e.UnmarshalVT(d.entries[0].Data))
	require.GreaterOrEqual(t, e.ClockMs, uint64(1000))
	a.Session, a.Seq = 77, 1
	b.Session, b.Seq = 77, 2
	require.Equal(t, (&trivetpb.Entry{ClockMs: e.ClockMs, Commands: []*trivetpb.Command{a, b}}).String(), e.String())
}

func TestQueueIsBoundedByBytes(t *testing.T) {
	d := newDesk()
	_, problem := d.submit(commandsOf(1, 2<<20), false)
	require.Nil(t, problem, "one alone is always taken")
	_, problem = d.submit(commandsOf(1, 1), false)
	require.Equal(t, trivetpb.Code_OVERLOADED, problem.GetCode())
	require.False(t, problem.Unknown)
}

func TestWhoGivesUpIsToldWhatIsKnown(t *testing.T) {
	d := newDesk()
	d.lead(3)
	under, _ := d.submit(commandsOf(1, 10), false)
	d.dispatchAll()
	d.lead(3)
	waits, _ := d.submit(commandsOf(1, 10), false)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.True(t, d.wait(over, under)[0].Problem.Unknown)
	p := d.wait(over, waits)[0].Problem
	require.Equal(t, trivetpb.Code_TIMEOUT, p.Code)
	require.False(t, p.Unknown)
	d.dispatchAll()
	require.Len(t, d.entries, 1, "what was withdrawn is not proposed")
	d.commit(t, 0, 10, 1)
	require.True(t, d.idle())
	require.Zero(t, d.bytes)
}

func TestWhatBecomesOfAnEntryOfADeposedLeader(t *testing.T) {
	for _, c := range []struct {
		name    string
		happens func(d *desk, l raft.Log)
		result  string // "ok", "again", or "maybe" where it may have been applied as well
	}{
		{"never stored", func(d *desk, l raft.Log) { d.stepDown(0) }, "again"},
		{"stored, then open", func(d *desk, l raft.Log) {
			l.Index = 10
			d.storing([]*raft.Log{&l})
			d.stepDown(0)
		}, "maybe"},
		{"stored, and committed by another leader before the notice", func(d *desk, l raft.Log) {
			l.Index = 10
			d.storing([]*raft.Log{&l})
			d.applied(&l, okResults(1))
			d.stepDown(0)
		}, "ok"},
		{"stored, then something else in its place", func(d *desk, l raft.Log) {
			l.Index = 10
			d.storing([]*raft.Log{&l})
			d.applied(&raft.Log{Index: 10, Type: raft.LogConfiguration}, nil)
		}, "again"},
		{"stored, then a no-op in its place, which is not seen", func(d *desk, l raft.Log) {
			l.Index = 10
			d.storing([]*raft.Log{&l})
			d.applied(&raft.Log{Index: 9, Type: raft.LogConfiguration}, nil)
			d.applied(&raft.Log{Index: 11, Type: raft.LogConfiguration}, nil)
		}, "again"},
		{"stored, then a snapshot over it", func(d *desk, l raft.Log) {
			l.Index = 10
			d.storing([]*raft.Log{&l})
			d.skipped(10)
		}, "maybe"},
		{"another process's entry with the same number", func(d *desk, l raft.Log) {
			l.Index = 10
			d.storing([]*raft.Log{&l})
			l.Extensions = entryMeta{term: 3, proposer: 8, seq: 1}.encode(l.Data)
			d.applied(&l, okResults(1))
		}, "again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk()
			d.lead(3)
			p, _ := d.submit(commandsOf(1, 10), false)
			d.dispatchAll()
			c.happens(d, d.entries[0])
			over, cancel := context.WithCancel(t.Context())
			cancel()
			switch c.result {
			case "ok":
				require.Nil(t, d.wait(over, p)[0].Problem)
			case "maybe", "again":
				require.Equal(t, c.result == "maybe", p.commands[0].maybe)
				first := d.command(t, 0, 0)
				d.lead(4)
				d.dispatchAll()
				require.Len(t, d.entries, 2)
				again := d.command(t, 1, 0)
				require.Equal(t, []uint64{77, 1}, []uint64{again.Session, again.Seq})
				require.Equal(t, first.Seq, again.Seq)
				d.commit(t, 1, 20, 1)
				require.Nil(t, d.wait(over, p)[0].Problem)
				require.EqualValues(t, 1, d.stats.Retried)
			}
		})
	}
}

// Notices of the end of a term may come late, when the next term of ours is
// under way, or early, before the marker's.
func TestLateNoticesOfTheEndOfATerm(t *testing.T) {
	t.Run("entries of the term that is led now are not put back", func(t *testing.T) {
		d := newDesk()
		d.lead(4)
		p, _ := d.submit(commandsOf(1, 10), false)
		d.dispatchAll()
		d.stepDown(4) // of an earlier one
		require.NotNil(t, d.leading())
		d.dispatchAll()
		require.Len(t, d.entries, 1, "or the write would be applied twice")
		d.commit(t, 0, 10, 1)
		<-p.done
		require.Nil(t, p.results[0].Problem)
	})
	t.Run("a term that is over is not served", func(t *testing.T) {
		d := newDesk()
		d.marked = 4
		d.stepDown(0)
		d.serve(&leadership{term: 4})
		require.Nil(t, d.leading(), "or nobody would ever end it")
		d.lead(5)
		require.NotNil(t, d.leading())
	})
}

func TestForwardsHopOnce(t *testing.T) {
	d := newDesk()
	d.leaderIs = "n2"
	_, problem := d.submit(commandsOf(1, 10), true)
	require.Equal(t, trivetpb.Code_NO_LEADER, problem.GetCode())

	d.lead(3)
	p, problem := d.submit(commandsOf(1, 10), true)
	require.Nil(t, problem)
	d.leaderIs = ""
	d.stepDown(0)
	d.leaderIs = "n2"
	d.dispatchAll()
	require.Empty(t, d.sent)
	<-p.done
	require.Equal(t, trivetpb.Code_NO_LEADER, p.results[0].Problem.Code)
	require.False(t, p.results[0].Problem.Unknown)
}

// What another member forwarded, and this one may have stored when it ceased to
// lead, is never called not applied: that member has the caller.
func TestAForwardThatMayBeStoredIsOfUnknownOutcome(t *testing.T) {
	for name, happens := range map[string]func(d *desk){
		"deposed":    func(d *desk) { d.leaderIs = ""; d.stepDown(0) },
		"restored":   func(d *desk) { d.skipped(10) },
		"restarting": func(d *desk) { d.abandon(&trivetpb.Problem{Code: trivetpb.Code_DRAINING}) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk()
			d.lead(3)
			p, problem := d.submit(commandsOf(1, 10), true)
			require.Nil(t, problem)
			d.dispatchAll()
			l := d.entries[0]
			l.Index = 10
			d.storing([]*raft.Log{&l})
			happens(d)
			<-p.done
			require.Equal(t, gone, p.results[0])
			require.True(t, lookAgain(p.results[0].Problem) && p.results[0].Problem.Unknown)
			require.True(t, d.idle())
		})
	}
}

func TestForwardsGoOutAgainUntilTheyAreAnswered(t *testing.T) {
	d := newDesk()
	d.leaderIs = "n2"
	p, _ := d.submit(commandsOf(4, 10), false)
	d.dispatchAll()
	require.Equal(t, []string{"n2"}, d.sentTo)
	d.forwarded(d.sent[0], []*trivetpb.Result{
		{Revision: 9}, notLeading, gone, unknownResult("the answer was too large"),
	}, nil, nil)
	require.Positive(t, d.dispatchAll(), "not at once to the same leader")
	d.leaderIs = "n3"
	d.dispatchAll()
	require.Equal(t, []string{"n2", "n3"}, d.sentTo)
	require.Equal(t, d.sent[0].commands[1:3], withoutAck(t, d.sent[1].commands), "with the same stamps")
	d.forwarded(d.sent[1], nil, nil, errPeerLost)
	d.leaderIs = "n4"
	d.dispatchAll()
	// Of the first it is known that it was not applied by n2; n3 may have.
	d.forwarded(d.sent[2], nil, &trivetpb.Problem{Code: trivetpb.Code_OVERLOADED}, nil)
	d.leaderIs = "n5"
	d.dispatchAll()
	d.forwarded(d.sent[3], []*trivetpb.Result{
		{Revision: 4, Replayed: true}, {Problem: &trivetpb.Problem{Code: trivetpb.Code_QUOTA_EXCEEDED}},
	}, nil, nil)
	<-p.done
	require.EqualValues(t, 9, p.results[0].Revision)
	require.EqualValues(t, 4, p.results[1].Revision)
	require.False(t, p.results[1].Replayed, "the repeat was the node's")
	require.True(t, p.results[2].Problem.Unknown, "n3 may have applied it, and may yet")
	require.True(t, p.results[3].Problem.Unknown)
	require.True(t, d.idle())
	require.EqualValues(t, 4, d.session.acked)
}

// A command that waits in the queue again when its caller gives up was not applied
// only if no attempt before may have been.
func TestWhoGivesUpAfterAnAttempt(t *testing.T) {
	for name, c := range map[string]struct {
		answer  *trivetpb.Result
		err     error
		unknown bool
	}{
		"the leader never had it":         {notLeading, nil, false},
		"it was never sent":               {nil, errNotSent, false},
		"the leader ceased to lead":       {gone, nil, true},
		"the connection was lost with it": {nil, errPeerLost, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk()
			d.leaderIs = "n2"
			p, _ := d.submit(commandsOf(1, 10), false)
			d.dispatchAll()
			var results []*trivetpb.Result
			if c.err == nil {
				results = []*trivetpb.Result{c.answer}
			}
			d.forwarded(d.sent[0], results, nil, c.err)
			over, cancel := context.WithCancel(t.Context())
			cancel()
			require.Equal(t, c.unknown, d.wait(over, p)[0].Problem.Unknown)
			require.True(t, d.idle())
		})
	}
}

// Where the node's session has ended, a command that went out for the first time
// goes out again under the next session. One that went out before may have been
// applied under the old one: under a new stamp it would be applied again.
func TestACommandThatMayHaveBeenAppliedGetsNoSecondStamp(t *testing.T) {
	ended := &trivetpb.Result{Problem: &trivetpb.Problem{Code: trivetpb.Code_SESSION_EXPIRED, Unknown: true}}
	t.Run("forwarded", func(t *testing.T) {
		d := newDesk()
		d.leaderIs = "n2"
		lost, _ := d.submit(commandsOf(1, 10), false)
		d.dispatchAll()
		d.forwarded(d.sent[0], nil, nil, errPeerLost)
		d.leaderIs = "n3"
		d.dispatchAll()
		first, _ := d.submit(commandsOf(1, 10), false)
		d.dispatchAll()
		require.Len(t, d.sent, 3)
		for _, g := range d.sent[1:] {
			d.forwarded(g, []*trivetpb.Result{ended}, nil, nil)
		}
		<-lost.done
		require.True(t, lost.results[0].Problem.Unknown)
		require.Equal(t, trivetpb.Code_TIMEOUT, lost.results[0].Problem.Code, "it is not the caller's session that ended")
		d.leaderIs = "n4" // at once
		d.dispatchAll()   // the next session
		d.forwarded(d.sent[3], []*trivetpb.Result{opened(78)}, nil, nil)
		d.dispatchAll()
		require.Len(t, d.sent, 5)
		require.EqualValues(t, 78, sessionOf(t, d.sent[4].commands[0]))
		d.forwarded(d.sent[4], okResults(1), nil, nil)
		<-first.done
		require.Nil(t, first.results[0].Problem)
		require.True(t, d.idle())
	})
	t.Run("proposed", func(t *testing.T) {
		d := newDesk()
		d.lead(3)
		lost, _ := d.submit(commandsOf(1, 10), false)
		d.dispatchAll()
		l := d.entries[0]
		l.Index = 10
		d.storing([]*raft.Log{&l})
		d.leaderIs = ""
		d.stepDown(0)
		d.lead(4)
		d.dispatchAll()
		first, _ := d.submit(commandsOf(1, 10), false)
		d.dispatchAll()
		require.Len(t, d.entries, 3)
		d.commitWith(1, 11, []*trivetpb.Result{ended})
		d.commitWith(2, 12, []*trivetpb.Result{ended})
		<-lost.done
		require.True(t, lost.results[0].Problem.Unknown)
		d.dispatchAll() // the next session
		d.commitWith(3, 13, []*trivetpb.Result{opened(78)})
		d.dispatchAll()
		require.Len(t, d.entries, 5)
		require.EqualValues(t, 78, d.command(t, 4, 0).Session)
		d.commitWith(4, 14, okResults(1))
		<-first.done
		require.Nil(t, first.results[0].Problem)
		require.True(t, d.idle())
	})
}

func opened(session uint64) *trivetpb.Result {
	return &trivetpb.Result{Result: &trivetpb.Result_Session{Session: &trivetpb.SessionResult{Session: session}}}
}

func sessionOf(t *testing.T, command []byte) uint64 {
	t.Helper()
	var c trivetpb.Command
	require.NoError(t, c.UnmarshalVT(command))
	return c.Session
}

// withoutAck is encoded commands without their acks.
func withoutAck(t *testing.T, commands [][]byte) [][]byte {
	t.Helper()
	var out [][]byte
	for _, b := range commands {
		var c trivetpb.Command
		require.NoError(t, c.UnmarshalVT(b))
		c.Ack = 0
		stamp := pending{stamp: stamp{&session{id: c.Session}, c.Seq}}
		c.Session, c.Seq = 0, 0
		b, err := c.MarshalVT()
		require.NoError(t, err)
		out = append(out, stamp.appendStamp(b))
	}
	return out
}

// A leader that hangs holds the forwards that it got, and no others.
func TestAHangingLeaderDoesNotHoldUpTheNext(t *testing.T) {
	d := newDesk()
	d.leaderIs = "n2"
	d.maxBytes = 1 << 30
	for range maxInFlightFar + 2 {
		d.submit(commandsOf(1, maxGroupBytes), false)
	}
	d.dispatchAll()
	require.Len(t, d.sent, maxInFlightFar)
	d.leaderIs = "n3"
	d.dispatchAll()
	require.Len(t, d.sent, maxInFlightFar+2)
	// What the first one still answers does not free the second one's slots.
	d.forwarded(d.sent[0], okResults(1), nil, nil)
	require.Equal(t, 2, d.forwards)
	d.leaderIs = "n2" // again
	d.submit(commandsOf(1, 10), false)
	d.dispatchAll()
	d.forwarded(d.sent[1], okResults(1), nil, nil)
	require.Equal(t, 1, d.forwards)
}

// What was accepted while this node was about to lead goes to no other.
func TestForwardsDoNotHopFromANodeThatWasAboutToLead(t *testing.T) {
	d := newDesk()
	d.leaderIs = "n1" // the marker is not applied yet
	p, problem := d.submit(commandsOf(2, 10), true)
	require.Nil(t, problem)
	d.leaderIs = "n2" // deposed; the notice has not been read yet
	d.dispatchAll()
	require.Empty(t, d.sent)
	<-p.done
	require.Equal(t, trivetpb.Code_NO_LEADER, p.results[1].Problem.Code)
	require.Zero(t, d.bytes)
}

func TestTheEndAnswersEverybody(t *testing.T) {
	d := newDesk()
	d.lead(3)
	under, _ := d.submit(commandsOf(1, 10), false)
	d.dispatchAll()
	waits, _ := d.submit(commandsOf(1, 10), false)
	why := &trivetpb.Problem{Code: trivetpb.Code_DRAINING}
	d.abandon(why)
	<-under.done
	<-waits.done
	require.True(t, under.results[0].Problem.Unknown)
	require.Equal(t, why, waits.results[0].Problem)
	_, problem := d.submit(commandsOf(1, 10), false)
	require.Equal(t, why, problem)
}
