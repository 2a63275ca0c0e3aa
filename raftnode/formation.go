package raftnode

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// The first members of a cluster begin when each of them has met all others.
//
// A member that is started with --initial-cluster over an empty folder is one of
// the first of a new cluster, or it is an old one whose folder is gone. If the
// latter began anew, it could vote again in a term in which it has voted, or help
// to elect a leader that lacks what it once acknowledged; and that the others
// refuse it (met.go) does not help where they are down, or as empty as it is. So
// it takes no part in Raft, and has no configuration, until every other first
// member has answered, and each either is as new or has met this very data folder
// before. Each of them has written its incarnation down by then, durably, and it
// theirs: from here on any one of them is enough to tell a wiped one.
//
// The price is that a new cluster does not begin while one of its first members
// is away; later any minority may be. (Consul's bootstrap_expect waits as well;
// etcd does not, and asks its users never to start a wiped member as a new one.)
type formation struct {
	mu   sync.Mutex
	here map[string]bool
}

// met notes that a member answered, in the handshake.
func (f *formation) met(id string, r *trivetpb.HelloReply) {
	if !r.Forming && !r.Knew {
		return // it began without this one: this folder is not the first
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.here == nil {
		f.here = map[string]bool{}
	}
	f.here[id] = true
}

// forming reports whether this member has yet to begin.
func (n *Node) forming() bool { return !n.formed.Load() }

// absent lists the first members that this one has yet to meet; none once it has
// begun.
func (n *Node) absent() []string {
	if !n.forming() {
		return nil
	}
	n.formation.mu.Lock()
	defer n.formation.mu.Unlock()
	var ids []string
	for id := range n.storage.peers {
		if id != n.cfg.ID && !n.formation.here[id] {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// initialConfiguration is that of the first members.
func (n *Node) initialConfiguration() raft.Configuration {
	var conf raft.Configuration
	var ids []string
	for id := range n.storage.peers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(n.storage.peers[id])})
	}
	return conf
}

// bootstrap writes the initial configuration before raft starts, where that is
// due: for a member that is alone, and for one that was ended between its meeting
// the others and its writing it.
func (n *Node) bootstrap(rc *raft.Config) error {
	s := n.storage
	if s.joins || !s.waits {
		n.formed.Store(true)
		return nil
	}
	if !s.formed && len(s.peers) > 1 && !mutant.On("begin-alone") {
		return nil // form does it
	}
	if !s.formed {
		if err := s.setFormed(); err != nil {
			return err
		}
	}
	n.formed.Store(true)
	if last, err := n.logs.LastIndex(); err != nil || last != 0 {
		return err
	}
	if metas, err := n.snaps.List(); err != nil || len(metas) > 0 {
		return err
	}
	conf := n.initialConfiguration()
	var err error
	if n.stable.term == 1 {
		// It was ended in the middle of this: raft writes the term before the entry,
		// and takes a folder with a term for one that has begun. Nobody stands for
		// election in term 1, so there is no vote in it.
		err = n.logs.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(conf)})
	} else {
		err = raft.BootstrapCluster(rc, n.logs, n.stable, n.snaps, n.transport, conf)
	}
	if err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	return nil
}

// formPause is how often the others are called that have not answered yet.
const formPause = 20 * time.Millisecond

// form meets the other first members, and then begins.
func (n *Node) form() {
	for told := 0; n.forming(); told++ {
		absent := n.absent()
		if len(absent) == 0 {
			break
		}
		if told == 50 {
			n.log.Warn("the new cluster begins when all its first members have met", "not yet here", absent)
		}
		n.call(absent)
		select {
		case <-time.After(formPause):
		case <-n.ctx.Done():
			return
		}
	}
	if !n.forming() {
		return
	}
	// Before the configuration: with that the member votes, and a folder that is
	// not formed is made anew.
	if err := n.storage.setFormed(); err != nil {
		n.fail(fmt.Errorf("that the first members have met cannot be written down: %w", err))
		return
	}
	done := make(chan error, 1)
	go func() { done <- n.raft.BootstrapCluster(n.initialConfiguration()).Error() }() // may hang after the node's end
	select {
	case err := <-done:
		if err != nil {
			n.fail(fmt.Errorf("writing the initial configuration: %w", err))
			return
		}
	case <-n.ctx.Done():
		return
	}
	n.formed.Store(true)
	n.log.Info("the first members have met", "cluster", n.cluster)
	n.changed()
}
