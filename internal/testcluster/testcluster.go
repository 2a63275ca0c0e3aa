// Package testcluster runs a whole cluster in the process of a test: real
// members with real disks and sockets on loopback, each with its HTTP API.
package testcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"trivet/httpapi"
	"trivet/raftnode"
)

// Cluster is the members of one cluster. Its methods may be called by several
// goroutines.
type Cluster struct {
	dir     string
	members []*member
}

type member struct {
	node   *raftnode.Node
	server *httpapi.Server
	url    string
	served chan error

	mu     sync.Mutex
	killed bool
}

// Start starts n members, which stop with the test.
func Start(t testing.TB, n int) *Cluster {
	t.Helper()
	c, err := Open(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// Open starts n members, in a temporary folder. They may not have a leader yet
// when it returns; clients wait for one by themselves.
func Open(n int) (_ *Cluster, err error) {
	c := &Cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.dir, err = os.MkdirTemp("", "trivet-testcluster-"); err != nil {
		return nil, err
	}
	var peerPorts, apiPorts []net.Listener
	var peers []raftnode.Peer
	for i := range n {
		for _, list := range []*[]net.Listener{&peerPorts, &apiPorts} {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			*list = append(*list, l)
		}
		peers = append(peers, raftnode.Peer{ID: fmt.Sprintf("n%d", i+1), Addr: peerPorts[i].Addr().String()})
	}
	for i := range n {
		m := &member{url: "http://" + apiPorts[i].Addr().String(), served: make(chan error, 1)}
		m.node, err = raftnode.Open(raftnode.Config{
			ID: peers[i].ID, DataDir: filepath.Join(c.dir, peers[i].ID), PeerListener: peerPorts[i],
			AdvertiseAPI: m.url, InitialCluster: peers, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return nil, err
		}
		m.server, err = httpapi.New(m.node, httpapi.Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		go func() { m.served <- m.server.Serve(apiPorts[i]) }()
		c.members = append(c.members, m)
	}
	return c, nil
}

// Endpoints returns the URLs of all members' HTTP APIs.
func (c *Cluster) Endpoints() []string {
	var urls []string
	for _, m := range c.members {
		urls = append(urls, m.url)
	}
	return urls
}

// Handler returns the HTTP API of the member, for callers in the process.
func (c *Cluster) Handler(i int) http.Handler { return c.members[i].server }

// Leader returns which member leads, -1 where none says so.
func (c *Cluster) Leader() int {
	for i, m := range c.members {
		m.mu.Lock()
		killed := m.killed
		m.mu.Unlock()
		if !killed && m.node.Status().Role == "leader" {
			return i
		}
	}
	return -1
}

// Kill stops the member as a crash would: its connections are cut in the middle
// of what goes over them, and it hands nothing over. It does not come back.
func (c *Cluster) Kill(i int) error {
	m := c.members[i]
	m.mu.Lock()
	again := m.killed
	m.killed = true
	m.mu.Unlock()
	if again {
		return nil
	}
	err := m.server.Close()
	err = errors.Join(err, <-m.served)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if cerr := m.node.Close(ctx); !errors.Is(cerr, context.Canceled) {
		err = errors.Join(err, cerr)
	}
	return err
}

// Close stops all members and removes what they wrote.
func (c *Cluster) Close() error {
	errs := make([]error, len(c.members))
	var wg sync.WaitGroup
	for i := range c.members {
		wg.Go(func() { errs[i] = c.Kill(i) })
	}
	wg.Wait()
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}
