package client_test

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"trivet/client"
	"trivet/trivettest"
)

// inBubble runs f with a cluster in memory and in virtual time.
func inBubble(t *testing.T, f func(t *testing.T, cluster *trivettest.Cluster), opts ...trivettest.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t, trivettest.Start(t, append(opts, trivettest.InMemory())...))
	})
}

// gate is the way of one client to a cluster, which can be shut without anybody else's
// noticing: as where its process stands still, or its machine is cut off.
type gate struct {
	cluster *trivettest.Cluster
	mu      sync.Mutex
	shut    bool
	conns   []net.Conn
}

// gated opens a client behind a gate; members are those that it knows, none for all.
func gated(t *testing.T, cluster *trivettest.Cluster, members ...int) (*client.Client, *gate) {
	t.Helper()
	g := &gate{cluster: cluster}
	cfg := cluster.Config()
	cfg.DialContext = g.dial
	if len(members) > 0 {
		cfg.Endpoints, cfg.DisableDiscovery = nil, true
		for _, i := range members {
			cfg.Endpoints = append(cfg.Endpoints, cluster.Endpoints()[i])
		}
	}
	return open(t, cfg), g
}

func (g *gate) dial(ctx context.Context, network, address string) (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.EHOSTUNREACH}
	}
	nc, err := g.cluster.DialContext(ctx, network, address)
	if err == nil {
		g.conns = append(g.conns, nc)
	}
	return nc, err
}

// close shuts the gate, and returns when the client has noticed that its connections
// are gone: else it might send a request over one of them.
func (g *gate) close() {
	g.mu.Lock()
	g.shut = true
	for _, nc := range g.conns {
		_ = nc.Close()
	}
	g.conns = nil
	g.mu.Unlock()
	synctest.Wait()
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
}

// everyFault is what can happen to a request and is got over. Of a captive portal
// that holds where another node can be asked: in front of all of them it fails the call.
var everyFault = []struct {
	name string
	how  trivettest.Fault
}{
	{"nobody listens", trivettest.Refuse()},
	{"the request lost", trivettest.LoseRequest()},
	{"the answer lost", trivettest.LoseAnswer()},
	{"half an answer", trivettest.CutAnswer()},
	{"too much to do", trivettest.Respond(429)},
	{"no leader", trivettest.Respond(503)},
	{"a proxy's page", trivettest.Respond(502)},
	{"a captive portal", trivettest.Respond(200)},
	{"a delay", trivettest.Delay(700 * time.Millisecond)},
}

// shortly bounds a call that is to fail.
func shortly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
