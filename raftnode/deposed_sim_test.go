package raftnode

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// Answers to a leader are two seconds under way. It is cut off, another one is
// elected and written to, and then the old one is asked for a read, while the
// answers to what it asked before are still to come. They say that it led then.
// It must not take them for a proof that it leads now, as raft's VerifyLeader
// does; neither those to its heartbeats nor those to a round that an earlier
// read began.
func TestSimDelayedAcksConfirmNoRead(t *testing.T) {
	slow := Timing{Heartbeat: 10 * time.Second, Election: 10 * time.Second, Lease: 10 * time.Second, RPC: 10 * time.Second}
	for _, round := range []bool{false, true} {
		runSim(t, 3, func(c *Config) { c.Timing = slow }, func(s *sim) {
			old, next := s.leader(), s.followers()[0]
			require.Nil(t, simPut(old, "k", "old", time.Second))
			s.converge()
			s.net.mu.Lock()
			s.net.delay = func(from, to string) time.Duration {
				if to == old.ID() {
					return 2 * time.Second
				}
				return 0
			}
			s.net.mu.Unlock()
			time.Sleep(5 * time.Second) // virtual
			// Heartbeats go out, and arrive.
			verified := old.raft.VerifyLeader()
			if round {
				go simGet(old, "k", 10*time.Second)
			}
			time.Sleep(50 * time.Millisecond) // virtual
			s.net.set(s.ids, func(from, to string) bool { return from == old.ID() })
			require.True(t, next.standNow(old.ID()))
			time.Sleep(50 * time.Millisecond) // virtual
			require.Nil(t, simPut(next, "k", "new", time.Second))
			require.Equal(t, raft.Leader, old.raft.State(), "the scenario: it does not know yet")

			began := time.Now()
			v, err := simGet(old, "k", 5*time.Second)
			if err == nil && v != "new" {
				t.Errorf("a read of %q was confirmed by answers to what was asked %v before", v, time.Since(began))
			}
			require.NoError(t, verified.Error(), "the scenario: raft took them for a proof")

			s.net.mu.Lock()
			s.net.delay = nil
			s.net.mu.Unlock()
			s.heal()
			v, err = simGet(old, "k", 30*time.Second)
			require.NoError(t, err)
			require.Equal(t, "new", v)
			s.converge()
		})
	}
}
