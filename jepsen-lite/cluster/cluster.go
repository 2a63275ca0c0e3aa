package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"trivet/jepsen-lite/api"
	"trivet/jepsen-lite/nemesis"
)

// Config is how a cluster is started.
type Config struct {
	// Binary is trivet's.
	Binary string
	// Dir gets data, one folder a member, and logs; it exists.
	Dir string
	// Nodes is how many members there are, 1 to 9.
	Nodes int
	// BasePort is the first of a block of 30 ports on loopback.
	BasePort int
	// Args go to every `trivet serve`, behind the cluster's own.
	Args []string
	// Env is added to every member's environment.
	Env []string
	// Root gives each member a network namespace and a disk of its own, in place of
	// ports on loopback. It takes root; see CanRoot.
	Root bool
	// Links puts the forwarders between the members.
	Links bool
	// Clocks says that the binary is of BuildWithWallClocks.
	Clocks bool
}

// Ports is how many ports a cluster has.
const Ports = 30

// Cluster is running members. Its methods may be called by several goroutines.
type Cluster struct {
	cfg     Config
	members map[string]*process
	ids     []string
	links   *links  // nil where there are none
	root    *rooted // nil without Root
	lock    net.Listener
}

// Open starts the members and returns when all of them take requests.
func Open(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	if cfg.Nodes < 1 || cfg.Nodes > 9 {
		return nil, fmt.Errorf("a cluster has 1 to 9 nodes, not %d", cfg.Nodes)
	}
	c := &Cluster{cfg: cfg, members: map[string]*process{}}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	for i := range cfg.Nodes {
		c.ids = append(c.ids, fmt.Sprintf("n%d", i+1))
	}
	if cfg.Root {
		err = c.placeInNamespaces()
	} else {
		err = c.placeOnLoopback()
	}
	if err != nil {
		return nil, err
	}
	var initial []string
	for _, id := range c.ids {
		initial = append(initial, id+"="+c.members[id].public)
	}
	errs := make(chan error, len(c.ids))
	for _, id := range c.ids {
		p := c.members[id]
		if cfg.Clocks {
			path, err := filepath.Abs(c.wall(id))
			if err != nil {
				return nil, err
			}
			if err := os.WriteFile(path, make([]byte, 8), 0o600); err != nil {
				return nil, err
			}
			p.env = append(p.env[:len(p.env):len(p.env)], wallVariable+"="+path)
		}
		p.args = append(append(p.args, cfg.Args...), "--initial-cluster", strings.Join(initial, ","))
		go func() { errs <- p.start(ctx) }()
	}
	for range c.ids {
		err = errors.Join(err, <-errs)
	}
	return c, err
}

// placeOnLoopback gives each member ports of the block, behind a forwarder where
// there are to be links.
func (c *Cluster) placeOnLoopback() (err error) {
	// The first port of the block is held, so that another run takes another.
	if c.lock, err = net.Listen("tcp", loopback(c.cfg.BasePort)); err != nil {
		return err
	}
	behind, byAddress := map[string]string{}, map[string]string{}
	for i, id := range c.ids {
		peer := loopback(c.cfg.BasePort + 11 + i)
		public := peer
		if c.cfg.Links {
			public = loopback(c.cfg.BasePort + 21 + i)
			behind[public], byAddress[public] = peer, id
		}
		c.members[id] = c.member(id, loopback(c.cfg.BasePort+1+i), peer, public)
		c.members[id].launch = launch
	}
	if c.cfg.Links {
		c.links, err = openLinks(behind, byAddress)
	}
	return err
}

// placeInNamespaces gives each member a network and a disk of its own. Every
// second one keeps its log in bolt.
func (c *Cluster) placeInNamespaces() (err error) {
	if c.root, err = openRoot(c.ids, c.cfg.Dir); err != nil {
		return err
	}
	for i, id := range c.ids {
		at := func(port int) string { return fmt.Sprintf("%v:%d", c.root.addr[id], port) }
		p := c.member(id, at(rootAPIPort), at(rootPeerPort), at(rootPeerPort))
		p.launch = c.root.space[id].launch
		p.args = append(p.args, "--insecure") // nobody else is in this network
		if i%2 == 1 {
			p.args = append(p.args, "--log-store", "boltdb")
		}
		c.members[id] = p
	}
	return nil
}

