package client

import (
	"context"
	"net/http"
	"strings"
	"time"

	"trivet/trivetpb"
)

// Cluster is all members, as the node that answered sees them.
type Cluster struct {
	// ID is the cluster's.
	ID string
	// Leader is the id of the member that leads; empty where none is known.
	Leader  string
	Term    uint64
	Members []Member
}

// Member is one member.
type Member struct {
	ID string
	// API is where its HTTP API is; empty where that could not be learned.
	API string
	// Peer is the address of its peer port.
	Peer string
	// Role is voter or replica.
	Role   string
	Leader bool
	// Healthy says that it answered and serves.
	Healthy bool
	// AppliedIndex is the last log entry in its state; Lag is how many it is
	// behind the node that answered.
	AppliedIndex, Lag uint64
	// LastContact is how long ago it was heard; negative for never.
	LastContact time.Duration
	Version     string
}

// Status is one node alone.
type Status struct {
	Node, Cluster string
	// Role is leader, follower, candidate or replica.
	Role string
	// Leader is the id of the member that leads; empty where none is known.
	Leader                    string
	Term                      uint64
	CommitIndex, AppliedIndex uint64
	// Revision is that of the node's own state, CompactRevision the oldest one
	// that can still be read.
	Revision, CompactRevision uint64
	// StateHash is the same on every node at the same AppliedIndex.
	StateHash string
	// Keys and Bytes are how much lives in the state.
	Keys, Bytes uint64
	Watchers    uint64
	Uptime      time.Duration
	Version     string
	// Failed is why the node took itself out of service; empty where it has not.
	Failed string
}

// Cluster asks any node for the members.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	var told clusterJSON
	if err := c.do(ctx, clusterRequest(&told)); err != nil {
		return Cluster{}, err
	}
	cl := Cluster{ID: told.Cluster, Leader: told.Leader, Term: told.Term}
	for _, m := range told.Members {
		member := Member{
			ID: m.ID, API: m.API, Peer: m.Peer, Role: m.Role, Leader: m.Leader, Healthy: m.Healthy,
			AppliedIndex: m.AppliedIndex, Lag: m.Lag, LastContact: -1, Version: m.Version,
		}
		if m.LastContactMS != nil {
			member.LastContact = time.Duration(*m.LastContactMS) * time.Millisecond
		}
		cl.Members = append(cl.Members, member)
	}
	return cl, nil
}

// Status asks one node about itself: the one at the URL, such as an endpoint or
// a Member.API (which may be a host and port alone). No other node is asked instead, and none is waited for: the
// error, ErrUnavailable, says that it did not answer.
func (c *Client) Status(ctx context.Context, nodeURL string) (Status, error) {
	op := "status of " + nodeURL
	u, err := parseEndpoint(nodeURL)
	if !strings.Contains(nodeURL, "://") {
		u, err = parseEndpoint(c.members.endpoints[0].base.Scheme + "://" + nodeURL)
	}
	if err != nil {
		return Status{}, refusal(op, trivetpb.Code_BAD_REQUEST, "%v", err)
	}
	var doc statusJSON
	r := &request{op: op, method: http.MethodGet, path: statusPath, decode: func(a *answer) error {
		doc = statusJSON{}
		if err := decodeJSON(a, &doc); err != nil {
			return err
		}
		if doc.Node == "" {
			return missing("node")
		}
		return nil
	}}
	ctx, end, err := c.begin(ctx)
	if err != nil {
		return Status{}, r.ended(err, &course{})
	}
	defer end()
	if e := c.attempt(ctx, c.members.at(u), r, maxServerTimeout); e != nil {
		var past course
		past.add(r, e)
		return Status{}, r.failure(ctx, e, &past)
	}
	uptime, _ := time.ParseDuration(doc.Uptime)
	return Status{
		Node: doc.Node, Cluster: doc.Cluster, Role: doc.Role, Leader: doc.Leader, Term: doc.Term,
		CommitIndex: doc.CommitIndex, AppliedIndex: doc.AppliedIndex,
		Revision: doc.Revision, CompactRevision: doc.CompactRevision, StateHash: doc.StateHash,
		Keys: doc.Keys, Bytes: doc.Bytes, Watchers: doc.Watchers,
		Uptime: uptime, Version: doc.Version, Failed: doc.Failed,
	}, nil
}

type clusterJSON struct {
	Cluster string       `json:"cluster"`
	Leader  string       `json:"leader"`
	Term    uint64       `json:"term"`
	Members []memberJSON `json:"members"`
}

type memberJSON struct {
	ID            string `json:"id"`
	API           string `json:"api"`
	Peer          string `json:"peer"`
	Role          string `json:"role"`
	Leader        bool   `json:"leader"`
	Healthy       bool   `json:"healthy"`
	AppliedIndex  uint64 `json:"applied_index"`
	Lag           uint64 `json:"lag"`
	LastContactMS *int64 `json:"last_contact_ms"` // null for never
	Version       string `json:"version"`
}

// clusterRequest asks for the cluster, into told.
func clusterRequest(told *clusterJSON) *request {
	return &request{op: "cluster", method: http.MethodGet, path: clusterPath, decode: func(a *answer) error {
		*told = clusterJSON{}
		if err := decodeJSON(a, told); err != nil {
			return err
		}
		if told.Cluster == "" || len(told.Members) == 0 {
			return missing("cluster or members")
		}
		return nil
	}}
}

type statusJSON struct {
	Node            string `json:"node"`
	Cluster         string `json:"cluster"`
	Role            string `json:"role"`
	Leader          string `json:"leader"`
	Term            uint64 `json:"term"`
	CommitIndex     uint64 `json:"commit_index"`
	AppliedIndex    uint64 `json:"applied_index"`
	Revision        uint64 `json:"revision"`
	CompactRevision uint64 `json:"compact_revision"`
	StateHash       string `json:"state_hash"`
	Keys            uint64 `json:"keys"`
	Bytes           uint64 `json:"bytes"`
	Watchers        uint64 `json:"watchers"`
	Uptime          string `json:"uptime"`
	Version         string `json:"version"`
	Failed          string `json:"failed"`
}
