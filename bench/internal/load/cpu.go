package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// ticksPerSecond is USER_HZ, in which /proc tells CPU time: 100 on every platform
// that Go runs Linux on.
const ticksPerSecond = 100

// CPUSeconds returns what the processes have spent so far: user and system time of
// all their threads, and of the children of theirs that have ended, so that nothing
// is lost where a server has a process a connection. It is Linux's /proc.
//
// pids is asked for the processes. One that ends before it was looked at is no
// error: they are asked for again, a few times.
func CPUSeconds(pids func() []int) (float64, error) {
	const attempts = 5
	var err error
	for range attempts {
		total := uint64(0)
		err = nil
		for _, pid := range pids() {
			var own, children uint64
			if own, children, err = cpuTicksOf(pid); err != nil {
				break
			}
			total += own + children
		}
		if !errors.Is(err, os.ErrNotExist) {
			return float64(total) / ticksPerSecond, err
		}
	}
	return 0, err
}

// ownCPUSeconds returns what this process has spent, without its children: those are
// servers.
func ownCPUSeconds() (float64, error) {
	own, _, err := cpuTicksOf(os.Getpid())
	return float64(own) / ticksPerSecond, err
}

func cpuTicksOf(pid int) (own, children uint64, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	if own, children, err = cpuTicks(stat); err != nil {
		err = fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return own, children, err
}

// cpuTicks reads utime and stime, cutime and cstime, fields 14 to 17 of proc(5)'s
// stat. The second field, the command in parentheses, may itself have blanks and
// parentheses.
func cpuTicks(stat []byte) (own, children uint64, err error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("only %d fields", len(fields))
	}
	var ticks [4]uint64
	for i := range ticks {
		if ticks[i], err = strconv.ParseUint(string(fields[11+i]), 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return ticks[0] + ticks[1], ticks[2] + ticks[3], nil
}

// cpuBetween waits for start and then for end, and returns the CPU seconds of the
// processes, and of this one, in between. observe, which may be nil, is called at
// both.
func cpuBetween(ctx context.Context, pids func() []int, observe func(), start, end time.Time) (servers, own float64, err error) {
	var s, o [2]float64
	for i, at := range []time.Time{start, end} {
		select {
		case <-time.After(time.Until(at)):
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
		if observe != nil {
			observe()
		}
		if s[i], err = CPUSeconds(pids); err != nil {
			return 0, 0, err
		}
		if o[i], err = ownCPUSeconds(); err != nil {
			return 0, 0, err
		}
	}
	return s[1] - s[0], o[1] - o[0], nil
}
