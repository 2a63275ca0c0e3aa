package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// slackEvery is how often a thread is given the usual slack.
const slackEvery = 100 * time.Millisecond

// calmMonitor has the runtime's monitor thread look less often. It may start the
// process anew, and is called before anything is opened, by the process's first thread.
// Where it cannot be done everything is as it was.
//
// Any thread may execve, and what was the first is gone then. So is what belonged to
// that one alone: the signal that the process is to get when its parent dies
// (PR_SET_PDEATHSIG; childAttr). A node would outlive the dev that started it.
func calmMonitor() {
	if os.Getenv(slackIsSet) != "" {
		os.Unsetenv(slackIsSet)
		takeSlackBack()
		return
	}
	runtime.LockOSThread() // whose slack it is, and which goes on as the process
	defer runtime.UnlockOSThread()
	if unix.Gettid() != os.Getpid() || slack() != usualSlack {
		return
	}
	path, err := os.Executable()
	if err != nil {
		return
	}
	setSlack(monitorSlack)
	if slack() == monitorSlack {
		_ = syscall.Exec(path, os.Args, append(os.Environ(), slackIsSet+"=1"))
	}
	setSlack(usualSlack) // no such luck
}

// takeSlackBack gives threads the usual slack again and again, one each time: whichever
// it runs on, which is one that much runs on. So those that matter have it soon. (There
// is no end to it, as the monitor makes threads too, and they have what it has.)
func takeSlackBack() {
	setSlack(usualSlack)
	go func() {
		for range time.Tick(slackEvery) {
			setSlack(usualSlack)
		}
	}()
}

// slack is this thread's, in nanoseconds; 0 where it cannot be told.
func slack() int {
	n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		return 0
	}
	return n
}

// setSlack sets this thread's.
func setSlack(nanoseconds uintptr) {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0)
}
