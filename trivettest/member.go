package trivettest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"trivet/httpapi"
	"trivet/raftnode"
)

// member is one member, running or not.
type member struct {
	i   int
	id  string
	dir string
	url string
	net *network
	options
	peers []raftnode.Peer
	token string // of the cluster

	mu     sync.Mutex
	api    net.Listener // the first one, until it is served
	up     bool
	gone   bool // for good
	node   *raftnode.Node
	server *httpapi.Server
	served chan error
}

// start starts the member, which is down.
func (m *member) start() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.up || m.gone {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start %s: %w", m.id, err)
		}
	}()
	api := m.api
	m.api = nil
	if api == nil {
		// The port is as good as its own: nobody else has been told of it.
		if api, err = m.net.listen(m.url[len("http://"):]); err != nil {
			return err
		}
	}
	peer, err := m.net.listenPeer(m.i)
	if err != nil {
		return errors.Join(err, api.Close())
	}
	m.node, err = raftnode.Open(raftnode.Config{
		ID: m.id, DataDir: m.dir, PeerListener: peer, AdvertisePeer: peerName(m.i),
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return m.net.dial(ctx, m.i, address)
		},
		AdvertiseAPI: m.url, InitialCluster: m.peers, ClusterToken: m.token, Timing: m.timing, HistoryRevisions: m.history, Logger: m.logger,
	})
	if err != nil {
		return errors.Join(err, api.Close())
	}
	m.server, err = httpapi.New(m.node, httpapi.Config{Logger: m.logger})
	if err != nil {
		return errors.Join(err, api.Close(), m.closeNode())
	}
	m.up, m.served = true, make(chan error, 1)
	server, served := m.server, m.served
	go func() { served <- server.Serve(&listener{Listener: api, net: m.net, i: m.i}) }()
	return nil
}

// kill stops the member at once, where it runs.
func (m *member) kill() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.up {
		return nil
	}
	m.up = false
	err := m.server.Close()
	return errors.Join(err, <-m.served, m.closeNode())
}

// closeNode closes the node without anything that is done for a graceful stop.
func (m *member) closeNode() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.node.Close(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// close stops the member for good.
func (m *member) close() error {
	err := m.kill()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = true
	if m.api != nil {
		err = errors.Join(err, m.api.Close())
	}
	return err
}

// leads returns the term that the member leads, 0 for none.
func (m *member) leads() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.up {
		return 0
	}
	if s := m.node.Status(); s.Role == "leader" {
		return s.Term
	}
	return 0
}
