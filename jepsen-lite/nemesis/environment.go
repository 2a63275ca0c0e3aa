package nemesis

import (
	"context"
	"time"

	"trivet/jepsen-lite/api"
)

// Environment is a cluster that faults can be done to. What it cannot do it does
// not have: Processes, Links, ClientLinks, Disks or Clocks are nil then, and the kinds that need them
// are left out of the plan. All methods may be called by several goroutines.
type Environment struct {
	// Nodes are all members there are, in the order of their ids.
	Nodes     []api.Node
	Processes Processes
	Links     Links
	// ClientLinks are the ways between clients and members.
	ClientLinks ClientLinks
	Disks       Disks
	Clocks      Clocks
	// Leader returns the id of the member that leads, as far as anybody heard
	// lately; "" where nobody does.
	Leader func() string
}

// Processes are the members' processes.
type Processes interface {
	// Kill ends a process at once (SIGKILL), and returns when it is gone.
	Kill(id string) error
	// Start starts a process that was killed over what it left, and returns when
	// it takes requests.
	Start(ctx context.Context, id string) error
	// Forget ends a process, which may have ended by itself since a time, as it was
	// removed from the cluster then, and takes from it all that it had. The next
	// Start joins it to the cluster as if it were new.
	Forget(id string, since time.Time) error
	// Pause and Resume stop it between two instructions and let it go on
	// (SIGSTOP, SIGCONT). It can be killed meanwhile.
	Pause(id string) error
	Resume(id string) error
}

// Rule is what happens to what one member sends to another. The zero value is a
// good link.
type Rule struct {
	// Cut: nothing arrives. What is sent meanwhile arrives after the cut, as
	// TCP sends it again, unless the sender has given up by then.
	Cut bool
	// Delay is how much longer everything takes; Jitter is added to it at
	// random, up to its value, with no change in the order of a connection.
	Delay, Jitter time.Duration
	// BytesPerSecond bounds the rate; 0 is no bound.
	BytesPerSecond int
	// Loss is how much of the traffic is lost, from 0 to 1. Where the
	// environment works above TCP, it costs what sending again costs.
	Loss float64
}

// Links are the ways between members, each direction by itself.
type Links interface {
	// Set gives every directed pair of members its rule.
	Set(rule func(from, to string) Rule)
	// Refuse makes a member look dead to all others while it lives: connections
	// that they opened to it end, and new ones are refused. What it opened to
	// them goes on. Calling it with false ends that.
	Refuse(to string, refuse bool) error
}

// ClientLinks are the ways between clients and members, each direction by itself.
type ClientLinks interface {
	// SetClients gives each its rule: of what a member is asked, and of what it
	// answers.
	SetClients(rule func(member string, asked bool) Rule)
}

// Disks are what the members' data folders are on.
type Disks interface {
	// Fill leaves no room on a member's disk; Free gives it back. The process may
	// end by itself meanwhile, and is not started by Free.
	Fill(id string) error
	Free(id string) error
	// Slow makes every sync of a member's disk take that long; 0 ends it.
	Slow(id string, sync time.Duration) error
	// Fail makes every sync of a member's disk fail, and what it was for be lost
	// with the power, whatever is synced later. Calling it with false ends that.
	Fail(id string, fails bool) error
	// LosePower kills the processes and takes from their disks what was never
	// synced: all of it, or, where it is torn, what chance takes. They are down
	// then.
	LosePower(ids []string, torn bool) error
}

// Clocks are the members' wall clocks.
type Clocks interface {
	// Jump sets how far a member's wall clock is from the right one, at once; in
	// whole seconds. Its monotonic clock goes on.
	Jump(id string, by time.Duration) error
}
