package raftnode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// How a leader of term T proves that its commit index C covers every write that
// was acknowledged before some reads began. C is taken after that. Writes of T are
// committed by this node alone, at most at C. Those of earlier terms lie before
// the term's marker, and C is not before that. Of later terms there are none if
// nobody was elected in one before the reads began, and that is what is proven.
//
// The commit index, not the applied one: a deposed leader may acknowledge an
// orphan of its own when it applies it as a follower (outcome.go), which can be
// before the new leader has applied it.
//
// The proof is the word of a majority of the voters, each of which says: at a time
// after the reads began, my current term was T. Whoever was elected in a later
// term before they began had the vote of one of these, and a voter raises its term
// before it votes (serveConfirm), and never lowers it. So it is of no matter how
// long a word was under way, or what its voter has done since it gave it; and a
// word proves nothing for reads that began after it was given.
//
// The voters are those of the newest configuration in this node's log, looked up
// after the reads began. The first leader after T has T's marker, which is
// committed, so the configuration that elected it is in this log too: this one,
// the one before it, or the one behind. They change by one voter at a time, each
// when the last is committed, so a majority of one has a voter in common with
// every majority of its neighbours. A nonvoter elects nobody: its word proves
// nothing.
//
// This node gives its own word. The others' come in one of two ways: with the
// question, of the one who asks it (byWord), or asked for in a round (confirm).

var errNotLeading = errors.New("raftnode: this node does not lead, or its term's marker is not applied yet")

// committed is the present commit index of the term that this node leads, with
// its own word that this is its term.
func (n *Node) committed() (readIndex, error) {
	lead := n.proposer.leading() // its marker is applied
	if lead == nil {
		return readIndex{}, errNotLeading
	}
	ri := readIndex{term: lead.term, asked: time.Now(), index: max(n.raft.CommitIndex(), lead.start)}
	if mutant.On("no-marker") {
		ri.index = n.store.Index()
	}
	if n.raft.CurrentTerm() != lead.term {
		return readIndex{}, errNotLeading
	}
	return ri, nil
}

// byWord is what a follower asks for, where its own word and this node's are a
// majority of the voters: of two or three, if it is one of them. Then nobody else
// has to be asked. false: a round has to tell.
//
// The term came with the request (ReadIndexRequest): the asker's current one, read
// after the reads had begun that it asks for. That is what a round would have asked
// it; a word counts from when it was given, which was before it was sent, so it is
// as good when it arrives, however late that is. It counts for the asker's reads
// alone: a round that others wait for, or this node, may be of reads that began
// while it was under way, so it is no answer in one.
//
// It is the word of the folder at the other end of the connection, so that has to
// be the one that the configuration has: a connection can have been that of a
// folder that was replaced since it sent this.
//
// Of four voters and more a majority takes three words. With the asker's a round
// for it alone would need one less, but askers could not share it.
func (n *Node) byWord(asker caller, term uint64) (readIndex, bool) {
	ri, err := n.committed()
	if err != nil || term != ri.term {
		return readIndex{}, false
	}
	yes, voters := 0, 0
	for _, s := range n.configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
		} else if !mutant.On("word-of-nonvoter") {
			continue
		}
		switch string(s.ID) {
		case n.cfg.ID:
			yes++
		case asker.id:
			if folder := folderOf(s); folder != "" && folder == asker.folder || mutant.On("word-of-any-folder") {
				yes++
			}
		}
	}
	if mutant.On("word-for-all") {
		mutant.Note(term)
	}
	return ri, yes > voters/2 || yes == 2 && mutant.On("word-is-enough")
}

// readIndexAtOnce answers a follower's ask by its word; nil where that does not do.
func (n *Node) readIndexAtOnce(from caller, r *trivetpb.ReadIndexRequest) *trivetpb.ReadIndexReply {
	ri, ok := n.byWord(from, r.GetTerm())
	if !ok {
		return nil
	}
	n.counters.confirmedByAsker.Add(1)
	return &trivetpb.ReadIndexReply{Term: ri.term, Index: ri.index}
}

