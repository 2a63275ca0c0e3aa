package raftnode

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// A whole cluster in virtual time (testing/synctest): the real node and
// hashicorp/raft over a network and disks in memory. Thirty seconds of it take
// hundredths of a second.

type sim struct {
	t       *testing.T
	net     *simNet
	ids     []string // of all machines
	first   []string // of the first members
	members map[string]*simMember
	change  func(*Config)

	mu      sync.Mutex
	leaders map[uint64]string // by term
	hashes  map[uint64]uint64 // by applied index
	history []porcupine.Operation
	// Additions of one to the key "counter", by outcome.
	added, maybeAdded int64
}

type simMember struct {
	id   string
	disk *simDisk
	at   string // its peer port's address
	node *Node  // nil while it is down
	in   bool   // it is a member, or may be: it was let in and not removed since
}

// runSim runs f with a cluster of n members, in a bubble of virtual time.
func runSim(t *testing.T, n int, change func(*Config), f func(s *sim)) {
	t.Helper()
	runSimWith(t, n, 0, change, f)
}

// runSimWith is runSim with more machines, on which members can join.
func runSimWith(t *testing.T, n, more int, change func(*Config), f func(s *sim)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &sim{
			t: t, net: newSimNet(), members: map[string]*simMember{}, change: change,
			leaders: map[uint64]string{}, hashes: map[uint64]uint64{},
		}
		for i := range n + more {
			id := fmt.Sprintf("n%d", i+1)
			s.ids = append(s.ids, id)
			s.members[id] = &simMember{id: id, disk: newSimDisk(), at: simAddr(id), in: i < n}
		}
		s.first = s.ids[:n]
		for _, id := range s.first {
			s.start(id)
		}
		defer func() { // also where f ends the test
			s.heal()
			for _, id := range s.ids {
				s.crash(id)
			}
		}()
		f(s)
	})
}

func (s *sim) peers() []Peer {
	var peers []Peer
	for _, id := range s.first {
		peers = append(peers, Peer{ID: id, Addr: simAddr(id)})
	}
	return peers
}

// start starts a member that is down, over the disk that it left.
func (s *sim) start(id string) *Node {
	s.t.Helper()
	n, err := Open(s.config(id))
	require.NoError(s.t, err)
	s.mu.Lock()
	s.members[id].node = n
	s.mu.Unlock()
	return n
}

// config is how a member is started.
func (s *sim) config(id string) Config {
	m := s.members[id]
	c := Config{
		ID: id, InitialCluster: s.peers(), PeerListener: s.net.listenAt(id, m.at), AdvertisePeer: m.at,
		Dial:    func(ctx context.Context, address string) (net.Conn, error) { return s.net.dial(ctx, id, address) },
		Logger:  testLog(s.t),
		storage: m.disk.storage("sim", s.peers()),
		// The harder case: a leader that is deposed leaves more behind.
		inFlight: maxInFlightFar,
		onApplied: func(index, hash uint64) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if before, ok := s.hashes[index]; ok && before != hash {
				s.t.Errorf("at index %d, member %s has hash %x, another had %x", index, id, hash, before)
			}
			s.hashes[index] = hash
		},
		onLeading: func(term uint64) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if before, ok := s.leaders[term]; ok && before != id {
				s.t.Errorf("term %d is led by %s and by %s", term, before, id)
			}
			s.leaders[term] = id
		},
	}
	if s.change != nil {
		s.change(&c)
	}
	return c
}

// crash ends a member at once; its disk keeps what was synced.
func (s *sim) crash(id string) {
	m := s.members[id]
	s.mu.Lock()
	n := m.node
	m.node = nil
	s.mu.Unlock()
	if n == nil {
		return
	}
	s.net.crash(id)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n.Close(ctx)
}

// isolate cuts members off from all others.
func (s *sim) isolate(ids ...string) {
	in := map[string]bool{}
	for _, id := range ids {
		in[id] = true
	}
	s.net.set(s.ids, func(from, to string) bool { return in[from] != in[to] })
}

func (s *sim) heal() { s.net.set(s.ids, func(string, string) bool { return false }) }

