package httpapi_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"trivet/client"
	"trivet/httpapi"
	"trivet/raftnode"
)

// A read replica inside an instance of a service: it has the whole state in the
// memory of the process, counts for no majority, and comes and goes as instances
// do. Writes go through it to the leader.
func Example_replica() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "trivet-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	quiet := slog.New(slog.DiscardHandler)
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		return l
	}

	// The cluster. It would be three processes elsewhere; one member will do here.
	port := listen()
	member, err := raftnode.Open(raftnode.Config{
		ID:             "n1",
		DataDir:        filepath.Join(dir, "n1"),
		PeerListener:   port,
		InitialCluster: []raftnode.Peer{{ID: "n1", Addr: port.Addr().String()}},
		Logger:         quiet,
	})
	if err != nil {
		log.Fatal(err)
	}

	// The instance. Join tells a member of it: elsewhere with POST
	// /v1/cluster/members to any member's API. It is called at the first start only;
	// after that the data folder knows the cluster.
	replica, err := raftnode.Open(raftnode.Config{
		ID:           "service-7",
		DataDir:      filepath.Join(dir, "service-7"),
		PeerListener: listen(),
		Replica:      true,
		Join: func(r raftnode.JoinRequest) (raftnode.Joined, error) {
			change, err := member.AddMember(ctx, raftnode.NewMember{ID: r.ID, Peer: r.Peer, Replica: true, Incarnation: r.Incarnation})
			if err != nil {
				return raftnode.Joined{}, err
			}
			joined := raftnode.Joined{Cluster: member.ClusterID(), Index: change.Index}
			for _, m := range change.Members {
				joined.Members = append(joined.Members, raftnode.Peer{ID: m.ID, Addr: m.Peer})
			}
			return joined, nil
		},
		Logger: quiet,
	})
	if err != nil {
		log.Fatal(err)
	}
	api, err := httpapi.New(replica, httpapi.Config{Logger: quiet})
	if err != nil {
		log.Fatal(err)
	}

	c, err := client.Open(ctx, client.Config{Endpoints: []string{"http://service-7"}, DisableDiscovery: true, Transport: api.Transport()})
	if err != nil {
		log.Fatal(err)
	}
	put, err := c.Put(ctx, "price/apple", []byte("120"))
	if err != nil {
		log.Fatal(err)
	}

	// Reads are of the process's own memory. This one sees the write above, for it
	// names its revision, and needs nobody else for that.
	if _, err := replica.AwaitRead(ctx, raftnode.ReadOptions{Consistency: raftnode.Session, MinRevision: put.Revision}); err != nil {
		log.Fatal(err)
	}
	item, _, _ := replica.Store().Get([]byte("price/apple"))
	fmt.Printf("%s has %s\n", replica.ID(), item.Value)

	// And it needs nobody for what may be a minute old.
	if _, err := replica.AwaitRead(ctx, raftnode.ReadOptions{}); err != nil { // proves how fresh it is
		log.Fatal(err)
	}
	proof, err := replica.AwaitRead(ctx, raftnode.ReadOptions{Consistency: raftnode.Bounded, MaxStaleness: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("served", proof.Consistency, "by a", replica.Status().Role)

	// An instance that goes for good takes its replica out of the cluster.
	if err := c.Close(); err != nil {
		log.Fatal(err)
	}
	if err := api.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	if err := replica.Close(ctx); err != nil {
		log.Fatal(err)
	}
	if _, err := member.RemoveMember(ctx, "service-7"); err != nil {
		log.Fatal(err)
	}
	if err := member.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// service-7 has 120
	// served bounded by a replica
}
