package raftnode

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// followLeadership turns raft's leadership notices into the node's. It reads
// every notice: raft blocks in its main loop until the channel takes one.
//
// A term of ours begins with a marker: until something of its own term is
// committed, a leader does not know what earlier leaders committed (Raft
// dissertation §6.4), raft's no-op does not reach the state machine, and
// CommitIndex is stale. Nothing is proposed and no read confirmed before the
// marker is applied.
func (n *Node) followLeadership(notices <-chan bool) {
	for {
		select {
		case leads := <-notices:
			if !leads {
				n.log.Info("leadership ended")
				n.proposer.stepDown(n.leads())
				continue
			}
			// The notice may be late: this term may be over, and a later one of
			// ours begun. Then the marker is that one's, and gets a second one
			// when its own notice comes.
			term := n.leads()
			if term == 0 {
				continue
			}
			n.log.Info("leadership won", "term", term)
			if mutant.On("no-marker") {
				n.proposer.serve(&leadership{term: term, since: time.Now()})
				continue
			}
			marker, err := n.proposer.mark(term, n.settings())
			if err != nil {
				n.fail(err)
				return
			}
			n.raft.ApplyLog(marker, 0)
		case <-n.ctx.Done():
			return
		}
	}
}

// settings are those of this member, for all while it leads. Where the configuration
// has folders, so that all members know the level of that, the state has it from its
// first marker on.
func (n *Node) settings() *trivetpb.Settings {
	s := n.cfg.settings()
	if len(foldersOf(n.configuration())) > 0 {
		s.Level = max(s.Level, levelFolders)
	}
	return s
}

// leads returns the term that raft leads, 0 for none. raft raises its term before
// it leads, and ceases to lead before it raises its term: a leader whose term is
// the same before and after leads that term.
func (n *Node) leads() uint64 {
	for {
		term := n.raft.CurrentTerm()
		if n.raft.State() != raft.Leader {
			return 0
		}
		if n.raft.CurrentTerm() == term {
			return term
		}
	}
}

// markerApplied is called by the state machine when it has applied a marker
// that this node proposed.
func (n *Node) markerApplied(term, index uint64) {
	if n.leads() != term {
		return // another leader committed it
	}
	if n.cfg.onLeading != nil {
		n.cfg.onLeading(term)
	}
	n.log.Debug("the term's marker is applied", "term", term, "index", index)
	n.proposer.serve(&leadership{
		term:    term,
		start:   index,
		clockMS: n.store.Stats().ClockMS,
		since:   time.Now(),
	})
	n.changed()
	n.wakeClock()
}

// leaderID returns whom raft takes for the leader, "" where it knows none.
func (n *Node) leaderID() string {
	_, id := n.raft.LeaderWithID()
	return string(id)
}

// changed wakes whoever waits for another leader.
func (n *Node) changed() {
	n.signalMu.Lock()
	close(n.signal)
	n.signal = make(chan struct{})
	n.signalMu.Unlock()
	n.proposer.kick()
}

// awaitChange waits until something about the leader changes, for a moment at
// most. The channel was taken before the caller looked.
func (n *Node) awaitChange(ctx context.Context, signal <-chan struct{}) {
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-signal:
	case <-timer.C:
	case <-ctx.Done():
	case <-n.ctx.Done():
	}
}

// changes returns a channel that is closed at the next change.
func (n *Node) changes() <-chan struct{} {
	n.signalMu.Lock()
	defer n.signalMu.Unlock()
	return n.signal
}

// observe is raft's observer hook: called in raft's goroutines, under none of
// its locks but that of the list of observers.
func (n *Node) observe(o *raft.Observation) bool {
	n.counters.observed(o.Data)
	switch o.Data.(type) {
	case raft.LeaderObservation, raft.RaftState:
		n.changed()
	}
	return false // nothing goes to a channel
}

// configuration is raft's latest, which is the one that counts (Raft
// dissertation §4.1: a server uses the latest configuration in its log).
func (n *Node) configuration() raft.Configuration {
	f := n.raft.GetConfiguration() // answers at once, from a copy
	if f.Error() != nil {
		return raft.Configuration{}
	}
	return f.Configuration()
}