func (s *sim) up() []*Node {
	var nodes []*Node
	for _, id := range s.ids {
		if n := s.node(id); n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// node returns a member's node, nil while it is down.
func (s *sim) node(id string) *Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members[id].node
}

// leader waits until some member serves as the leader of the newest term.
func (s *sim) leader() *Node {
	s.t.Helper()
	for range 10_000 {
		var best *Node
		var term uint64
		for _, n := range s.up() {
			if l := n.proposer.leading(); l != nil && l.term > term {
				best, term = n, l.term
			}
		}
		if best != nil {
			return best
		}
		time.Sleep(5 * time.Millisecond) // virtual
	}
	s.t.Fatal("no leader in 50 seconds")
	return nil
}

// leaderAfter waits until some member serves as the leader of a later term.
func (s *sim) leaderAfter(term uint64) *Node {
	s.t.Helper()
	for {
		n := s.leader()
		if l := n.proposer.leading(); l != nil && l.term > term {
			return n
		}
		time.Sleep(time.Millisecond) // virtual
	}
}

// in lists the machines whose members are in the cluster, as far as is known.
func (s *sim) in() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, id := range s.ids {
		if s.members[id].in {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *sim) followers() []*Node {
	leader := s.leader()
	var out []*Node
	for _, n := range s.up() {
		if n != leader {
			out = append(out, n)
		}
	}
	return out
}

func within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// random is a seeded source for any number of goroutines.
type random struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newRandom(seed int64) *random { return &random{r: rand.New(rand.NewSource(seed))} }

func (r *random) Intn(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Intn(n)
}

// simPut writes through a node and returns the problem, nil for none.
func simPut(n *Node, key, value string, d time.Duration) *trivetpb.Problem {
	ctx, cancel := within(d)
	defer cancel()
	rs, err := n.Propose(ctx, []*trivetpb.Command{put(key, value)})
	if err != nil {
		var p *trivetpb.Problem
		errors.As(err, &p)
		return p
	}
	return rs[0].Problem
}

// simGet reads through a node, linearizably.
func simGet(n *Node, key string, d time.Duration) (string, error) {
	ctx, cancel := within(d)
	defer cancel()
	if _, err := n.AwaitRead(ctx, ReadOptions{}); err != nil {
		return "", err
	}
	item, _, _ := n.Store().Get([]byte(key))
	return string(item.Value), nil
}

// register is porcupine's model of one key.
type registerInput struct {
	write bool
	key   string
	value string
}

var registerModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(registerInput).key
			by[key] = append(by[key], o)
		}
		var out [][]porcupine.Operation
		for _, h := range by {
			out = append(out, h)
		}
		return out
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in := input.(registerInput)
		if in.write {
			return true, in.value
		}
		return output.(string) == state.(string), state
	},
}

// load runs clients against all members until the context ends, each a closed
// loop of reads and writes of few keys, and records what they saw.
func (s *sim) load(ctx context.Context, seed int64, clients, keys int) *sync.WaitGroup {
	var wg sync.WaitGroup
	for c := range clients {
		rnd := newRandom(seed*1000 + int64(c))
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				time.Sleep(time.Duration(rnd.Intn(20)) * time.Millisecond) // virtual
				id := s.ids[rnd.Intn(len(s.ids))]
				n := s.node(id)
				if n == nil {
					continue
				}
				if rnd.Intn(4) == 0 {
					s.add(n)
					continue
				}
				key := "k" + strconv.Itoa(rnd.Intn(keys))
				in := registerInput{write: rnd.Intn(2) == 0, key: key, value: fmt.Sprintf("%d/%d", c, i)}
				call := time.Now().UnixNano()
				op := porcupine.Operation{ClientId: c, Input: in, Call: call}
				if in.write {
					p := simPut(n, key, in.value, 3*time.Second)
					if p != nil && !p.Unknown {
						continue // certainly not applied: as if never asked
					}
					op.Return = time.Now().UnixNano()
					if p != nil {
						// It may take effect at any time from here on.
						op.Return = int64(^uint64(0) >> 1)
					}
				} else {
					v, err := simGet(n, key, 3*time.Second)
					if err != nil {
						continue
					}
					op.Output, op.Return = v, time.Now().UnixNano()
				}
				s.mu.Lock()
				s.history = append(s.history, op)
				s.mu.Unlock()
			}
		})
	}
	return &wg
}

// add adds one to the counter, through a node.
func (s *sim) add(n *Node) {
	ctx, cancel := within(3 * time.Second)
	defer cancel()
	rs, err := n.Propose(ctx, addCounter())
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
	case rs[0].Problem == nil:
		s.added++
	case rs[0].Problem.Unknown:
		s.maybeAdded++
	}
}

func addCounter() []*trivetpb.Command {
	return []*trivetpb.Command{{Command: &trivetpb.Command_Op{Op: &trivetpb.Op{Op: &trivetpb.Op_Add{
		Add: &trivetpb.AddOp{Key: []byte("counter"), Delta: 1},
	}}}}}
}

// checkCounter fails the test where an addition was lost or done twice.
func (s *sim) checkCounter() {
	s.t.Helper()
	item, _, _ := s.leader().store.Get([]byte("counter"))
	final, err := strconv.ParseInt(string(item.Value), 10, 64)
	require.NoError(s.t, err)
	if final < s.added || final > s.added+s.maybeAdded {
		s.t.Errorf("the counter is %d; %d additions were acknowledged, and of %d the outcome is unknown", final, s.added, s.maybeAdded)
	}
}

