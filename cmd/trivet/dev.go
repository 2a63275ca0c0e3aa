package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

const (
	defaultDevNodes    = 3
	defaultDevAPIPort  = 7071
	defaultDevPeerPort = 7171
	// maxDevNodes keeps a slip of the finger from starting hundreds of
	// processes; no cluster of more voters makes sense.
	maxDevNodes = 9

	// devReadyTime is how long all nodes may take until they can serve.
	devReadyTime = time.Minute
	// devStopTime is how long the nodes may take to stop gracefully: longer
	// than serve gives itself.
	devStopTime = 2*stopTime + 5*time.Second
)

// devFlags is the command line of dev.
type devFlags struct {
	nodes, apiPort, peerPort int
	dir                      string
	fresh, restart           bool
}

func newDev() *cobra.Command {
	f := &devFlags{}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a local cluster",
		Long: `Run a cluster on this machine: nodes n1, n2, … as processes of their own on
127.0.0.1, with their data in DIR/n1, … and their logs in DIR/n1.log, ….

It prints a line a node once all can serve, and from then on a line whenever the
leader changes or a node goes or comes back. To see what a failure does, kill a
node by its process id: it is not started again unless --restart is given.

Ctrl-C stops all of them gracefully, a second one kills them. Started again, dev
goes on with the data it finds; --fresh begins anew.

What serve can be told by environment variables (TRIVET_QUOTA, TRIVET_LOG_LEVEL
and so on) reaches all nodes.`,
		Example: `  trivet dev
  trivet dev --nodes 5 --dir /tmp/five
  trivet dev --fresh`,
		Args: takes(0, 0),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVar(&f.nodes, "nodes", defaultDevNodes, "number of nodes")
	flags.StringVar(&f.dir, "dir", "./trivet-data", "folder of data and logs; made where it is missing")
	flags.IntVar(&f.apiPort, "api-port", defaultDevAPIPort, "port of n1's HTTP API; n2 has the next, and so on")
	flags.IntVar(&f.peerPort, "peer-port", defaultDevPeerPort, "port of n1 for other nodes; n2 has the next, and so on")
	flags.BoolVar(&f.fresh, "fresh", false, "delete the cluster that is in the folder and begin anew")
	flags.BoolVar(&f.restart, "restart", false, "start a node again that has died")
	_ = cmd.MarkFlagDirname("dir")
	cmd.RunE = action(exitNo, func(cmd *cobra.Command, _ []string) error {
		wants := devWants{fresh: f.fresh}
		// What was not asked for is whatever the folder holds.
		if flags.Changed("nodes") {
			wants.nodes = f.nodes
		}
		if flags.Changed("peer-port") {
			wants.peerPort = f.peerPort
		}
		return f.dev(cmd.Context(), cmd.OutOrStdout(), wants)
	})
	return cmd
}

// devCluster is a local cluster while it runs. One goroutine, that of dev, owns
// it; what happens reaches it through channels.
type devCluster struct {
	out     io.Writer
	program string // the file to run
	called  string // what the user has called it
	dir     *devDir
	nodes   []*devNode
	restart bool
	starter *childStarter

	signals  chan os.Signal
	exits    chan devExit
	seen     chan observation
	restarts chan *devNode

	leader     string    // as last reported
	leaderless time.Time // since when nobody leads; zero: somebody does
}

