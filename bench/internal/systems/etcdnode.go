package systems

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcdNodeEnv has the configuration of a node of etcd, in the environment of the
// process that is to be one.
const etcdNodeEnv = "TRIVET_BENCH_ETCD_NODE"

// etcdNode is that configuration. Everything else is etcd's default, but for the
// quota, which some rows need: etcd's 8 GiB, the most that it advises.
type etcdNode struct {
	Name           string
	Dir            string
	Client, Peer   string // URLs
	InitialCluster string
}

// RunIfNode runs a node of etcd, and does not return, where this process was started
// to be one: the program that measures starts itself again for each node. It comes
// first in main, and in the TestMain of this package.
func RunIfNode() {
	text, ok := os.LookupEnv(etcdNodeEnv)
	if !ok {
		return
	}
	if err := runEtcdNode(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runEtcdNode(text string) error {
	var n etcdNode
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		return err
	}
	client, err := url.Parse(n.Client)
	if err != nil {
		return err
	}
	peer, err := url.Parse(n.Peer)
	if err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.InitialCluster = n.Name, n.Dir, n.InitialCluster
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	cfg.QuotaBackendBytes = 8 << 30
	cfg.LogLevel = "error"
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	select {
	case <-signals:
		e.Close()
		return nil
	case err := <-e.Err():
		return err
	}
}
