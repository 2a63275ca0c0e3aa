package raftnode

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"

	"trivet/trivetpb"
)

// A write through any member, while others come, go, change their roles and
// fail, is seen by all and done once.
func TestSimMembershipNemesis(t *testing.T) {
	first, seeds := simSeeds(t, 4)
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			snapshotBytes := int64(4<<10) << (seed % 5)
			runSimWith(t, 3, 3, func(c *Config) { c.SnapshotBytes = snapshotBytes }, func(s *sim) {
				rnd := newRandom(int64(seed))
				s.net.mu.Lock()
				s.net.latency = func() time.Duration { return time.Duration(50+rnd.Intn(300)) * time.Microsecond }
				s.net.mu.Unlock()
				s.leader()
				ctx, cancel := within(30 * time.Second)
				defer cancel()
				wg := s.load(ctx, int64(seed), 8, 4)
				defer wg.Wait()
				done := 0
				for ctx.Err() == nil {
					if rnd.Intn(3) == 0 {
						s.nemesis(rnd)
					} else if s.memberNemesis(rnd) {
						done++
					}
				}
				s.heal()
				for _, id := range s.in() {
					if s.node(id) == nil {
						s.start(id)
					}
				}
				wg.Wait()
				s.settleAll()
				s.converge()
				s.checkHistory(200)
				s.checkCounter()
				require.Greater(t, done, 3, "changes of membership")
			})
		})
	}
}

// memberNemesis changes the membership in one way, in the middle of which
// something may fail. It reports whether the change was made.
func (s *sim) memberNemesis(rnd *random) bool {
	in := s.in()
	via := s.node(in[rnd.Intn(len(in))])
	if via == nil {
		return false
	}
	ctx, cancel := within(3 * time.Second)
	defer cancel()
	trouble := make(chan struct{})
	go func() {
		defer close(trouble)
		time.Sleep(time.Duration(rnd.Intn(100)) * time.Millisecond) // virtual
		switch rnd.Intn(4) {
		case 0:
			id := in[rnd.Intn(len(in))]
			s.crash(id)
			time.Sleep(time.Duration(rnd.Intn(1000)) * time.Millisecond) // virtual
			s.start(id)
		case 1:
			s.isolate(in[rnd.Intn(len(in))])
			time.Sleep(time.Duration(rnd.Intn(1000)) * time.Millisecond) // virtual
			s.heal()
		}
	}()
	id := s.ids[rnd.Intn(len(s.ids))]
	isIn := s.isIn(id)
	var err error
	switch {
	case !isIn:
		err = s.letIn(ctx, id, via, rnd.Intn(3) == 0)
		<-trouble
		if err == nil {
			s.mu.Lock()
			s.members[id].in = true
			s.mu.Unlock()
			s.start(id)
		}
	case rnd.Intn(2) == 0 && len(in) > 3:
		_, err = via.RemoveMember(ctx, id)
		<-trouble
		// Removed or not, its disk is never used again: what is not known to
		// have been removed is removed until it is.
		if err == nil || problemUnknown(err) {
			s.removeForGood(id)
		}
	case rnd.Intn(2) == 0:
		_, err = via.PromoteMember(ctx, id)
	default:
		_, err = via.DemoteMember(ctx, id)
	}
	<-trouble
	return err == nil
}

func problemUnknown(err error) bool {
	var p *trivetpb.Problem
	return errors.As(err, &p) && p.Unknown
}

func (s *sim) isIn(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.members[id].in
}

// removeForGood removes a member whatever it takes, and gives its machine an
// empty disk.
func (s *sim) removeForGood(id string) {
	s.t.Helper()
	for range 100 {
		for _, other := range s.in() {
			n := s.node(other)
			if n == nil || other == id {
				continue
			}
			ctx, cancel := within(5 * time.Second)
			_, err := n.RemoveMember(ctx, id)
			cancel()
			if err == nil {
				s.mu.Lock()
				s.members[id].in = false
				s.mu.Unlock()
				s.wipe(id)
				return
			}
		}
		time.Sleep(100 * time.Millisecond) // virtual
	}
	s.t.Errorf("%s cannot be removed", id)
}

// settleAll waits until the members that run are those of the configuration.
func (s *sim) settleAll() {
	s.t.Helper()
	for range 10_000 {
		conf, _, _ := s.leader().confs.now()
		if len(conf.Servers) == len(s.up()) {
			return
		}
		for _, srv := range conf.Servers { // let in, and not known to be
			if !s.isIn(string(srv.ID)) {
				s.removeForGood(string(srv.ID))
			}
		}
		time.Sleep(5 * time.Millisecond) // virtual
	}
	s.t.Error("the configuration is not that of those who run")
}

// join lets the member of a machine with an empty disk in, through another one,
// and starts it.
func (s *sim) join(id string, via *Node, replica bool) *Node {
	s.t.Helper()
	m := s.members[id]
	ctx, cancel := within(20 * time.Second)
	defer cancel()
	require.NoError(s.t, s.letIn(ctx, id, via, replica))
	s.mu.Lock()
	m.in = true
	s.mu.Unlock()
	return s.start(id)
}

// letIn is what a member does before it runs.
func (s *sim) letIn(ctx context.Context, id string, via *Node, replica bool) error {
	m := s.members[id]
	c, err := via.AddMember(ctx, NewMember{ID: id, Peer: m.at, Replica: true, Incarnation: m.disk.incarnation})
	if err != nil {
		return err
	}
	joined := &Joined{Cluster: "sim", Index: c.Index}
	for _, other := range c.Members {
		joined.Members = append(joined.Members, Peer{ID: other.ID, Addr: other.Peer})
	}
	m.disk.mu.Lock()
	m.disk.joined, m.disk.becomesVoter = joined, !replica
	m.disk.mu.Unlock()
	return nil
}

// wipe takes a member's machine away and puts an empty one in its place.
func (s *sim) wipe(id string) {
	s.crash(id)
	s.members[id].disk = newSimDisk()
}

// awaitRole waits until all members that run have applied a configuration in
// which a member has a role; "" for none.
func (s *sim) awaitRole(id, role string) {
	s.t.Helper()
	for range 10_000 {
		ok := true
		for _, n := range s.up() {
			conf, _, _ := n.confs.now()
			if n.failure() == nil && roleIn(conf, id) != role {
				ok = false
			}
		}
		if ok {
			return
		}
		time.Sleep(5 * time.Millisecond) // virtual
	}
	for _, n := range s.up() {
		conf, index, _ := n.confs.now()
		s.t.Log(n.ID(), index, conf, n.failure())
	}
	s.t.Fatalf("%s is no %s in 50 seconds", id, role)
}

func roleIn(conf raft.Configuration, id string) string {
	s, ok := serverOf(conf, id)
	switch {
	case !ok:
		return ""
	case s.Suffrage == raft.Voter:
		return "voter"
	}
	return "replica"
}

// awaitFailure waits until a node has taken itself out of service.
func (s *sim) awaitFailure(n *Node) error {
	s.t.Helper()
	select {
	case <-n.Failed():
		return n.Err()
	case <-time.After(30 * time.Second): // virtual
		s.t.Fatalf("%s goes on", n.ID())
		return nil
	}
}

func problemOf(t *testing.T, err error) *trivetpb.Problem {
	t.Helper()
	var p *trivetpb.Problem
	require.ErrorAs(t, err, &p)
	return p
}
