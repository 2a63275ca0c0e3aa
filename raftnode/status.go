package raftnode

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"trivet/trivetpb"
)

// Status is this node alone.
type Status struct {
	Node, Cluster string
	Role          string // leader, follower, candidate or replica
	Leader        string // its id; empty where none is known
	Term          uint64
	CommitIndex   uint64
	AppliedIndex  uint64
	StateHash     uint64 // of the state at AppliedIndex
	Version       string
	Uptime        time.Duration
	Failed        string // why the node took itself out of service; empty where it has not
}

// Status returns this node's own view, without asking anybody.
func (n *Node) Status() Status {
	s := n.store.Stats()
	st := Status{
		Node:         n.cfg.ID,
		Cluster:      n.cluster,
		Role:         n.role(),
		Leader:       n.leaderID(),
		Term:         n.raft.CurrentTerm(),
		CommitIndex:  n.raft.CommitIndex(),
		AppliedIndex: s.Index,
		StateHash:    s.Hash,
		Version:      n.cfg.Version,
		Uptime:       time.Since(n.started),
	}
	if err := n.failure(); err != nil {
		st.Failed = err.Error()
	}
	return st
}

func (n *Node) role() string {
	switch n.raft.State() {
	case raft.Leader:
		return "leader"
	case raft.Candidate:
		return "candidate"
	}
	conf := n.configuration()
	if s, ok := serverOf(conf, n.cfg.ID); ok && s.Suffrage == raft.Voter || n.forming() {
		return "follower"
	}
	return "replica"
}

// Member is one member as the node that was asked sees it.
type Member struct {
	ID, API, Peer string
	Role          string // voter or replica
	Leader        bool
	Healthy       bool // it answered, and has not taken itself out of service
	AppliedIndex  uint64
	Lag           uint64 // entries committed at the node that was asked, and not applied there
	// LastContact is how long ago the member last answered; negative: never to
	// this node. API and Version are as of then.
	LastContact time.Duration
	Version     string
}

// ClusterStatus is the whole cluster.
type ClusterStatus struct {
	Cluster, Leader string
	Term            uint64
	Members         []Member // by id
}

// memberTimeout bounds the question to one member.
const memberTimeout = 500 * time.Millisecond

// Cluster asks every member about itself, all at once. A member that does not
// answer in time is listed as not healthy. The error is a *trivetpb.Problem.
func (n *Node) Cluster(ctx context.Context) (ClusterStatus, error) {
	if err := n.stopped(); err != nil {
		return ClusterStatus{}, err
	}
	servers := n.configuration().Servers
	if len(servers) == 0 {
		for id, at := range n.storage.peers { // as far as it was told
			servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(at)})
		}
	}
	cs := ClusterStatus{
		Cluster: n.cluster,
		Leader:  n.leaderID(),
		Term:    n.raft.CurrentTerm(),
		Members: make([]Member, len(servers)),
	}
	commit := n.raft.CommitIndex()
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			id := string(s.ID)
			m := Member{ID: id, Peer: peerOf(s), Role: "voter", Leader: id == cs.Leader}
			if s.Suffrage != raft.Voter {
				m.Role = "replica"
			}
			var r *trivetpb.MemberReply
			if id == n.cfg.ID {
				r = n.serveMember(nil)
			} else if reply, err := n.peers.call(ctx, id, &trivetpb.PeerRequest{
				Request: &trivetpb.PeerRequest_Member{Member: &trivetpb.MemberRequest{}},
			}); err == nil {
				r = reply.GetMember()
				n.heard(id, r)
			}
			m.LastContact, m.API, m.Version = n.lastHeard(id)
			if r != nil {
				m.Healthy = r.Failed == ""
				m.AppliedIndex = r.AppliedIndex
				m.Lag = commit - min(commit, r.AppliedIndex)
			}
			cs.Members[i] = m
		})
	}
	wg.Wait()
	sort.Slice(cs.Members, func(i, j int) bool { return cs.Members[i].ID < cs.Members[j].ID })
	return cs, nil
}

// serveMember answers another member's question about this one.
func (n *Node) serveMember(*trivetpb.MemberRequest) *trivetpb.MemberReply {
	s := n.store.Stats()
	r := &trivetpb.MemberReply{
		Api:          n.cfg.AdvertiseAPI,
		Version:      n.cfg.Version,
		Term:         n.raft.CurrentTerm(),
		LastIndex:    n.raft.LastIndex(),
		AppliedIndex: s.Index,
		StateHash:    s.Hash,
		Leader:       n.leaderID(),
		Resigned:     n.leaving(),
		Level:        n.store.KnownLevel(),
	}
	if err := n.failure(); err != nil {
		r.Failed = err.Error()
	}
	return r
}

// contact is what a member said when it last answered.
type contact struct {
	at           time.Time
	api, version string
}

// heard notes that a member has just answered.
func (n *Node) heard(id string, r *trivetpb.MemberReply) {
	n.contactMu.Lock()
	n.contacts[id] = contact{time.Now(), r.GetApi(), r.GetVersion()}
	n.contactMu.Unlock()
}

// lastHeard returns how long ago a member answered, negative for never, and
// what it said of itself then.
func (n *Node) lastHeard(id string) (ago time.Duration, api, version string) {
	if id == n.cfg.ID {
		return 0, n.cfg.AdvertiseAPI, n.cfg.Version
	}
	n.contactMu.Lock()
	defer n.contactMu.Unlock()
	c, ok := n.contacts[id]
	if !ok {
		return -1, "", ""
	}
	return time.Since(c.at), c.api, c.version
}

// defaultMaxLag is how many committed entries a ready node may be behind.
const defaultMaxLag = 1000

// Ready returns the reasons why this node cannot serve now; none: it can. It
// can while it knows a leader, has applied all but maxLag (0: 1,000) of the
// entries that it knows to be committed, and is not stopping. Where it knows no
// leader, why others refuse it is among the reasons.
func (n *Node) Ready(maxLag uint64) []string {
	if maxLag == 0 {
		maxLag = defaultMaxLag
	}
	var reasons []string
	if err := n.failure(); err != nil {
		reasons = append(reasons, "the node has failed: "+err.Error())
	}
	if n.leaving() {
		reasons = append(reasons, "the node is stopping")
	}
	if absent := n.absent(); len(absent) > 0 {
		reasons = append(reasons, "the new cluster waits until all its first members have met; not yet here: "+strings.Join(absent, ", "))
	}
	if n.leaderID() == "" {
		reasons = append(reasons, "no leader is known")
		reasons = append(reasons, n.port.refusals()...)
	}
	commit, applied := n.raft.CommitIndex(), n.store.Index()
	switch lag := commit - min(commit, applied); {
	case applied == 0:
		reasons = append(reasons, "nothing has been applied yet")
	case lag > maxLag:
		reasons = append(reasons, fmt.Sprintf("%d committed entries are not applied yet, and no more than %d may be", lag, maxLag))
	}
	return reasons
}
