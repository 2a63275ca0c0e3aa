package raftnode

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"trivet/trivetpb"
)

// Stats is what a node counts, for whoever shows it (httpapi's /metrics). Counts
// begin with the start of the node and only grow; the rest is as of now.
type Stats struct {
	Term                                 uint64
	Leading, HasLeader                   bool
	CommitIndex, AppliedIndex, LastIndex uint64
	// LeaderChanges counts each leader that this node came to know, itself
	// included, but for the first; Elections the times that it stood for election,
	// Replacements those of them in which a majority had agreed that the leader is
	// dead or silent (deadleader.go), Wins those that it won.
	LeaderChanges, Elections, Replacements, Wins uint64
	// Failed says that the node took itself out of service, Diverged that it did
	// so because its state differs from the others'.
	Failed, Diverged bool

	// Peers is what this node, as the leader, last heard of the others, by id;
	// empty on others.
	Peers []PeerStats

	// Of the commands that this node's own callers wanted written:
	// ProposalsCommitted were applied (whatever the state machine answered);
	// ProposalsFailed got no answer of it, by why.
	ProposalsCommitted uint64
	ProposalsFailed    map[ProposalFailure]uint64
	// Pending and PendingBytes are the commands that wait or are under way here,
	// those of other members included, and what they count for in the queue.
	Pending, PendingBytes int64
	// Forwards counts requests to the leader, Forwarded the commands in them,
	// Received the commands that other members forwarded to this one, and Retried
	// those that went back to the queue to go out again.
	Forwards, Forwarded, Received, Retried uint64
	// Held counts the groups of writes that were held back for callers of the one before,
	// who were expected to ask again (returning.go).
	Held uint64
	// Crowded says that what can run in this process waits for processors for a good part
	// of the time that it runs, so that one group of writes is under way at a time
	// (crowded.go), and waits for a few callers who come back.
	Crowded bool
	// EntryCommands and EntryBytes are over the log entries that this node
	// proposed as the leader.
	EntryCommands, EntryBytes Histogram

	// AppendSeconds is over the writes to the log, each with its sync;
	// AppendedEntries and AppendedBytes are what they wrote.
	AppendSeconds                  Histogram
	AppendedEntries, AppendedBytes uint64
	// ApplySeconds is over the entries with commands that were applied.
	ApplySeconds    Histogram
	AppliedCommands uint64

	// SnapshotSeconds is over the snapshots that this node took;
	// SnapshotFailures those that failed; SnapshotsRestored counts states replaced
	// by one, at the start or by the leader's. SnapshotBytes is the size of the
	// newest one on disk, 0 for none.
	SnapshotSeconds                     Histogram
	SnapshotFailures, SnapshotsRestored uint64
	SnapshotBytes                       int64

	// Confirmations counts the read index rounds of the leader that succeeded,
	// ConfirmationsFailed the others; Asks and AsksFailed the requests of a
	// follower for a read index. ConfirmedByAsker counts those that the leader
	// answered without a round.
	Confirmations, ConfirmationsFailed, Asks, AsksFailed, ConfirmedByAsker uint64
	// Reads counts AwaitRead by the consistency as served, ReadsFailed by problem.
	Reads       map[Consistency]uint64
	ReadsFailed map[trivetpb.Code]uint64
	// BoundedStaleness is how old the state was, in seconds, when bounded reads
	// were served from it without a confirmation.
	BoundedStaleness Histogram
	// Staleness is how old the state is at most; meaningless unless Proven.
	Staleness time.Duration
	Proven    bool

	// HashComparisons counts the comparisons of this node's state hash with the
	// leader's, HashMismatches those that differed.
	HashComparisons, HashMismatches uint64
}

// PeerStats is another member as it last told the leader.
type PeerStats struct {
	ID           string
	AppliedIndex uint64
	// Lag is how many committed entries it had not applied when it said so.
	Lag         uint64
	LastContact time.Duration // ago
}

// ProposalFailure says why a command of this node's own callers has no answer of
// the state machine.
type ProposalFailure uint8

// The reasons: FailedUnknown may have been applied, the others were not.
const (
	// The queue was full, here or at the leader, or a table of the state.
	FailedOverloaded ProposalFailure = iota
	FailedNoLeader
	FailedTimeout
	FailedDraining // the node stops or has failed
	FailedUnknown
	proposalFailures
)

func (f ProposalFailure) String() string {
	return [...]string{"overloaded", "no_leader", "timeout", "draining", "unknown"}[f]
}

// counters is what the node counts where it happens. All of it may be used by any
// goroutine.
type counters struct {
	leaderChanges, elections, wins       atomic.Uint64
	replacements                         atomic.Uint64
	appends, applies, snapshots, bounded histogram
	entryCommands, entryBytes            histogram
	appendedEntries, appendedBytes       atomic.Uint64
	appliedCommands                      atomic.Uint64
	snapshotFailures, snapshotsRestored  atomic.Uint64
	confirms, confirmsFailed             atomic.Uint64
	asks, asksFailed                     atomic.Uint64
	confirmedByAsker                     atomic.Uint64
	reads                                [Stale + 1]atomic.Uint64
	comparisons, mismatches              atomic.Uint64
	diverged                             atomic.Bool

	mu          sync.Mutex
	leader      string // the last one known
	readsFailed map[trivetpb.Code]uint64
}

