package raftnode

import (
	"context"
	"time"

	"trivet/store"
	"trivet/trivetpb"
)

// Node is one member of a cluster.
type Node struct{}

// Propose ...
func (n *Node) Propose(ctx context.Context, commands []*trivetpb.Command) ([]*trivetpb.Result, error) {
	panic("being written")
}

// Consistency is how fresh a read must be (API.md, "Reads: how fresh").
type Consistency int

const (
	Linearizable Consistency = iota
	Bounded
	Session
	Stale
)

// ReadOptions ...
type ReadOptions struct {
	Consistency  Consistency
	MaxStaleness time.Duration
	MinRevision  uint64
}

// Proof is what AwaitRead proved of the local state.
type Proof struct {
	// Consistency as served.
	Consistency Consistency
	// Staleness is a proven upper bound; meaningless unless Proven.
	Staleness time.Duration
	Proven    bool
}

// AwaitRead returns once the local store is as fresh as asked; then read Store().
func (n *Node) AwaitRead(ctx context.Context, o ReadOptions) (Proof, error) { panic("being written") }

// Store is the local state.
func (n *Node) Store() *store.Store { panic("being written") }

func (n *Node) ID() string        { panic("being written") }
func (n *Node) ClusterID() string { panic("being written") }

// Status is this node alone.
type Status struct {
	Node, Cluster string
	Role          string // leader, follower, candidate, replica
	Leader        string // id, empty where unknown
	Term          uint64
	CommitIndex   uint64
	AppliedIndex  uint64
	StateHash     uint64
	Version       string
	Uptime        time.Duration
	Failed        string // why the node took itself out of service
}

func (n *Node) Status() Status { panic("being written") }

// Member is one member as the node that was asked sees it.
type Member struct {
	ID, API, Peer string
	Role          string // voter, replica
	Leader        bool
	Healthy       bool
	AppliedIndex  uint64
	Lag           uint64        // entries behind the leader's commit index
	LastContact   time.Duration // since the member was last heard of; negative: never
	Version       string
}

// ClusterStatus is the whole cluster.
type ClusterStatus struct {
	Cluster, Leader string
	Term            uint64
	Members         []Member
}

func (n *Node) Cluster(ctx context.Context) (ClusterStatus, error) { panic("being written") }

// Ready returns the reasons why the node cannot serve now; none: it can.
// maxLag 0 means the default.
func (n *Node) Ready(maxLag uint64) []string { panic("being written") }
