//go:build unix

package main

import (
	"syscall"
	"time"
)

// processorTime returns how long the process has kept a processor busy so far, all
// its threads together, in the kernel too.
func processorTime() (time.Duration, bool) {
	var u syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err == nil
}
