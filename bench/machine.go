package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"trivet/bench/internal/report"
)

// machine says what this runs on. dir is where the data will be: its disk is timed.
func machine(dir string) (report.Machine, error) {
	m := report.Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: procValue("/proc/cpuinfo", "model name")}
	kib := 0
	if _, err := fmt.Sscanf(procValue("/proc/meminfo", "MemTotal"), "%d kB", &kib); err == nil {
		m.MemoryMiB = kib / 1024
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	took, err := syncTime(dir)
	m.SyncMS = took.Seconds() * 1000
	return m, err
}

// procValue returns what stands behind a name in a file of /proc.
func procValue(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if n, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(n) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// syncTime is the median of what it takes to append 4 KiB to a file and sync them.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4096)
	var took []time.Duration
	for range 200 {
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}
