package raftnode

import (
	"context"
	"fmt"
	"sync"
	"time"

	"trivet/internal/mutant"
	"trivet/trivetpb"
)

// The level of the cluster is what its state machine may do (store/level.go).
// Each member says which level its version knows (MemberReply). While the leader
// knows a later one than the state has, it asks all members of the configuration,
// replicas too, once a second; when every one has answered that it knows a later
// level, the least of what they said goes into the log, in the settings of a
// Marker.
//
// One that does not answer keeps the level down: nobody knows what it will be
// started as. An older version that comes to the cluster after that, because it
// joins or because somebody put it back, meets the Marker or a snapshot of that
// level, and stops (fsm.apply, fsm.Restore). As it then votes for nobody, a
// majority put back would leave the cluster without a leader, but with all of its
// data.

const levelEvery = time.Second

// keepLevel runs until the node stops.
func (n *Node) keepLevel() {
	tick := time.NewTicker(levelEvery)
	defer tick.Stop()
	said := ""
	for {
		if lead := n.proposer.leading(); lead != nil && n.store.Level() < n.store.KnownLevel() {
			level, why := n.commonLevel()
			switch now := n.store.Level(); {
			case level > now:
				if err := n.raiseLevel(lead, level); err != nil {
					n.log.Error("the level cannot be raised", "error", err)
				} else if n.store.Level() >= level {
					n.log.Info("the cluster has a new level: all members know it", "level", level, "before", now)
				}
			case why != said:
				said = why
				n.log.Info("the cluster keeps its level until all members know a later one", "level", now, "why", why)
			}
		}
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
	}
}

// commonLevel is the newest level that all members know, and who keeps it there;
// 0 where somebody does not answer.
func (n *Node) commonLevel() (level uint64, why string) {
	ctx, cancel := context.WithTimeout(n.ctx, memberTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	level, why = n.store.KnownLevel(), ""
	for _, s := range n.configuration().Servers {
		id := string(s.ID)
		wg.Go(func() {
			r := n.askMember(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case r == nil && mutant.On("level-without-all"):
			case r == nil:
				level, why = 0, fmt.Sprintf("member %s does not answer", id)
			case r.Level < level:
				level, why = r.Level, fmt.Sprintf("member %s (version %.100s) knows level %d", id, r.Version, r.Level)
			}
		})
	}
	wg.Wait()
	return level, why
}

// raiseLevel puts the level into the log, with the settings of this leader, and
// waits until that is applied or given up.
func (n *Node) raiseLevel(lead *leadership, level uint64) error {
	settings := n.cfg.settings()
	settings.Level = level
	command, err := (&trivetpb.Command{Command: &trivetpb.Command_Marker{
		Marker: &trivetpb.Marker{Term: lead.term, Settings: settings},
	}}).MarshalVT()
	if err != nil {
		return err
	}
	n.proposeIn(lead, command)
	return nil
}
