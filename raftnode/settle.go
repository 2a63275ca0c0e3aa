package raftnode

import (
	"cmp"
	"context"
	"time"

	"github.com/hashicorp/raft"

	"trivet/trivetpb"
)

// settlePause is how often a member looks whether the cluster knows it as it is.
const settlePause = 250 * time.Millisecond

// settleWait is how long one attempt to change that may take.
const settleWait = 10 * time.Second

// settle sees to it that the cluster knows this member as it is: at the address
// that it goes by, and as a voter where it was started to become one. Nobody else
// remembers either: a request to the leader may be lost with that, while the
// member asks until it is so.
//
// Where it hears of no leader, or is no member by what it has applied, it calls
// the others: to be told if it was removed, and to tell where it is now.
func (n *Node) settle() {
	alone, told := 0, ""
	for {
		pause := settlePause
		conf, index, changed := n.confs.now()
		s, there := serverOf(conf, n.cfg.ID)
		var req *trivetpb.MembershipRequest
		switch {
		case n.forming(): // nobody knows anything yet
		case n.knownAt() != n.advertise,
			// As a version that knew no folders has left it. By what is applied, so not
			// where this folder is not the member's.
			there && folderOf(s) == "" && n.store.Level() >= levelFolders && !n.storage.waits.Load():
			req = &trivetpb.MembershipRequest{
				Change: trivetpb.MembershipRequest_MOVE, Id: n.cfg.ID, Peer: n.advertise, Incarnation: n.storage.incarnation,
			}
		case there && s.Suffrage != raft.Voter && n.storage.becomesVoter.Load():
			req = &trivetpb.MembershipRequest{Change: trivetpb.MembershipRequest_PROMOTE, Id: n.cfg.ID}
		}
		if n.leaderID() == "" || (index > 0 && !there) {
			alone++
		} else {
			alone = 0
		}
		if alone > 1 {
			n.callOthers()
		}
		if req != nil && n.ctx.Err() == nil {
			ctx, cancel := context.WithTimeout(n.ctx, settleWait)
			c, err := n.changeMembers(ctx, req)
			cancel()
			switch {
			case err == nil:
				if req.Change == trivetpb.MembershipRequest_PROMOTE {
					n.becameVoter()
				}
				if c.Changed {
					n.log.Info("the cluster knows this member anew", "change", req.Change.String(), "address", cmp.Or(req.Peer, n.advertise), "index", c.Index)
				}
			case err != nil && n.ctx.Err() == nil:
				pause = 8 * settlePause
				if why := err.Error(); why != told {
					told = why
					n.log.Warn("the cluster does not know this member as it is yet", "change", req.Change.String(), "address", req.Peer, "error", err)
				}
			}
		}
		select {
		case <-time.After(pause):
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}

// becameVoter notes that this member votes, or did: it does not ask for that again,
// so that it can be demoted. It hears of it from the answer or from the log; only
// where a crash loses the first, and a snapshot passes over the second and over a
// demotion, it asks once more than it should.
func (n *Node) becameVoter() {
	if !n.storage.becomesVoter.Load() {
		return
	}
	if err := n.storage.settled(); err != nil {
		n.log.Warn("that this member votes cannot be written down", "error", err)
	}
	n.storage.becomesVoter.Store(false)
}

// knownAt returns where the others look for this member, as far as is known here,
// committed or not: one that has moved may hear of nothing that is, before the
// others know where it is.
func (n *Node) knownAt() string {
	conf := n.configuration()
	if s, there := serverOf(conf, n.cfg.ID); there {
		return peerOf(s)
	}
	if at := n.storage.peers[n.cfg.ID]; at != "" && len(conf.Servers) == 0 {
		return at // as it was let in
	}
	return n.cfg.AdvertisePeer
}

// callOthers asks each other member for nothing that matters: the handshake is
// what counts.
func (n *Node) callOthers() { n.call(n.others()) }

func (n *Node) call(ids []string) {
	ctx, cancel := context.WithTimeout(n.ctx, memberTimeout)
	defer cancel()
	done := make(chan struct{})
	for _, id := range ids {
		if !n.spawn(func() {
			n.askMember(ctx, id)
			select {
			case done <- struct{}{}:
			case <-ctx.Done():
			}
		}) {
			return
		}
	}
	for range ids {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}