func (c *Cluster) member(id, api, peer, public string) *process {
	return &process{
		id: id, api: api, public: public, log: filepath.Join(c.cfg.Dir, id+".log"), binary: c.cfg.Binary, env: c.cfg.Env,
		args: []string{"serve", "--id", id, "--data", filepath.Join(c.cfg.Dir, id), "--api", api, "--peer", peer, "--advertise-peer", public},
	}
}

// CanRoot says what Config.Root is missing here; nil for nothing.
func CanRoot(dir string) error {
	defer os.RemoveAll(dir)
	r, err := openRoot([]string{"n1"}, dir)
	if err == nil {
		r.close(false)
	}
	return err
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// FreeBlock returns the first block of ports, from first on and below end, that
// nobody uses.
func FreeBlock(first, end int) (int, error) {
	for base := first; base+Ports <= end; base += Ports {
		free := true
		for p := base; p < base+Ports && free; p++ {
			l, err := net.Listen("tcp", loopback(p))
			if free = err == nil; free {
				l.Close()
			}
		}
		if free {
			return base, nil
		}
	}
	return 0, fmt.Errorf("no %d free ports in a row from %d to %d", Ports, first, end)
}

// Nodes returns the members.
func (c *Cluster) Nodes() []api.Node {
	var nodes []api.Node
	for _, id := range c.ids {
		nodes = append(nodes, api.Node{ID: id, URL: "http://" + c.members[id].api})
	}
	return nodes
}

// Environment is what the nemesis gets; Leader is not set.
func (c *Cluster) Environment() *nemesis.Environment {
	env := &nemesis.Environment{Nodes: c.Nodes(), Processes: c}
	if c.links != nil {
		env.Links = c.links
	}
	if c.root != nil {
		c.root.environment(c, env)
	}
	if c.cfg.Clocks {
		env.Clocks = c
	}
	return env
}

var _ nemesis.Clocks = (*Cluster)(nil)
var _ nemesis.Processes = (*Cluster)(nil)

// Kill, Start, Pause and Resume are those of nemesis.Processes.
func (c *Cluster) Kill(id string) error                       { return c.members[id].kill() }
func (c *Cluster) Start(ctx context.Context, id string) error { return c.members[id].start(ctx) }
func (c *Cluster) Forget(id string, since time.Time) error    { return c.forget(id, since) }
func (c *Cluster) Pause(id string) error                      { return c.members[id].pause() }
func (c *Cluster) Resume(id string) error                     { return c.members[id].resume() }

func (c *Cluster) forget(id string, since time.Time) error {
	p := c.members[id]
	p.expectEnd(since)
	if err := p.kill(); err != nil {
		return err
	}
	if c.root != nil {
		d := c.root.disks[id]
		if err := d.detached(d.Wipe); err != nil {
			return err
		}
	} else if err := os.RemoveAll(filepath.Join(c.cfg.Dir, id)); err != nil {
		return err
	}
	var others []string
	for _, other := range c.ids {
		if other != id {
			others = append(others, "http://"+c.members[other].api)
		}
	}
	p.joins(strings.Join(others, ","))
	return nil
}

// Deaths returns what became of processes that ended without having been told
// to: each is a fault of the program under test.
func (c *Cluster) Deaths() []string {
	var all []string
	for _, id := range c.ids {
		all = append(all, c.members[id].diedAlone()...)
	}
	return all
}

// Close kills all processes, and leaves the data in the members' folders. It can
// be called again.
func (c *Cluster) Close() {
	var wg sync.WaitGroup
	for _, p := range c.members {
		wg.Go(func() { _ = p.kill() }) // there is nobody to tell, and nothing to do
	}
	wg.Wait()
	if c.links != nil {
		c.links.close()
	}
	if c.root != nil {
		c.root.close(true)
		c.root = nil
	}
	if c.lock != nil {
		c.lock.Close()
	}
}

// RemoveData removes the members' data folders. The cluster is closed.
func (c *Cluster) RemoveData() (err error) {
	for _, id := range c.ids {
		err = errors.Join(err, os.RemoveAll(filepath.Join(c.cfg.Dir, id)))
	}
	return err
}

// Logs returns the paths of the members' logs.
func (c *Cluster) Logs() []string {
	var out []string
	for _, id := range c.ids {
		if _, err := os.Stat(c.members[id].log); err == nil {
			out = append(out, c.members[id].log)
		}
	}
	return out
}
