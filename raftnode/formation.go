package raftnode

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// The first members of a cluster begin with one configuration, which has the data
// folder of each (folder.go). They have to agree on it before there is Raft to
// agree by: one that began with other folders than the rest would have another
// first entry, and count other votes.
//
// A member that is started with --initial-cluster over an empty folder is one of
// the first of a new cluster, or it is an old one whose folder is gone. Until it
// knows which, it is forming: it takes no part in Raft, has no configuration, and
// calls the others again and again. Each answers with its own folder and with those
// that it holds for all first members; it holds, for each, the one that it found
// when it called last, or all of those that a member has begun with which says so
// and names this one's folder. A member begins
//
//   - when each other one has answered, to a call made since what it holds last
//     changed, that it holds the same, or has begun with it: then it writes down
//     what it holds, and after that the configuration (begin). From the first on it
//     holds nothing else for ever;
//   - or when one that knows of a committed configuration finds this very folder in
//     it: then it waits for the leader like a member that joins.
//
// Where a committed configuration has another folder for its id, its own is that of
// a wiped member, and it stops.
//
// Of two members that begin, both with a folder that either's agreement has, neither
// has another agreement than the other. Let a hold M from time A on, and begin with
// it, and b hold N from B on, and begin. At a time after A, b answered a that it holds
// M; if that is not N, it was before B. At a time after B, a answered b that it holds
// N; if that is not M, it was before A. So A < B < A. (One that has begun answers what
// it has begun with, and one that is forming again after a crash has begun with
// nothing.) So as long as one folder is left that has begun, no member begins with
// anything else: it has to ask that one. The second way takes a committed
// configuration, so a majority that has begun, of which one is left for as long as
// only a minority loses its folders.
//
// What that leaves:
//
//   - A folder that is wiped before anybody has begun is another one, which the
//     others find, and begin with. One that is wiped when others have begun is not in
//     what they began with. It waits until a majority has begun, to be told that it
//     is to be removed and added again. So that the others do not wait for it in
//     turn: who holds what somebody has begun with does not mind that a folder of it
//     is gone, where another one, that has not begun, answers for its id.
//   - A crash before what a member holds is written down: it has begun with nothing,
//     and asks again. A crash after: it writes that very configuration at its next
//     start.
//   - One that has begun and loses its folder before any other has begun leaves
//     nothing behind: the others find its new folder. It can have had no vote but its
//     own: who is forming answers nothing of raft's.
//   - Whoever began and was wiped, and has its old folder put back later, is a folder
//     that the others' configuration does not have.
//   - If a minority has begun, all of whom are alive, and a folder of the rest is
//     gone together with one of theirs, nobody begins any more, or less than a
//     majority has: nothing was ever written there, and all are to be made anew.
//
// The price is that a new cluster does not begin while one of its first members
// is away; later any minority may be. (Consul's bootstrap_expect waits as well;
// etcd does not, and asks its users never to start a wiped member as a new one.)
type formation struct {
	self, folder string
	ids          []string // of all first members, in order

	mu   sync.Mutex
	said map[string]firstSaid // by id, what each other one last answered
	// holds are the folders that this member holds, by id. It is replaced, never
	// changed.
	holds map[string]string
	// since counts how often that was, and begins with 1.
	since uint64
	// begun: some other one has begun with what this one holds.
	begun bool
	// decided: it holds that for ever.
	decided bool
	// named: a committed configuration has this folder.
	named bool
}

// firstSaid is what another first member answered.
type firstSaid struct {
	asked   uint64 // since, when it was called
	folder  string // its own
	forming bool
	holds   map[string]string
}

func newFormation(self string, s *storage) *formation {
	f := &formation{self: self, folder: s.incarnation, ids: slices.Sorted(maps.Keys(s.peers)), said: map[string]firstSaid{}}
	f.hold()
	if s.formed {
		f.holds, f.decided = s.folders, true
	}
	return f
}

// asking is to be taken as a member is called, and goes with its answer to heard.
func (f *formation) asking() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.since
}

// told are the folders that this member holds.
func (f *formation) told() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.holds
}

// began are the folders that this member has begun with, if it has.
func (f *formation) began() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.decided {
		return nil // it came to one that had begun
	}
	return f.holds
}

// heard takes another first member's answer.
func (f *formation) heard(id string, asked uint64, r *trivetpb.HelloReply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.decided || asked < f.said[id].asked:
		return
	case r.Named:
		f.named = true
		return
	case len(r.Folders) == 0 || !folderPattern.MatchString(r.Incarnation):
		return // of a version, or of a cluster, whose configurations have no folders
	}
	f.said[id] = firstSaid{asked, r.Incarnation, r.Forming, r.Folders}
	f.hold()
}

// hold finds what is to be held by what all have said. Under mu.
func (f *formation) hold() {
	holds := map[string]string{f.self: f.folder}
	f.begun = false
	for _, id := range f.ids {
		s, ok := f.said[id]
		if !ok {
			continue
		}
		if !s.forming && s.holds[f.self] == f.folder && s.holds[id] == s.folder {
			holds, f.begun = s.holds, true
			break
		}
		holds[id] = s.folder
	}
	if f.since == 0 || !maps.Equal(holds, f.holds) {
		f.holds = holds
		f.since++
	}
}

// waitsFor lists the first members that have not answered yet or, where all have,
// those that do not hold what this one does; none when it is to begin.
func (f *formation) waitsFor() (absent, others []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting()
}