// serveReadIndex answers a follower's ask by a round.
func (n *Node) serveReadIndex(ctx context.Context, _ *trivetpb.ReadIndexRequest) *trivetpb.ReadIndexReply {
	ri, err := n.confirmRounds.join(ctx)
	if err != nil {
		return &trivetpb.ReadIndexReply{Problem: &trivetpb.Problem{Code: trivetpb.Code_NO_LEADER, Detail: err.Error()}}
	}
	return &trivetpb.ReadIndexReply{Term: ri.term, Index: ri.index}
}

// confirm is a round: it asks voters whether T is their current term. It asks as
// many as it needs, of those that are likely to answer soon (poll), and the others
// once one of these has failed, or is late.
func (n *Node) confirm(ctx context.Context) (readIndex, error) {
	ri, err := n.committed()
	if err != nil || mutant.On("read-unconfirmed") {
		return ri, err
	}
	if mutant.On("verify-leader") {
		return ri, n.raft.VerifyLeader().Error()
	}
	p := &n.poll
	yes, voters := p.begin(n.configuration(), n.cfg.ID)
	if mutant.On("word-for-all") && mutant.Noted() == ri.term {
		yes++
	}
	need := voters/2 + 1
	if yes >= need {
		return ri, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer p.end()
	// Its own for each round: an answer that comes later than its round goes nowhere.
	answers := make(chan peerAnswer, len(p.line))
	ask := func(voters []*voter) {
		for _, v := range voters {
			n.askTerm(ctx, v, ri.term, answers)
		}
	}
	first := p.first(need-yes, ri.asked)
	ask(p.line[:first])
	p.alarm(p.patience(n.cfg.Timing))
	for patient := true; ; {
		askAll := false
		select {
		case a := <-answers:
			if v := p.find(a.from); a.reply.GetConfirm().GetTerm() == ri.term {
				p.answered(v)
				if yes++; yes == need {
					p.took(time.Since(ri.asked))
					return ri, nil
				}
			} else {
				v.state = voterFailed
				askAll = true
			}
		case <-p.timer.C:
			if !patient {
				return readIndex{}, fmt.Errorf("%d of %d voters confirmed term %d in time", yes, voters, ri.term)
			}
			patient, askAll = false, true
			p.late()
			p.alarm(2 * n.cfg.Timing.Election)
		case <-ctx.Done():
			return readIndex{}, fmt.Errorf("%d of %d voters confirmed term %d: %w", yes, voters, ri.term, ctx.Err())
		case <-n.ctx.Done():
			return readIndex{}, errStopped
		}
		if askAll && first < len(p.line) {
			ask(p.line[first:])
			first = len(p.line)
		}
		if yes+p.open() < need {
			return readIndex{}, fmt.Errorf("%d of %d voters confirmed term %d", yes, voters, ri.term)
		}
	}
}

// askTerm asks a voter for its word. What becomes of that goes to answers, once.
func (n *Node) askTerm(ctx context.Context, v *voter, term uint64, answers chan<- peerAnswer) {
	v.state = voterAsked
	request := &trivetpb.PeerRequest{
		Request: &trivetpb.PeerRequest_Confirm{Confirm: &trivetpb.ConfirmRequest{Term: term}},
	}
	var sent bool
	if v.call, sent = n.peers.begin(v.id, request, answers); sent {
		return
	}
	// There is no connection, or no room on it: it may take a while.
	waits := n.spawn(func() {
		reply, _ := n.peers.call(ctx, v.id, request)
		answers <- peerAnswer{v.id, reply}
	})
	if !waits {
		answers <- peerAnswer{from: v.id}
	}
}

// serveConfirm answers a leader's question. raft raises its current term, in
// its stable store and then in memory, before it answers any vote request of
// that term, so a term read here was still this voter's at the time.
func (n *Node) serveConfirm(*trivetpb.ConfirmRequest) *trivetpb.ConfirmReply {
	return &trivetpb.ConfirmReply{Term: n.raft.CurrentTerm()}
}