// checkHistory fails the test where what the clients saw is not linearizable,
// and where too little happened for that to mean anything.
func (s *sim) checkHistory(least int) {
	s.t.Helper()
	if len(s.history) < least {
		s.t.Errorf("only %d operations went through", len(s.history))
	}
	if r := porcupine.CheckOperationsTimeout(registerModel, s.history, time.Minute); r != porcupine.Ok {
		s.t.Errorf("the history of %d operations is not linearizable (%v)", len(s.history), r)
	}
}

// converge waits until all members have applied the same.
func (s *sim) converge() {
	s.t.Helper()
	leader := s.leader()
	require.Nil(s.t, simPut(leader, "end", "end", 10*time.Second))
	for _, n := range s.up() {
		_, err := simGet(n, "end", 10*time.Second)
		require.NoError(s.t, err)
	}
	a := s.up()[0].store.Stats()
	for _, n := range s.up() {
		b := n.store.Stats()
		require.Equal(s.t, a.Hash, b.Hash)
		require.Equal(s.t, a.Revision, b.Revision)
		require.Zero(s.t, n.Stats().HashMismatches, "a false alarm")
		if conf, _, _ := n.confs.now(); n.store.Level() >= levelFolders {
			s.requireFolders(conf)
		}
	}
}

func TestSimWriteAndReadEverywhere(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		s.leader()
		for i, n := range s.up() {
			require.Nil(t, simPut(n, "k", strconv.Itoa(i), time.Second))
			for _, r := range s.up() {
				v, err := simGet(r, "k", time.Second)
				require.NoError(t, err)
				require.Equal(t, strconv.Itoa(i), v)
			}
		}
		s.converge()
	})
}

// simSeeds returns the seeds to run: those of the environment, FIRST+COUNT, for
// `make sim`; else from 0.
func simSeeds(t *testing.T, count int) (first, seeds int) {
	seeds = count
	if env := os.Getenv("TRIVET_SIM_SEEDS"); env != "" {
		_, err := fmt.Sscanf(env, "%d+%d", &first, &seeds)
		require.NoError(t, err, "TRIVET_SIM_SEEDS is FIRST+COUNT")
	}
	return first, seeds
}

// The members' state survives whatever the seed's nemesis does, and clients see
// one linearizable history.
func TestSimNemesis(t *testing.T) {
	first, seeds := simSeeds(t, 8)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			members := 3
			if seed%4 == 3 {
				members = 5
			}
			// Snapshots all the time, some keeping hardly any log behind them.
			snapshotBytes := int64(4<<10) << (seed % 5)
			runSim(t, members, func(c *Config) { c.SnapshotBytes = snapshotBytes }, func(s *sim) {
				rnd := newRandom(int64(seed))
				s.net.mu.Lock()
				s.net.latency = func() time.Duration { return time.Duration(50+rnd.Intn(300)) * time.Microsecond }
				s.net.mu.Unlock()
				s.leader()
				ctx, cancel := within(30 * time.Second)
				defer cancel()
				wg := s.load(ctx, int64(seed), 8, 4)
				defer wg.Wait()
				for ctx.Err() == nil {
					s.nemesis(rnd)
				}
				s.heal()
				for _, id := range s.ids {
					if s.node(id) == nil {
						s.start(id)
					}
				}
				wg.Wait()
				s.converge()
				s.checkHistory(500)
				s.checkCounter()
			})
		})
	}
}

// nemesis does one bad thing for a while, and ends it.
func (s *sim) nemesis(rnd *random) {
	in := s.in()
	pick := func() string { return in[rnd.Intn(len(in))] }
	hold := func() { time.Sleep(time.Duration(200+rnd.Intn(2000)) * time.Millisecond) } // virtual
	switch rnd.Intn(6) {
	case 0: // a member crashes
		id := pick()
		s.crash(id)
		hold()
		s.start(id)
	case 1: // the leader is cut off
		s.isolate(s.leader().ID())
		hold()
		s.heal()
	case 2: // somebody is
		s.isolate(pick())
		hold()
		s.heal()
	case 3: // one direction is
		a, b := pick(), pick()
		s.net.set(s.ids, func(from, to string) bool { return from == a && to == b })
		hold()
		s.heal()
	case 4: // a disk is slow
		d := s.members[pick()].disk
		d.mu.Lock()
		was := d.delay
		d.delay = func() time.Duration { return time.Duration(rnd.Intn(200)) * time.Millisecond }
		d.mu.Unlock()
		hold()
		d.mu.Lock()
		d.delay = was
		d.mu.Unlock()
	case 5: // everything crashes at once
		if rnd.Intn(3) > 0 {
			return
		}
		for _, id := range in {
			s.crash(id)
		}
		for _, id := range in {
			s.start(id)
		}
	}
	time.Sleep(time.Duration(rnd.Intn(500)) * time.Millisecond) // virtual
}

var _ raft.LogStore = (*simDisk)(nil)
