package store

import (
	"syscall"
	"time"
	"unsafe"
)

// threadTime is the processor time that the calling thread has used. Between two
// calls of a goroutine that is locked to its thread, it is what the goroutine
// did, without the time that others had its processor.
func threadTime() time.Duration {
	const threadClock = 3 // CLOCK_THREAD_CPUTIME_ID
	var t syscall.Timespec
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, threadClock, uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano())
}
