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
// Three of them matter, and differ. The newest stored one is what a server goes by
// (Raft dissertation §4.1), committed or not. raft keeps it, and
// Node.configuration returns it; this one has it a moment earlier, before raft
// counts anything by it. The newest that is committed for certain is what may be
// told to others as a fact: that somebody is no member any more. The newest
// applied one is what is shown to users.
type configurations struct {
	id, folder string // this member's

	mu        sync.Mutex
	committed raft.Configuration // the newest applied
	index     uint64             // its entry; 0 while none is known
	// stored are the configurations in the log behind committed, oldest first.
	stored []storedConfiguration
	// has is the newest committed configuration that has this member, or the
	// entry by which it was let in.
	has     uint64
	changed chan struct{} // closed at the next committed configuration
}

type storedConfiguration struct {
	index uint64
	conf  raft.Configuration
}

func newConfigurations(id, folder string, joinedAt uint64) *configurations {
	return &configurations{id: id, folder: folder, has: joinedAt, changed: make(chan struct{})}
}

// store notes an entry of the log that is a configuration.
func (c *configurations) store(index uint64, data []byte) {
	conf := raft.DecodeConfiguration(data)
	c.mu.Lock()
	defer c.mu.Unlock()
	if index > c.index {
		c.stored = append(c.stored, storedConfiguration{index, conf})
	}
}

// cut forgets what was stored from an entry on: the log was truncated there.
func (c *configurations) cut(from uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stored = slices.DeleteFunc(c.stored, func(s storedConfiguration) bool { return s.index >= from })
}

// commit takes a committed configuration: the newest up to an entry (through) that
// was applied, or that a snapshot ends with. Any other that was stored up to there is
// of a deposed leader, whose log the snapshot took the place of. It returns false where
// nothing is new in that.
func (c *configurations) commit(index uint64, conf raft.Configuration, through uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.stored)
	c.stored = slices.DeleteFunc(c.stored, func(s storedConfiguration) bool { return s.index <= through })
	if index <= c.index {
		return len(c.stored) < before
	}
	c.committed, c.index = conf.Clone(), index
	if hasFolder(conf, c.id, c.folder) {
		c.has = max(c.has, index)
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return true
}

// now returns the newest applied configuration, which is not to be changed, its
// entry, and a channel that is closed at the next.
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
	for _, s := range slices.Backward(c.stored) {
		if hasFolder(s.conf, c.id, c.folder) {
			return s.index
		}
	}
	return c.has
}

// known is what a member lets others in and counts their answers by.
type known struct {
	// newest is the newest in the log; no servers where there is none.
	newest raft.Configuration
	// certain is the newest that is committed for certain, and index its entry: the
	// newest applied, or the newest stored but one. raft makes none before the one
	// before it is committed. The initial one is given, not made, and holds before
	// anything is committed.
	certain raft.Configuration
	index   uint64
}

func (c *configurations) known() known {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := known{newest: c.committed, certain: c.committed, index: c.index}
	if last := len(c.stored) - 1; last >= 0 {
		k.newest = c.stored[last].conf
		switch {
		case last > 0:
			k.certain, k.index = c.stored[last-1].conf, c.stored[last-1].index
		case c.index == 0 && c.stored[0].index == 1:
			k.certain, k.index = c.stored[0].conf, 1
		}
	}
	return k
}

// lets says whether a member with some folder, which claims to be one by the
// configuration of an entry, is let in: if it is one by the newest configuration,
// or by the one that is committed for certain (its removal may come to nothing
// yet), or by a later one, of which this member has not heard.
func (k known) lets(id, folder string, claim uint64) bool {
	return hasFolder(k.newest, id, folder) || hasFolder(k.certain, id, folder) || claim > k.index ||
		mutant.On("removed-folder") && hasServer(k.newest, id)
}

// counts says whether what a folder answers may be counted for a member: what is
// counted is counted by the newest configuration, so by the folder that has. A
// member that is not in it is called by its last words only.
func (k known) counts(id, folder string) bool {
	s, ok := serverOf(k.newest, id)
	if !ok {
		s, ok = serverOf(k.certain, id)
	}
	return !ok || isFolder(s, folder) || mutant.On("later-folder")
}

// committedConfiguration takes a configuration that was applied, or that a
// snapshot holds that ends at the entry through. Called by the state machine, in the
// order of the log.
func (n *Node) committedConfiguration(index uint64, conf raft.Configuration, through uint64) {
	if !n.confs.commit(index, conf, through) {
		return
	}
	self, there := serverOf(conf, n.cfg.ID)
	// What came before this folder was let in is of an earlier one with this id.
	there = there && index >= n.storage.joinedAt && isFolder(self, n.storage.incarnation)
	if n.storage.waits.Load() && there {
		if err := n.storage.arrived(); err != nil {
			n.fail(fmt.Errorf("the first entry has arrived, and that cannot be written down: %w", err))
			return
		}
		n.storage.waits.Store(false)
	}
	if there && self.Suffrage == raft.Voter {
		n.becameVoter()
	}
	n.reconfigured()
	if n.running() {
		n.changed()
	}
}

// reconfigured closes the connections that a configuration which has just come or
// gone does not allow. In the log that is before raft counts by it.
func (n *Node) reconfigured() {
	if !n.running() || mutant.On("keep-connections") {
		return // at the start: nobody is connected yet
	}
	n.port.cutOff()
}

// keeps says whether a connection is one that the configuration allows.
func (n *Node) keeps(c peerConn) bool {
	k := n.confs.known()
	if c.incoming {
		return k.lets(c.id, c.folder, c.claim)
	}
	return (hasServer(k.newest, c.id) || hasServer(k.certain, c.id)) && (k.counts(c.id, c.folder) || mutant.On("old-connections"))
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
