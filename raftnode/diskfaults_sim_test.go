package raftnode

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// diskFaults are ways for a disk to go wrong, and what the member says of it.
var diskFaults = []struct {
	name, says string
	set        func(*simDisk) (undo func(*simDisk))
}{
	{"hangs", "simulated log: writing 1 entries takes longer than 5s", func(d *simDisk) func(*simDisk) {
		hang := make(chan struct{})
		d.hang = hang
		return func(d *simDisk) { d.hang = nil; close(hang) }
	}},
	{"fails a sync", "input/output error", func(d *simDisk) func(*simDisk) {
		d.failing = syscall.EIO
		return func(d *simDisk) { d.failing = nil }
	}},
	{"is full", "no space left on device", func(d *simDisk) func(*simDisk) {
		d.failing = syscall.ENOSPC
		return func(d *simDisk) { d.failing = nil }
	}},
}

func (s *sim) onDisk(id string, f func(*simDisk)) {
	d := s.members[id].disk
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

// Whatever is wrong with one member's disk, under load: leadership moves on,
// reads go on at the others all the time, nothing acknowledged is lost or done
// twice, and with a good disk again the member is back.
func TestSimDiskFaultsStayTheMembersOwn(t *testing.T) {
	for _, fault := range diskFaults {
		for _, role := range []string{"leader", "follower"} {
			t.Run(fault.name+"/"+role, func(t *testing.T) {
				runSim(t, 3, nil, func(s *sim) {
					victim := s.leader()
					if role == "follower" {
						victim = s.followers()[0]
					}
					good := others(s.up(), victim)
					require.Nil(t, simPut(good[0], "before", "1", time.Second))
					ctx, cancel := within(20 * time.Second)
					defer cancel()
					wg := s.load(ctx, 7, 6, 3)
					defer wg.Wait()
					time.Sleep(time.Second) // virtual

					var undo func(*simDisk)
					s.onDisk(victim.ID(), func(d *simDisk) { undo = fault.set(d) })
					began := time.Now()
					failed := false
					for !failed {
						select {
						case <-victim.Failed():
							failed = true
						case <-time.After(100 * time.Millisecond): // virtual
							require.Less(t, time.Since(began), 10*time.Second, "it goes on")
						}
						for _, n := range good {
							v, err := simGet(n, "before", 2*time.Second)
							require.NoError(t, err, "%v after the fault", time.Since(began))
							require.Equal(t, "1", v)
						}
					}
					require.ErrorContains(t, victim.Err(), fault.says)
					for _, n := range good {
						require.Nil(t, simPut(n, "after", n.ID(), 5*time.Second))
					}
					require.NotEqual(t, victim, s.leader())
					time.Sleep(3 * time.Second) // virtual

					s.onDisk(victim.ID(), undo)
					s.crash(victim.ID())
					s.start(victim.ID())
					cancel()
					wg.Wait()
					s.converge()
					s.checkCounter()
					s.checkHistory(300)
				})
			})
		}
	}
}

// All disks are full at once: nothing is acknowledged, nothing that was is lost,
// and with space again, and every member started again, writes go on.
func TestSimAllDisksFull(t *testing.T) {
	runSim(t, 3, nil, func(s *sim) {
		ctx, cancel := within(20 * time.Second)
		defer cancel()
		wg := s.load(ctx, 8, 6, 3)
		defer wg.Wait()
		time.Sleep(time.Second) // virtual
		for _, id := range s.ids {
			s.onDisk(id, func(d *simDisk) { d.failing = syscall.ENOSPC })
		}
		require.NotNil(t, simPut(s.node("n1"), "full", "1", 3*time.Second))
		// Who had something to write has stopped. One that is left alone stands for
		// nothing, as nobody pre-votes for it, and writes nothing.
		stopped := 0
		for range 100 {
			stopped = 0
			for _, n := range s.up() {
				if n.Err() != nil {
					require.ErrorIs(t, n.Err(), syscall.ENOSPC)
					stopped++
				}
			}
			if stopped > 1 {
				break
			}
			time.Sleep(100 * time.Millisecond) // virtual
		}
		require.Greater(t, stopped, 1)
		for _, id := range s.ids {
			s.crash(id)
			s.onDisk(id, func(d *simDisk) { d.failing = nil })
		}
		for _, id := range s.ids {
			s.start(id)
		}
		require.Nil(t, simPut(s.leader(), "space", "1", 5*time.Second))
		cancel()
		wg.Wait()
		s.converge()
		s.checkCounter()
		s.checkHistory(100)
	})
}