func (f *formation) waiting() (absent, others []string) {
	for _, id := range f.ids {
		s, ok := f.said[id]
		switch {
		case id == f.self:
		case f.begun && mutant.On("begun-is-all"):
		case !ok:
			absent = append(absent, id)
		case (s.asked == f.since || mutant.On("stale-agreement")) && s.folder == f.holds[id] && maps.Equal(s.holds, f.holds):
		case s.asked == f.since && s.forming && s.folder != f.holds[id] && f.begun: // wiped
		default:
			others = append(others, id)
		}
	}
	return absent, others
}

// decide says whether this member is to begin, and holds its folders for ever if it
// is.
func (f *formation) decide() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if absent, others := f.waiting(); len(absent) > 0 || len(others) > 0 {
		return false
	}
	f.decided = true
	return true
}

// forming reports whether this member has yet to begin.
func (n *Node) forming() bool { return !n.formed.Load() }

// admitFirst answers one that is forming.
func (n *Node) admitFirst(k known, h *trivetpb.Hello, r *trivetpb.HelloReply) {
	s, there := serverOf(k.certain, h.From)
	established := !r.Forming && !n.storage.waits.Load() // else a majority may not have begun yet
	switch {
	case established && there && folderOf(s) != "" && isFolder(s, h.Incarnation):
		r.Named = true
	case established && there:
		r.Code = trivetpb.HelloReply_OTHER_FOLDER
		r.Refused = fmt.Sprintf("member %s %v: remove it and add it again", h.From, errOtherFolder)
	case established:
		r.Code = trivetpb.HelloReply_NOT_A_MEMBER
		r.Refused = fmt.Sprintf("member %s is no member of the cluster as of log entry %d", h.From, k.index)
	case h.Level < levelFolders:
		// It would begin by itself, with a configuration without folders.
		r.Refused = fmt.Sprintf("member %s is of a version that knows no data folders in a configuration: all first members of a new cluster are to be of one version", h.From)
	case r.Forming:
		r.Folders = n.formation.told()
	default:
		r.Folders = n.formation.began()
	}
}

// absent lists the first members that this one waits for; none once it has begun.
func (n *Node) absent() []string {
	if !n.forming() {
		return nil
	}
	absent, others := n.formation.waitsFor()
	if len(absent) == 0 {
		for _, id := range others {
			absent = append(absent, id+" (which has met others)")
		}
	}
	return absent
}

// initialConfiguration is that of the first members, with the folders that they
// have agreed on: nil where an earlier version, that had none, got as far as that.
func (n *Node) initialConfiguration(folders map[string]string) raft.Configuration {
	var conf raft.Configuration
	for _, id := range n.formation.ids {
		conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(id), Address: serverAddress(n.storage.peers[id], folders[id])})
	}
	return conf
}

// bootstrap writes the initial configuration before raft starts, where that is
// due: for a member that is alone, and for one that was ended between its meeting
// the others and its writing it.
func (n *Node) bootstrap(rc *raft.Config) error {
	s := n.storage
	if s.joins || !s.waits.Load() {
		n.formed.Store(true)
		return nil
	}
	if !s.formed && len(s.peers) > 1 && !mutant.On("begin-alone") {
		return nil // form does it
	}
	if !s.formed {
		s.folders = n.formation.told()
		if err := s.setFormed(s.folders); err != nil {
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
	conf := n.initialConfiguration(s.folders)
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

// How often the others are called: at first, and after a while in which nothing
// has changed.
const (
	formPause    = 20 * time.Millisecond
	maxFormPause = 500 * time.Millisecond
)

// form meets the other first members, and then begins.
func (n *Node) form() {
	pause, since := formPause, uint64(0)
	for waited, warned := time.Duration(0), false; n.forming(); waited += pause {
		if n.formation.decide() {
			n.begin()
			return
		}
		if n.formation.isNamed() {
			n.follow()
			return
		}
		if waited > 2*time.Second && !warned {
			warned = true
			n.log.Warn("the new cluster begins when all its first members have met", "not yet here", n.absent())
		}
		if now := n.formation.asking(); now != since {
			pause, since = formPause, now
		} else {
			pause = min(pause*5/4, maxFormPause)
		}
		n.meet()
		select {
		case <-time.After(pause):
		case <-n.ctx.Done():
			return
		}
	}
}

func (f *formation) isNamed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.named
}

// meet calls the first members that this one waits for: each time anew, as it is
// the handshake that tells.
func (n *Node) meet() {
	ctx, cancel := context.WithTimeout(n.ctx, memberTimeout)
	defer cancel()
	absent, others := n.formation.waitsFor()
	var calls sync.WaitGroup
	for _, id := range append(absent, others...) {
		calls.Add(1)
		if !n.spawn(func() {
			defer calls.Done()
			if c, err := n.port.dial(ctx, streamPeer, id); err == nil {
				n.port.release(c)
			}
		}) {
			calls.Done()
		}
	}
	calls.Wait()
}

// begin writes down what the first members have agreed on, and the configuration.
func (n *Node) begin() {
	folders := n.formation.told()
	// Before the configuration: with that the member votes, and a folder that is
	// not formed is made anew.
	if err := n.storage.setFormed(folders); err != nil {
		n.fail(fmt.Errorf("that the first members have met cannot be written down: %w", err))
		return
	}
	done := make(chan error, 1)
	go func() { done <- n.raft.BootstrapCluster(n.initialConfiguration(folders)).Error() }() // may hang after the node's end
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

// follow makes this member one that waits for the leader: the others have begun.
func (n *Node) follow() {
	if err := n.storage.follows(); err != nil {
		n.fail(fmt.Errorf("that the others have begun cannot be written down: %w", err))
		return
	}
	n.formed.Store(true)
	n.log.Info("the other first members have begun, with this one among them", "cluster", n.cluster)
	n.changed()
}