// dev runs the cluster until a signal or the context ends it.
func (f *devFlags) dev(ctx context.Context, out io.Writer, wants devWants) error {
	if err := f.check(); err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := openDevDir(f.dir, wants)
	if err != nil {
		return err
	}
	defer dir.close()
	c := &devCluster{
		out: out, program: program, called: os.Args[0], dir: dir, restart: f.restart,
		signals:  make(chan os.Signal, 2),
		seen:     make(chan observation),
		exits:    make(chan devExit),
		restarts: make(chan *devNode),
	}
	if err := c.plan(f.apiPort); err != nil {
		return err
	}
	if err := dir.create(); err != nil {
		return err
	}

	signal.Notify(c.signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(c.signals)
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	c.starter = newChildStarter()
	defer c.starter.close()

	err = c.begin(ctx, watching)
	if err == nil {
		err = c.watch(ctx, watching)
	}
	stopWatching()
	if serr := c.stop(); serr != nil {
		return serr
	}
	if errors.Is(err, errInterrupted) {
		return nil
	}
	return err
}

// errInterrupted is the end that was asked for.
var errInterrupted = errors.New("interrupted")

func (f *devFlags) check() error {
	switch {
	case f.nodes < 1 || f.nodes > maxDevNodes:
		return fmt.Errorf("--nodes: %d is not from 1 to %d", f.nodes, maxDevNodes)
	case f.dir == "":
		return errors.New("--dir is empty")
	}
	for name, port := range map[string]int{"api-port": f.apiPort, "peer-port": f.peerPort} {
		if port < 1 || port > 1<<16-maxDevNodes {
			return fmt.Errorf("--%s: %d is not from 1 to %d", name, port, 1<<16-maxDevNodes)
		}
	}
	return nil
}

// plan lays out the nodes and checks that nobody has their ports.
func (c *devCluster) plan(apiPort int) error {
	state := c.dir.state
	if distance := apiPort - state.PeerPort; distance > -state.Nodes && distance < state.Nodes {
		return fmt.Errorf("--api-port: %d nodes from %d on would meet the peer ports from %d on", state.Nodes, apiPort, state.PeerPort)
	}
	var members []string
	for i := range state.Nodes {
		n := &devNode{
			id:   devID(i),
			api:  net.JoinHostPort("127.0.0.1", strconv.Itoa(apiPort+i)),
			peer: net.JoinHostPort("127.0.0.1", strconv.Itoa(state.PeerPort+i)),
		}
		n.url, n.data, n.log = "http://"+n.api, c.dir.data(n.id), c.dir.log(n.id)
		n.seen.node = n
		members = append(members, n.id+"="+n.peer)
		c.nodes = append(c.nodes, n)
		for what, address := range map[string]string{"API": n.api, "peer port": n.peer} {
			ln, err := net.Listen("tcp", address)
			switch {
			case errors.Is(err, syscall.EADDRINUSE):
				return fmt.Errorf("%s, the %s of %s, is in use by another process", address, what, n.id)
			case err != nil:
				return fmt.Errorf("the %s of %s: %w", what, n.id, err)
			}
			ln.Close()
		}
	}
	for _, n := range c.nodes {
		n.command = append(append([]string{"trivet"}, n.serveArgs()...),
			"--initial-cluster", strings.Join(members, ","), "--cluster-token", state.Token)
	}
	return nil
}

// serveArgs are the arguments that start the node once its data folder is made.
func (n *devNode) serveArgs() []string {
	return []string{"serve", "--id", n.id, "--data", n.data, "--api", n.api, "--peer", n.peer}
}

// begin starts the nodes, waits until all can serve, and says so.
func (c *devCluster) begin(ctx, watching context.Context) error {
	for _, n := range c.nodes {
		if err := n.start(c.starter, c.program, c.exits); err != nil {
			return err
		}
		go observe(watching, n, c.seen)
	}
	deadline := time.NewTimer(devReadyTime)
	defer deadline.Stop()
	for {
		var waiting *devNode
		for _, n := range c.nodes {
			if !n.seen.ready {
				waiting = n
			}
		}
		if waiting == nil {
			break
		}
		select {
		case o := <-c.seen:
			o.node.seen = o
		case e := <-c.exits:
			e.node.process = nil
			return fmt.Errorf("%s did not start (%s): %s", e.node.id, e.how, e.node.why())
		case <-deadline.C:
			return fmt.Errorf("%s cannot serve after %v: %s (its log is %s)", waiting.id, devReadyTime, waiting.seen.reason, waiting.log)
		case <-c.signals:
			return errInterrupted
		case <-ctx.Done():
			return errInterrupted
		}
	}
	if err := c.dir.begun(); err != nil {
		return err
	}
	c.introduce()
	return nil
}

// introduce prints the nodes and what to try next.
func (c *devCluster) introduce() {
	c.leader = c.leads()
	table := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	for _, n := range c.nodes {
		fmt.Fprintf(table, "%s\t%s\tpid %d\t%s\n", n.id, n.url, n.process.Pid, n.seen.status.Role)
	}
	table.Flush()
	first, last := c.nodes[0], c.nodes[len(c.nodes)-1]
	endpoints := ""
	if first.url != defaultEndpoints[0] || len(c.nodes) < len(defaultEndpoints) {
		var urls []string
		for _, n := range c.nodes {
			urls = append(urls, n.url)
		}
		endpoints = " --endpoints " + strings.Join(urls, ",")
	}
	fmt.Fprintf(c.out, `
Try:
  curl -X PUT --data-binary hello %s/v1/kv/greeting
  curl %s/v1/kv/greeting
  %s status%s

Ctrl-C stops the nodes; their data stay in %s.

`, first.url, last.url, shellLine([]string{c.called}), endpoints, c.dir.path)
}

// stop ends all nodes: gracefully, or at once where a second signal comes or
// they take too long.
func (c *devCluster) stop() error {
	running := 0
	for _, n := range c.nodes {
		if n.process != nil {
			running++
			n.signal(syscall.SIGTERM)
		}
	}
	if running == 0 {
		return nil
	}
	fmt.Fprintln(c.out, "stopping …")
	var killed error
	deadline := time.NewTimer(devStopTime)
	defer deadline.Stop()
	kill := func(why string) {
		killed = fmt.Errorf("the nodes were killed: %s", why)
		for _, n := range c.nodes {
			n.signal(syscall.SIGKILL)
		}
	}
	for running > 0 {
		select {
		case e := <-c.exits:
			e.node.process = nil
			running--
			if killed == nil && e.how != "exit status 0" {
				fmt.Fprintf(c.out, "%s  did not stop gracefully (%s): %s\n", e.node.id, e.how, e.node.why())
			}
		case <-c.signals:
			kill("a second signal came")
		case <-deadline.C:
			kill(fmt.Sprintf("they did not stop within %v", devStopTime))
		}
	}
	if killed == nil {
		fmt.Fprintln(c.out, "stopped")
	}
	return killed
}
