package httpapi

import (
	"syscall"
	"time"
)

// processTime is the processor time that this process has used, the kernel's for
// it included: on a machine that others use too it tells more than the clock.
func processTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