func newCounters() *counters {
	return &counters{
		appends: newDurations(), applies: newDurations(), snapshots: newDurations(), bounded: newDurations(),
		entryCommands: newHistogram(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
		entryBytes:    newHistogram(256, 1<<10, 4<<10, 16<<10, 64<<10, 256<<10, 1<<20, 4<<20, 16<<20),
		readsFailed:   map[trivetpb.Code]uint64{},
	}
}

// observed counts what raft says of leaders and elections.
func (c *counters) observed(data any) {
	switch d := data.(type) {
	case raft.LeaderObservation:
		c.mu.Lock()
		defer c.mu.Unlock()
		if id := string(d.LeaderID); id != "" && id != c.leader {
			if c.leader != "" {
				c.leaderChanges.Add(1)
			}
			c.leader = id
		}
	case raft.RaftState:
		switch d {
		case raft.Candidate:
			c.elections.Add(1)
		case raft.Leader:
			c.wins.Add(1)
		}
	}
}

// appended counts a write to the log that has succeeded.
func (c *counters) appended(start time.Time, logs []*raft.Log) {
	c.appends.took(start)
	c.appendedEntries.Add(uint64(len(logs)))
	size := 0
	for _, l := range logs {
		size += len(l.Data) + len(l.Extensions)
	}
	c.appendedBytes.Add(uint64(size))
}

// read counts a read that was let through or refused.
func (c *counters) read(p Proof, err error) {
	if err != nil {
		code := trivetpb.Code_INTERNAL
		if problem, ok := err.(*trivetpb.Problem); ok {
			code = problem.Code
		}
		c.mu.Lock()
		c.readsFailed[code]++
		c.mu.Unlock()
		return
	}
	c.reads[p.Consistency].Add(1)
	if p.Consistency == Bounded {
		c.bounded.observe(uint64(max(0, p.Staleness)))
	}
}

// failureOf says why a result is none of the state machine's; false where it is.
func failureOf(p *trivetpb.Problem) (ProposalFailure, bool) {
	switch {
	case p == nil:
		return 0, false
	case p.Code == trivetpb.Code_TIMEOUT && p.Unknown, p.Code == trivetpb.Code_NO_LEADER && p.Unknown, p.Code == trivetpb.Code_DRAINING && p.Unknown:
		return FailedUnknown, true
	case p.Code == trivetpb.Code_OVERLOADED:
		return FailedOverloaded, true
	case p.Code == trivetpb.Code_TIMEOUT:
		return FailedTimeout, true
	case p.Code == trivetpb.Code_NO_LEADER:
		return FailedNoLeader, true
	case p.Code == trivetpb.Code_DRAINING:
		return FailedDraining, true
	}
	return 0, false
}

// Stats returns what the node has counted. It takes a few microseconds and no
// lock for long.
func (n *Node) Stats() Stats {
	c, q := n.counters, n.proposer
	s := Stats{
		Term: n.raft.CurrentTerm(), CommitIndex: n.raft.CommitIndex(), AppliedIndex: n.store.Index(), LastIndex: n.raft.LastIndex(),
		HasLeader:     n.leaderID() != "",
		LeaderChanges: c.leaderChanges.Load(), Elections: c.elections.Load(), Replacements: c.replacements.Load(), Wins: c.wins.Load(),
		Failed: n.failure() != nil, Diverged: c.diverged.Load(),
		EntryCommands: c.entryCommands.read(1), EntryBytes: c.entryBytes.read(1),
		AppendSeconds: c.appends.seconds(), AppendedEntries: c.appendedEntries.Load(), AppendedBytes: c.appendedBytes.Load(),
		ApplySeconds: c.applies.seconds(), AppliedCommands: c.appliedCommands.Load(),
		SnapshotSeconds: c.snapshots.seconds(), SnapshotFailures: c.snapshotFailures.Load(),
		SnapshotsRestored: c.snapshotsRestored.Load(), SnapshotBytes: n.snaps.bytes.Load(),
		Confirmations: c.confirms.Load(), ConfirmationsFailed: c.confirmsFailed.Load(),
		Asks: c.asks.Load(), AsksFailed: c.asksFailed.Load(),
		ConfirmedByAsker: c.confirmedByAsker.Load(),
		Reads:            map[Consistency]uint64{}, ReadsFailed: map[trivetpb.Code]uint64{},
		BoundedStaleness: c.bounded.seconds(),
		HashComparisons:  c.comparisons.Load(), HashMismatches: c.mismatches.Load(),
		ProposalsFailed: map[ProposalFailure]uint64{},
		Crowded:         n.crowd.crowded.Load(),
	}
	for i := range c.reads {
		s.Reads[Consistency(i)] = c.reads[i].Load()
	}
	c.mu.Lock()
	for code, count := range c.readsFailed {
		s.ReadsFailed[code] = count
	}
	c.mu.Unlock()
	s.Staleness, s.Proven = n.staleness()

	q.mu.Lock()
	lead, st := q.lead, q.stats
	s.Pending, s.PendingBytes = q.pending, q.bytes
	q.mu.Unlock()
	if s.Leading = lead != nil; s.Leading {
		s.Peers = n.peerStats(lead)
	}
	s.ProposalsCommitted = st.Committed
	for f := range proposalFailures {
		s.ProposalsFailed[f] = st.Failed[f]
	}
	s.Forwards, s.Forwarded, s.Received, s.Retried, s.Held = st.Forwards, st.Forwarded, st.Received, st.Retried, st.Held
	return s
}
