package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePages asks for huge pages for the state of a snapshot of so many bytes, and
// returns what takes that back. It does nothing where the system has no use for the
// question, or where addresses are limited.
func hugePages(snapshotBytes int64) (done func()) {
	done = func() {}
	if os.Getenv("GOMEMLIMIT") != "" {
		return done // the runtime counts memory that is free towards it
	}
	bytes := hugeBytes(snapshotBytes, freeMemory())
	if bytes == 0 || !hugePagesByAdvice() || addressesLimited() {
		return done
	}
	memory := make([]byte, bytes) // fresh from the kernel, so it is not cleared
	a := wholePages(uintptr(unsafe.Pointer(unsafe.SliceData(memory))), uintptr(bytes))
	if err := a.advise(unix.MADV_HUGEPAGE); err != nil {
		return done
	}
	runtime.KeepAlive(memory)
	memory = nil
	runtime.GC() // of a heap with next to nothing in it: the memory is free
	return func() {
		_ = a.advise(unix.MADV_NOHUGEPAGE) // nothing depends on it
	}
}

func (a addresses) advise(advice uintptr) error {
	if a.begin == a.end {
		return nil
	}
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, a.begin, a.end-a.begin, advice); errno != 0 {
		return errno
	}
	return nil
}

// hugePagesByAdvice says that the system gives huge pages to those who ask. Where it
// gives them to all or to none there is nothing to ask for.
func hugePagesByAdvice() bool {
	set, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err == nil && strings.Contains(string(set), "[madvise]")
}

// addressesLimited says that addresses are counted although nothing is at them yet:
// by a limit of the process (ulimit -v), or by a system that promises no more memory
// than it has (vm.overcommit_memory=2).
func addressesLimited() bool {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &limit); err != nil || limit.Cur != unix.RLIM_INFINITY {
		return true
	}
	mode, err := os.ReadFile("/proc/sys/vm/overcommit_memory")
	return err != nil || bytes.HasPrefix(mode, []byte("2"))
}

// freeMemory is how many bytes of memory the system could give; 0 where it does not say.
func freeMemory() int64 {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(in.Text(), "MemAvailable: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
