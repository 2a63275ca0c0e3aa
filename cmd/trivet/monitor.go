package main

import "os"

// The runtime's monitor thread (sysmon) looks every 20 µs whether a processor is held
// by a thread that is in a system call, and takes it away from the second look on. It looks
// less often only where it has found nothing for a while, and a node with something to do
// has always something to find: a thread that the system has put aside in the middle of a write is
// enough. Each look is a sleep and a wake-up, ten thousand of them a second and process,
// for next to nothing: a node waits for its disk and for others without a thread
// (raftnode, directio.go). On two cores with three nodes that was a tenth of all
// processor time, and to be woken for it took as much again from those who ran.
//
// There is no switch for it. But the system may let a thread sleep longer than it asks
// for, by its timer slack (prctl(2), PR_SET_TIMERSLACK), 50 µs where nobody says otherwise. So
// the monitor gets more of it, and looks a thousand times a second at most. All it is
// late for is a processor to be had while some thread is in a system call for long.
//
// A thread can set its own slack, and that of others only with privileges; and the
// monitor is there before the program begins. It has what the thread had that made it. So a
// node sets its own and starts itself anew, in the same process (execve(2)). Then all
// threads have it, and others than the monitor should not: one that looks for work sleeps
// for 3 µs before it takes what another is about to do, and keeps others from looking
// meanwhile. So they are given back what they had.
//
// Where the slack is not the system's own, somebody has set it (systemd's
// TimerSlackNSec), and it stays.
const (
	// usualSlack is what a thread has of which nobody has said anything, in nanoseconds.
	usualSlack = 50_000
	// monitorSlack is the monitor's. Less gains less: with 0.2 ms half of it.
	monitorSlack = 1_000_000
	// slackIsSet is the environment variable that a node starts itself with.
	slackIsSet = "TRIVET_MONITOR_SLACK_IS_SET"
)

// Initialisation is done by the process's first thread (runtime.LockOSThread says so);
// main may find itself in another.
func init() {
	if isNode(os.Args) {
		calmMonitor()
	}
}

// isNode says that the program is to be a node, by its arguments.
func isNode(args []string) bool { return len(args) > 1 && args[1] == "serve" }
