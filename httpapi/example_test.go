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

// A cluster inside the processes of a service: here three members in one, as a
// test would have them. Each has the whole API; this example needs no port for it.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "trivet-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	// The first members of a cluster are all told the same list.
	var peers []raftnode.Peer
	var listeners []net.Listener
	for _, id := range []string{"n1", "n2", "n3"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		listeners = append(listeners, l)
		peers = append(peers, raftnode.Peer{ID: id, Addr: l.Addr().String()})
	}
	quiet := slog.New(slog.DiscardHandler)
	var nodes []*raftnode.Node
	var servers []*httpapi.Server
	for i, p := range peers {
		node, err := raftnode.Open(raftnode.Config{
			ID:             p.ID,
			DataDir:        filepath.Join(dir, p.ID),
			PeerListener:   listeners[i],
			InitialCluster: peers,
			Logger:         quiet,
		})
		if err != nil {
			log.Fatal(err)
		}
		server, err := httpapi.New(node, httpapi.Config{Logger: quiet})
		if err != nil {
			log.Fatal(err)
		}
		nodes, servers = append(nodes, node), append(servers, server)
	}

	// The Go client over a member in the same process: no connection between them.
	c, err := client.Open(ctx, client.Config{
		Endpoints:        []string{"http://n1"},
		DisableDiscovery: true,
		Transport:        servers[0].Transport(),
	})
	if err != nil {
		log.Fatal(err)
	}
	put, err := c.Put(ctx, "greeting", []byte("hello"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("written at revision", put.Revision)

	// Another member's own copy of the state, read without any encoding between. A
	// linearizable read asks the leader whether it is fresh; see ReadOptions for
	// those that need not.
	if _, err := nodes[2].AwaitRead(ctx, raftnode.ReadOptions{Consistency: raftnode.Linearizable}); err != nil {
		log.Fatal(err)
	}
	item, found, _ := nodes[2].Store().Get([]byte("greeting"))
	fmt.Printf("n3 has %q: %t\n", item.Value, found)

	// To stop: the client, then the API, whose requests the member still serves,
	// then the member, which hands leadership over. Close waits for every goroutine
	// and file.
	if err := c.Close(); err != nil {
		log.Fatal(err)
	}
	for i := range nodes {
		if err := servers[i].Shutdown(ctx); err != nil {
			log.Fatal(err)
		}
		// The error says what was not graceful: here, that the last ones find nobody
		// to take over. They are closed all the same.
		if err := nodes[i].Close(ctx); err != nil {
			quiet.Warn("not stopped gracefully", "error", err)
		}
	}
	// Output:
	// written at revision 2
	// n3 has "hello": true
}
