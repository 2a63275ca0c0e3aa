package systems

import (
	"context"
	"errors"
	"io"
	"os/exec"
)

// ErrUnsupported: the system has nothing of the same meaning.
var ErrUnsupported = errors.New("not supported")

// System is one of what is compared.
type System interface {
	Name() string
	// Version is for the report. The error says why the system cannot be run
	// here, in words for a person: it is not installed, say.
	Version(ctx context.Context) (string, error)
	// Ways names how it can be spoken to; a name is an argument of Cluster.Open.
	Ways() []string
	// Start starts it anew, and returns when every node serves. What it started is
	// ended where it fails.
	Start(ctx context.Context, env Env) (Cluster, error)
}

// Env is where a system runs.
type Env struct {
	// Dir is an empty folder for the data and the logs.
	Dir string
	// Port returns a port of loopback that nobody else uses; each call another one.
	Port func() (int, error)
}

// Cluster is the running servers of a system. Its methods are called by one
// goroutine at a time, except Open's results and Snapshot.
type Cluster interface {
	// Nodes is how many there are.
	Nodes() int
	// PIDs returns the processes of node i.
	PIDs(i int) []int
	// Leader returns the node that leads; ErrUnsupported where there is one node.
	Leader(ctx context.Context) (int, error)
	// Kill ends node i by SIGKILL, and returns when it is gone.
	Kill(i int) error
	// Stop ends node i as its operator would, and returns when it is gone.
	Stop(i int) error
	// Restart starts node i with the data that it has. It does not wait until it
	// serves.
	Restart(i int) error
	// Open returns a client. It need not have spoken to anybody yet.
	Open(ctx context.Context, way string, o Options) (Client, error)
	// Load writes keys from (inclusive) to (exclusive), with random values of so
	// many bytes, in whatever way is fastest.
	Load(ctx context.Context, from, to, valueBytes int) error
	// Snapshot streams a consistent backup of one node, the leader where there is
	// one, to w.
	Snapshot(ctx context.Context, w io.Writer) error
	// Close ends everything, without ceremony.
	Close()
}

// Options says how a client is opened.
type Options struct {
	// ValueBytes is how long every value is; a read that finds another length
	// fails.
	ValueBytes int
	// Nodes are those that are spoken to, writes too. Nil: all, and writes go to
	// the leader.
	Nodes []int
}

// Client speaks to a Cluster in one way.
type Client interface {
	// Caller returns what caller i calls. It may be called by several goroutines.
	Caller(i int) (Caller, error)
	// Watch tells, through events, how many changes of keys under load.Prefix have
	// arrived, a call for each message of the servers; ready is called once, when
	// changes from now on will arrive. It goes on until ctx ends, which is no
	// error. Several may go on at a time; i is the number of this one.
	Watch(ctx context.Context, i int, ready func(), events func(n int)) error
	Close() error
}

// Caller is one caller's requests, about keys by their numbers. It belongs to one
// goroutine. Each request has succeeded exactly if its error is nil.
type Caller interface {
	// Put writes a value durably.
	Put(ctx context.Context, key int, value []byte) error
	// Get reads a value linearizably.
	Get(ctx context.Context, key int) error
	// StaleGet reads a value as some node has it.
	StaleGet(ctx context.Context, key int) error
	// Scan reads count items with their values, linearizably, from key on.
	Scan(ctx context.Context, key, count int) error
	// Txn puts a value to two keys, which differ, if a third exists, atomically. It
	// fails where the third does not.
	Txn(ctx context.Context, exists, a, b int, value []byte) error
	// Close gives up what the caller holds.
	Close() error
}

// All returns every system, in the order in which they are measured. trivetBinary
// is the path of cmd/trivet, built.
func All(trivetBinary string) []System {
	return []System{Trivet{Binary: trivetBinary}, Etcd{}, Postgres{}, Redis{}}
}

// AllPIDs returns the processes of all nodes.
func AllPIDs(c Cluster) []int {
	var pids []int
	for i := range c.Nodes() {
		pids = append(pids, c.PIDs(i)...)
	}
	return pids
}

// installed returns the path of a program.
func installed(program string) (string, error) { return exec.LookPath(program) }
