package raftnode

import (
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
)

// configurations is what this member knows of who the members are, with the log
// entries that say so: raft tells no index of a configuration.
//
// Two of them matter, and differ. The newest stored one is what a server goes by
// (Raft dissertation §4.1), committed or not; raft keeps it, and
// Node.configuration returns it. The newest committed one, kept here, is what
// may be told to others as a fact: that somebody is no member any more. It is
// known as of what was applied, so it is never ahead of the truth.
type configurations struct {
	id string // this member's

	mu        sync.Mutex
	committed raft.Configuration
	index     uint64 // the entry of committed; 0 while none is known
	// stored are the configurations in the log behind committed, oldest first,
	// and whether they have this member.
	stored []storedConfiguration
	// has is the newest committed configuration that has this member, or the
	// entry by which it was let in.
	has     uint64
	changed chan struct{} // closed at the next committed configuration
}

type storedConfiguration struct {
	index uint64
	has   bool
}

func newConfigurations(id string, joinedAt uint64) *configurations {
	return &configurations{id: id, has: joinedAt, changed: make(chan struct{})}
}

// store notes an entry of the log that is a configuration.
func (c *configurations) store(index uint64, data []byte) {
	has := hasServer(raft.DecodeConfiguration(data), c.id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if index > c.index {
		c.stored = append(c.stored, storedConfiguration{index, has})
	}
}

// cut forgets what was stored from an entry on: the log was truncated there.
func (c *configurations) cut(from uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stored = slices.DeleteFunc(c.stored, func(s storedConfiguration) bool { return s.index >= from })
}

// commit takes a committed configuration, applied or in a snapshot. It returns
// false where a newer one is known.
func (c *configurations) commit(index uint64, conf raft.Configuration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if index <= c.index {
		return false
	}
	c.committed, c.index = conf.Clone(), index
	if hasServer(conf, c.id) {
		c.has = max(c.has, index)
	}
	c.stored = slices.DeleteFunc(c.stored, func(s storedConfiguration) bool { return s.index <= index })
	close(c.changed)
	c.changed = make(chan struct{})
	return true
}

// now returns the newest committed configuration, which is not to be changed,
// its entry, and a channel that is closed at the next.
func (c *configurations) now() (raft.Configuration, uint64, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.committed, c.index, c.changed
}

// claim is the newest configuration known here that has this member, committed
// or not: what it shows to others to be let in.
func (c *configurations) claim() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.stored) - 1; i >= 0; i-- {
		if c.stored[i].has {
			return c.stored[i].index
		}
	}
	return c.has
}

// certain is the newest configuration here that is committed for certain, by its
// entry: the newest applied, or the newest stored but one. raft makes none before
// the one before it is committed.
func (c *configurations) certain() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := len(c.stored) - 2; k >= 0 {
		return c.stored[k].index
	}
	return max(c.index, 1) // the initial one is given, not made
}

// committedConfiguration takes a configuration that was applied, or that a
// snapshot holds. Called by the state machine, in the order of the log.
func (n *Node) committedConfiguration(index uint64, conf raft.Configuration) {
	before, _, _ := n.confs.now()
	if !n.confs.commit(index, conf) {
		return
	}
	if err := n.met.removed(index, before, conf); err != nil {
		n.log.Warn("that a member was removed cannot be written down", "error", err)
	}
	self, there := serverOf(conf, n.cfg.ID)
	// What came before this folder was let in is of an earlier one with this id.
	there = there && index >= n.storage.joinedAt
	if n.storage.waits && there {
		if err := n.storage.arrived(); err != nil {
			n.fail(fmt.Errorf("the first entry has arrived, and that cannot be written down: %w", err))
			return
		}
		n.storage.waits = false
	}
	if n.storage.becomesVoter.Load() && there && self.Suffrage == raft.Voter {
		if err := n.storage.settled(); err != nil {
			n.log.Warn("that this member votes cannot be written down", "error", err)
		}
		n.storage.becomesVoter.Store(false)
	}
	if !n.running() {
		return // at the start: nobody is connected yet
	}
	latest := n.configuration()
	if !mutant.On("keep-connections") {
		n.port.cutOff(index, func(id string) bool { return hasServer(conf, id) || hasServer(latest, id) })
	}
	n.changed()
}

func serverOf(conf raft.Configuration, id string) (raft.Server, bool) {
	for _, s := range conf.Servers {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

func hasServer(conf raft.Configuration, id string) bool {
	_, ok := serverOf(conf, id)
	return ok
}

// voters returns the ids of those who vote.
func voters(conf raft.Configuration) []string {
	var ids []string
	for _, s := range conf.Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}
